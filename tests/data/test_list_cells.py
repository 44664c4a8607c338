"""Parquet of which cells are lists: vectors of a step, or the steps of an episode."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from data.test_layouts import load
from pyarrow import parquet

from mopo_cli.data.layouts import open_log
from mopo_cli.errors import InputError


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([[1.0, 2.0], [3.0]], "row 1: the list has 1 numbers, but the first has 2."),
        ([[1.0, 2.0], None], r"row 1: the cell is empty \(1 in this column\)"),
        ([[1.0, 2.0], []], "row 1: the list is empty"),
        ([[1.0, 2.0], [3.0, None]], r"row 1: the cell is empty \(1 in this column\)"),
        ([["a"], ["b"]], "holds list<.*string>, not numbers"),
        ([[[1.0]], [[2.0]]], "holds list<.*list<.*>>, not numbers"),
    ],
)
def test_lists_that_are_no_vectors_are_refused(tmp_path: Path, column: list[Any], message: str) -> None:
    table = pa.table({"x": column, "reward": [1.0, 2.0]})
    parquet.write_table(table, tmp_path / "my.parquet")
    with pytest.raises(InputError, match=rf"my\.parquet: column x.* {message}"):
        open_log([tmp_path / "my.parquet"]).read(["x"], [])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"actions": [[[0.5], [0.1, 0.2]]]}, "column actions, row 0: in step 1, the list has 2 numbers, but the first"),
        ({"actions": [[[0.5], None]]}, "column actions, row 0: in step 1, the cell is empty"),
        ({"rewards": [[1.0, 2.0, 3.0, 4.0]]}, "rewards has 4 rows, but the actions beside it have 2"),
        ({"actions": [[]]}, "row 0 holds no steps, but each row should be an episode"),
    ],
)
def test_rows_that_are_no_episodes_are_refused(tmp_path: Path, rows: dict[str, Any], message: str) -> None:
    good = {"observations": [[[1.0], [2.0]]], "actions": [[[0.5], [0.1]]], "rewards": [[1.0, 2.0]]}
    parquet.write_table(pa.table(good | rows), tmp_path / "my.parquet")
    with pytest.raises(InputError, match=message):
        load(tmp_path / "my.parquet")


def test_a_reward_in_a_list_of_one_is_a_step(tmp_path: Path) -> None:
    table = {"obs": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], "action": [[0.5], [0.1], [0.2]], "reward": [[1.0]] * 3}
    parquet.write_table(pa.table(table), tmp_path / "my.parquet")
    assert open_log([tmp_path / "my.parquet"]).episode is None
    assert load(tmp_path / "my.parquet")[0].observations.tolist() == [[1, 2], [3, 4]]
