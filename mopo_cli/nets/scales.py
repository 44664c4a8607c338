"""Columns in standard deviations from their means, also where their units lie far apart: 1e-6 beside 1e6."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mopo_cli.nets.stacked import Layout

# A deviation of so little of a column's largest number is the rounding of float32.
_ROUNDING = 2.0**-23


@dataclass(frozen=True)
class Standard:
    """Mean and divisor of every number of an observation, both `[obs_dim]`."""

    mean: Tensor
    divisor: Tensor

    def apply(self, observation: Tensor) -> Tensor:
        """Standardise observations `[…, obs_dim]`."""
        return ((observation - self.mean) / self.divisor).to(observation.dtype)

    def undo(self, standardised: Tensor) -> Tensor:
        """The observations `[…, obs_dim]` that `apply` made these of."""
        return (standardised.double() * self.divisor + self.mean).to(standardised.dtype)

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

    def folded_scaler(self, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        """The scaler of (observation, action), both `[obs_dim + act_dim]`, for observations that are not standardised.

        `mean` and `std` are those for standardised ones.
        """
        size, mean, std = len(self.mean), mean.double(), std.double()
        mean[:size] = mean[:size] * self.divisor + self.mean
        std[:size] *= self.divisor
        return mean.float(), std.float()


def standard_units(columns: Tensor) -> Standard:
    """The `Standard` f8 of observations `[N, obs_dim]` of any size: see `column_scales` and `divisors`."""
    mean, std = column_scales(columns)
    return Standard(mean, divisors(mean, std))


def column_scales(columns: Tensor) -> tuple[Tensor, Tensor]:
    """The means and standard deviations of columns `[N, D]`, f8 `[D]` both; 0 where only rounding differs."""
    means, deviations = [], []
    for column in columns.unbind(dim=1):
        exact = column.double()
        mean, deviation = exact.mean(), exact.std(correction=0)
        means.append(mean)
        deviations.append(torch.where(deviation > _ROUNDING * exact.abs().amax(), deviation, 0.0))
    return torch.stack(means), torch.stack(deviations)


def divisors(mean: Tensor, std: Tensor) -> Tensor:
    """What columns of these means and standard deviations are divided by: their deviation.

    Where that is 0, it is the mean's size, or 1: a constant that once has another value is then off by its share.
    """
    size = torch.where(mean == 0, 1.0, mean.abs())
    return torch.where(std > 0, std, size)
