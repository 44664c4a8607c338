"""Hidden layers multiplied in bfloat16, against numpy with the same roundings and against the full numbers."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from probes.agents import normal
from torch import Tensor

from mopo_cli.dynamics.fit import FitSettings, start_fit
from mopo_cli.dynamics.split import Examples
from mopo_cli.dynamics.training import advance
from mopo_cli.engine.streams import stream
from mopo_cli.nets.gaussian import gaussian_layout, likelihood_gradient
from mopo_cli.nets.init import initial, truncated_normal, zeros
from mopo_cli.nets.perceptron import (
    Term,
    differentiate,
    differentiate_terms,
    evaluate,
    gradient_by_inputs,
    unit_gradient_by_inputs,
)
from mopo_cli.nets.stacked import Parameters, join, mlp_layout

SIZES = [(5, 32, 32, 1), (9, 40, 24, 33, 4)]


def networks(count: int, sizes: tuple[int, ...]) -> Parameters:
    layout = mlp_layout(sizes)
    flat = normal(count, layout.size, name="w")
    for key, view in layout.views(flat).items():
        view *= (2 / view.shape[1]) ** 0.5 if key.startswith("w") else 1
    return Parameters(layout, flat, "bf16")


def rounded(x: np.ndarray) -> np.ndarray:
    """To 8 significant bits, to the nearest even one."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32).astype(np.uint64)
    even = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return even.astype(np.uint32).view(np.float32).astype(np.float64)


def everything(of: Parameters, x: Tensor, grad: Tensor) -> list[Tensor]:
    """Values, the gradient by the parameters, and that by the inputs."""
    (evaluated,) = evaluate((of, (x,)))
    into = Parameters(of.layout, torch.zeros_like(of.flat))
    by_first = [differentiate(evaluated, u, grad, into) for u in range(len(of.parts))]
    slope = join([unit_gradient_by_inputs(evaluated, u, by_first[u], slice(0, None)) for u in range(len(of.parts))])
    torch.testing.assert_close(gradient_by_inputs(evaluated, grad, slice(0, None)), slope, rtol=0.02, atol=0.02)
    return [evaluated.out, into.flat, slope]


@pytest.mark.parametrize("sizes", SIZES)
def test_against_numpy_with_the_same_roundings(sizes: tuple[int, ...]) -> None:
    of, x, grad = networks(2, sizes), normal(2, 31, sizes[0], name="x"), normal(2, 31, sizes[-1], name="g")
    out, by_flat, slope = everything(of, x, grad)
    assert out.dtype == by_flat.dtype == slope.dtype == torch.float32
    depth, views = len(sizes) - 1, of.layout.views(by_flat)
    for m in range(2):
        params = {name: view[m].double().numpy() for name, view in of.layout.views(of.flat).items()}
        inner = range(1, depth - 1)
        weights = [rounded(params[f"w{i}"]) if i in inner else params[f"w{i}"] for i in range(depth)]
        bias = [rounded(params[f"b{i}"]) if i in inner else params[f"b{i}"] for i in range(depth)]
        inputs = [x[m].double().numpy()]
        for i in range(depth):
            value = inputs[-1] @ weights[i] + bias[i]
            if i < depth - 1:
                inputs.append(rounded(np.maximum(value, 0)))
        np.testing.assert_allclose(out[m], value, rtol=0.01, atol=0.02)
        upstream = grad[m].double().numpy()
        for i in reversed(range(depth)):
            upstream = rounded(upstream) if i in inner else upstream
            # A sum of 31 products of numbers of 8 bits each: single ones are off by their last bit.
            wanted = inputs[i].T @ upstream
            assert np.linalg.norm(views[f"w{i}"][m].numpy() - wanted) < 0.02 * np.linalg.norm(wanted), i
            wanted = upstream.sum(axis=0)
            assert np.linalg.norm(views[f"b{i}"][m, 0].numpy() - wanted) < 0.02 * np.linalg.norm(wanted), i
            upstream = upstream @ weights[i].T * (inputs[i] > 0 if i else 1)
        assert np.linalg.norm(slope[m].numpy() - upstream) < 0.02 * np.linalg.norm(upstream)


