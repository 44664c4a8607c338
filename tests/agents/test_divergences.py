"""Divergences between policies against torch's, a sampled estimate and plain loops; their gradients by autograd."""

from functools import partial
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from probes.agents import normal as normals
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal, TanhTransform, TransformedDistribution

from mopo_cli.agents.divergences import kl_divergence, squared_mmd
from mopo_cli.engine.streams import stream

BOUNDS = (-1.0, 0.5)
normal = partial(normals, dtype=torch.float64)
Kernel = Literal["laplacian", "gaussian"]
KERNELS: tuple[Kernel, ...] = ("laplacian", "gaussian")


def gaussian(out: Tensor) -> Distribution:
    """What a network says, log std within its bounds: the policy before tanh."""
    mean, log_std = out.chunk(2, dim=-1)
    return Independent(Normal(mean, log_std.clamp(*BOUNDS).exp()), 1)


def squashed(out: Tensor) -> TransformedDistribution:
    return TransformedDistribution(gaussian(out), TanhTransform(cache_size=1))


@pytest.mark.parametrize("act_dim", [1, 3])
def test_kl_and_its_gradient_are_those_of_torch(act_dim: int) -> None:
    out, other = normal(2, 37, 2 * act_dim, name="p").requires_grad_(), normal(2, 37, 2 * act_dim, name="q")
    expected = torch.distributions.kl_divergence(gaussian(out), gaussian(other))
    (slope,) = torch.autograd.grad((expected * normal(2, 37, name="w")).sum(), out)
    with torch.no_grad():
        value, by_out = kl_divergence(out, other, *BOUNDS)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(by_out * normal(2, 37, name="w")[..., None], slope)
    outside = (out[..., act_dim:] < BOUNDS[0]) | (out[..., act_dim:] > BOUNDS[1])
    assert 0.1 < outside.double().mean() < 0.9 and (by_out[..., act_dim:][outside] == 0).all()


def test_kl_before_tanh_is_that_of_what_is_drawn_after_it() -> None:
    """Four standard errors of the mean of log pi(a) - log b(a), a drawn from pi."""
    out, other = 0.7 * normal(6, 4, name="p"), 0.7 * normal(6, 4, name="q")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        action = squashed(out).sample((20_000,))
    ratio = squashed(out).log_prob(action) - squashed(other).log_prob(action)
    value, _ = kl_divergence(out, other, *BOUNDS)
    error = ratio.std(dim=0) / len(ratio) ** 0.5
    assert ((ratio.mean(dim=0) - value).abs() < 4 * error).all() and (error < 0.05 * value).all()


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 4), st.integers(0, 1000), st.floats(-3, 3))
def test_kl_is_zero_of_a_policy_from_itself_and_positive_else(act_dim: int, seed: int, log_scale: float) -> None:
    draw = stream(seed, "test/kl")
    out = torch.exp(torch.tensor(log_scale)) * torch.randn(5, 2 * act_dim, generator=draw)
    value, by_out = kl_divergence(out, out.clone(), *BOUNDS)
    assert (value == 0).all() and (by_out == 0).all()
    further, _ = kl_divergence(out, out + torch.randn(out.shape, generator=draw), *BOUNDS)
    assert (further > 0).all()


def by_loops(one: np.ndarray, other: np.ndarray, kernel: Kernel, width: float) -> float:
    """The squared MMD of samples `[n, dim]` and `[m, dim]`, by its definition."""

    def mean(xs: np.ndarray, ys: np.ndarray) -> float:
        total = 0.0
        for x in xs:
            for y in ys:
                size = sum(abs(a - b) if kernel == "laplacian" else (a - b) ** 2 for a, b in zip(x, y, strict=True))
                total += np.exp(-size / width)
        return float(total / (len(xs) * len(ys)))

    return mean(one, one) + mean(other, other) - 2 * mean(one, other)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("n", "m", "dim"), [(4, 4, 3), (3, 5, 1), (1, 1, 2)])
def test_mmd_is_that_of_plain_loops(kernel: Kernel, n: int, m: int, dim: int) -> None:
    one, other = normal(n, 2, 5, dim, name="own"), 1 + 2 * normal(m, 2, 5, dim, name="other")
    value, _ = squared_mmd(one, other, kernel, 3.0)
    assert value.shape == (2, 5)
    for s in range(2):
        for b in range(5):
            expected = by_loops(one[:, s, b].numpy(), other[:, s, b].numpy(), kernel, 3.0)
            assert value[s, b].item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("n", "m", "dim"), [(4, 4, 3), (3, 5, 1), (1, 2, 2)])
def test_the_gradient_of_mmd_is_that_of_autograd(kernel: Kernel, n: int, m: int, dim: int) -> None:
    one, other = normal(n, 2, 5, dim, name="own").requires_grad_(), normal(m, 2, 5, dim, name="other")
    weight = normal(2, 5, name="w")
    total = torch.zeros(2, 5, dtype=torch.float64)
    for xs, ys, factor in ((one, one, 1 / n**2), (other, other, 1 / m**2), (one, other, -2 / (n * m))):
        apart = xs[:, None] - ys
        size = apart.abs() if kernel == "laplacian" else apart**2
        total = total + factor * torch.exp(-size.sum(dim=-1) / 3.0).sum(dim=(0, 1))
    (expected,) = torch.autograd.grad((total * weight).sum(), one)
    with torch.no_grad():
        _, by_own = squared_mmd(one, other, kernel, 3.0)
    torch.testing.assert_close(by_own * weight[..., None], expected)


@pytest.mark.parametrize("kernel", KERNELS)
def test_mmd_of_close_samples_is_not_rounded_away(kernel: Kernel) -> None:
    """With the kernel as wide as BEAR has it, samples that differ by little: the kernel's values round to one."""
    one, other = (1e-3 * normal(4, 50, 3, name=name) for name in ("own", "other"))
    exact, _ = squared_mmd(one, other, kernel, 40.0)
    value, _ = squared_mmd(one.float(), other.float(), kernel, 40.0)
    assert exact.max() < 1e-3 and (exact > 0).all()
    torch.testing.assert_close(value, exact.float(), rtol=2e-3, atol=1e-12)
    same, by_own = squared_mmd(one, one, kernel, 40.0)
    assert same.abs().max() < 1e-15 and by_own.abs().max() < 1e-15


@pytest.mark.parametrize("dim", [1, 2, 3, 8])
@pytest.mark.parametrize("rows", [1, 7, 64])
def test_a_member_has_its_own_divergence_bit_for_bit(rows: int, dim: int) -> None:
    out, other = (normal(5, rows, 2 * dim, name=name).float() for name in "pq")
    first, usual = (normal(4, 5, rows, dim, name=name).float() for name in "pq")
    whole = (*kl_divergence(out, other, *BOUNDS), *squared_mmd(first, usual, "laplacian", 20.0))
    for m in range(5):
        one = slice(m, m + 1)
        kl = kl_divergence(out[one].clone(), other[one].clone(), *BOUNDS)
        value, by_own = squared_mmd(first[:, one].clone(), usual[:, one].clone(), "laplacian", 20.0)
        for part, full in zip((*kl, value), whole[:3], strict=True):
            assert torch.equal(part[0], full[m])
        assert torch.equal(by_own[:, 0], whole[3][:, m])
