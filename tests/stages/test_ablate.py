"""The rows of an ablation's table: a column per axis of the grid, also beside cells that know of none."""

from math import nan
from typing import Any

import pytest

from mopo_cli.stages.ablate import per_seed, row, without_empty

AXES = ("beta", "critic_lr")


def record(**settings: Any) -> dict[str, Any]:
    """A cell with two seeds, one of them never played; no axes of a grid but in `settings`."""
    returns = {"0": {"last": 3.0, "last_10": 2.0}, "4": {}}
    base = {"method": "combo", "penalty": "none", "lam": None, "h": 5, "epochs": 7, "returns": returns}
    return {**base, "last": None, "last_10": None, **settings}


def test_axes_stand_between_h_and_the_epochs() -> None:
    cell = record(grid={"beta": 0.5, "critic_lr": None})
    assert row(cell, AXES)[:8] == ("combo", "none", None, 5, 0.5, None, 7, 2)
    assert row(record(), AXES)[4:6] == (None, None), "a table of before there were grids"
    assert row(cell, ())[:6] == ("combo", "none", None, 5, 7, 2)
    assert len(row(cell, AXES)) == len(row(cell, ())) + 2


def test_the_csv_has_a_column_per_axis_and_a_row_per_seed() -> None:
    columns, rows = per_seed([record(grid={"critic_lr": 1e-4}, wall_seconds={"0": 61.5, "4": None}), record()], AXES)
    results = ("return_last", "return_last_10", "wall_seconds")
    assert columns == ("method", "penalty", "lam", "h", *AXES, "epochs", "seed", *results)
    assert rows == [
        ("combo", "none", None, 5, None, 1e-4, 7, 0, 3.0, 2.0, 61.5),
        ("combo", "none", None, 5, None, 1e-4, 7, 4, None, None, None),
        ("combo", "none", None, 5, None, None, 7, 0, 3.0, 2.0, None),
        ("combo", "none", None, 5, None, None, 7, 4, None, None, None),
    ]


def test_a_row_tells_the_mean_wall_time_of_the_seeds_it_is_known_of() -> None:
    assert row(record(), ())[-2] is None
    assert row(record(wall_seconds={"0": 61.5, "4": None}), ())[-2] == 61.5
    assert row(record(wall_seconds={"0": 60.0, "4": 90.5}), ())[-2] == 75.25


def test_a_row_tells_the_middle_with_its_interval() -> None:
    both = {"returns": {"0": {"last": 31.0, "last_10": 20.5}, "4": {"last": 29.0, "last_10": 19.5}}}
    played = record(**both, last=[30.0, 1.0], last_10=[20.0, 0.5], iqm=22.2, iqm_interval=[15, 32.25])
    assert row(played, ())[6:10] == ("30.0 ± 1.0", "20.0 ± 0.5", "22.2 (15.0 to 32.2)", None)
    small = record(**both, last=[-0.04, 0.011], last_10=[-0.03, 0.01], iqm=-0.0333, iqm_interval=[-0.05, -0.01])
    assert row(small, ())[6:9] == ("-0.0400 ± 0.0110", "-0.0300 ± 0.0100", "-0.0333 (-0.0500 to -0.0100)")
    nothing = record(**both, last=[0.0, 0.0], last_10=[0.0, 0.0], iqm=0.0, iqm_interval=[0.0, 0.0])
    assert row(nothing, ())[6:9] == ("0.0 ± 0.0", "0.0 ± 0.0", "0.0 (0.0 to 0.0)")
    large = record(**both, last=[1234.4, 99.6], last_10=[90.4, 10.2], iqm=-345.6, iqm_interval=[-400.4, 80.2])
    assert row(large, ())[6:10] == ("1234 ± 100", "90 ± 10", "-346 (-400 to 80)", None)
    scored = record(
        **both, last=[1234.4, 99.6], last_10=[90.4, 10.2], iqm=345, iqm_interval=[0, 1], score=[45.67, 1.23]
    )
    assert row(scored, ())[9] == "45.7 ± 1.2"


@pytest.mark.parametrize("bound", [nan, None])
def test_a_single_return_has_no_interval_in_a_row(bound: float | None) -> None:
    """None is what a table has of it that was read from a file."""
    single = record(last=[0.0012, 0.0], last_10=[0.0012, 0.0], iqm=0.0012, iqm_interval=[bound, bound])
    assert row(single, ())[6:9] == ("0.00120", "0.00120", "0.00120 (no interval)"), "nor a spread"


def test_columns_that_say_nothing_are_left_out() -> None:
    assert without_empty(("a", "b", "c"), [(1, None, 0), (None, None, 2)]) == (["a", "c"], [(1, 0), (None, 2)])
