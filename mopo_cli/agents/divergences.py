"""Divergences of one policy from another, and their gradients: by their Gaussians, or by samples of both."""

from functools import reduce
from typing import Literal

import torch
from torch import Tensor

Kernel = Literal["laplacian", "gaussian"]


def kl_divergence(out: Tensor, other: Tensor, log_std_min: float, log_std_max: float) -> tuple[Tensor, Tensor]:
    """KL(policy || other) `[…]` of networks with outputs `out` and `other` `[…, 2 act_dim]`, and its gradient by `out`.

    Both are Gaussians squashed by the same tanh. An invertible map of the samples leaves a divergence as it is, so
    this one, of the Gaussians before tanh, is exact: log(s'/s) + (s^2 + (m - m')^2) / 2s'^2 - 1/2 per dimension.
    """
    (mean, raw_log_std), (other_mean, other_raw_log_std) = out.chunk(2, dim=-1), other.chunk(2, dim=-1)
    log_std, other_log_std = (
        raw_log_std.clamp(log_std_min, log_std_max),
        other_raw_log_std.clamp(log_std_min, log_std_max),
    )
    log_ratio, shift = log_std - other_log_std, mean - other_mean
    by_mean = shift * torch.exp(-2 * other_log_std)
    by_log_std = torch.expm1(2 * log_ratio)
    value = ((by_log_std + shift * by_mean) / 2 - log_ratio).sum(dim=-1)
    return value, torch.cat([by_mean, by_log_std * (raw_log_std == log_std)], dim=-1)


def squared_mmd(samples: Tensor, other: Tensor, kernel: Kernel, width: float) -> tuple[Tensor, Tensor]:
    """Squared maximum mean discrepancy `[…]` of samples `[n, …, dim]` from others `[m, …, dim]`, and its gradient.

    The gradient is that by the first samples, `[n, …, dim]`. The kernel's mean over the pairs within either set, each
    sample paired with itself too, less twice that over the pairs between them (Gretton et al. 2012, eq. 5).
    The kernel is exp(-d / width), d the sum of the distances' sizes (laplacian) or of their squares (gaussian).
    """
    n, m = len(samples), len(other)
    weight = torch.cat([samples.new_full((n,), 1 / n), samples.new_full((m,), -1 / m)])
    pair = weight[:, None] * weight
    both = torch.cat([samples, other]).movedim(0, -1).contiguous()  # […, dim, n + m]
    apart = both[..., None] - both[..., None, :]
    size, slope = (apart.abs(), apart.sign()) if kernel == "laplacian" else (apart.square(), 2 * apart)
    # Pairs come last, as sums over the last dimension are the same bits in any stack; over others one adds in turn.
    far = reduce(torch.add, size.unbind(dim=-3))
    # The kernel less one: the weights of all pairs sum to zero, and what is left of close samples is not rounded away.
    less_one = torch.expm1(far / -width)
    value = (pair * less_one).flatten(-2).sum(dim=-1)
    by_size = pair[:n] * (less_one[..., :n, :] + 1) * (-2 / width)
    by_samples = (by_size[..., None, :, :] * slope[..., :n, :]).sum(dim=-1)
    return value, by_samples.movedim(-1, 0)
