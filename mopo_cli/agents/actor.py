"""The policy: a Gaussian squashed by tanh, sampled to explore, evaluated by its mean (Haarnoja et al. 2018, app. C)."""

from dataclasses import dataclass
from math import log, pi

import torch
from torch import Tensor

from mopo_cli.engine.fused import fused
from mopo_cli.nets.perceptron import predict
from mopo_cli.nets.stacked import Layout, Parameters


@dataclass(frozen=True)
class Actor:
    """One policy: parameters `[1, size]` and the bounds of its log standard scaled_noise. Actions are in [-1, 1].

    Its observations are stored ones: those of the task less `offset`, where the data have one (see `DatasetInfo`).
    """

    flat: Tensor
    layout: Layout
    log_std_min: float
    log_std_max: float
    offset: tuple[float, ...] = ()

    def sample(self, observation: Tensor, generator: torch.Generator) -> Tensor:
        """Draw actions `[n, act_dim]` for observations `[n, obs_dim]`."""
        shape = len(observation), self.layout.shapes[-1][1][1] // 2
        return self.act(observation, torch.randn(shape, generator=generator, device=observation.device))

    def act(self, observation: Tensor, noise: Tensor) -> Tensor:
        """The actions `[n, act_dim]` for observations `[n, obs_dim]` with standard normal noise `[n, act_dim]`."""
        return sample_action(*self._heads(observation), noise, self.log_std_min, self.log_std_max)

    def greedy(self, observation: Tensor) -> Tensor:
        """The deterministic actions tanh(mean), `[n, act_dim]`, for observations `[n, obs_dim]`."""
        return torch.tanh(self._heads(observation)[0])

    def _heads(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = predict(Parameters(self.layout, self.flat), observation).chunk(2, dim=-1)
        return mean, log_std


@fused
def sample_action(mean: Tensor, log_std: Tensor, noise: Tensor, log_std_min: float, log_std_max: float) -> Tensor:
    """The actions tanh(mean + std noise), all `[…, act_dim]`; noise is standard normal."""
    return torch.tanh(mean + log_std.clamp(log_std_min, log_std_max).exp() * noise)


@dataclass(frozen=True)
class Squashed:
    """Actions `[…, act_dim]` drawn by `squash` and their log-probabilities `[…]`."""

    action: Tensor
    log_prob: Tensor
    scaled_noise: Tensor  # std times the noise
    in_bounds: Tensor  # whether log std is within its bounds


def squash(out: Tensor | tuple[Tensor, ...], noise: Tensor, log_std_min: float, log_std_max: float) -> Squashed:
    """The action tanh(mean + std noise) of a network with output `out` `[…, 2 act_dim]`: mean and log std.

    Several outputs are stacked.
    """
    outs = (out,) if isinstance(out, Tensor) else out
    return Squashed(*_squash(noise, log_std_min, log_std_max, *outs))


@fused
def _squash(noise: Tensor, log_std_min: float, log_std_max: float, *outs: Tensor) -> tuple[Tensor, ...]:
    out = torch.stack(outs) if len(outs) > 1 else outs[0]
    if torch.compiler.is_compiling():  # what is computed once for several samples would be a kernel of its own
        out = out.expand(*noise.shape[:-1], -1)
    mean, raw_log_std = out.chunk(2, dim=-1)
    log_std = raw_log_std.clamp(log_std_min, log_std_max)
    scaled_noise = log_std.exp() * noise
    x = mean + scaled_noise
    # log pi(a | s) = sum of -noise^2 / 2 - log_std - log(2 pi) / 2 - log(1 - tanh(x)^2)  (SAC, app. C)
    # with -log(1 - tanh(x)^2) = 2 (|x| + log(1 + e^(-2 |x|))) - log 4
    size = x.abs()
    log_cosh = size.add_(torch.log1p(torch.exp(-2 * size)))  # of x, and log 2 more
    log_prob = log_cosh.mul_(2).sub_(log_std).addcmul_(noise, noise, value=-0.5).sum(dim=-1)
    return (
        torch.tanh(x),
        log_prob - mean.shape[-1] * (log(4) + 0.5 * log(2 * pi)),
        scaled_noise,
        (raw_log_std == log_std).expand_as(x),
    )


def squash_gradient(squashed: Squashed, index: int, by_action: Tensor, by_log_prob: Tensor | None = None) -> Tensor:
    """The gradient by the network's output, `[…, 2 act_dim]`, of a loss with these gradients by action and log_prob.

    They are of the sample `index` along the first dimension: by_action `[…, act_dim]`, by_log_prob `[…, 1]` (None: 0).
    With a = tanh(x): da/dx = 1 - a^2 and dlog_prob/dx = 2 a.
    """
    kept = (column[index] for column in (squashed.action, squashed.scaled_noise, squashed.in_bounds))
    if by_log_prob is None:
        by_log_prob = torch.zeros_like(by_action[..., :1])
    return _output_gradient(by_action, by_log_prob, *kept)


@fused
def _output_gradient(
    by_action: Tensor, by_log_prob: Tensor, action: Tensor, scaled_noise: Tensor, in_bounds: Tensor
) -> Tensor:
    by_mean = torch.ops.aten.tanh_backward(by_action, action).addcmul_(by_log_prob, action, value=2)
    by_log_std = (by_mean * scaled_noise - by_log_prob) * in_bounds
    return torch.cat([by_mean, by_log_std], dim=-1)


@fused
def mean_action(out: Tensor) -> Tensor:
    """The deterministic action tanh(mean) `[…, act_dim]` of a network with output `out` `[…, 2 act_dim]`."""
    return torch.tanh(out.chunk(2, dim=-1)[0])


@fused
def mean_gradient(by_mean: Tensor) -> Tensor:
    """The gradient by the network's output, `[…, 2 act_dim]`, of a loss of its mean alone: by_mean `[…, act_dim]`."""
    return torch.cat([by_mean, torch.zeros_like(by_mean)], dim=-1)
