"""Next states that are taken from the next row, and the rewards of rows that end a record."""

import numpy as np
import pytest

from mopo_cli.data.checks import Check
from mopo_cli.data.ends import guess_next, settle_ends, shift
from mopo_cli.data.transitions import Bools, Floats, episode_returns

ROWS, LENGTH = 60, 10
LAST = np.arange(ROWS) % LENGTH == LENGTH - 1
NONE = np.zeros(ROWS, np.bool_)


def outcomes(inside: float = 0.0) -> Floats:
    """Six episodes of ten rows: rewards about 0, and +15 or -15 in each last row."""
    rewards = np.random.default_rng(0).normal(scale=inside, size=ROWS).astype(np.float32)
    rewards[LAST] = [15, 15, -15, 15, 15, 15]
    return rewards


def settled(
    rewards: Floats, terminals: Bools, timeouts: Bools, stated: Bools = NONE, is_marked: bool = True
) -> tuple[Bools, list[Check]]:
    return settle_ends(rewards, terminals, timeouts, stated, is_marked, "my.csv")


@pytest.mark.parametrize("inside", [0, 2])
@pytest.mark.parametrize("failed", [NONE, np.arange(ROWS) == 29])
def test_outcomes_end_the_task_and_are_kept(inside: float, failed: Bools) -> None:
    rewards = outcomes(inside)
    terminals, (check,) = settled(rewards, failed, LAST & ~failed)
    assert np.array_equal(terminals, LAST)
    rows = LAST & ~failed
    share = 100 * np.abs(rewards[rows]).sum() / np.abs(rewards).sum()
    assert not check.fault and check.row == 9
    assert check.warning.startswith(
        f"my.csv: {rows.sum()} rows at the end of episodes (first row 9) hold {share:.3g} %"
    )
    assert "mark them in timeouts and give next_observations" in check.warning


def test_what_is_kept_is_a_terminal_without_a_next_state() -> None:
    states = np.arange(ROWS, dtype=np.float32)[:, None]
    transitions, _, notes, _ = guess_next(states, states, outcomes(), NONE, LAST, NONE, True, "my.csv")
    assert len(transitions) == ROWS and np.array_equal(transitions.terminals, LAST) and not transitions.timeouts.any()
    assert np.array_equal(transitions.next_observations[LAST], states[LAST])
    assert np.array_equal(transitions.next_observations[~LAST], states[~LAST] + 1)
    assert episode_returns(transitions).tolist() == [15, 15, -15, 15, 15, 15]
    assert any(note.startswith("6 rows that end the record and hold outcomes kept as terminals") for note in notes)


def test_outcomes_in_timeouts_that_are_stated_are_refused() -> None:
    terminals, (check,) = settled(outcomes(), NONE, LAST, stated=LAST)
    assert not terminals.any() and check.row == 9
    assert "6 rows that timeouts marks (first row 9) hold 100 % of all reward" in check.fault
    assert "mark them in terminals" in check.fault and "next_observations" in check.fault


def test_the_last_reward_of_one_long_episode_is_no_outcome() -> None:
    rewards = np.zeros(ROWS, np.float32)
    rewards[-1] = 1
    terminals, (check,) = settled(rewards, NONE, NONE, is_marked=False)
    assert not terminals.any() and "1 row that end" in check.warning and "holds 100 %" in check.warning


@pytest.mark.parametrize(("times", "kept"), [(4.8, False), (5.2, True)])
def test_an_outcome_is_five_times_as_far_from_the_median(times: float, kept: bool) -> None:
    rewards = np.full(ROWS, 2 + times, np.float32)
    rewards[~LAST] = np.tile([1, 3], (ROWS - 6) // 2)  # about 2, by 1
    assert settled(rewards, NONE, LAST)[0].any() == kept


@pytest.mark.parametrize(("reward", "warned"), [(0.4, False), (0.6, True)])
def test_a_large_share_that_is_dropped_is_warned_of(reward: float, warned: bool) -> None:
    rewards = np.where(np.arange(ROWS) % 2, 1.5, 0.5).astype(np.float32)
    rewards[LAST] = reward
    share = 6 * reward / (6 * reward + rewards[~LAST].sum())
    assert (share > 0.05) == warned
    terminals, (check,) = settled(rewards, NONE, LAST, stated=LAST)
    assert not terminals.any() and not check.fault
    assert (
        check.warning.startswith(f"my.csv: 6 rows that end the record (first row 9) hold {100 * share:.3g} %") == warned
    )


def test_rows_that_end_the_record_are_dropped_and_terminals_stay() -> None:
    observations = np.array([[0], [1], [2], [10], [11], [20], [21], [22]], np.float32)
    terminals = np.array([0, 0, 0, 0, 1, 0, 0, 0], np.bool_)
    timeouts = np.array([0, 0, 1, 0, 0, 0, 0, 0], np.bool_)
    actions = np.arange(8, dtype=np.float32)[:, None]
    transitions, _, notes = shift(observations, actions, np.arange(8, dtype=np.float32), terminals, timeouts)
    assert transitions.observations.ravel().tolist() == [0, 1, 10, 11, 20, 21]
    assert transitions.next_observations.ravel().tolist() == [1, 2, 11, 11, 21, 22]
    assert transitions.actions.ravel().tolist() == transitions.rewards.tolist() == [0, 1, 3, 4, 5, 6]
    assert transitions.terminals.tolist() == [False, False, False, True, False, False]
    assert transitions.timeouts.tolist() == [False, True, False, False, False, True]
    assert episode_returns(transitions).tolist() == [0 + 1, 3 + 4, 5 + 6]
    assert notes[0].endswith("2 rows that end the record dropped and the rows before them marked as timeouts")
    assert notes[1].startswith("the states after its 1 terminals are unknown")
    assert notes[2] == f"the dropped rows held {100 * (2 + 7) / 28:.3g} % of all reward (sum of |r|)"
    assert (terminals.sum(), timeouts.sum()) == (1, 1)  # what was given is left alone


@pytest.mark.parametrize("rows", [0, 1])
def test_what_holds_no_next_state_leaves_nothing(rows: int) -> None:
    flags = np.zeros(rows, np.bool_)
    transitions, _, _ = shift(
        np.zeros((rows, 2), np.float32), np.zeros((rows, 1), np.float32), np.zeros(rows, np.float32), flags, flags
    )
    assert len(transitions) == len(transitions.next_observations) == 0
