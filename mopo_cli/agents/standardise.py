"""Observations in standard deviations from their means, as some learners want them while they train.

Policies are published for observations as they are: the standardisation becomes part of their first layer.
"""

from dataclasses import dataclass

from torch import Tensor

from mopo_cli.agents.algorithm import Agent
from mopo_cli.nets.scales import Standard, column_scales

_LEAST_STD = 1e-3


@dataclass
class StandardisedAgent(Agent):
    """Agents whose networks take standardised observations while they train; their policies take them as they are."""

    standard: Standard

    def _policy(self, m: int, flat: Tensor | None) -> Tensor:
        return self.standard.folded(self.actor.layout, super()._policy(m, flat))


def standard_of(observation: Tensor) -> Standard:
    """The means and standard deviations of observations `[N, obs_dim]`, these raised by 1e-3 (TD3+BC's code)."""
    mean, std = column_scales(observation)
    return Standard(mean.float(), (std + _LEAST_STD).float())
