"""GradientDICE: objective and gradients re-derived, a ratio known in closed form found."""

from collections.abc import Callable
from copy import deepcopy
from functools import cache
from itertools import product

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from probes.agents import normal, tensors
from probes.offline import perceptron
from torch import Tensor

from mopo_cli.agents.dice import Dice, Objective, Ratio, saddle, start_dice, step_dice
from mopo_cli.nets.perceptron import evaluate

GAMMA, NORM, RATE = 0.9, 0.3, 1e-3
Array = NDArray[np.float64]


def objective(tau: Array, f: Array, nu: float, gamma: float = GAMMA, norm: float = NORM) -> float:
    """One pair's, row by row: tau `[B]`, f `[3, B]` at (s, a), (s0, a0) and (s', a')."""
    total = 0.0
    for t, at, first, following in zip(tau, *f, strict=True):
        total += (1 - gamma) * first + gamma * t * following - t * at - at**2 / 2 + norm * (nu * t - nu)
    return total / len(tau) - norm * nu**2 / 2


def slope(function: Callable[[Array], float], at: Array) -> Array:
    """Central differences; exact for a quadratic but for rounding."""
    result = np.zeros_like(at)
    for place in np.ndindex(at.shape):
        step = np.zeros_like(at)
        step[place] = 1e-3
        result[place] = (function(at + step) - function(at - step)) / 2e-3
    return result


@pytest.mark.parametrize(("gamma", "norm"), [(0.9, 0.3), (0.5, 2.0), (0.0, 0.0)])
def test_the_objective_and_its_gradients_by_numpy(gamma: float, norm: float) -> None:
    tau, f, nu = (normal(*s, name=n).double() for s, n in (((2, 5), "tau"), ((2, 3, 5), "f"), ((2, 1), "nu")))
    result = saddle(tau, f, nu, gamma, norm)
    for k in range(2):
        t, g, n = tau[k].numpy(), f[k].numpy(), nu[k].numpy()
        assert result.value[k].item() == pytest.approx(objective(t, g, n[0], gamma, norm), rel=1e-9)
        expected = Objective(
            torch.zeros(()),
            torch.from_numpy(slope(lambda x: objective(x, g, n[0], gamma, norm), t)),  # noqa: B023
            torch.from_numpy(slope(lambda x: objective(t, x, n[0], gamma, norm), g)),  # noqa: B023
            torch.from_numpy(slope(lambda x: objective(t, g, x[0], gamma, norm), n)),  # noqa: B023
        )
        for name in ("by_tau", "by_f", "by_nu"):
            torch.testing.assert_close(getattr(result, name)[k], getattr(expected, name), atol=1e-9, rtol=1e-7)


def make_dice(seeds: list[int], networks: int = 2, inputs: int = 5) -> Dice:
    """Pairs some way into training: no bias is 0, no nu is."""
    dice = start_dice(inputs, networks, seeds, "cpu")
    for name in ("tau", "f", "nu"):
        for k, tensor in enumerate(tensors(dice)[name]):
            tensor += 0.1 * normal(len(tensor), name=f"{name}/{seeds[k // networks]}/{k % networks}")
    return dice


