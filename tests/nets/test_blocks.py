"""Many rows differentiated block by block are the same rows differentiated at once, on any number of threads."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from probes.agents import normal
from torch import Tensor

from mopo_cli.nets import perceptron
from mopo_cli.nets.perceptron import Term, block_count, differentiate, differentiate_terms, evaluate
from mopo_cli.nets.stacked import Parameters, mlp_layout

Array = NDArray[np.float32]
SIZES = (7, 20, 9, 1)
ROWS = (5, 31, 1, 64)


def networks(count: int) -> Parameters:
    layout = mlp_layout(SIZES)
    return Parameters(layout, 0.4 * normal(count, layout.size, name="w"))


def asked(members: int) -> list[tuple[Tensor, Tensor]]:
    return [(normal(members, n, 4, name=f"s{n}"), normal(members, n, 3, name=f"a{n}")) for n in ROWS]


def learn(of: Parameters, blocks: list[tuple[Tensor, Tensor]]) -> tuple[list[Tensor], Tensor]:
    into = Parameters(of.layout, torch.full_like(of.flat, 7.0))
    # The k-th term of the loss is the sum of k + 1 times the values' cubes.
    terms = [Term(inputs, (), lambda values, k=k: 3 * (k + 1) * values.square()) for k, inputs in enumerate(blocks)]
    values = differentiate_terms(of, terms, into)
    return values, into.flat


@pytest.mark.parametrize("members", [1, 3])
def test_values_and_gradient_are_those_of_all_rows_at_once(members: int) -> None:
    """Two networks look at the same rows, as twin critics do."""
    of, blocks = networks(2 * members), asked(members)
    values, gradient = learn(of, blocks)
    (whole,) = evaluate((of, tuple(torch.cat(parts, dim=1) for parts in zip(*blocks, strict=True))))
    torch.testing.assert_close(torch.cat(values, dim=1), whole.out, atol=1e-6, rtol=1e-5)
    weight = torch.cat([torch.full((n, 1), 3.0 * (k + 1)) for k, n in enumerate(ROWS)])
    expected = Parameters(of.layout, torch.zeros_like(of.flat))
    for u in range(2 * members):
        differentiate(whole, u, weight * whole.out.square(), into=expected)
    torch.testing.assert_close(gradient, expected.flat, atol=1e-4, rtol=1e-4)
    assert gradient.abs().max() > 1


def test_a_network_is_given_its_own_share_of_the_columns() -> None:
    of, blocks, weights = networks(4), asked(2), normal(4, 1, 1, name="weight")
    into = Parameters(of.layout, torch.zeros_like(of.flat))
    weighted = [Term(inputs, (weights,), lambda values, weight: weight.expand_as(values)) for inputs in blocks]
    differentiate_terms(of, weighted, into)
    ones = Parameters(of.layout, torch.zeros_like(of.flat))
    differentiate_terms(of, [Term(inputs, (), torch.ones_like) for inputs in blocks], ones)
    torch.testing.assert_close(into.flat, weights[:, 0] * ones.flat, atol=1e-5, rtol=1e-5)


def test_alone_as_in_a_stack_bit_for_bit_on_any_number_of_threads(use_threads: Callable[[int], None]) -> None:
    of, blocks = networks(6), asked(3)
    values, gradient = learn(of, blocks)
    for m in range(3):
        rows = slice(2 * m, 2 * m + 2)
        alone = Parameters(of.layout, of.flat[rows].clone())
        their_values, theirs = learn(alone, [(s[m : m + 1].clone(), a[m : m + 1].clone()) for s, a in blocks])
        assert torch.equal(theirs, gradient[rows])
        assert all(torch.equal(one, all_of[rows]) for one, all_of in zip(their_values, values, strict=True))
    for threads in (2, 3):
        use_threads(threads)
        again, same = learn(of, blocks)
        assert torch.equal(same, gradient) and all(torch.equal(*pair) for pair in zip(again, values, strict=True))


def test_a_whole_stack_at_once_as_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    of, blocks = networks(4), asked(2)
    values, gradient = learn(of, blocks)
    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda _: True))
    together, theirs = learn(networks(4), blocks)
    torch.testing.assert_close(theirs, gradient, atol=1e-4, rtol=1e-4)
    for one, other in zip(together, values, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_blocks_are_of_about_the_size_that_suits_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perceptron, "_CPU_BLOCK", 100)
    here = torch.zeros(1)
    assert [block_count(rows, here) for rows in (0, 1, 100, 101, 1000)] == [1, 1, 1, 2, 10]
    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda _: True))
    assert block_count(1000, here) == 1
