"""Observations in standard deviations from their means, as some learners want them while they train.

Policies are published for observations as they are: what was done to these goes into the first layer.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

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
        """The parameters `[M, size]` of networks that do to observations what `flat` do to standardised ones.

        The first layer's weight W and bias b become W / divisor and b - (mean / divisor) W.
        """
        own = flat.clone()
        views, mean, divisor = layout.views(own), self.mean.double(), self.divisor.double()
        weight = views["w0"].double() / divisor[:, None]
        views["b0"].copy_(views["b0"].double() - torch.einsum("i,mio->mo", mean, weight)[:, None])
        views["w0"].copy_(weight)
        return own


def standard_of(observation: Tensor, least: float = 1e-3) -> Standard:
    """The means and standard deviations of observations `[N, obs_dim]`, these raised by `least` (TD3+BC's code)."""
    columns = observation.unbind(dim=1)
    mean = torch.stack([column.double().mean() for column in columns])
    deviation = torch.stack([column.double().std(correction=0) for column in columns])
    return Standard(mean.float(), (deviation + least).float())
