"""Next states that are the next episode's, as logs of vector environments have them."""

from typing import Any

import numpy as np
import pytest

from mopo_cli.data.jumps import check_resets
from mopo_cli.data.transitions import Transitions

LENGTH, EPISODES = 20, 6


def log(mode: str, name: str) -> Transitions:
    """Six episodes that walk away from a random start, marked in ``terminals`` or ``timeouts``, one after the other."""
    rng = np.random.default_rng(0)
    states, following, ends = [], [], []
    for _ in range(EPISODES):
        path = 2 * rng.normal(size=2) + 0.1 * rng.normal(size=(LENGTH + 1, 2)).cumsum(axis=0)
        states.append(path[:-1])
        following.append(path[1:])
        ends.append(np.arange(LENGTH) == LENGTH - 1)
    for i in range(EPISODES - 1):
        if mode == "same step":
            following[i][-1] = states[i + 1][0]
        if mode == "next step":  # a row that only resets: from the final state to the next start
            states[i] = np.concatenate([states[i], following[i][-1:]])
            following[i] = np.concatenate([following[i], states[i + 1][:1]])
            ends[i] = np.append(ends[i], False)
    marks = np.concatenate(ends)
    rows = len(marks)
    flags: dict[str, Any] = {
        flag: marks if flag == name else np.zeros(rows, np.bool_) for flag in ("terminals", "timeouts")
    }
    return Transitions(
        np.concatenate(states).astype(np.float32),
        np.zeros((rows, 1), np.float32),
        np.zeros(rows, np.float32),
        np.concatenate(following).astype(np.float32),
        **flags,
    )


def along(path: np.ndarray, **ends: Any) -> Transitions:
    """The states of a path `[121, O]` one after the other, and what marks ends."""
    flags = {"terminals": np.zeros(120, np.bool_), "timeouts": np.zeros(120, np.bool_)} | ends
    states = path.astype(np.float32)
    return Transitions(states[:-1], np.zeros((120, 1), "f4"), np.zeros(120, "f4"), states[1:], **flags)


@pytest.mark.parametrize("name", ["terminals", "timeouts"])
@pytest.mark.parametrize("mode", ["same step", "next step"])
def test_the_next_episodes_first_state_is_refused(mode: str, name: str) -> None:
    check = check_resets(log(mode, name), "my.npz")
    assert check.row == LENGTH - 1 and f"in 5 of 5 rows that {name} marks as ends" in check.fault
    assert 'info["final_obs"]' in check.fault and "leave out the row after each end" in check.fault


@pytest.mark.parametrize("name", ["terminals", "timeouts"])
def test_true_final_states_pass(name: str) -> None:
    assert not check_resets(log("right", name), "my.npz").fault


def test_a_record_that_is_cut_into_pieces_goes_on_rightly() -> None:
    path = np.random.default_rng(1).normal(size=(121, 2)).cumsum(axis=0)
    cut = np.arange(120) % 20 == 19
    assert not check_resets(along(path, timeouts=cut), "my.npz").fault
    assert check_resets(along(path, terminals=cut), "my.npz").fault


def test_an_end_at_rest_tells_nothing() -> None:
    path = np.random.default_rng(1).normal(size=(121, 2)).cumsum(axis=0)
    cut = np.arange(120) % 20 == 19
    rest = np.flatnonzero(cut)
    path[rest] = path[rest - 1]
    path[rest + 1] = path[rest]
    assert not check_resets(along(path, terminals=cut), "my.npz").fault


@pytest.mark.parametrize("name", ["terminals", "timeouts"])
@pytest.mark.parametrize("states", [np.ones((121, 2)), (np.arange(121) % 2)[:, None], np.zeros((121, 1))])
def test_states_that_are_equal_anyway_tell_nothing(name: str, states: np.ndarray) -> None:
    assert not check_resets(along(states, **{name: np.arange(120) % 40 == 39}), "my.npz").fault
