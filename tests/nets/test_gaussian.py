"""The dynamics network re-derived in numpy: forward pass, bounds of the log-variance, likelihood."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from mopo_cli.engine.streams import stream
from mopo_cli.nets.gaussian import MAX_LOG_VARIANCE, MIN_LOG_VARIANCE, gaussian, gaussian_layout, nll
from mopo_cli.nets.init import initial, truncated_normal, zeros
from mopo_cli.nets.stacked import Layout

Array = NDArray[np.float64]


def network(members: int = 3, inputs: int = 5, outputs: int = 4, hidden: int = 9) -> tuple[Layout, Tensor]:
    """Parameters in which every number differs, the bounds too."""
    layout = gaussian_layout(inputs, outputs, hidden, 3)
    generators = [stream(k, "test/weights") for k in range(members)]
    flat = initial(layout, generators, truncated_normal, truncated_normal)
    draw = stream(0, "test/bounds")
    layout.views(flat)["max_logvar"].uniform_(0.2, 0.9, generator=draw)
    layout.views(flat)["min_logvar"].uniform_(-4.0, -2.0, generator=draw)
    return layout, flat


def forward(params: dict[str, Array], x: Array) -> tuple[Array, Array]:
    """One network: inputs [B, in] -> mean, log-variance [B, out]."""
    for i in range(3):
        x = x @ params[f"w{i}"] + params[f"b{i}"]
        x = x / (1 + np.exp(-x))
    mean = x @ params["w_mean"] + params["b_mean"]
    raw = x @ params["w_logvar"] + params["b_logvar"]
    high, low = params["max_logvar"], params["min_logvar"]
    below = high - np.logaddexp(0, high - raw)
    return mean, low + np.logaddexp(0, below - low)


def inputs(*shape: int) -> Tensor:
    return torch.randn(shape, generator=stream(0, "test/inputs"))


@pytest.mark.parametrize("grad", [True, False])
def test_the_forward_pass_against_numpy(grad: bool) -> None:
    layout, flat = network()
    views = layout.views(flat)
    views["w_logvar"] *= 200  # into both bounds
    x = inputs(3, 37, 5)
    with torch.set_grad_enabled(grad):
        mean, logvar = gaussian(layout.leaves(flat) if grad else views, x)
    for k in range(3):
        params = {name: view[k].double().numpy() for name, view in views.items()}
        expected = forward(params, x[k].double().numpy())
        np.testing.assert_allclose(mean[k].detach(), expected[0], atol=1e-5)
        np.testing.assert_allclose(logvar[k].detach(), expected[1], atol=1e-4)
    assert logvar.max() > 0.0 and logvar.min() < -2.0


def test_the_inputs_are_left_as_they_were() -> None:
    layout, flat = network()
    x = inputs(3, 16, 5)
    before = x.clone(), flat.clone()
    with torch.no_grad():
        gaussian(layout.views(flat), x)
    assert torch.equal(x, before[0]) and torch.equal(flat, before[1])


def test_sigma_stays_between_0_0067_and_1_284_at_first() -> None:
    layout = gaussian_layout(1, 1, 2, 1)
    flat = torch.zeros(5, layout.size)
    views = layout.views(flat)
    views["max_logvar"].fill_(MAX_LOG_VARIANCE)
    views["min_logvar"].fill_(MIN_LOG_VARIANCE)
    views["b_logvar"][:, 0, 0] = torch.tensor([-1e4, -30.0, 0.5, 30.0, 1e4])
    logvar = gaussian(views, torch.zeros(5, 1, 1))[1].flatten()
    sigma = torch.exp(0.5 * logvar)
    assert sigma[[0, 1]].tolist() == pytest.approx([0.00674, 0.00674], rel=1e-3)
    assert sigma[[3, 4]].tolist() == pytest.approx([1.28403, 1.28403], rel=1e-4)
    assert logvar[2].item() == pytest.approx(-0.1931, abs=1e-3)  # 1/2 - log 2: the bound leaks near its end


def test_the_likelihood_against_numpy() -> None:
    mean, logvar, target = (torch.randn(3, 11, 4, generator=stream(0, name)) for name in ("m", "v", "t"))
    expected = [
        np.mean(
            [
                (m - t) ** 2 / np.exp(v) + v
                for m, v, t in zip(*(a[k].flatten().tolist() for a in (mean, logvar, target)), strict=True)
            ]
        )
        for k in range(3)
    ]
    np.testing.assert_allclose(nll(mean, logvar, target), expected, rtol=1e-5)


def test_the_likelihood_is_lowest_at_the_truth() -> None:
    """Of all (mean, variance) at those of the sample itself: an error of sign or factor moves the minimum."""
    target = 2.0 + 0.7 * torch.randn(1, 4000, 1, generator=stream(0, "test/truth"))

    def loss(mean: float, variance: float) -> float:
        return nll(torch.full_like(target, mean), torch.full_like(target, variance).log(), target).item()

    mean, variance = target.mean().item(), target.var(correction=0).item()
    least = loss(mean, variance)
    for factor in (0.9, 1.1):
        assert loss(mean * factor, variance) > least + 1e-2
        assert loss(mean, variance * factor) > least + 1e-3
    assert loss(mean, variance * 0.99) == pytest.approx(loss(mean, variance / 0.99), abs=2e-5)


@pytest.mark.parametrize(("batch", "hidden"), [(37, 9), (1, 7), (64, 33)])
def test_a_network_of_a_stack_is_bit_for_bit_the_same_alone(batch: int, hidden: int) -> None:
    layout, flat = network(4, hidden=hidden)
    x, target = inputs(4, batch, 5), torch.randn(4, batch, 4, generator=stream(0, "test/targets"))

    def run(members: slice) -> tuple[Tensor, Tensor]:
        leaves = layout.leaves(flat[members].clone())
        losses = nll(*gaussian(leaves, x[members].clone()), target[members].clone())
        out = torch.zeros(len(losses), layout.size)
        layout.gradient(losses.sum(), leaves, out)
        return losses.detach(), out

    losses, grads = run(slice(None))
    for k in range(4):
        loss, grad = run(slice(k, k + 1))
        assert torch.equal(loss[0], losses[k])
        assert torch.equal(grad[0], grads[k])


def test_a_shared_input_is_seen_by_every_network() -> None:
    layout, flat = network()
    x = inputs(8, 5)
    shared, repeated = (
        gaussian(layout.views(flat), x.expand(3, -1, -1)),
        gaussian(layout.views(flat), x.repeat(3, 1, 1)),
    )
    assert torch.equal(shared[0], repeated[0]) and torch.equal(shared[1], repeated[1])
    assert not torch.equal(shared[0][0], shared[0][1])


def test_fresh_biases_are_zero() -> None:
    layout = gaussian_layout(5, 4, 9, 3)
    views = layout.views(initial(layout, [stream(0, "w")], truncated_normal, zeros))
    assert all((view == 0).all() == (not name.startswith("w")) for name, view in views.items())
