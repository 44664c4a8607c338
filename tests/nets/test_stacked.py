"""The primitive against numpy and plain autograd, and its promise: a member of a stack is what it would be alone."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from probes.agents import normal
from torch import Tensor

from mopo_cli.nets.layers import Activation, affine, chain_gradient, input_gradient, parameter_gradient
from mopo_cli.nets.stacked import Layout, Parameters, aligned, join, matmul, mlp_layout, part, unit, units

# Batch, inputs, outputs. Fewer outputs than 16 are multiplied another way, and one output another way still.
SHAPES = [
    (1, 1, 1),
    (37, 6, 7),
    (37, 1, 6),
    (5, 7, 1),
    (5, 200, 1),
    (9, 40, 2),
    (33, 9, 15),
    (33, 9, 16),
    (256, 17, 32),
]
BOUNDARY = 64


def layer(members: int, batch: int, inputs: int, outputs: int) -> tuple[Tensor, ...]:
    """Inputs, weights, biases, and a gradient by the outputs."""
    shapes = {"i": (batch, inputs), "w": (inputs, outputs), "b": (1, outputs), "g": (batch, outputs)}
    return tuple(normal(members, *shape, name=name) for name, shape in shapes.items())


def off_boundary(matrix: Tensor) -> Tensor:
    """The same matrix one float past a boundary."""
    room = torch.empty(matrix.numel() + 1)
    return room[1:].view(matrix.shape).copy_(matrix)


def numbers(*tensors: Tensor) -> list[np.ndarray]:
    return [tensor.double().numpy() for tensor in tensors]


def test_on_the_cpu_every_network_is_a_unit() -> None:
    stack = normal(5, 3, 4)
    assert units(stack) == 5
    for u in range(5):
        assert part(stack, u).data_ptr() == stack[u].data_ptr(), "no copy: it is written to"
        assert torch.equal(part(stack, u), stack[u]) and torch.equal(unit(stack, u), stack[u])
    assert torch.equal(join([part(stack, u) for u in range(5)]), stack)
    assert torch.equal(join([torch.tensor(2.0), torch.tensor(3.0)]), torch.tensor([2.0, 3.0]))


def test_a_unit_starts_on_a_boundary_and_is_copied_only_for_that() -> None:
    odd, even = normal(4, 3, 5), normal(4, 2, 16)
    for u in range(4):
        assert unit(odd, u).data_ptr() % BOUNDARY == 0
        assert unit(even, u).data_ptr() == even[u].data_ptr()


@pytest.mark.parametrize(
    "matrix",
    [off_boundary(normal(5, 7)), normal(7, 5).t(), normal(9, 30)[:, 3:14], normal(9, 32)[:, :16], normal(1, 3)],
    ids=["off", "transposed", "columns", "half", "dense"],
)
def test_aligned_is_dense_on_a_boundary_and_equal(matrix: Tensor) -> None:
    before = matrix.clone()
    result = aligned(matrix)
    assert result.is_contiguous() and result.data_ptr() % BOUNDARY == 0 and torch.equal(result, before)
    assert (result.data_ptr() == matrix.data_ptr()) == (matrix.is_contiguous() and matrix.data_ptr() % BOUNDARY == 0)


@pytest.mark.parametrize("whole", [False, True], ids=["one", "stack"])
@pytest.mark.parametrize(("batch", "inputs", "outputs"), SHAPES)
def test_a_layer_and_its_gradients_against_numpy(batch: int, inputs: int, outputs: int, whole: bool) -> None:
    """Of one network `[rows, cols]` and of a stack at once, as on CUDA."""
    tensors = layer(4, batch, inputs, outputs)
    x, weight, bias, grad = tensors if whole else (tensor[2] for tensor in tensors)
    kept = [tensor.clone() for tensor in (x, weight, bias, grad)]
    i, w, b, g = numbers(*kept)
    np.testing.assert_allclose(affine(x, weight, bias), i @ w + b, atol=3e-5)
    np.testing.assert_allclose(input_gradient(grad, weight), g @ w.swapaxes(-1, -2), atol=3e-5)
    by_weight, by_bias = torch.full_like(weight, torch.nan), torch.full_like(bias, torch.nan)
    parameter_gradient(x, grad, by_weight, by_bias)
    np.testing.assert_allclose(by_weight, i.swapaxes(-1, -2) @ g, atol=1e-4)
    np.testing.assert_allclose(by_bias, g.sum(axis=-2, keepdims=True), atol=1e-4)
    for now, before in zip((x, weight, bias, grad), kept, strict=True):
        assert torch.equal(now, before), "what is given is left as it was"


@pytest.mark.parametrize(("batch", "inputs", "outputs"), SHAPES)
def test_matmul_against_numpy(batch: int, inputs: int, outputs: int) -> None:
    left, right, *_ = layer(4, batch, inputs, outputs)
    np.testing.assert_allclose(matmul(left, right), np.matmul(*numbers(left, right)), atol=3e-5)
    np.testing.assert_allclose(matmul(right.mT, left.mT), np.matmul(*numbers(right.mT, left.mT)), atol=3e-5)


def computed(u: int, x: Tensor, flat: Tensor, layout: Layout, grad: Tensor) -> tuple[Tensor, ...]:
    """Outputs and gradients of one layer of a unit whose parameters lie in a flat tensor."""
    ((weight, bias),) = Parameters(layout, flat).layers[u]
    gradient = Parameters(layout, torch.zeros_like(flat))
    x, grad = unit(x, u), unit(grad, u)
    parameter_gradient(x, grad, *gradient.layers[u][0])
    return affine(x, weight, bias), input_gradient(grad, weight), gradient.flat[u]


@pytest.mark.parametrize(("batch", "inputs", "outputs"), SHAPES)
@pytest.mark.parametrize("members", [2, 5])
def test_a_layer_of_a_stack_is_bit_for_bit_that_of_the_member_alone(
    batch: int, inputs: int, outputs: int, members: int
) -> None:
    layout = mlp_layout((inputs, outputs))
    x, grad = normal(members, batch, inputs, name="i"), normal(members, batch, outputs, name="g")
    flat = normal(members, layout.size)
    for m in range(members):
        x_m, flat_m, grad_m = (t[m : m + 1].clone() for t in (x, flat, grad))
        alone = computed(0, x_m, flat_m, layout, grad_m)
        for together, single in zip(computed(m, x, flat, layout, grad), alone, strict=True):
            assert torch.equal(together, single)


@pytest.mark.parametrize("first", [0, 3])
def test_columns_of_a_wider_batch_are_multiplied_as_they_would_be_alone(first: int) -> None:
    """What the actor is given: a slice of packed rows, which starts on no boundary and is not contiguous."""
    rows, weight, bias = normal(5, 37, 30), normal(5, 11, 32, name="w"), normal(5, 1, 32, name="b")
    columns = rows[..., first : first + 11]
    product = matmul(columns, weight)
    for m in range(5):
        alone = [t[m : m + 1].clone() for t in (columns.contiguous(), weight, bias)]
        assert torch.equal(product[m], matmul(*alone[:2])[0])
        assert torch.equal(affine(unit(columns, m), weight[m], bias[m]), affine(*(t[0] for t in alone)))


@pytest.mark.parametrize(("batch", "inputs", "outputs"), SHAPES)
def test_a_product_of_a_stack_is_bit_for_bit_that_of_the_members_alone(batch: int, inputs: int, outputs: int) -> None:
    left, right, *_ = layer(5, batch, inputs, outputs)
    for a, b in ((left, right), (right.mT, left.mT)):
        product = matmul(a, b)
        for m in range(5):
            assert torch.equal(product[m], matmul(a[m : m + 1].clone(), b[m : m + 1].clone())[0])


def test_products_of_a_stack_know_no_neighbours() -> None:
    left, right = normal(4, 37, 11), normal(4, 11, 5, name="w")
    expected = matmul(left, right)
    left[1], right[2] = torch.nan, torch.inf
    assert torch.equal(matmul(left, right)[[0, 3]], expected[[0, 3]])
    for m in (0, 3):
        assert torch.equal(matmul(left[m : m + 1].clone(), right[m : m + 1].clone())[0], expected[m])


SIZES = (3, 20, 4, 18, 2)


def chain(flat: Tensor, x: Tensor, grad: Tensor) -> Tensor:
    """The gradient of tanh layers of sizes SIZES, unit by unit, in which nothing but the parameters is written to."""
    layout = mlp_layout(SIZES)
    networks, into = Parameters(layout, flat), Parameters(layout, torch.full_like(flat, 7.0))
    for u in range(len(flat)):
        walk(unit(x, u), networks.layers[u], unit(grad, u), into.layers[u])
    return into.flat


def walk(x: Tensor, layers: list[tuple[Tensor, Tensor]], grad: Tensor, into: list[tuple[Tensor, Tensor]]) -> None:
    inputs = [x]
    for weight, bias in layers[:-1]:
        inputs.append(torch.tanh(affine(inputs[-1], weight, bias)))
    asked = []

    def back(slope: Tensor, kept: Tensor) -> Tensor:
        asked.append(next(index for index, each in enumerate(inputs) if each is kept))
        return slope * (1 - kept.square())

    def back_adding(slope: Tensor, weight: Tensor | None, kept: Tensor, total: Tensor | None, _: object) -> Tensor:
        slope = back(slope if weight is None else slope * weight.mT, kept)
        assert total is not None
        total.copy_(slope.sum(dim=-2, keepdim=True))
        return slope

    chain_gradient(inputs, layers, grad, Activation(back, back_adding), inputs, into)
    assert asked == list(range(len(layers) - 1, 0, -1)), "the inputs of the first layer have no gradient"


def plain_chain(flat: Tensor, x: Tensor, grad: Tensor) -> Tensor:
    """The same by autograd, in float64."""
    whole = flat.double().requires_grad_()
    views, value = mlp_layout(SIZES).views(whole), x.double()
    for i in range(len(SIZES) - 1):
        value = (value if i == 0 else value.tanh()) @ views[f"w{i}"] + views[f"b{i}"]
    return torch.autograd.grad((value * grad.double()).sum(), whole)[0]


def test_a_chain_is_differentiated_by_every_matrix_and_nothing_between() -> None:
    layout = mlp_layout(SIZES)
    flat, x, grad = 0.5 * normal(2, layout.size), normal(2, 9, 3, name="i"), normal(2, 9, 2, name="g")
    result, expected = chain(flat, x, grad), plain_chain(flat, x, grad)
    inside = layout.pack({name: torch.ones(2, *shape) for name, shape in layout.shapes}).bool()
    torch.testing.assert_close(result[inside].double(), expected[inside], atol=1e-5, rtol=1e-5)
    assert (result[~inside] == 7.0).all() and (~inside).any()


def test_a_chain_of_a_whole_stack_at_once_as_on_cuda() -> None:
    layout = mlp_layout(SIZES)
    flat, x, grad = 0.5 * normal(2, layout.size), normal(2, 9, 3, name="i"), normal(2, 9, 2, name="g")
    into = torch.zeros_like(flat)

    def layers(flat: Tensor) -> list[tuple[Tensor, Tensor]]:
        views = layout.views(flat)
        return [(views[f"w{i}"], views[f"b{i}"]) for i in range(len(SIZES) - 1)]

    walk(x, layers(flat), grad, layers(into))
    torch.testing.assert_close(into.double(), plain_chain(flat, x, grad), atol=1e-5, rtol=1e-5)


def test_a_chain_is_the_same_with_any_number_of_threads_and_alone(use_threads: Callable[[int], None]) -> None:
    flat = 0.5 * normal(3, mlp_layout(SIZES).size)
    x, grad = normal(3, 37, 3, name="i"), normal(3, 37, 2, name="g")
    expected = chain(flat, x, grad)
    for count in (2, 3):
        use_threads(count)
        for _ in range(20):
            assert torch.equal(chain(flat, x, grad), expected)
        for m in range(3):
            assert torch.equal(chain(*(t[m : m + 1].clone() for t in (flat, x, grad)))[0], expected[m])


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=6), st.integers(1, 3))
def test_layout_gives_back_what_was_packed_and_starts_every_matrix_on_a_boundary(
    shapes: list[tuple[int, int]], members: int
) -> None:
    layout = Layout(tuple((f"m{i}", shape) for i, shape in enumerate(shapes)))
    matrices = {name: normal(members, *shape, name=name) for name, shape in layout.shapes}
    flat = layout.pack(matrices)
    assert flat.shape == (members, layout.size)
    views = layout.views(flat)
    assert list(views) == list(matrices)
    taken = torch.zeros_like(flat)
    for name, view in layout.views(taken).items():
        assert torch.equal(views[name], matrices[name])
        view += 1
        for m in range(members):
            assert (views[name][m].data_ptr() - flat.data_ptr()) % BOUNDARY == 0
    assert taken.max() == 1, "two matrices share memory"
    assert taken.sum() == members * sum(rows * cols for rows, cols in shapes)
    assert torch.equal(flat.bool() | taken.bool(), taken.bool()), "what lies between is zero"
    last = list(views)[-1]
    views[last].fill_(99.0)
    assert (flat == 99.0).sum() == views[last].numel(), "views must not be copies"


def test_views_of_a_row_and_of_groups_are_those_of_the_stack() -> None:
    layout = mlp_layout((7, 5, 2))
    flat = normal(6, layout.size)
    views = layout.views(flat)
    grouped = layout.views(flat.view(2, 3, -1))
    for name, shape in layout.shapes:
        assert grouped[name].shape == (2, 3, *shape) and torch.equal(grouped[name].flatten(0, 1), views[name])
        for m in range(6):
            assert torch.equal(layout.views(flat[m])[name], views[name][m])
            assert torch.equal(layout.views(flat[m:])[name], views[name][m:])


def test_a_perceptron_s_layout_by_hand() -> None:
    assert mlp_layout((7, 5, 33, 1)).shapes == (
        ("w0", (7, 5)),
        ("b0", (1, 5)),
        ("w1", (5, 33)),
        ("b1", (1, 33)),
        ("w2", (33, 1)),
        ("b2", (1, 1)),
    )
    assert mlp_layout((7, 5)).size == 48 + 16  # 35 and 5 floats, up to the next 64 bytes
    assert mlp_layout((4, 16)).size == 64 + 16, "and no further"


def test_parameters_are_views_that_see_every_change() -> None:
    layout = Layout((*mlp_layout((7, 5, 2)).shapes, ("w_mean", (2, 3)), ("b_mean", (1, 3)), ("bound", (1, 3))))
    networks = Parameters(layout, normal(4, layout.size))
    parts, layers = networks.parts, networks.layers
    assert len(parts) == len(layers) == 4
    networks.flat.copy_(normal(4, layout.size, name="other"))
    views = layout.views(networks.flat)
    for u in range(4):
        assert list(parts[u]) == [name for name, _ in layout.shapes]
        for name, matrix in parts[u].items():
            assert torch.equal(matrix, views[name][u])
        for i, (weight, bias) in enumerate(layers[u]):
            assert torch.equal(weight, views[f"w{i}"][u]) and torch.equal(bias, views[f"b{i}"][u])
        assert len(layers[u]) == 2, "heads are no part of the chain"
    parts[2]["b1"].fill_(9.0)
    assert (networks.flat == 9.0).sum() == 2 and (views["b1"][2] == 9.0).all()


def test_parameters_off_a_boundary_are_computed_as_on_one() -> None:
    """What a file gives may start anywhere."""
    layout = mlp_layout((11, 32, 5))
    flat, x = normal(3, layout.size), normal(37, 11, name="i")
    moved = Parameters(layout, off_boundary(flat))
    for there, here in zip(moved.layers, Parameters(layout, flat).layers, strict=True):
        assert all(weight.data_ptr() % BOUNDARY == 0 for weight, _ in there)
        assert torch.equal(affine(x, *there[0]), affine(x, *here[0]))
