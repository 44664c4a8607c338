"""When a rule counts as knowing where the task ends."""

import numpy as np
import pytest
import torch

from mopo_cli.data.transitions import DatasetInfo, Transitions
from mopo_cli.stages.common.rule_agreement import knows_ends
from mopo_cli.tasks.termination import never

ROWS = 400
ENDS = tuple(range(9, ROWS, 10))  # forty


def known(wrong: tuple[int, ...], rule: str = "obs[0] > 5", next_known: bool = True, terminals: bool = True) -> bool:
    """Of a rule that is wrong in these rows: whether it counts as knowing the ends of the log."""
    zeros, flags = np.zeros((ROWS, 1), np.float32), np.zeros(ROWS, np.bool_)
    flags[list(ENDS)] = terminals
    said = torch.from_numpy(flags.copy())
    said[list(wrong)] ^= True
    one = np.ones(1, np.float32)
    info = DatasetInfo("my.csv", None, "", -one, one, rule, terminal_next_known=next_known)
    log = Transitions(zeros, zeros, zeros[:, 0], zeros, flags, np.zeros(ROWS, np.bool_))
    return knows_ends(log, info, lambda observation, *_: said if rule != "none" else never(observation, *_))


@pytest.mark.parametrize(
    ("wrong", "knows"),
    [
        ((), True),
        (ENDS[:2], True),
        (ENDS[:3], False),
        ((1, 2), True),
        ((1, 2, 3), False),
        ((1, ENDS[0], ENDS[1]), False),
    ],
)
def test_one_wrong_row_for_twenty_ends_is_allowed(wrong: tuple[int, ...], knows: bool) -> None:
    assert known(wrong) == knows


def test_without_ends_no_rule_is_needed_and_none_may_end_anything() -> None:
    assert known((), rule="none", terminals=False) and known((), terminals=False)
    assert not known((1,), terminals=False)


def test_where_the_states_at_the_ends_are_not_in_the_log_a_rule_is_believed_that_ends_nothing_else() -> None:
    assert known(ENDS, next_known=False)
    assert not known((1, 2, 3), next_known=False)
    assert not known((), rule="none", next_known=False)
