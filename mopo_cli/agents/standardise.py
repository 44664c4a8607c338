"""Observations in standard deviations from their means, as some learners want them while they train.

Policies are published for observations as they are: the standardisation becomes part of their first layer.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mopo_cli.agents.algorithm import Agent
from mopo_cli.nets.stacked import Layout


@dataclass(frozen=True)
class Standard:
    """Mean and divisor of every number of an observation, both `[obs_dim]`."""

    mean: Tensor
    divisor: Tensor

    def apply(self, observation: Tensor) -> Tensor:
        """Standardise observations `[…, obs_dim]`."""
        return (observation - self.mean) / self.divisor

    def folded(self, layout: Layout, flat: Tensor) -> Tensor:
        """The parameters `[M, size]` of networks that map observations to what `flat` map standardised ones to.

        The first layer's weight W and bias b become W / divisor and b - (mean / divisor) W.
        """
        folded = flat.clone()
        views, mean, divisor = layout.views(folded), self.mean.double(), self.divisor.double()
        weight = views["w0"].double() / divisor[:, None]
        views["b0"].copy_(views["b0"].double() - torch.einsum("i,mio->mo", mean, weight)[:, None])
        views["w0"].copy_(weight)
        return folded


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