def make_batch(seeds: list[int], networks: int = 2, inputs: int = 5, rows: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    at, first = (torch.stack([normal(rows, inputs, name=f"{name}/{s}") for s in seeds]) for name in ("at", "first"))
    ahead = [normal(rows, inputs, name=f"ahead/{s}/{k}") for s in seeds for k in range(networks)]
    return at, first, torch.stack(ahead)


def test_a_step_goes_down_in_tau_and_up_in_f_and_nu_along_the_gradients_of_autograd() -> None:
    dice, (at, first, ahead) = make_dice([0, 3]), make_batch([0, 3])
    before = deepcopy((dice.tau.flat, dice.f.flat, dice.nu))
    values = step_dice(dice, at, first, ahead, GAMMA, NORM, RATE)
    for k in range(4):
        tau, f = (
            {name: view[k].double().requires_grad_() for name, view in dice.tau.layout.views(flat).items()}
            for flat in before[:2]
        )
        nu = before[2][k].double().requires_grad_()
        x, x0, x1 = (part.double() for part in (at[k // 2], first[k // 2], ahead[k]))
        t, g = perceptron(tau, x)[:, 0], perceptron(f, x)[:, 0]
        rows = (1 - GAMMA) * perceptron(f, x0)[:, 0] + GAMMA * t * perceptron(f, x1)[:, 0] - t * g - g * g / 2
        value = rows.mean() + NORM * ((nu * t - nu).mean() - nu[0] ** 2 / 2)
        assert values[k].item() == pytest.approx(value.item(), rel=1e-4, abs=1e-6)
        for params, adam, after, old, sign in (
            (tau, dice.tau.adam, dice.tau.flat, before[0], 1),
            (f, dice.f.adam, dice.f.flat, before[1], -1),
            ({"nu": nu}, dice.nu_adam, dice.nu, before[2], -1),
        ):
            grads = dict(zip(params, torch.autograd.grad(value, list(params.values()), retain_graph=True), strict=True))
            named = (lambda flat: {"nu": flat}) if "nu" in params else dice.tau.layout.views
            for name, grad in grads.items():
                torch.testing.assert_close(named(adam.grad)[name][k], sign * grad.float(), atol=1e-6, rtol=1e-4)
                moved, sure = named(after - old)[name][k], grad.abs() > 1e-5  # there Adam's epsilon does not count
                torch.testing.assert_close(moved[sure], -sign * RATE * grad[sure].sign().float(), rtol=0.02, atol=1e-7)
    assert [adam.steps for adam in (dice.tau.adam, dice.f.adam, dice.nu_adam)] == [1, 1, 1]


# A process of four states and two actions that two networks see differently: where each leads from (s, a), how the
# policy acts, and how often the data have (s, a). Its s0 are the data's states.
LEADS = np.array([[[1, 2], [2, 3], [3, 0], [0, 1]], [[0, 1], [1, 0], [2, 3], [3, 2]]])
POLICY = np.array([[0.25, 0.75], [0.5, 0.5], [0.75, 0.25], [0.25, 0.75]])
COUNTS = np.array([[1, 2], [2, 2], [2, 1], [1, 2]])
DISCOUNT = 0.8


def true_ratios() -> Array:
    """`[2, 8]`: (1 - gamma) sum of gamma^t P(s_t, a_t) in each network, over the data's share of (s, a)."""
    data = COUNTS / COUNTS.sum()
    start = (data.sum(axis=1)[:, None] * POLICY).ravel()
    ratios = []
    for lead in LEADS:
        moves = np.zeros((8, 8))
        for s, a, following in product(range(4), range(2), range(2)):
            moves[2 * s + a, 2 * lead[s, a] + following] = POLICY[lead[s, a], following]
        visits = (1 - DISCOUNT) * np.linalg.solve(np.eye(8) - DISCOUNT * moves.T, start)
        ratios.append(visits / data.ravel())
    return np.array(ratios)


def cells() -> NDArray[np.int64]:
    """Rows whose frequencies are the probabilities: the cells 2 s + a of (s, a), (s0, a0), and (s', a') of each."""

    def act(state: int, turn: int) -> int:
        return 2 * state + int(turn >= 4 * POLICY[state, 0])

    return np.array(
        [
            (2 * s + a, act(s, turn), *(act(lead[s, a], turn) for lead in LEADS))
            for s, a in product(range(4), range(2))
            for _ in range(COUNTS[s, a])
            for turn in range(4)
        ]
    )


def test_the_true_ratio_is_the_saddle_point() -> None:
    """With f = 0 and nu = 0 nothing moves there, and with another tau something does."""
    rows, true = cells(), true_ratios()
    assert (true * COUNTS.ravel()).sum(axis=1) == pytest.approx(COUNTS.sum()) and true.min() < 0.5 < 1.5 < true.max()
    assert np.abs(true[0] - true[1]).max() > 0.3
    f, nu = torch.zeros(2, 3, len(rows)).double(), torch.zeros(2, 1).double()

    def slopes(ratios: Array) -> tuple[float, float]:
        result = saddle(torch.from_numpy(ratios[:, rows[:, 0]]), f, nu, DISCOUNT, 1.0)
        by_cell = np.zeros((2, 8))
        for k, (place, asked) in product(range(2), enumerate((rows[:, 0], rows[:, 1], None))):
            np.add.at(by_cell[k], rows[:, 2 + k] if asked is None else asked, result.by_f[k, place].numpy())
        assert result.by_tau.abs().max() == 0
        return np.abs(by_cell).max(), float(result.by_nu.abs().max())

    assert max(slopes(true)) < 1e-12
    assert slopes(true[::-1].copy())[0] > 0.01 and slopes(1.1 * true)[1] > 0.05


@cache
def learned() -> tuple[Array, Array]:
    """The ratios `[2, 8]` that two pairs of networks learn in the process above, averaged over the later steps.

    Steps that are simultaneous, with Adam's momentum, go round the saddle point: the average is at its centre.
    Also the last ones.
    """
    codes, rows = 3 * torch.eye(8), torch.from_numpy(cells())
    at, first, ahead = codes[rows[:, 0]][None], codes[rows[:, 1]][None], codes[rows[:, 2:].T]
    dice, total, steps = start_dice(8, 2, [0], "cpu"), np.zeros((2, 8)), 3000
    for i in range(steps):
        step_dice(dice, at, first, ahead, DISCOUNT, 0.1, 3e-4 * 0.3 ** (i / steps))
        if i >= steps // 3 and i % 5 == 0:
            total += evaluate((dice.tau, (codes[None],)))[0].out[..., 0].double().numpy()
    last = evaluate((dice.tau, (codes[None],)))[0].out[..., 0].double().numpy()
    return total / (steps - steps // 3) * 5, last


def test_the_ratio_of_a_small_process_is_learned() -> None:
    true, (result, last) = true_ratios(), learned()
    np.testing.assert_allclose(result, true, rtol=0.05)
    assert np.abs(last / true - 1).max() < 0.4
    # By the policy's visits weighted, so by the data's counts, the ratio is 1.
    np.testing.assert_allclose((result * COUNTS.ravel()).sum(axis=1) / COUNTS.sum(), 1, rtol=0.02)


def test_a_seed_starts_with_the_same_pairs_wherever_it_stands() -> None:
    both, alone = start_dice(5, 3, [4, 8], "cpu"), start_dice(5, 3, [8], "cpu")
    assert torch.equal(both.tau.flat[3:], alone.tau.flat) and torch.equal(both.f.flat[3:], alone.f.flat)
    assert len({tuple(flat.tolist()) for flat in torch.cat([both.tau.flat, both.f.flat])}) == 12
    views = both.tau.layout.views(both.tau.flat)
    assert [tuple(views[name].shape[1:]) for name in ("w0", "w1", "w2")] == [(5, 64), (64, 64), (64, 1)]
    assert (both.nu == 0).all() and (views["b0"] == 0).all()


def test_what_is_not_a_number_stays_in_its_pair() -> None:
    healthy, broken, (at, first, ahead) = make_dice([0, 1]), make_dice([0, 1]), make_batch([0, 1])
    spoilt = ahead.clone()
    spoilt[2, 3, 1] = torch.nan
    for _ in range(2):
        step_dice(healthy, at, first, ahead, GAMMA, NORM, RATE)
        step_dice(broken, at, first, spoilt, GAMMA, NORM, RATE)
    for name in ("tau", "f"):
        assert torch.isnan(tensors(broken)[name][2]).any(), name
    for name in ("tau", "f", "nu"):
        assert torch.equal(tensors(broken)[name][[0, 1, 3]], tensors(healthy)[name][[0, 1, 3]]), name


def test_a_row_s_ratio_is_that_of_the_network_which_drew_it() -> None:
    dice, mean, std = make_dice([0], networks=3), normal(5, name="mean"), normal(5, name="std").exp()
    ratio = Ratio(dice.tau.flat, dice.tau.layout, mean, std, torch.tensor([4, 0, 2]))
    observation, action = normal(40, 3, name="s"), normal(40, 2, name="a")
    network = 2 * (torch.arange(40) % 3)
    network[network == 0] = 2  # one draws nothing
    result = ratio(observation, action, network)
    x = (torch.cat([observation, action], dim=1).double() - mean) / std
    for place, k in ((0, 4), (2, 2)):
        params = {name: view[place].double() for name, view in dice.tau.layout.views(dice.tau.flat).items()}
        torch.testing.assert_close(
            result[network == k], perceptron(params, x[network == k])[:, 0].float(), rtol=1e-4, atol=1e-5
        )
    assert ratio(observation[:0], action[:0], network[:0]).shape == (0,)
