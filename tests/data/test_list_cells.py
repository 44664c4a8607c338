"""Parquet of which cells are lists: vectors of a step, or the steps of an episode."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from data.test_layouts import load
from pyarrow import parquet

from mopo_cli.data.files.layout import Wanted
from mopo_cli.data.files.layouts import open_log
from mopo_cli.data.files.local import load_local
from mopo_cli.data.files.read_columns import Reading
from mopo_cli.errors import InputError, MopoError


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
        open_log([tmp_path / "my.parquet"]).read(Wanted(["x"], []))


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


@pytest.mark.parametrize("rows", [[[0.5, 1.0]] * 9, [[[0.5]] * 2] * 9])
def test_damage_of_lists_is_told_and_ends_no_process(tmp_path: Path, rows: list[Any]) -> None:
    depth = 1 + isinstance(rows[0][0], list)
    reward = [0.5] * 9 if depth == 1 else [[0.5, 1.0]] * 9
    path = tmp_path / "my.parquet"
    parquet.write_table(pa.table({"obs": rows, "action": rows, "reward": reward}), path, row_group_size=5)
    good, refused = path.read_bytes(), 0
    for place in range(len(good) // 2, len(good)):  # what is written about the columns comes last
        path.write_bytes(good[:place] + bytes([good[place] ^ 16]) + good[place + 1 :])
        try:
            open_log([path]).read(Wanted(["obs", "action", "reward"], []))
        except MopoError as error:
            refused += 1
            assert "my.parquet" in error.message
    assert refused > 100


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float32(), 2), pa.large_list(pa.float64())])
def test_a_list_that_lacks_is_a_missing_value(tmp_path: Path, kind: Any) -> None:
    vectors = pa.array([None, [1, 9], None, [3, None], [4, 9], [5, 9]], kind)
    columns = {"observation.state": vectors, "action": [0.5, -0.5, 0.4, 0.3, 0.2, 0.1], "next.reward": [*range(6)]}
    parquet.write_table(pa.table(columns), tmp_path / "my.parquet")
    with pytest.raises(InputError, match=r"row 0: the cell is empty \(2 in this column\)\. .* say with --missing"):
        load(tmp_path / "my.parquet")
    data, _ = load_local([tmp_path / "my.parquet"], None, ["0"], Reading(missing="drop-rows"))
    assert data.observations.tolist() == [[1, 9], [4, 9]] and data.rewards.tolist() == [1, 4]
    data, _ = load_local([tmp_path / "my.parquet"], None, ["0"], Reading(missing="fill-forward"))
    assert data.observations.tolist() == [[1, 9], [1, 9], [3, 9], [4, 9]]


def test_a_list_of_another_length_is_named_behind_lists_that_lack(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"x": [None, [1.0, 2.0], None, [3.0]]}), tmp_path / "my.parquet")
    with pytest.raises(InputError, match=r"row 3: the list has 1 numbers, but the first has 2\."):
        open_log([tmp_path / "my.parquet"]).read(Wanted(["x"], missing=True))
