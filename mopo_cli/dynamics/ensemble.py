"""The ensemble as a value: its parameters, its input scaler, and one prediction of all its networks."""

from dataclasses import dataclass, replace
from functools import cached_property
from math import exp

import torch
from torch import Tensor

from mopo_cli.nets.gaussian import MIN_LOG_VARIANCE, gaussian, gaussians
from mopo_cli.nets.precision import Precision
from mopo_cli.nets.products import rounding
from mopo_cli.nets.stacked import Layout, Parameters


@dataclass(frozen=True)
class Ensemble:
    """K networks that predict (next observation - observation, reward) from (observation, action).

    Where an observation is of several steps (see `data.history`), `frame` is the width of its newest frame, the only
    part of the next observation that is predicted; else it is `obs_dim`.

    `flat` are the parameters `[K, size]`; `input_mean`, `input_std` `[obs_dim + act_dim]` scale the inputs;
    `elites` are the networks that generate. Actions are in [-1, 1]. The networks' own outputs are in units of
    `target_std` `[frame + 1]` from `target_mean`, where there are these two; what is predicted is in raw units.
    """

    flat: Tensor
    layout: Layout
    input_mean: Tensor
    input_std: Tensor
    obs_dim: int
    elites: tuple[int, ...]
    target_mean: Tensor | None = None
    target_std: Tensor | None = None

    def __len__(self) -> int:
        return self.flat.shape[0]

    @cached_property
    def frame(self) -> int:
        """How many numbers of the next observation are predicted."""
        return dict(self.layout.shapes)["b_mean"][1] - 1

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
        """Predict with every network: `[B, obs_dim]`, `[B, act_dim]` -> mean, std `[K, B, frame + 1]`."""
        reduced = self.reduced if precision == "bf16" else None
        with rounding(precision):
            mean, variance = gaussians(self.networks, self.inputs(observation, action), reduced)
        return self._raw(mean, variance.sqrt_())

    def predict_by(
        self, network: Tensor, observation: Tensor, action: Tensor, precision: Precision = "fp32"
    ) -> tuple[Tensor, Tensor]:
        """Predict each row by the network that `network` `[B]` names: mean, std `[B, frame + 1]`."""
        x, width = self.inputs(observation, action), self.frame + 1
        mean, variance = x.new_empty(len(x), width), x.new_empty(len(x), width)
        reduced = self.reduced if precision == "bf16" else None
        for k in self.elites:
            rows = (network == k).nonzero()[:, 0]
            with rounding(precision):
                mean[rows], variance[rows] = gaussian(self.networks, k, x[rows], reduced)
        return self._raw(mean, variance.sqrt_())

    def next_observation(self, observation: Tensor, action: Tensor, change: Tensor) -> Tensor:
        """The next observation `[…, obs_dim]` after a change `[…, frame]`; of several steps it drops the oldest."""
        if self.frame == self.obs_dim:
            return observation + change
        # An observation of H steps is [o(t), ..., o(t-H+1), a(t-1), ..., a(t-H+1)] (data/history.py).
        act_dim = action.shape[-1]
        past = (self.obs_dim - self.frame) // (self.frame + act_dim)  # H - 1
        all_frames = self.obs_dim - past * act_dim
        parts = (
            observation[..., : self.frame] + change,
            observation[..., : all_frames - self.frame],
            action,
            observation[..., all_frames : self.obs_dim - act_dim],
        )
        return torch.cat([part.expand(*change.shape[:-1], -1) for part in parts], dim=-1)

    @cached_property
    def least_noise(self) -> float | Tensor:
        """The least standard deviation that networks predict for a change of observation, `[frame]` or one number."""
        least = exp(0.5 * MIN_LOG_VARIANCE)
        return least if self.target_std is None else least * self.target_std[: self.frame]

    def in_units(self, mean: Tensor, divisor: Tensor) -> "Ensemble":
        """The same ensemble for observations in other units, (observation - mean) / divisor; both `[obs_dim]` f8.

        Of observations of several steps, all frames must have the same units, and actions their own.
        """
        size, width = self.obs_dim, self.frame + 1
        input_mean, input_std = self.input_mean.double(), self.input_std.double()
        input_mean[:size] = (input_mean[:size] - mean) / divisor
        input_std[:size] /= divisor
        centre = input_mean.new_zeros(width) if self.target_mean is None else self.target_mean.double()
        unit = input_mean.new_ones(width) if self.target_std is None else self.target_std.double()
        target_divisor = torch.cat([divisor[: self.frame], divisor.new_ones(1)])
        return replace(
            self,
            input_mean=input_mean.float(),
            input_std=input_std.float(),
            target_mean=(centre / target_divisor).float(),
            target_std=(unit / target_divisor).float(),
        )

    def _raw(self, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        if self.target_mean is not None and self.target_std is not None:
            mean.mul_(self.target_std).add_(self.target_mean)
            std.mul_(self.target_std)
        return mean, std

    def inputs(self, observation: Tensor, action: Tensor) -> Tensor:
        """The networks' inputs `[…, obs_dim + act_dim]`: observations and actions, scaled."""
        return (torch.cat([observation, action], dim=-1) - self.input_mean) / self.input_std