@pytest.mark.parametrize("sizes", SIZES)
def test_it_is_near_the_full_numbers_and_not_the_same(sizes: tuple[int, ...]) -> None:
    of, x = networks(2, sizes), normal(2, 256, sizes[0], name="x")
    result = everything(of, x, torch.ones(2, 256, sizes[-1]))
    full = everything(replace(of, products="fp32"), x, torch.ones(2, 256, sizes[-1]))
    # A slope jumps where rounding moves a unit across 0, one by the parameters averages that over the rows.
    for one, other, most in zip(result, full, (0.01, 0.03, 0.1), strict=True):
        assert 0 < (one - other).norm() < most * other.norm()


@pytest.mark.parametrize("sizes", [(5, 3), (6, 7, 1)])
def test_without_two_hidden_layers_nothing_is_reduced(sizes: tuple[int, ...]) -> None:
    of, x, grad = networks(2, sizes), normal(2, 31, sizes[0], name="x"), normal(2, 31, sizes[-1], name="g")
    pairs = zip(everything(of, x, grad), everything(replace(of, products="fp32"), x, grad), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_network_of_a_stack_is_bit_for_bit_the_same_alone(threads: int, use_threads: Callable[[int], None]) -> None:
    use_threads(threads)
    of, x, grad = networks(3, SIZES[1]), normal(3, 50, 9, name="x"), normal(3, 50, 4, name="g")
    stacked = everything(of, x, grad)
    for m in range(3):
        rows = slice(m, m + 1)
        alone = everything(Parameters(of.layout, of.flat[rows].clone(), "bf16"), x[rows].clone(), grad[rows].clone())
        assert all(torch.equal(one, whole[rows]) for one, whole in zip(alone, stacked, strict=True))


def test_blocks_of_rows_are_reduced_as_well() -> None:
    of, x = networks(2, SIZES[0]), normal(2, 60, 5, name="x")
    blocks = [(part.contiguous(),) for part in x.split(20, dim=1)]
    result = Parameters(of.layout, torch.zeros_like(of.flat))
    values = differentiate_terms(of, [Term(inputs, (), torch.ones_like) for inputs in blocks], result)
    out, by_flat, _ = everything(of, x, torch.ones(2, 60, 1))
    torch.testing.assert_close(torch.cat(values, dim=1), out, rtol=0.01, atol=0.01)
    assert (result.flat - by_flat).norm() < 0.01 * by_flat.norm()
    full = everything(replace(of, products="fp32"), x, torch.ones(2, 60, 1))
    assert not torch.equal(torch.cat(values, dim=1), full[0])


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_the_dynamics_likelihood(layers: int) -> None:
    layout = gaussian_layout(5, 4, 40, layers)
    flat = initial(layout, [stream(k, "test/model") for k in range(2)], truncated_normal, zeros)
    x, target = normal(2, 300, 5, name="x"), normal(2, 300, 4, name="t")
    results = {}
    for precision in ("bf16", "fp32"):
        into = Parameters(layout, torch.zeros_like(flat))
        networks = Parameters(layout, flat, precision)
        results[precision] = likelihood_gradient(networks, x, target, into).loss, into.flat
    for one, other in zip(*results.values(), strict=True):
        assert one.dtype == torch.float32
        assert torch.equal(one, other) if layers == 1 else 0 < (one - other).norm() < 0.02 * other.norm()


@pytest.mark.parametrize("spectral_norm", ["none", "shared"])
def test_an_ensemble_fitted_in_bfloat16_predicts_about_as_well(spectral_norm: str) -> None:
    observation, action = normal(1500, 3, name="s"), normal(1500, 2, name="a").clamp(-1, 1)
    data = Examples.of(observation, action, observation[:, 0] * action[:, 0], 0.9 * observation + 0.3 * action[:, :1])
    settings = FitSettings(3, 32, 3, 64, 1e-3, (0.0,) * 4, 0.2, 300, 5, 0.01, 8, spectral_norm)
    errors = {}
    for precision in ("bf16", "fp32"):
        fit = start_fit(data, replace(settings, update_precision=precision), (0, 1))
        while not fit.done:
            advance(fit, 50)
        assert fit.best.dtype == torch.float32
        errors[precision] = fit.best_mse
    assert not torch.equal(*errors.values())
    torch.testing.assert_close(errors["bf16"], errors["fp32"], rtol=0.15, atol=0)
