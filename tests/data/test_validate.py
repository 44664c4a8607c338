from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mopo_cli.data.transitions import COLUMNS, DatasetInfo, Transitions
from mopo_cli.data.validate import summarise, validate
from mopo_cli.errors import InputError


def walk(n: int = 12, end: int = 5) -> Transitions:
    """One long path whose states never repeat; a terminal in row ``end``, a timeout in the last."""
    states = np.arange(2 * (n + 2), dtype=np.float32).reshape(n + 2, 2) + 1
    observations = np.concatenate([states[: end + 1], states[end + 2 : n + 1]])
    following = np.concatenate([states[1 : end + 2], states[end + 3 : n + 2]])
    rows = np.arange(n)
    actions = np.linspace(-1, 1, n, dtype=np.float32)[:, None]
    rewards = np.ones(n, np.float32)
    return Transitions(observations, actions, rewards, following, rows == end, rows == n - 1)


INFO = DatasetInfo("my.h5", "Some-v0", "made up", -np.ones(1, np.float32), np.ones(1, np.float32), "none")


def changed(column: str, change: Callable[[Any], Any]) -> Transitions:
    t = walk()
    return replace(t, **{column: change(getattr(t, column).copy())})


def put(row: Any, value: float) -> Callable[[Any], Any]:
    def change(column: Any) -> Any:
        column[row] = value
        return column

    return change


def test_good_data_pass() -> None:
    validate(walk(), INFO)


@pytest.mark.parametrize("column", ["observations", "actions", "rewards", "next_observations"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_found_by_row(column: str, value: float) -> None:
    with pytest.raises(InputError, match=rf"my\.h5: column {column} holds NaN or infinity in row 7 \(1 such rows\)"):
        validate(changed(column, put(7, value)), INFO)


@pytest.mark.parametrize(
    ("column", "change", "says"),
    [
        ("observations", lambda c: c[:, 0], "has shape"),
        ("observations", lambda c: c[:, :0], "has shape"),
        ("observations", lambda c: c[:-1], "has shape"),
        ("actions", lambda c: c[:, 0], "has shape"),
        ("next_observations", lambda c: c[:, :1], "has shape"),
        ("rewards", lambda c: c[:, None], "has shape"),
        ("terminals", lambda c: c[:, None], "has shape"),
        ("timeouts", lambda c: c[:3], "has shape"),
        ("rewards", lambda c: c.astype(np.float64), "is of type"),
        ("observations", lambda c: c.astype(np.int32), "is of type"),
        ("terminals", lambda c: c.astype(np.uint8), "is of type"),
    ],
)
def test_shapes_and_types_are_checked(column: str, change: Callable[[Any], Any], says: str) -> None:
    with pytest.raises(InputError, match=f"column {column} {says}"):
        validate(changed(column, change), INFO)


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_rows(n: int) -> None:
    t = walk()
    short = Transitions(**{name: getattr(t, name)[:n] for name in COLUMNS})
    with pytest.raises(InputError, match=f"{n} transition"):
        validate(short, INFO)


def test_actions_out_of_bounds_by_more_than_rounding_are_counted() -> None:
    with pytest.raises(InputError, match=r"is outside the bounds of Some-v0 in 2 of 12 rows, first in row 3"):
        validate(changed("actions", put([3, 4], -1.01)), INFO)
    with pytest.raises(InputError, match="bounds"):
        validate(changed("actions", put(3, 1.00003)), INFO)
    validate(changed("actions", put(3, 1.000005)), INFO)


def test_bounds_must_fit_the_actions() -> None:
    wide = replace(INFO, action_low=-np.ones(2, np.float32), action_high=np.ones(2, np.float32))
    flat = replace(INFO, action_low=INFO.action_high)
    for info in (wide, flat):
        with pytest.raises(InputError, match="bounds"):
            validate(walk(), info)


@pytest.mark.parametrize("column", ["terminals", "timeouts"])
def test_an_unmarked_end_is_found(column: str) -> None:
    t = walk(end=5)
    assert t.terminals[5]
    if column == "timeouts":
        t = replace(t, terminals=t.timeouts, timeouts=t.terminals)
        validate(t, INFO)
    flags: dict[str, Any] = {column: np.zeros(12, np.bool_)}
    unmarked = replace(t, **flags)
    with pytest.raises(InputError, match=r"differs from the next row's observations in 1 of 1[01] rows"):
        validate(unmarked, INFO)


def test_the_first_break_and_their_number_are_told() -> None:
    with pytest.raises(
        InputError, match=r"in 2 of 10 rows inside episodes, first in row 7.*1 terminals and 1 timeouts"
    ):
        validate(changed("next_observations", put([7, 9], 0.5)), INFO)


def test_states_may_differ_by_rounding_only() -> None:
    validate(changed("next_observations", lambda c: c * np.float32(1 + 5e-5)), INFO)
    with pytest.raises(InputError, match="differs"):
        validate(changed("next_observations", lambda c: c * np.float32(1 + 3e-4)), INFO)


def test_the_summary_counts_by_episode() -> None:
    t = replace(walk(n=12, end=3), rewards=np.arange(12, dtype=np.float32))
    summary = summarise(t)
    returns = [0 + 1 + 2 + 3, sum(range(4, 12))]
    assert (summary.transitions, summary.episodes, summary.terminals, summary.timeouts) == (12, 2, 1, 1)
    assert summary.return_mean == sum(returns) / 2
    assert summary.return_std == (returns[1] - returns[0]) / 2
    assert summary.return_max == returns[1]
    assert summary.return_p90 == pytest.approx(returns[0] + 0.9 * (returns[1] - returns[0]))
    assert summary.length_mean == 6
