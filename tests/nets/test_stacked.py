"""The primitive against numpy and plain autograd, and its promise: a member of a stack is what it would be alone."""

import numpy as np
import pytest
import torch
from torch import Tensor

from mopo_cli.engine.streams import stream
from mopo_cli.nets.stacked import Adam, Layout, linear, matmul, mlp, mlp_layout, silu_, softplus

SHAPES = [(1, 1, 1), (37, 6, 7), (37, 1, 6), (5, 7, 1), (256, 17, 32)]  # batch, inputs, outputs


def normal(*shape: int, name: str = "x", dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=stream(0, f"test/{name}"), dtype=dtype)


@pytest.mark.parametrize(("batch", "inputs", "outputs"), SHAPES)
def test_matmul_against_numpy(batch: int, inputs: int, outputs: int) -> None:
    left, right = normal(4, batch, inputs), normal(4, inputs, outputs, name="w")
    bias = normal(4, 1, outputs, name="b")
    expected = left.double().numpy() @ right.double().numpy()
    np.testing.assert_allclose(matmul(left, right), expected, atol=2e-5)
    np.testing.assert_allclose(matmul(left, right, bias), expected + bias.numpy(), atol=2e-5)


def test_linear_is_differentiated_correctly() -> None:
    x, weight, bias = (
        normal(*shape, name=name, dtype=torch.float64).requires_grad_()
        for name, shape in (("x", (3, 5, 4)), ("w", (3, 4, 2)), ("b", (3, 1, 2)))
    )
    assert torch.autograd.gradcheck(linear, (x, weight, bias))
    assert torch.autograd.gradcheck(linear, (x.detach(), weight, bias))
    assert torch.autograd.gradcheck(linear, (x, weight.detach(), bias.detach()))


@pytest.mark.parametrize(("batch", "inputs", "outputs"), SHAPES)
def test_linear_against_autograd_of_einsum(batch: int, inputs: int, outputs: int) -> None:
    tensors = [normal(4, batch, inputs), normal(4, inputs, outputs, name="w"), normal(4, 1, outputs, name="b")]
    upstream = normal(4, batch, outputs, name="g")
    own = [t.clone().requires_grad_() for t in tensors]
    plain = [t.double().requires_grad_() for t in tensors]
    output = linear(*own)
    expected = torch.einsum("mbi,mio->mbo", plain[0], plain[1]) + plain[2]
    torch.testing.assert_close(output.double(), expected, atol=2e-5, rtol=0)
    grads = torch.autograd.grad(output, own, upstream)
    for grad, wanted in zip(grads, torch.autograd.grad(expected, plain, upstream.double()), strict=True):
        torch.testing.assert_close(grad.double(), wanted, atol=1e-4, rtol=0)


def layer(x: Tensor, flat: Tensor, layout: Layout, upstream: Tensor) -> tuple[Tensor, ...]:
    """Output and gradients of one layer whose parameters lie in a flat tensor."""
    leaves = layout.leaves(flat)
    x = x.detach().requires_grad_()
    output = linear(x, leaves["w0"], leaves["b0"])
    return output.detach(), *torch.autograd.grad(output, [x, *leaves.values()], upstream)


@pytest.mark.parametrize(("batch", "inputs", "outputs"), SHAPES)
@pytest.mark.parametrize("members", [2, 5])
def test_a_layer_of_a_stack_is_bit_for_bit_that_of_the_member_alone(
    batch: int, inputs: int, outputs: int, members: int
) -> None:
    layout = mlp_layout((inputs, outputs))
    flat, x = normal(members, layout.size), normal(members, batch, inputs, name="i")
    upstream = normal(members, batch, outputs, name="g")
    stacked = layer(x, flat, layout, upstream)
    for m in range(members):
        alone = layer(*(t[m : m + 1].clone() for t in (x, flat)), layout, upstream[m : m + 1].clone())
        for together, single in zip(stacked, alone, strict=True):
            assert torch.equal(together[m], single[0])


@pytest.mark.parametrize("first", [0, 3])
def test_columns_of_a_wider_batch_are_multiplied_as_they_would_be_alone(first: int) -> None:
    """What the actor is given: a slice of packed rows, which starts on no boundary and is not contiguous."""
    rows, weight, bias = normal(5, 37, 30), normal(5, 11, 32, name="w"), normal(5, 1, 32, name="b")
    stacked = matmul(rows[..., first : first + 11], weight, bias)
    for m in range(5):
        alone = [t[m : m + 1].clone() for t in (rows, weight, bias)]
        assert torch.equal(stacked[m], matmul(alone[0][..., first : first + 11], *alone[1:])[0])


@pytest.mark.parametrize("sizes", [(6, 7, 1), (1, 33, 9, 2), (17, 32, 32, 6)])
def test_a_perceptron_is_relu_layers_and_a_member_of_a_stack_is_itself_alone(sizes: tuple[int, ...]) -> None:
    layout = mlp_layout(sizes)
    flat, x = normal(3, layout.size), normal(3, 37, sizes[0], name="i")
    hidden = x.double()
    views = {name: view.double() for name, view in layout.views(flat).items()}
    for i in range(len(sizes) - 1):
        hidden = hidden @ views[f"w{i}"] + views[f"b{i}"]
        if i < len(sizes) - 2:
            hidden = hidden.clamp(min=0)
    output = mlp(layout.views(flat), x)
    torch.testing.assert_close(output.double(), hidden, atol=1e-3, rtol=1e-5)
    for m in range(3):
        assert torch.equal(output[m], mlp(layout.views(flat[m : m + 1].clone()), x[m : m + 1].clone())[0])


