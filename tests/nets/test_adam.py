"""Adam against torch's and against its own formula; a member of a stack is stepped as it would be alone."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from probes.agents import normal
from torch import Tensor

from mopo_cli.nets.adam import Adam


def stepped(flat: Tensor, grads: Tensor, decay: Tensor | None = None, rate: float = 3e-4) -> tuple[Tensor, Adam]:
    """Parameters after one step along each gradient."""
    flat, adam = flat.clone(), Adam.like(flat)
    for grad in grads:
        adam.grad.copy_(grad)
        adam.update(flat, rate, decay)
    return flat, adam


@pytest.mark.parametrize("decayed", [False, True])
def test_adam_against_torch(decayed: bool) -> None:
    """Decay is that of the loss, d / 2 w^2, and not AdamW's; every parameter has its own."""
    flat = normal(3, 50)
    decay = torch.linspace(0, 3.0, 50) if decayed else None
    theirs = flat.double().requires_grad_()
    optimiser = torch.optim.Adam([theirs], lr=3e-3)
    grads = normal(300, 3, 50, name="gradients") * torch.logspace(-6, 2, 50)
    result, adam = stepped(flat, grads, decay, 3e-3)
    for grad in grads:
        loss = (theirs * grad.double()).sum()
        if decay is not None:
            loss = loss + (0.5 * decay.double() * theirs.square()).sum()
        (theirs.grad,) = torch.autograd.grad(loss, theirs)
        optimiser.step()
    assert adam.steps == 300
    torch.testing.assert_close(result.double(), theirs.detach(), atol=3e-5, rtol=0)
    assert (result - flat).abs().mean() > 1e-2


def test_each_step_is_of_the_parameters_it_is_given() -> None:
    flat, other, grad = normal(3, 50), normal(3, 50, name="other"), normal(3, 50, name="g")
    adam, before = Adam.like(flat), other.clone()
    adam.grad.copy_(grad)
    adam.update(flat, 0.1)
    once = flat.clone()
    adam.update(other, 0.1)
    assert torch.equal(flat, once)
    torch.testing.assert_close(before - other, 0.1 * grad.sign(), atol=1e-4, rtol=0)


def test_two_steps_by_hand() -> None:
    """Kingma & Ba 2015, algorithm 1, in numpy."""
    flat, grads, decay = normal(2, 7), normal(2, 2, 7, name="g"), torch.linspace(0, 1, 7)
    result, adam = stepped(flat, grads, decay, 0.1)
    w, first, second = flat.double().numpy(), 0.0, 0.0
    for t, raw in enumerate(grads.double().numpy(), 1):
        g = raw + decay.double().numpy() * w
        first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g**2
        w = w - 0.1 * first / (1 - 0.9**t) / (np.sqrt(second / (1 - 0.999**t)) + 1e-8)
    np.testing.assert_allclose(result, w, atol=1e-6)
    np.testing.assert_allclose(adam.first, first, atol=1e-6)
    np.testing.assert_allclose(adam.second, second, rtol=1e-4)


@pytest.mark.parametrize("decayed", [False, True])
@pytest.mark.parametrize("size", [1, 3, 48])
def test_a_stack_is_stepped_as_each_member_alone_with_any_number_of_threads(
    size: int, decayed: bool, use_threads: Callable[[int], None]
) -> None:
    """One number per member is the temperature: the kernel's vectors must not reach across members."""
    members, start, grads = 40, normal(40, size), normal(100, 40, size, name="g")
    decay = torch.linspace(0.1, 1, size) if decayed else None
    stacked, adam = stepped(start, grads, decay)
    for m in range(members):
        alone, adam_alone = stepped(start[m : m + 1], grads[:, m : m + 1], decay)
        for one, all_ in ((alone, stacked), (adam_alone.first, adam.first), (adam_alone.second, adam.second)):
            assert torch.equal(one[0], all_[m]), m
    for count in (2, 3):
        use_threads(count)
        again, other = stepped(start, grads, decay)
        assert torch.equal(again, stacked) and torch.equal(other.second, adam.second) and other.steps == adam.steps


def test_a_unit_s_step_touches_that_unit_alone_and_was_counted_before() -> None:
    flat, adam = normal(4, 9), Adam.like(normal(4, 9))
    adam.grad.copy_(normal(4, 9, name="g"))
    decay = torch.full((9,), 0.5)
    expected, given = flat.clone(), adam.grad.clone()
    adam.steps += 1
    for u in (2, 0):
        adam.step(u, flat, 0.01, decay)
    assert adam.steps == 1
    for u in (1, 3):
        assert torch.equal(flat[u], expected[u]) and torch.equal(adam.grad[u], given[u])
        assert (adam.first[u] == 0).all() and (adam.second[u] == 0).all()
    for u in (3, 1):
        adam.step(u, flat, 0.01, decay)
    whole, other = stepped(expected, given[None], decay, 0.01)
    assert torch.equal(flat, whole) and torch.equal(adam.first, other.first)
    assert torch.equal(adam.second, other.second) and adam.steps == other.steps == 1


def test_what_is_not_a_number_stays_in_its_member() -> None:
    grads = normal(5, 3, 20, name="g")
    expected, _ = stepped(normal(3, 20), grads)
    grads[2, 1, 4] = torch.nan
    result, _ = stepped(normal(3, 20), grads)
    assert result[1, 4].isnan() and torch.equal(result[[0, 2]], expected[[0, 2]])


def test_restored_it_goes_on_as_if_never_stopped() -> None:
    start, grads = normal(3, 20), normal(9, 3, 20, name="g")
    expected, whole = stepped(start, grads)
    flat, before = stepped(start, grads[:4])
    adam = Adam.like(flat)
    memory = [adam.first.data_ptr(), adam.second.data_ptr(), adam.grad.data_ptr()]
    adam.restore(before.first, before.second, int(before.steps))
    assert memory == [adam.first.data_ptr(), adam.second.data_ptr(), adam.grad.data_ptr()], "views of it stay true"
    before.first.fill_(torch.nan)
    before.second.fill_(torch.nan)
    for grad in grads[4:]:
        adam.grad.copy_(grad)
        adam.update(flat, 3e-4)
    assert torch.equal(flat, expected) and torch.equal(adam.second, whole.second) and adam.steps == whole.steps == 9


def test_a_fresh_one_has_zero_moments_of_its_own() -> None:
    flat = normal(3, 20)
    adam = Adam.like(flat)
    state = adam.first, adam.second, adam.grad
    assert adam.steps == 0 and all(tensor.shape == flat.shape and (tensor == 0).all() for tensor in state)
    assert len({tensor.data_ptr() for tensor in (*state, flat)}) == 4
