"""The ensemble as a value: its parameters, its input scaler, and one prediction of all its networks."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mopo_cli.nets.gaussian import gaussian
from mopo_cli.nets.stacked import Layout


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

    def predict(self, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Predict with every network: `[B, obs_dim]`, `[B, act_dim]` -> mean, std `[K, B, obs_dim + 1]`."""
        x = (torch.cat([observation, action], dim=-1) - self.input_mean) / self.input_std
        with torch.no_grad():
            mean, logvar = gaussian(self.layout.views(self.flat), x.expand(len(self), -1, -1))
            return mean, torch.exp(0.5 * logvar)
