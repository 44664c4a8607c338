"""Observations in standard deviations from their means, as some learners want them while they train.

Policies are published for observations as they are: the standardisation becomes part of their first layer.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mopo_cli.agents.algorithm import Agent
from mopo_cli.nets.scales import Standard


@dataclass
class StandardisedAgent(Agent):
    """Agents whose networks take standardised observations while they train; their policies take them as they are."""

    standard: Standard

    def _policy(self, m: int, flat: Tensor | None) -> Tensor:
        return self.standard.folded(self.actor.layout, super()._policy(m, flat))


def standard_of(observation: Tensor, least: float = 1e-3) -> Standard:
    """The means and standard deviations of observations `[N, obs_dim]`, these raised by `least` (TD3+BC's code)."""
    columns = observation.unbind(dim=1)
    mean = torch.stack([column.double().mean() for column in columns])
    deviation = torch.stack([column.double().std(correction=0) for column in columns])
    return Standard(mean.float(), (deviation + least).float())
