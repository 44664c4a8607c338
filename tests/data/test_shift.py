"""Next states taken from the next row."""

import numpy as np
import pytest

from mopo_cli.data.shift import shift
from mopo_cli.data.transitions import episode_returns


def test_rows_that_end_the_record_are_dropped_and_terminals_stay() -> None:
    observations = np.array([[0], [1], [2], [10], [11], [20], [21], [22]], np.float32)
    terminals = np.array([0, 0, 0, 0, 1, 0, 0, 0], np.bool_)
    timeouts = np.array([0, 0, 1, 0, 0, 0, 0, 0], np.bool_)
    actions = np.arange(8, dtype=np.float32)[:, None]
    found, notes = shift(observations, actions, np.arange(8, dtype=np.float32), terminals, timeouts)
    assert found.observations.ravel().tolist() == [0, 1, 10, 11, 20, 21]
    assert found.next_observations.ravel().tolist() == [1, 2, 11, 11, 21, 22]
    assert found.actions.ravel().tolist() == found.rewards.tolist() == [0, 1, 3, 4, 5, 6]
    assert found.terminals.tolist() == [False, False, False, True, False, False]
    assert found.timeouts.tolist() == [False, True, False, False, False, True]
    assert episode_returns(found).tolist() == [0 + 1, 3 + 4, 5 + 6]
    assert notes[0].endswith("2 rows that end the record dropped and the rows before them marked as timeouts")
    assert notes[1].startswith("the states after its 1 terminals are unknown")
    assert notes[2] == f"the dropped rows held {100 * (2 + 7) / 28:.3g} % of all reward (sum of |r|)"
    assert (terminals.sum(), timeouts.sum()) == (1, 1)  # what was given is left alone


@pytest.mark.parametrize("rows", [0, 1])
def test_what_holds_no_next_state_leaves_nothing(rows: int) -> None:
    flags = np.zeros(rows, np.bool_)
    found, _ = shift(
        np.zeros((rows, 2), np.float32), np.zeros((rows, 1), np.float32), np.zeros(rows, np.float32), flags, flags
    )
    assert len(found) == len(found.next_observations) == 0