def test_a_perceptron_is_differentiated_correctly() -> None:
    layout = mlp_layout((3, 4, 4, 2))
    flat = normal(2, layout.size, dtype=torch.float64).requires_grad_()
    x = normal(2, 5, 3, name="i", dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda flat, x: mlp(layout.views(flat), x), (flat, x))


def test_layout_gives_back_what_was_packed_and_starts_every_matrix_on_a_boundary() -> None:
    layout = mlp_layout((7, 5, 33, 1))
    matrices = {name: normal(3, *shape, name=name) for name, shape in layout.shapes}
    flat = layout.pack(matrices)
    assert flat.shape == (3, layout.size)
    views = layout.views(flat)
    assert list(views) == ["w0", "b0", "w1", "b1", "w2", "b2"]
    taken = torch.zeros_like(flat)
    for name, view in layout.views(taken).items():
        assert torch.equal(views[name], matrices[name])
        view += 1
        for m in range(3):
            assert (views[name][m].data_ptr() - flat.data_ptr()) % 64 == 0
    assert taken.max() == 1, "two matrices share memory"
    assert taken.sum() == 3 * (7 * 5 + 5 + 5 * 33 + 33 + 33 + 1)
    views["b2"].fill_(9.0)
    assert (flat == 9.0).sum() == 3, "views must not be copies"


def test_the_flat_gradient_is_that_of_every_matrix_and_nothing_between() -> None:
    layout = mlp_layout((3, 5, 2))
    flat, x = normal(2, layout.size), normal(2, 9, 3, name="i")
    leaves = layout.leaves(flat)
    out = torch.full_like(flat, 7.0)
    layout.gradient(mlp(leaves, x).square().sum(), leaves, out)
    whole = flat.double().requires_grad_()
    (expected,) = torch.autograd.grad(mlp(layout.views(whole), x.double()).square().sum(), whole)
    inside = layout.pack({name: torch.ones(2, *shape) for name, shape in layout.shapes}).bool()
    torch.testing.assert_close(out[inside].double(), expected[inside], atol=1e-4, rtol=1e-5)
    assert (out[~inside] == 7.0).all() and (expected[~inside] == 0).all()


def test_adam_against_torch() -> None:
    flat = normal(3, 50)
    theirs = flat.double().requires_grad_()
    optimiser = torch.optim.Adam([theirs], lr=3e-3)
    adam = Adam.like(flat)
    scale = torch.logspace(-6, 2, 50)
    draw = stream(0, "test/gradients")
    for _ in range(300):
        grad = torch.randn(3, 50, generator=draw) * scale
        adam.grad.copy_(grad)
        adam.update(flat, 3e-3)
        theirs.grad = grad.double()
        optimiser.step()
    assert adam.steps == 300
    torch.testing.assert_close(flat.double(), theirs.detach(), atol=3e-5, rtol=0)
    assert (flat - normal(3, 50)).abs().mean() > 1e-2


@pytest.mark.parametrize("size", [1, 3, 48])
def test_adam_steps_a_stack_as_each_member_alone(size: int) -> None:
    """One number per member is the temperature: the kernel's vectors must not reach across members."""
    members, start = 40, normal(40, size)
    grads = normal(100, 40, size, name="g")
    stacked, adam = start.clone(), Adam.like(start)
    for grad in grads:
        adam.grad.copy_(grad)
        adam.update(stacked, 3e-4)
    for m in range(members):
        alone = start[m : m + 1].clone()
        own = Adam.like(alone)
        for grad in grads[:, m : m + 1]:
            own.grad.copy_(grad)
            own.update(alone, 3e-4)
        assert torch.equal(alone[0], stacked[m]), m


def test_softplus_and_its_slope_against_numpy() -> None:
    x = torch.linspace(-60, 60, 4001, requires_grad=True)
    y = softplus(x)
    values = x.detach().double().numpy()
    np.testing.assert_allclose(y.detach(), np.logaddexp(0, values), rtol=1e-6)
    (slope,) = torch.autograd.grad(y.sum(), x)
    # The slope is a sum of terms around 1/2, so far out it is exact to the rounding of those only.
    np.testing.assert_allclose(slope[values != 0], 1 / (1 + np.exp(-values[values != 0])), rtol=1e-5, atol=6e-8)


def test_silu_and_its_slope_against_numpy() -> None:
    x = torch.linspace(-30, 30, 4000, dtype=torch.float64).view(4, 20, 50)
    sigmoid = 1 / (1 + np.exp(-x.numpy()))
    with torch.no_grad():
        np.testing.assert_allclose(silu_(x.clone()), x.numpy() * sigmoid, rtol=1e-12)
    leaf = x.clone().requires_grad_()
    y = silu_(leaf)
    np.testing.assert_allclose(y.detach(), x.numpy() * sigmoid, rtol=1e-12)
    (slope,) = torch.autograd.grad(y, leaf, x)
    np.testing.assert_allclose(slope, x.numpy() * sigmoid * (1 + x.numpy() * (1 - sigmoid)), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("threads", [1, 3])
def test_silu_of_a_stack_is_that_of_each_member(threads: int) -> None:
    """3 x 101 x 111 numbers are no multiple of a vector's length, and enough to be shared among threads."""
    x, upstream = normal(3, 101, 111), normal(3, 101, 111, name="g")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        leaf = x.clone().requires_grad_()
        stacked = silu_(leaf)
        (slope,) = torch.autograd.grad(stacked, leaf, upstream)
        for m in range(3):
            leaf = x[m : m + 1].clone().requires_grad_()
            alone = silu_(leaf)
            assert torch.equal(stacked[m], alone[0])
            assert torch.equal(slope[m], torch.autograd.grad(alone, leaf, upstream[m : m + 1].clone())[0][0])
            with torch.no_grad():
                assert torch.equal(silu_(x.clone())[m], silu_(x[m : m + 1].clone())[0])
    finally:
        torch.set_num_threads(before)
