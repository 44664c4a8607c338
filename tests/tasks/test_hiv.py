"""The HIV treatment against another solver, the totals of known therapies, and what it is as an environment."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.integrate import solve_ivp

from mopo_cli.evaluation.play import open_environments

Floats = NDArray[np.float64]
FULL = np.array([0.7, 0.3])
START = [1e6, 1e-4, 3198, 1e-4, 1, 10]  # T1, T1*, T2, T2*, V, E


def rates(_time: float, x: Floats, e1: float, e2: float) -> list[float]:
    """Adams et al. 2004, written out in cells and copies per millilitre."""
    t1, s1, t2, s2, v, e = x
    new1, new2 = (1 - e1) * 8e-7 * v * t1, (1 - 0.34 * e1) * 1e-4 * v * t2
    i = s1 + s2
    return [
        1e4 - 0.01 * t1 - new1,
        new1 - 0.7 * s1 - 1e-5 * e * s1,
        31.98 - 0.01 * t2 - new2,
        new2 - 0.7 * s2 - 1e-5 * e * s2,
        (1 - e2) * 100 * 0.7 * i - 13 * v - new1 - new2,
        1 + 0.3 * i / (i + 100) * e - 0.25 * i / (i + 500) * e - 0.1 * e,
    ]


def play(doses: NDArray[Any], **kwargs: float) -> tuple[Floats, Floats]:
    """States `[T + 1, 6]`, no longer logarithms, and rewards `[T]`."""
    with open_environments("mopo/HIVTreatment-v0", 1, kwargs) as (environment,):
        observations, rewards = [environment.reset(seed=0)[0]], []
        for k, dose in enumerate(doses.astype(np.float32)):
            observation, reward, terminated, truncated, _ = environment.step(dose)
            observations.append(observation)
            rewards.append(reward)
            assert not terminated and truncated == (k == 399)
    return np.exp(observations), np.array(rewards)


def total(doses: Floats) -> float:
    return float(play(doses, reward_unit=1.0)[1].sum())


def constant(dose: Floats) -> Floats:
    return np.tile(dose, (400, 1))


THERAPIES: dict[str, Callable[[np.random.Generator], Floats]] = {
    "uniform": lambda draw: draw.uniform(0, FULL, (25, 2)),
    "on and off": lambda draw: draw.integers(0, 2, (25, 2)) * FULL,
    "full": lambda _: np.tile(FULL, (40, 1)),
    "none": lambda _: np.zeros((40, 2)),
}


@pytest.mark.parametrize("therapy", THERAPIES)
def test_a_trajectory_is_that_of_an_implicit_solver_in_the_states_themselves(therapy: str) -> None:
    doses = THERAPIES[therapy](np.random.default_rng(0)).astype(np.float32).astype(float)
    result, state = play(doses)[0], np.array(START, float)
    expected = [state]
    for dose in np.minimum(doses, FULL):
        # A Runge-Kutta method of Radau's at 1e-10; the environment steps by LSODA on logarithms.
        solved = solve_ivp(rates, (0, 1), state, "Radau", args=tuple(dose), rtol=1e-10, atol=1e-10 * state)
        state = solved.y[:, -1]
        expected.append(state)
    assert np.abs(np.log(result) - np.log(expected)).max() < 1e-6
    assert (np.ptp(np.log(result), axis=0) > 0.3).all(), "every state moves"


def test_the_reward_is_that_of_the_day_s_end_in_its_unit() -> None:
    doses = np.random.default_rng(1).uniform(0, FULL, (20, 2)).astype(np.float32)
    states, rewards = play(doses)
    exact = doses.astype(float)
    raw = 1000 * states[1:, 5] - 0.1 * states[1:, 4] - 20000 * exact[:, 0] ** 2 - 20000 * exact[:, 1] ** 2
    assert rewards == pytest.approx(1e-6 * raw, rel=1e-12)
    assert play(doses, reward_unit=1e-3)[1] == pytest.approx(1e-3 * raw, rel=1e-12)


def test_the_totals_of_known_therapies() -> None:
    """Whole episodes in the raw unit: 1.9e7 for constant full doses, 6.9e6 for none."""
    assert total(constant(FULL)) == pytest.approx(1.8787e7, rel=1e-4)
    assert total(constant(np.zeros(2))) == pytest.approx(6.9465e6, rel=1e-4)


def test_the_totals_of_random_therapies() -> None:
    """Uniform doses return 9.3e6, spread 1.3e6; drugs on or off at random 1.33e7, spread 3.8e6 (256 episodes each)."""
    draw = np.random.default_rng(2)
    uniform = [total(draw.uniform(0, FULL, (400, 2))) for _ in range(4)]
    assert np.mean(uniform) == pytest.approx(9.3e6, abs=4 * 1.3e6 / 3)
    assert min(uniform) > 6.5e6 and max(uniform) < 2.5e7
    switched = [total(draw.integers(0, 2, (400, 2)) * FULL) for _ in range(4)]
    assert np.mean(switched) == pytest.approx(1.33e7, abs=4 * 3.8e6 / 3)


def test_every_episode_starts_alike_and_doses_beyond_the_bounds_count_as_the_bounds() -> None:
    with open_environments("mopo/HIVTreatment-v0", 1, {"max_episode_steps": 400}) as (environment,):
        starts = [environment.reset(seed=seed)[0] for seed in (None, 0, 1)]
        assert all(np.array_equal(a, b) for a, b in pairwise(starts))
        assert np.exp(starts[0]) == pytest.approx(START)
        outcomes = []
        for dose in ([0.7, 0.0], [5.0, -1.0]):
            environment.reset()
            outcomes.append(environment.step(np.array(dose))[:2])
        assert np.array_equal(outcomes[0][0], outcomes[1][0]) and outcomes[0][1] == outcomes[1][1]
        box: Any = environment.action_space
        assert box.high == pytest.approx(FULL) and not box.low.any()
