"""A network's step against its parts: the gradient, Adam on a copy, the target's average, the values afterwards."""

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from probes.agents import normal
from torch import Tensor

from mopo_cli.engine.streams import stream
from mopo_cli.nets.network import (
    Network,
    descend,
    descend_and_evaluate,
    descend_side_by_side,
    descend_with_input_gradient,
    start_network,
    step_and_evaluate,
)
from mopo_cli.nets.perceptron import differentiate, evaluate, gradient_by_inputs, map_members
from mopo_cli.nets.stacked import Parameters

SIZES, RATE = (5, 9, 2), 1e-2


def make(count: int = 4, sizes: tuple[int, ...] = SIZES, target: bool = True) -> Network:
    network = start_network(sizes, [stream(k, "test/weights") for k in range(count)], "cpu", target=target)
    for inside in (network.layout.views(network.target.flat) if target else {}).values():
        inside.add_(0.1)
    return network


X, GRAD, OTHER = normal(2, 11, 5, name="x"), normal(4, 11, 2, name="g"), normal(2, 7, 5, name="o")


def stepped(network: Network) -> Parameters:
    """The parameters after Adam's first step, by its formula: the rate along g / (|g| + epsilon)."""
    (evaluated,) = evaluate((network, (X,)))
    gradient = Parameters(network.layout, torch.zeros_like(network.flat))
    for u in range(len(network.flat)):
        differentiate(evaluated, u, GRAD, into=gradient)
    return Parameters(network.layout, network.flat - RATE * gradient.flat / (gradient.flat.abs() + 1e-8))


def test_a_step_is_adam_s_along_the_gradient_and_the_target_follows() -> None:
    network, before = make(), make()
    expected = stepped(before)
    (evaluated,) = evaluate((network, (X,)))
    descend(network, evaluated, GRAD, RATE, 0.2)
    torch.testing.assert_close(network.flat, expected.flat)
    torch.testing.assert_close(network.target.flat, 0.8 * before.target.flat + 0.2 * expected.flat)
    assert network.adam.steps == 1 and torch.equal(network.gradient.flat, network.adam.grad)
    descend(network, evaluated, GRAD, RATE)
    assert network.adam.steps == 2
    (
        torch.testing.assert_close(network.target.flat, 0.8 * before.target.flat + 0.2 * expected.flat),
        "without tau it rests",
    )


def test_improved_networks_are_evaluated_in_the_same_go() -> None:
    network, same, along = make(), make(), make()
    (evaluated,) = evaluate((network, (X,)))
    values = descend_and_evaluate(network, evaluated, GRAD, RATE, (OTHER,), 0.2)
    descend(same, evaluate((same, (X,)))[0], GRAD, RATE, 0.2)
    along.adam.grad.copy_(same.adam.grad)
    of_gradient = step_and_evaluate(along, RATE, (OTHER,), 0.2)
    (expected,) = evaluate((same, (OTHER,)))
    for other, out in ((network, values.out), (along, of_gradient.out)):
        assert torch.equal(other.flat, same.flat) and torch.equal(out, expected.out)
        assert torch.equal(other.target.flat, same.target.flat) and other.adam.steps == 1


def test_the_gradient_may_be_adjusted_before_the_step() -> None:
    network, before = make(), make()
    (evaluated,) = evaluate((network, (X,)))
    descend(network, evaluated, GRAD, RATE, adjust=lambda layers: layers[-1][0][..., 1:].zero_())
    now, then = network.layout.views(network.flat)["w1"], before.layout.views(before.flat)["w1"]
    assert torch.equal(now[..., 1:], then[..., 1:]) and not torch.equal(now[..., :1], then[..., :1])


def test_the_slope_is_that_before_the_step() -> None:
    network, same = make(), make()
    (evaluated,) = evaluate((network, (X,)))
    expected = gradient_by_inputs(evaluated, GRAD, slice(3, None))
    assert torch.equal(descend_with_input_gradient(network, evaluated, GRAD, RATE, slice(3, None)), expected)
    descend(same, evaluate((same, (X,)))[0], GRAD, RATE)
    assert torch.equal(network.flat, same.flat) and network.adam.steps == 1


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_side_by_side_as_one_after_another_on_any_number_of_threads(
    threads: int, use_threads: Callable[[int], None]
) -> None:
    use_threads(threads)
    pair, apart = (make(), make(2, (5, 4, 2))), (make(), make(2, (5, 4, 2)))
    requests = [(network, evaluate((network, (X,)))[0]) for network in pair]
    descend_side_by_side(*((n, e, GRAD[: len(n.flat)], RATE) for n, e in requests))
    for one, other in zip(pair, apart, strict=True):
        descend(other, evaluate((other, (X,)))[0], GRAD[: len(other.flat)], RATE)
        assert torch.equal(one.flat, other.flat) and one.adam.steps == other.adam.steps == 1


def test_a_copy_learns_by_itself() -> None:
    network = make()
    copy, start = deepcopy(network), network.flat.clone()
    descend(copy, evaluate((copy, (X,)))[0], GRAD, RATE, 0.2)
    assert torch.equal(network.flat, start) and not torch.equal(copy.flat, start) and network.adam.steps == 0


def test_what_is_not_finite_is_told_by_member() -> None:
    network = make()
    network.flat[3, 2] = torch.inf
    network.target.flat[0, 0] = torch.nan  # a target is made of the others
    assert network.finite(4).tolist() == [True, True, True, False] and network.finite(2).tolist() == [True, False]


def test_without_a_target_there_is_none() -> None:
    with pytest.raises(AssertionError):
        _ = make(target=False).target


@pytest.mark.parametrize("rows", [3, 50])
def test_by_member_and_block_every_row_has_its_value(rows: int, use_threads: Callable[[int], None]) -> None:
    """Two members, one network of one stack and two of the other."""
    single, twins = make(2), make(4, (2, 6, 1))

    def lower(first: Parameters, second: Parameters, x: Tensor) -> Tensor:
        (evaluated,) = evaluate((first, (x,)))
        return evaluate((second, (evaluated.out,)))[0].out.view(len(x), 2, -1).amin(dim=1)

    expected = lower(single, twins, X)
    for threads in (1, 3):
        use_threads(threads)
        torch.testing.assert_close(map_members(lower, (single, twins), (X,), rows), expected)
