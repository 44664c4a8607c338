"""Perceptrons against numpy and plain autograd in float64, and as bits: alone, in a stack, on several threads."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from probes.agents import normal
from torch import Tensor

from mopo_cli.nets.perceptron import (
    collect,
    differentiate,
    evaluate,
    forward,
    gradient_by_inputs,
    predict,
    unit_gradient_by_inputs,
)
from mopo_cli.nets.stacked import Layout, Parameters, mlp_layout

SIZES = [(5, 3), (6, 7, 1), (5, 33, 9, 2), (17, 32, 32, 6)]


def networks(count: int, sizes: tuple[int, ...], name: str = "x") -> Parameters:
    """Weights at which the values are about 1."""
    layout = mlp_layout(sizes)
    flat = normal(count, layout.size, name=name)
    for key, view in layout.views(flat).items():
        if key.startswith("w"):
            view *= (2 / view.shape[1]) ** 0.5
    return Parameters(layout, flat)


def plain(layout: Layout, flat: Tensor, x: Tensor) -> Tensor:
    """Every network at its own inputs, with autograd: `[M, B, in]` -> `[M, B, out]`."""
    views, depth = layout.views(flat), len(layout.shapes) // 2
    for i in range(depth):
        x = torch.einsum("mbi,mio->mbo", x, views[f"w{i}"]) + views[f"b{i}"]
        x = x.clamp(min=0) if i < depth - 1 else x
    return x


def gradients(of: Parameters, x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """By the parameters and by the inputs of every network, in float64."""
    flat, inputs = of.flat.double().requires_grad_(), x.double().requires_grad_()
    by_flat, by_inputs = torch.autograd.grad((plain(of.layout, flat, inputs) * grad.double()).sum(), (flat, inputs))
    return by_flat, by_inputs


@pytest.mark.parametrize("sizes", SIZES)
def test_values_and_gradients_against_plain_autograd(sizes: tuple[int, ...]) -> None:
    of, x, grad = networks(3, sizes), normal(3, 37, sizes[0], name="i"), normal(3, 37, sizes[-1], name="g")
    given = [tensor.clone() for tensor in (of.flat, x, grad)]
    (evaluated,) = evaluate((of, (x,)))
    expected = plain(of.layout, of.flat.double(), x.double())
    torch.testing.assert_close(evaluated.out.double(), expected, atol=1e-5, rtol=1e-5)
    by_flat, by_inputs = gradients(of, x, grad)
    into = Parameters(of.layout, torch.full_like(of.flat, 7.0))
    for _ in range(2):  # nothing is used up
        by_first = [differentiate(evaluated, u, grad, into) for u in range(3)]
        inside = of.layout.pack({name: torch.ones(3, *shape) for name, shape in of.layout.shapes}).bool()
        torch.testing.assert_close(into.flat[inside].double(), by_flat[inside], atol=2e-5, rtol=1e-4)
        assert (into.flat[~inside] == 7.0).all()
        for first in (0, 2):
            slope = gradient_by_inputs(evaluated, grad, slice(first, None))
            torch.testing.assert_close(slope.double(), by_inputs[..., first:], atol=1e-5, rtol=1e-4)
            for u in range(3):
                assert torch.equal(unit_gradient_by_inputs(evaluated, u, by_first[u], slice(first, None)), slope[u])
    assert all(torch.equal(now, before) for now, before in zip((of.flat, x, grad), given, strict=True))


def test_values_against_numpy_by_hand() -> None:
    layout = mlp_layout((2, 2, 1))
    w0, b0, w1, b1 = [[1.0, -1.0], [2.0, 0.5]], [[0.5, -1.0]], [[3.0], [-2.0]], [[0.25]]
    flat = layout.pack(
        {"w0": torch.tensor([w0]), "b0": torch.tensor([b0]), "w1": torch.tensor([w1]), "b1": torch.tensor([b1])}
    )
    (result,) = evaluate((Parameters(layout, flat), (torch.tensor([[[1.0, 1.0], [-4.0, 1.0]]]),)))
    # Row 1: hidden 3.5 and -1.5 -> 0; row 2: -1.5 -> 0 and 3.5.
    assert result.out.flatten().tolist() == [3 * 3.5 + 0.25, -2 * 3.5 + 0.25]


def test_consecutive_networks_look_at_the_same_inputs_put_next_to_one_another() -> None:
    """Three agents with two critics each, of observations and actions that lie in wider rows."""
    of, rows = networks(6, (7, 20, 1)), normal(3, 25, 16, name="rows")
    observation, action = rows[..., 1:5], rows[..., 9:12]
    (evaluated,) = evaluate((of, (observation, action)))
    x = torch.cat([observation, action], dim=-1).repeat_interleave(2, dim=0)
    grad = normal(6, 25, 1, name="g")
    assert evaluated.out.shape == (6, 25, 1)
    torch.testing.assert_close(
        evaluated.out.double(), plain(of.layout, of.flat.double(), x.double()), atol=1e-5, rtol=0
    )
    by_flat, by_inputs = gradients(of, x, grad)
    into = Parameters(of.layout, torch.zeros_like(of.flat))
    for u in range(6):
        differentiate(evaluated, u, grad, into)
    torch.testing.assert_close(into.flat.double(), by_flat, atol=1e-5, rtol=1e-4)
    by_action = gradient_by_inputs(evaluated, grad, slice(4, None))
    assert by_action.shape == (6, 25, 3)
    torch.testing.assert_close(by_action.double(), by_inputs[..., 4:], atol=1e-5, rtol=1e-4)


def test_stacks_side_by_side_are_each_as_by_themselves(use_threads: Callable[[int], None]) -> None:
    """Of different sizes and numbers of networks, so that none can be taken for another."""
    asked = [
        (networks(2, (4, 9, 3), name="a"), (normal(2, 11, 4, name="i"),)),
        (networks(4, (6, 8, 8, 1), name="b"), (normal(2, 11, 4, name="j"), normal(2, 11, 2, name="k"))),
        (networks(1, (4, 2), name="c"), (normal(1, 30, 4, name="l"),)),
    ]
    for count in (1, 3):
        use_threads(count)
        result = evaluate(*asked)
        assert len(result) == 3
        for together, (of, inputs) in zip(result, asked, strict=True):
            assert together.networks is of
            (alone,) = evaluate((of, inputs))
            assert torch.equal(together.out, alone.out)
            x = torch.cat(inputs, dim=-1).repeat_interleave(len(of.flat) // len(inputs[0]), dim=0)
            torch.testing.assert_close(
                together.out.double(), plain(of.layout, of.flat.double(), x.double()), atol=1e-5, rtol=0
            )


def test_forward_and_collect_are_evaluate_in_two_steps() -> None:
    of, x, grad = networks(4, (5, 8, 2)), normal(2, 9, 5, name="i"), normal(4, 9, 2, name="g")
    (expected,) = evaluate((of, (x,)))
    result = collect(of, [forward(of, u, (x,)) for u in range(4)])
    assert torch.equal(result.out, expected.out) and result.networks is of
    assert torch.equal(
        gradient_by_inputs(result, grad, slice(0, None)), gradient_by_inputs(expected, grad, slice(0, None))
    )


def everything(of: Parameters, x: tuple[Tensor, ...], grad: Tensor) -> list[Tensor]:
    (evaluated,) = evaluate((of, x))
    into = Parameters(of.layout, torch.zeros_like(of.flat))
    for u in range(len(of.flat)):
        differentiate(evaluated, u, grad, into)
    return [
        evaluated.out,
        into.flat,
        gradient_by_inputs(evaluated, grad, slice(0, None)),
        gradient_by_inputs(evaluated, grad, slice(3, None)),
    ]


@pytest.mark.parametrize(
    ("batch", "sizes"), [(37, (6, 7, 1)), (1, (5, 33, 9, 2)), (256, (17, 32, 32, 6)), (13, (5, 3)), (1, (5, 9, 17))]
)
def test_a_member_is_bit_for_bit_the_same_alone_and_on_any_number_of_threads(
    batch: int, sizes: tuple[int, ...], use_threads: Callable[[int], None]
) -> None:
    """Three members with two networks each, in rows that start on no boundary."""
    of, rows = networks(6, sizes), normal(3, batch, sizes[0] + 4, name="i")
    x, grad = (rows[..., 1:4], rows[..., 5 : sizes[0] + 2]), normal(6, batch, sizes[-1], name="g")
    expected = everything(of, x, grad)
    for m in range(3):
        span = slice(2 * m, 2 * m + 2)
        alone = Parameters(of.layout, of.flat[span].clone())
        columns = tuple(part[m : m + 1].clone() for part in x)
        for single, stack in zip(everything(alone, columns, grad[span].clone()), expected, strict=True):
            assert torch.equal(single, stack[span])
    for count in (2, 3):
        use_threads(count)
        for _ in range(5):
            for again, once in zip(everything(of, x, grad), expected, strict=True):
                assert torch.equal(again, once)


def test_a_unit_that_is_off_has_no_slope_not_even_at_zero() -> None:
    of = networks(1, (3, 4, 2))
    for tensor in of.parts[0].values():
        tensor.abs_()
    of.parts[0]["w0"][:, 1], of.parts[0]["b0"][:, 1] = 0.0, 0.0
    x, grad = normal(1, 8, 3, name="i").abs(), torch.ones(1, 8, 2)
    (evaluated,) = evaluate((of, (x,)))
    into = Parameters(of.layout, torch.full_like(of.flat, 7.0))
    differentiate(evaluated, 0, grad, into)
    result = into.parts[0]
    assert (result["w0"][:, 1] == 0).all() and (result["w0"][:, [0, 2, 3]] > 0).all()
    assert (result["w1"][1] == 0).all() and result["b0"][0, 1] == 0
    slope = gradient_by_inputs(evaluated, grad, slice(0, None))
    of.parts[0]["w1"][1] = 100.0  # of the unit that is off
    assert torch.equal(gradient_by_inputs(evaluated, grad, slice(0, None)), slope)


@pytest.mark.parametrize("rows", [0, 1, 37, 1024, 1025, 2500])
def test_predict_gives_every_row_its_value(rows: int, use_threads: Callable[[int], None]) -> None:
    of, x = networks(1, (5, 20, 3)), normal(rows + 1, 5, name="i")[1:]
    result = predict(of, x)
    assert result.shape == (rows, 3)
    expected = plain(of.layout, of.flat.double(), x.double()[None])[0]
    np.testing.assert_allclose(result, expected, atol=1e-5)
    for count in (2, 3):
        use_threads(count)
        assert torch.equal(predict(of, x), result)


def test_a_row_s_prediction_is_the_same_in_any_tensor() -> None:
    """As many rows in a wider tensor, off a boundary, or transposed are still the same rows."""
    of, x = networks(1, (5, 20, 3)), normal(1500, 5, name="i")
    wide = torch.zeros(1500, 12)
    wide[:, 3:8] = x
    assert torch.equal(predict(of, wide[:, 3:8]), predict(of, x))
    assert torch.equal(predict(of, x.t().contiguous().t()), predict(of, x))
