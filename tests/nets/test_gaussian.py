"""The dynamics network against its published form: forward pass, both bounds of the log-variance, loss and gradient."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from probes.agents import normal
from torch import Tensor

from mopo_cli.engine.streams import stream
from mopo_cli.nets.gaussian import (
    MAX_LOG_VARIANCE,
    MIN_LOG_VARIANCE,
    gaussian,
    gaussian_layout,
    gaussians,
    likelihood_gradient,
    nll,
)
from mopo_cli.nets.init import initial, truncated_normal, zeros
from mopo_cli.nets.stacked import Parameters

Array = NDArray[np.float64]


def drawn(members: int = 3, inputs: int = 5, outputs: int = 4, hidden: int = 9, layers: int = 3) -> Parameters:
    """Parameters in which every number differs, the bounds too, and of which the log-variance reaches both."""
    layout = gaussian_layout(inputs, outputs, hidden, layers)
    generators = [stream(k, "test/weights") for k in range(members)]
    flat = initial(layout, generators, truncated_normal, truncated_normal)
    draw, views = stream(0, "test/bounds"), layout.views(flat)
    views["max_logvar"].uniform_(0.2, 0.9, generator=draw)
    views["min_logvar"].uniform_(-4.0, -2.0, generator=draw)
    for i in range(layers):
        views[f"w{i}"] *= 3
    views["w_logvar"] *= 5 * hidden**0.5
    return Parameters(layout, flat)


def published(params: dict[str, Array], x: Array) -> tuple[Array, Array]:
    """One network in numpy: inputs [B, in] -> mean, log-variance [B, out]."""
    for i in range(sum(name[1:].isdigit() for name in params) // 2):
        x = x @ params[f"w{i}"] + params[f"b{i}"]
        x = x / (1 + np.exp(-x))
    mean = x @ params["w_mean"] + params["b_mean"]
    raw = x @ params["w_logvar"] + params["b_logvar"]
    high, low = params["max_logvar"], params["min_logvar"]
    below = high - np.logaddexp(0, high - raw)
    return mean, low + np.logaddexp(0, below - low)


def autograd(networks: Parameters, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Loss `[M]` and gradient `[M, size]` of the published form by plain autograd in float64, every network apart."""
    flat = networks.flat.double().requires_grad_()
    views, x, target = networks.layout.views(flat), x.double(), target.double()

    def linear(x: Tensor, name: str) -> Tensor:
        return torch.einsum("mbi,mio->mbo", x, views[f"w{name}"]) + views[f"b{name}"]

    def softplus(x: Tensor) -> Tensor:
        return torch.logaddexp(torch.zeros_like(x), x)

    for i in range(len(networks.layers[0])):
        x = linear(x, str(i))
        x = x * torch.sigmoid(x)
    mean, raw = linear(x, "_mean"), linear(x, "_logvar")
    logvar = views["max_logvar"] - softplus(views["max_logvar"] - raw)
    logvar = views["min_logvar"] + softplus(logvar - views["min_logvar"])
    losses = ((mean - target) ** 2 * torch.exp(-logvar) + logvar).mean(dim=(1, 2))
    return losses.detach(), torch.autograd.grad(losses.sum(), flat)[0]


