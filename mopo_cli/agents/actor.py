"""The policy: a tanh-squashed Gaussian, sampled to explore, its mean to be judged (Haarnoja et al. 2018, app. C)."""

from dataclasses import dataclass
from math import log, pi

import torch
from torch import Tensor

from mopo_cli.nets.stacked import Layout, mlp, softplus


@dataclass(frozen=True)
class Actor:
    """One policy: parameters `[1, size]` and the bounds of its log standard deviation. Actions are in [-1, 1]."""

    flat: Tensor
    layout: Layout
    log_std_min: float
    log_std_max: float

    def sample(self, observation: Tensor, generator: torch.Generator) -> Tensor:
        """Draw actions `[n, act_dim]` for observations `[n, obs_dim]`."""
        with torch.no_grad():
            mean, log_std = self._heads(observation)
            noise = torch.randn(mean.shape, generator=generator, device=mean.device)
            return torch.tanh(mean + log_std.exp() * noise)

    def greedy(self, observation: Tensor) -> Tensor:
        """The deterministic actions tanh(mean), `[n, act_dim]`, for observations `[n, obs_dim]`."""
        with torch.no_grad():
            return torch.tanh(self._heads(observation)[0])

    def _heads(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        params = self.layout.views(self.flat)
        mean, log_std = heads(params, observation[None], self.log_std_min, self.log_std_max)
        return mean[0], log_std[0]


def heads(
    params: dict[str, Tensor], observation: Tensor, log_std_min: float, log_std_max: float
) -> tuple[Tensor, Tensor]:
    """Mean and log standard deviation before squashing: `[S, B, obs_dim]` -> two of `[S, B, act_dim]`."""
    mean, log_std = mlp(params, observation).chunk(2, dim=-1)
    return mean, log_std.clamp(log_std_min, log_std_max)


def squash(mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """The action tanh(mean + std noise) and its log-probability `[S, B]`.

    The log-determinant of tanh is 2 (log 2 - x - softplus(-2x)), exact where log(1 - tanh^2) is not.
    """
    x = mean + log_std.exp() * noise
    gaussian = -0.5 * noise.square() - log_std - 0.5 * log(2 * pi)
    log_prob = gaussian - 2 * (log(2) - x - softplus(-2 * x))
    return torch.tanh(x), log_prob.sum(dim=-1)
