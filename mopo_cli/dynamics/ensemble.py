"""The ensemble as a value: its parameters, its input scaler, and one prediction of all its networks."""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from mopo_cli.engine.fused import fused
from mopo_cli.nets.gaussian import gaussian, gaussians, head_products
from mopo_cli.nets.precision import Precision
from mopo_cli.nets.products import rounding
from mopo_cli.nets.stacked import Layout, Parameters


@dataclass(frozen=True)
class Ensemble:
    """K networks that predict (next observation - observation, reward) from (observation, action).

    `flat` are the parameters `[K, size]`; `input_mean`, `input_std` `[obs_dim + act_dim]` scale the inputs;
    `elites` are the networks that generate. Actions are in [-1, 1]; targets are in raw units.
    """

    flat: Tensor
    layout: Layout
    input_mean: Tensor
    input_std: Tensor
    obs_dim: int
    elites: tuple[int, ...]

    def __len__(self) -> int:
        return self.flat.shape[0]

    @cached_property
    def networks(self) -> Parameters:
        """The parameters, by network and name."""
        return Parameters(self.layout, self.flat)

    @cached_property
    def reduced(self) -> Parameters:
        """The same in bfloat16."""
        return Parameters(self.layout, self.flat.to(torch.bfloat16))

    def only_elites(self) -> "Ensemble":
        """The elites alone, in their order."""
        chosen = list(self.elites)
        return replace(self, flat=self.flat[chosen], elites=tuple(range(len(chosen))))

    def predict(self, observation: Tensor, action: Tensor, precision: Precision = "fp32") -> tuple[Tensor, Tensor]:
        """Predict with every network: `[B, obs_dim]`, `[B, act_dim]` -> mean, std `[K, B, obs_dim + 1]`."""
        reduced = self.reduced if precision == "bf16" else None
        with rounding(precision):
            mean, variance = gaussians(self.networks, self._inputs(observation, action), reduced)
        return mean, variance.sqrt_()

    def head_products(self, observation: Tensor, action: Tensor, precision: Precision) -> tuple[Tensor, Tensor]:
        """Of all networks at once, see `nets.gaussian`: `[K, B, obs_dim + 1]` each."""
        x = self._inputs(observation, action)
        with rounding(precision):
            return head_products(
                self.networks, x.expand(len(self), -1, -1), self.reduced if precision == "bf16" else None
            )

    def predict_by(
        self, network: Tensor, observation: Tensor, action: Tensor, precision: Precision = "fp32"
    ) -> tuple[Tensor, Tensor]:
        """Predict each row by the network that `network` `[B]` names: mean, std `[B, obs_dim + 1]`."""
        x, width = self._inputs(observation, action), self.obs_dim + 1
        mean, variance = x.new_empty(len(x), width), x.new_empty(len(x), width)
        reduced = self.reduced if precision == "bf16" else None
        for k in self.elites:
            rows = (network == k).nonzero()[:, 0]
            with rounding(precision):
                mean[rows], variance[rows] = gaussian(self.networks, k, x[rows], reduced)
        return mean, variance.sqrt_()

    def _inputs(self, observation: Tensor, action: Tensor) -> Tensor:
        return _scaled(observation, action, self.input_mean, self.input_std)


@fused
def _scaled(observation: Tensor, action: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return (torch.cat([observation, action], dim=-1) - mean) / std
