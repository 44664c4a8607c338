"""The probes' answers, re-derived from their datasets alone."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from probes.environments import PROBES, Probe, discounted_reward, endless_reward

Array = NDArray[Any]

GRID = np.linspace(-1.0, 1.0, 201, dtype=np.float32)
COLUMNS = ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts")

every_probe = pytest.mark.parametrize("make", PROBES, ids=lambda make: make.__name__)


def best_value(probe: Probe, observations: Array) -> Any:
    """max_a Q by search over a grid of actions."""
    values = [probe.q_value(observations, np.full((len(observations), 1), a)) for a in GRID]
    return np.max(values, axis=0)


@every_probe
def test_q_values_satisfy_the_bellman_equation_on_every_row(make: Any) -> None:
    probe = make(200, seed=3)
    data = probe.dataset
    goes_on = 1.0 - data["terminals"]
    target = data["rewards"] + probe.gamma * goes_on * best_value(probe, data["next_observations"])
    assert probe.q_value(data["observations"], data["actions"]) == pytest.approx(target, abs=2e-4)


@every_probe
def test_the_optimal_action_is_where_q_is_highest(make: Any) -> None:
    probe = make(50)
    observations = probe.dataset["observations"]
    if probe.optimal_action is None:
        low, high = (probe.q_value(observations, np.full((50, 1), a, np.float32)) for a in (-1.0, 1.0))
        assert (low == high).all()
    else:
        best = probe.q_value(observations, probe.optimal_action(observations))
        assert best == pytest.approx(best_value(probe, observations), abs=1e-4)
        assert best == pytest.approx(0.0, abs=1e-6)


@every_probe
def test_shapes_dtypes_and_episodes(make: Any) -> None:
    data = make(100).dataset
    assert tuple(data) == COLUMNS
    n = len(data["rewards"])
    for name, column in data.items():
        assert column.shape == ((n, 1) if name in ("observations", "actions", "next_observations") else (n,))
        assert column.dtype == (bool if name in ("terminals", "timeouts") else np.float32)
    assert not (data["terminals"] & data["timeouts"]).any()
    inside = ~(data["terminals"] | data["timeouts"])[:-1]
    assert (data["next_observations"][:-1][inside] == data["observations"][1:][inside]).all()


@every_probe
def test_actions_are_uniform_and_seeded(make: Any) -> None:
    actions = make(2000, seed=1).dataset["actions"]
    assert -1 <= actions.min() < -0.99 and 0.99 < actions.max() <= 1
    assert np.quantile(actions, [0.25, 0.5, 0.75]) == pytest.approx([-0.5, 0.0, 0.5], abs=0.06)
    assert (actions == make(2000, seed=1).dataset["actions"]).all()
    assert (actions != make(2000, seed=2).dataset["actions"]).any()


def test_probe_answers_by_hand() -> None:
    probe = discounted_reward()
    assert probe.q_value(np.array([[0], [1]], np.float32), np.array([[0], [0]], np.float32)).tolist() == [
        probe.gamma,
        1.0,
    ]
    endless = endless_reward()
    assert endless.q_value(np.zeros((1, 1), np.float32), np.zeros((1, 1), np.float32)) == pytest.approx([10.0])
    assert endless.dataset["timeouts"].sum() == 400 and not endless.dataset["terminals"].any()


def test_taking_time_limits_for_ends_gives_another_value() -> None:
    probe = endless_reward()
    goes_on = np.mean(~probe.dataset["timeouts"])
    # Observations say nothing of the step, so the value is one number: q = 1 + gamma * goes_on * q.
    assert 1 / (1 - probe.gamma * goes_on) == pytest.approx(3.6, abs=0.05)
