"""The rows of an ablation's table: a column per axis of the grid, also beside cells that know of none."""

from typing import Any

from mopo_cli.stages.ablate import per_seed, row

AXES = ("beta", "critic_lr")


def record(**own: Any) -> dict[str, Any]:
    """A cell with two seeds, one of them never played; nothing of a grid but in `own`."""
    returns = {"0": {"last": 3.0, "last_10": 2.0}, "4": {}}
    told = {"method": "combo", "penalty": "none", "lam": None, "h": 5, "epochs": 7, "returns": returns}
    return {**told, "last": None, "last_10": None, **own}


def test_axes_stand_between_h_and_the_epochs() -> None:
    known = record(grid={"beta": 0.5, "critic_lr": None})
    assert row(known, AXES)[:8] == ("combo", "none", None, 5, 0.5, None, 7, 2)
    assert row(record(), AXES)[4:6] == (None, None), "a table of before there were grids"
    assert row(known, ())[:6] == ("combo", "none", None, 5, 7, 2)
    assert len(row(known, AXES)) == len(row(known, ())) + 2


def test_the_csv_has_a_column_per_axis_and_a_row_per_seed() -> None:
    columns, rows = per_seed([record(grid={"critic_lr": 1e-4}), record()], AXES)
    assert columns == ("method", "penalty", "lam", "h", *AXES, "epochs", "seed", "return_last", "return_last_10")
    assert rows == [
        ("combo", "none", None, 5, None, 1e-4, 7, 0, 3.0, 2.0),
        ("combo", "none", None, 5, None, 1e-4, 7, 4, None, None),
        ("combo", "none", None, 5, None, None, 7, 0, 3.0, 2.0),
        ("combo", "none", None, 5, None, None, 7, 4, None, None),
    ]