def learned(networks: Parameters, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """What `likelihood_gradient` gives: losses, gradient."""
    into = Parameters(networks.layout, torch.zeros_like(networks.flat))
    result = likelihood_gradient(networks, x, target, into)
    views = networks.layout.views(into.flat)
    for slope, view in ((result.by_max, views["max_logvar"]), (result.by_min, views["min_logvar"])):
        assert torch.allclose(slope, view, rtol=0, atol=0, equal_nan=True)
    return result.loss, into.flat


@pytest.mark.parametrize(("hidden", "layers", "outputs"), [(9, 3, 4), (33, 1, 1), (16, 4, 18)])
def test_the_forward_pass_against_numpy(hidden: int, layers: int, outputs: int) -> None:
    networks, x = drawn(hidden=hidden, layers=layers, outputs=outputs), normal(37, 5)
    mean, variance = gaussians(networks, x)
    assert mean.shape == variance.shape == (3, 37, outputs)
    views = networks.layout.views(networks.flat)
    for k in range(3):
        expected = published({name: view[k].double().numpy() for name, view in views.items()}, x.double().numpy())
        np.testing.assert_allclose(mean[k], expected[0], atol=2e-5)
        np.testing.assert_allclose(variance[k].log(), expected[1], atol=2e-4)
        alone = gaussian(networks, k, x)
        assert torch.equal(alone[0], mean[k]) and torch.equal(alone[1], variance[k])
    assert variance.log().max() > 0.0 and variance.log().min() < -2.0, "both bounds are tried"
    assert not torch.equal(mean[0], mean[1])


@pytest.mark.parametrize("raw", [-40.0, -12.0, -10.0, -9.0, -3.0, 0.0, 0.5, 2.0, 40.0])
def test_the_variance_is_that_of_the_two_softplus_bounds(raw: float) -> None:
    """Written as e^min + e^max sigmoid(raw - max), it is exact to the last digits wherever raw lies."""
    layout = gaussian_layout(1, 1, 2, 1)
    flat = torch.zeros(1, layout.size)
    views = layout.views(flat)
    for high, low in ((0.5, -10.0), (1.5, -3.0), (-2.0, -1.0)):
        views["max_logvar"].fill_(high)
        views["min_logvar"].fill_(low)
        views["b_logvar"].fill_(raw)
        below = high - np.logaddexp(0, high - raw)
        expected = np.exp(low + np.logaddexp(0, below - low))
        assert gaussians(Parameters(layout, flat), torch.zeros(1, 1))[1].item() == pytest.approx(expected, rel=1e-6)


def test_sigma_stays_between_0_0067_and_1_284_at_first() -> None:
    layout = gaussian_layout(1, 1, 2, 1)
    flat = torch.zeros(5, layout.size)
    views = layout.views(flat)
    views["max_logvar"].fill_(MAX_LOG_VARIANCE)
    views["min_logvar"].fill_(MIN_LOG_VARIANCE)
    views["b_logvar"][:, 0, 0] = torch.tensor([-1e4, -30.0, 0.5, 30.0, 1e4])
    variance = gaussians(Parameters(layout, flat), torch.zeros(1, 1))[1].flatten()
    sigma = variance.sqrt()
    assert sigma[[0, 1]].tolist() == pytest.approx([0.00674, 0.00674], rel=1e-3)
    assert sigma[[3, 4]].tolist() == pytest.approx([1.28403, 1.28403], rel=1e-4)
    assert variance[2].log().item() == pytest.approx(-0.1931, abs=1e-3)  # 1/2 - log 2: the bound leaks near its end


def test_what_is_given_is_left_as_it_was() -> None:
    networks, x, target = drawn(), normal(3, 16, 5), normal(3, 16, 4, name="targets")
    given = (networks.flat, x, target)
    before = [tensor.clone() for tensor in given]
    gaussians(networks, x[0])
    learned(networks, x, target)
    assert all(torch.equal(now, then) for now, then in zip(given, before, strict=True))


def test_the_likelihood_against_numpy() -> None:
    mean, logvar, target = (normal(3, 11, 4, name=name) for name in ("m", "v", "t"))
    expected = [
        np.mean(
            [
                (m - t) ** 2 / np.exp(v) + v
                for m, v, t in zip(*(a[k].flatten().tolist() for a in (mean, logvar, target)), strict=True)
            ]
        )
        for k in range(3)
    ]
    np.testing.assert_allclose(nll(mean, logvar.exp(), target), expected, rtol=1e-5)
    np.testing.assert_allclose(nll(mean[1], logvar[1].exp(), target[1]), expected[1], rtol=1e-5)


def test_the_likelihood_is_lowest_at_the_truth() -> None:
    """Of all (mean, variance) at those of the sample itself: an error of sign or factor moves the minimum."""
    target = 2.0 + 0.7 * torch.randn(1, 4000, 1, generator=stream(0, "test/truth"))

    def loss(mean: float, variance: float) -> float:
        return nll(torch.full_like(target, mean), torch.full_like(target, variance), target).item()

    mean, variance = target.mean().item(), target.var(correction=0).item()
    least = loss(mean, variance)
    for factor in (0.9, 1.1):
        assert loss(mean * factor, variance) > least + 1e-2
        assert loss(mean, variance * factor) > least + 1e-3
    assert loss(mean, variance * 0.99) == pytest.approx(loss(mean, variance / 0.99), abs=2e-5)


@pytest.mark.parametrize(
    ("batch", "hidden", "layers", "outputs"), [(37, 9, 3, 4), (1, 7, 2, 1), (64, 33, 4, 18), (20, 12, 1, 3)]
)
def test_loss_and_gradient_against_autograd_of_the_published_form(
    batch: int, hidden: int, layers: int, outputs: int
) -> None:
    networks = drawn(hidden=hidden, layers=layers, outputs=outputs)
    x, target = normal(3, batch, 5), normal(3, batch, outputs, name="targets")
    losses, gradient = learned(networks, x, target)
    expected, wanted = autograd(networks, x, target)
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    views, plain = networks.layout.views(gradient), networks.layout.views(wanted)
    for name, view in views.items():
        assert plain[name].abs().max() > 1e-4, f"nothing to compare in {name}"
        torch.testing.assert_close(view.double(), plain[name], rtol=1e-3, atol=1e-4 * plain[name].abs().max().item())
    assert (gradient[wanted == 0] == 0).all(), "what lies between the matrices"


def test_the_gradient_overwrites_what_was_there_and_no_more() -> None:
    networks, x, target = drawn(), normal(3, 16, 5), normal(3, 16, 4, name="targets")
    _, expected = learned(networks, x, target)
    inside = networks.layout.pack({name: torch.ones(3, *shape) for name, shape in networks.layout.shapes}).bool()
    into = Parameters(networks.layout, torch.full_like(networks.flat, torch.nan))
    for _ in range(2):
        likelihood_gradient(networks, x, target, into)
        assert torch.equal(into.flat[inside], expected[inside]) and into.flat[~inside].isnan().all()


def test_loss_and_nll_are_the_same_number() -> None:
    networks, x, target = drawn(), normal(16, 5), normal(16, 4, name="targets")
    losses, _ = learned(networks, x.expand(3, -1, -1), target.expand(3, -1, -1))
    torch.testing.assert_close(losses, nll(*gaussians(networks, x), target))


@pytest.mark.parametrize("raw", [-1e4, -100.0, 100.0, 1e4])
def test_far_beyond_the_bounds_all_is_finite_and_right(raw: float) -> None:
    networks, x, target = drawn(), normal(3, 16, 5), normal(3, 16, 4, name="targets")
    views = networks.layout.views(networks.flat)
    views["max_logvar"].fill_(MAX_LOG_VARIANCE)
    views["min_logvar"].fill_(MIN_LOG_VARIANCE)
    views["b_logvar"].fill_(raw)
    mean, variance = gaussians(networks, x[0])
    assert mean.isfinite().all() and (variance > 4e-5).all() and (variance < 1.65).all()
    losses, gradient = learned(networks, x, target)
    expected, wanted = autograd(networks, x, target)
    assert losses.isfinite().all() and gradient.isfinite().all()
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    plain = networks.layout.views(wanted)
    for name, view in networks.layout.views(gradient).items():
        largest = plain[name].abs().max().item()
        torch.testing.assert_close(view.double(), plain[name], rtol=1e-3, atol=1e-4 * largest + 1e-6)


@pytest.mark.parametrize(("batch", "hidden", "members"), [(37, 9, 4), (1, 7, 4), (64, 33, 5), (256, 200, 3)])
def test_a_network_is_bit_for_bit_the_same_alone_and_on_any_number_of_threads(
    batch: int, hidden: int, members: int, use_threads: Callable[[int], None]
) -> None:
    networks = drawn(members, hidden=hidden)
    rows, target = normal(members, batch, 8), normal(members, batch, 4, name="targets")
    x = rows[..., 1:6]  # starts on no boundary

    def everything(members: slice) -> list[Tensor]:
        some = Parameters(networks.layout, networks.flat[members].clone())
        part = x[members].clone(), target[members].clone()
        return [*learned(some, *part), *gaussians(some, x[0])]

    expected = everything(slice(None))
    assert all(torch.equal(a, b) for a, b in zip(learned(networks, x, target), expected, strict=False))
    for count in (1, 2, 3):
        use_threads(count)
        assert all(torch.equal(a, b) for a, b in zip(everything(slice(None)), expected, strict=True))
        for k in range(members):
            for single, stack in zip(everything(slice(k, k + 1)), expected, strict=True):
                assert torch.equal(single[0], stack[k])


def reduced(networks: Parameters) -> Parameters:
    return Parameters(networks.layout, networks.flat.to(torch.bfloat16))


def test_reduced_to_fewer_bits_only_what_lies_between_hidden_layers_is() -> None:
    networks, x = drawn(), normal(64, 5)
    exact, rounded = gaussians(networks, x), gaussians(networks, x, reduced(networks))
    for full, few in zip(exact, rounded, strict=True):
        assert few.dtype == torch.float32 and not torch.equal(full, few)
        assert (full - few).abs().mean() < 0.02 * full.abs().mean()
    part = reduced(networks)
    views = part.layout.views(part.flat)
    for name, view in views.items():
        if name not in ("w1", "b1", "w2", "b2"):
            view.fill_(torch.nan)
    for now, before in zip(gaussians(networks, x, part), rounded, strict=True):
        assert torch.equal(now, before), "inputs, heads and bounds keep all their bits"
    networks.layout.views(networks.flat)["w1"].fill_(torch.nan)
    assert torch.equal(gaussians(networks, x, part)[0], rounded[0])


@pytest.mark.parametrize(("hidden", "members"), [(9, 4), (200, 3)])
def test_reduced_a_network_is_the_same_alone_and_on_any_number_of_threads(
    hidden: int, members: int, use_threads: Callable[[int], None]
) -> None:
    networks, x = drawn(members, hidden=hidden), normal(37, 5)
    expected = gaussians(networks, x, reduced(networks))
    for count in (1, 3):
        use_threads(count)
        assert all(torch.equal(a, b) for a, b in zip(gaussians(networks, x, reduced(networks)), expected, strict=True))
        for k in range(members):
            alone = Parameters(networks.layout, networks.flat[k : k + 1].clone())
            for single, stack in zip(gaussians(alone, x, reduced(alone)), expected, strict=True):
                assert torch.equal(single[0], stack[k])


def test_what_is_not_a_number_stays_in_its_network() -> None:
    networks, x, target = drawn(), normal(3, 16, 5), normal(3, 16, 4, name="targets")
    expected = learned(networks, x, target)
    networks.parts[1]["w1"][2, 3] = torch.nan
    result = learned(networks, x, target)
    for now, before in zip(result, expected, strict=True):
        assert torch.equal(now[[0, 2]], before[[0, 2]]) and now[1].isnan().any()


def test_fresh_biases_are_zero() -> None:
    layout = gaussian_layout(5, 4, 9, 3)
    views = layout.views(initial(layout, [stream(0, "w")], truncated_normal, zeros))
    assert all((view == 0).all() == (not name.startswith("w")) for name, view in views.items())
