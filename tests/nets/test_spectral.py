"""Spectral normalisation against numpy's SVD, and its promise: a matrix of a stack is divided as it would be alone."""

import numpy as np
import pytest
import torch
from torch import Tensor

from mopo_cli.engine.streams import stream
from mopo_cli.nets.spectral import (
    largest_singular_values,
    normalise,
    normalise_exactly,
    normalised_gradient,
    power_iteration,
    unit_vectors,
)
from mopo_cli.nets.stacked import mlp_layout

SHAPES = [(1, 1), (7, 5), (5, 33), (14, 32), (33, 1)]  # inputs, outputs


def weights(*shape: int, name: str = "w", dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=stream(0, f"test/{name}"), dtype=dtype)


def vectors(matrices: int, width: int) -> Tensor:
    return unit_vectors({"w": width}, [stream(0, "test/u", g) for g in range(matrices)])["w"]


def stacked(weight: Tensor, matrices: int) -> np.ndarray:
    """The normalised matrices `[matrices, rows, out]`: consecutive networks one below the other."""
    return weight.detach().double().numpy().reshape(matrices, -1, weight.shape[2])


def converged(weight: Tensor, vector: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    for _ in range(300):
        left, vector, sigma = power_iteration(weight, vector)
    return left, vector, sigma


@pytest.mark.parametrize(("inputs", "outputs"), SHAPES)
@pytest.mark.parametrize("matrices", [6, 2, 1])
def test_the_power_iteration_converges_to_the_first_singular_triple(inputs: int, outputs: int, matrices: int) -> None:
    weight = weights(6, inputs, outputs)
    left, right, sigma = converged(weight, vectors(matrices, outputs))
    assert left.shape == (6, 1, inputs) and right.shape == (matrices, 1, outputs) and sigma.shape == (matrices, 1, 1)
    u, s, vt = np.linalg.svd(stacked(weight, matrices), full_matrices=False)
    np.testing.assert_allclose(sigma[:, 0, 0], s[:, 0], rtol=1e-5)
    outer = left.reshape(matrices, -1, 1).double().numpy() * right.double().numpy()
    np.testing.assert_allclose(outer, u[:, :, :1] * vt[:, :1], atol=2e-4)  # their signs are free, their product not


@pytest.mark.parametrize("matrices", [6, 2])
def test_a_step_by_hand(matrices: int) -> None:
    weight, start = weights(6, 7, 5), vectors(matrices, 5)
    left, right, sigma = power_iteration(weight, start)
    for g, matrix in enumerate(stacked(weight, matrices)):
        u = matrix @ start[g, 0].double().numpy()
        u /= np.linalg.norm(u)
        v = u @ matrix / np.linalg.norm(u @ matrix)
        networks = 6 // matrices
        np.testing.assert_allclose(left[g * networks : (g + 1) * networks].flatten(), u, atol=1e-6)
        np.testing.assert_allclose(right[g, 0], v, atol=1e-6)
        assert sigma[g].item() == pytest.approx(u @ matrix @ v, rel=1e-6)
        assert sigma[g].item() < 0.999 * np.linalg.norm(matrix, 2), "from below, and one step is not there yet"


@pytest.mark.parametrize(("inputs", "outputs"), SHAPES)
@pytest.mark.parametrize("matrices", [6, 2, 1])
def test_divided_exactly_the_largest_singular_value_is_one(inputs: int, outputs: int, matrices: int) -> None:
    params = {"w": weights(6, inputs, outputs), "b": weights(6, 1, outputs, name="b")}
    divided = normalise_exactly(params, {"w": vectors(matrices, outputs)})
    expected = stacked(params["w"], matrices)
    expected /= np.linalg.norm(expected, 2, axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(stacked(divided["w"], matrices), expected, rtol=1e-6)
    assert divided["b"] is params["b"], "what has no vectors is left alone"


def test_what_is_not_finite_is_not_a_number_and_its_neighbours_keep_theirs() -> None:
    weight = weights(4, 7, 5)
    expected = np.linalg.norm(stacked(weight, 4), 2, axis=(1, 2))
    weight[1, 3, 2], weight[2, 0, 0] = torch.nan, torch.inf
    sigma = largest_singular_values(weight, 4).flatten()
    assert sigma[1].isnan() and sigma[2].isnan()
    np.testing.assert_allclose(sigma[[0, 3]], expected[[0, 3]], rtol=1e-6)
    assert largest_singular_values(weight, 2).isnan().all(), "a shared sigma knows all its networks"


@pytest.mark.parametrize("matrices", [4, 2])
def test_one_iteration_on_the_weights_are_divided_by_the_estimate(matrices: int) -> None:
    params = {"w": weights(4, 7, 5), "b": weights(4, 1, 5, name="b"), "w_logvar": weights(4, 7, 5, name="v")}
    start = vectors(matrices, 5)
    given = {name: tensor.clone() for name, tensor in {**params, "start": start}.items()}
    divided = normalise(params, {"w": start})
    left, right, sigma = power_iteration(params["w"], start)
    assert list(divided.vectors) == list(divided.lefts) == list(divided.sigmas) == ["w"]
    assert torch.equal(divided.vectors["w"], right) and torch.equal(divided.lefts["w"], left)
    expected = stacked(params["w"], matrices) / sigma.double().numpy()
    np.testing.assert_allclose(stacked(divided.params["w"], matrices), expected, rtol=1e-6)
    assert list(divided.params) == list(params)
    assert divided.params["b"] is params["b"] and divided.params["w_logvar"] is params["w_logvar"]
    assert all(torch.equal(given[name], tensor) for name, tensor in {**params, "start": start}.items())


def test_step_by_step_the_estimate_reaches_sigma() -> None:
    params, vector = {"w": weights(4, 7, 5)}, {"w": vectors(2, 5)}
    for _ in range(300):
        divided = normalise(params, vector)
        vector = divided.vectors
    exact = normalise_exactly(params, vector)["w"]
    torch.testing.assert_close(divided.params["w"], exact, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(stacked(divided.params["w"], 2), 2, axis=(1, 2)), 1, rtol=1e-5)


def gradient(weight: Tensor, vector: Tensor, upstream: Tensor) -> Tensor:
    grads = {"w": upstream.clone()}
    normalised_gradient(normalise({"w": weight}, {"w": vector}), grads)
    return grads["w"]


@pytest.mark.parametrize("matrices", [4, 2, 1])
def test_the_gradient_is_that_of_division_by_sigma_with_the_vectors_held_fixed(matrices: int) -> None:
    """Far from converged, in float64, against plain autograd of W / (u · W · v)."""
    weight, upstream = (weights(4, 7, 5, name=name, dtype=torch.float64) for name in "wg")
    start = vectors(matrices, 5).double()
    left, right, _ = power_iteration(weight, start)
    leaf = weight.clone().requires_grad_()
    rows = leaf.view(matrices, -1, 5)
    sigma = torch.einsum("gi,gio,go->g", left.reshape(matrices, -1), rows, right[:, 0])
    (expected,) = torch.autograd.grad((rows / sigma[:, None, None]).view(4, 7, 5), leaf, upstream)
    torch.testing.assert_close(gradient(weight, start, upstream), expected)


def test_the_gradient_is_turned_in_place_and_those_of_other_weights_are_left_alone() -> None:
    """In the views of a flat gradient, between whose matrices nothing is touched."""
    layout = mlp_layout((7, 5, 5))
    params = {name: weights(4, *shape, name=name) for name, shape in layout.shapes}
    flat = torch.full((4, layout.size), 7.0)
    grads, upstream = layout.views(flat), weights(4, 7, 5, name="g")
    grads["w0"].copy_(upstream)
    divided = normalise(params, {"w0": vectors(2, 5)})
    kept = {name: tensor.clone() for name, tensor in divided.params.items()}
    normalised_gradient(divided, grads)
    assert torch.equal(layout.views(flat)["w0"], gradient(params["w0"], vectors(2, 5), upstream))
    assert (flat == 7.0).sum() == flat.numel() - upstream.numel()
    assert all(torch.equal(kept[name], tensor) for name, tensor in divided.params.items())


@pytest.mark.parametrize("matrices", [4, 2, 1])
def test_at_the_singular_vectors_the_gradient_is_that_of_the_exact_division(matrices: int) -> None:
    """Against the closed form (G - <G, W / sigma> u v') / sigma and against differences of numpy's W / sigma(W)."""
    weight, upstream = (weights(4, 3, 5, name=name, dtype=torch.float64) for name in "wg")
    _, right, _ = converged(weight, vectors(matrices, 5).double())
    result = stacked(gradient(weight, right, upstream), matrices)
    raw, g = stacked(weight, matrices), stacked(upstream, matrices)
    u, s, vt = np.linalg.svd(raw, full_matrices=False)
    sigma = s[:, :1, None]
    along = (g * raw / sigma).sum(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(result, (g - along * u[:, :, :1] * vt[:, :1]) / sigma, atol=1e-9)

    def value(matrix: np.ndarray) -> float:
        return float((g * matrix / np.linalg.norm(matrix, 2, axis=(1, 2), keepdims=True)).sum())

    for at in np.ndindex(*raw.shape):
        step = np.zeros_like(raw)
        step[at] = 1e-6
        assert result[at] == pytest.approx((value(raw + step) - value(raw - step)) / 2e-6, abs=1e-7), at


@pytest.mark.parametrize(
    ("inputs", "outputs", "threads"), [*((*shape, 1) for shape in SHAPES), (199, 201, 1), (199, 201, 3)]
)
@pytest.mark.parametrize("networks", [1, 3])
def test_a_matrix_of_a_stack_is_bit_for_bit_that_of_the_matrix_alone(
    inputs: int, outputs: int, threads: int, networks: int
) -> None:
    """199 x 201 numbers are enough to be shared among three threads, at no boundary of a vector."""
    count = 5
    weight, upstream = weights(count * networks, inputs, outputs), weights(count * networks, inputs, outputs, name="g")
    start = vectors(count, outputs)

    def everything(weight: Tensor, start: Tensor, upstream: Tensor) -> list[Tensor]:
        divided = normalise({"w": weight}, {"w": start})
        exact = normalise_exactly({"w": weight}, {"w": start})
        parts = [divided.params["w"], exact["w"], gradient(weight, start, upstream)]
        rest = divided.vectors["w"], *power_iteration(weight, start)[1:]
        return [*(part.reshape(len(start), -1) for part in parts), *rest]

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        together = everything(weight, start, upstream)
        for g in range(count):
            rows = slice(g * networks, (g + 1) * networks)
            alone = everything(weight[rows].clone(), start[g : g + 1].clone(), upstream[rows].clone())
            for stack, single in zip(together, alone, strict=True):
                assert torch.equal(stack[g], single[0])
    finally:
        torch.set_num_threads(before)


def test_the_first_vectors_are_of_length_one_and_each_of_its_own_stream() -> None:
    widths = {"w0": 33, "w1": 33, "w_mean": 1}
    drawn = unit_vectors(widths, [stream(4, "test/u", k) for k in range(5)])
    assert list(drawn) == list(widths)
    for name, width in widths.items():
        assert drawn[name].shape == (5, 1, width)
        np.testing.assert_allclose(drawn[name].double().norm(dim=2), 1, rtol=1e-6)
    alone = unit_vectors(widths, [stream(4, "test/u", 3)])
    assert all(torch.equal(drawn[name][3], alone[name][0]) for name in widths)
    both = torch.cat([drawn["w0"], drawn["w1"]])[:, 0]
    assert (both @ both.T).fill_diagonal_(0).abs().max() < 0.7, "no two alike"
