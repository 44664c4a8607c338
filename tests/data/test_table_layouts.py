"""The same episodes in tables and JSON lines, as programs write them, give the same transitions, bit for bit."""

import base64
import csv
import gzip
import io
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from data.test_layouts import LENGTHS, Episode, episodes, joined, load
from pyarrow import parquet

from mopo_cli.config.schema import FetchData
from mopo_cli.data.layouts import LAYOUTS, open_log
from mopo_cli.data.log_files import log_files
from mopo_cli.data.transitions import COLUMNS
from mopo_cli.errors import CorruptError, InputError

NAMES = {
    **{f"obs_{i}": ("observations", i) for i in range(3)},
    **{f"action_{i}": ("actions", i) for i in range(2)},
    "reward": ("rewards", None),
    "terminal": ("terminals", None),
    "timeout": ("timeouts", None),
    **{f"next_obs_{i}": ("next_observations", i) for i in range(3)},
}
POSITIONS = "obs=0+1+2,action=3+4,reward=5,terminal=6,timeout=7,next_obs=8+9+10"
RLLIB = {
    "obs": "observations",
    "new_obs": "next_observations",
    "actions": "actions",
    "rewards": "rewards",
    "terminateds": "terminals",
    "truncateds": "timeouts",
}


def table(heading: bool = True, separator: str = ",", comma: str = ".") -> str:
    """Numbers as numpy's float32 prints them: as many digits as tell them apart."""
    steps = joined(episodes())
    columns = [steps[ours] if i is None else steps[ours][:, i] for ours, i in NAMES.values()]
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator)
    writer.writerows([NAMES] if heading else [])
    cells = ([str(cell).replace(".", comma) for cell in column] for column in columns)
    writer.writerows(zip(*cells, strict=True))
    return text.getvalue()


def as_csv(folder: Path, name: str = "t.csv", encoding: str = "utf-8", **how: Any) -> Path:
    content = table(**how).encode(encoding)
    (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return folder / name


def list_cells(folder: Path, fixed: bool = False) -> Path:
    """As LeRobot: vectors in cells."""
    steps = joined(episodes())
    names = {"observation.state": "observations", "action": "actions", "next_obs": "next_observations"}
    columns = {name: pa.array(list(steps[ours]), vector(ours, fixed)) for name, ours in names.items()}
    columns |= {"next.reward": pa.array(steps["rewards"]), "next.done": pa.array(steps["terminals"])}
    columns |= {"truncated": pa.array(steps["timeouts"]), "task": pa.array(["push"] * sum(LENGTHS))}
    parquet.write_table(pa.table(columns), folder / "t.parquet", row_group_size=20)
    return folder / "t.parquet"


def vector(ours: str, fixed: bool) -> pa.DataType:
    return pa.list_(pa.float32(), 2 if ours == "actions" else 3) if fixed else pa.list_(pa.float32())


def episode_rows(folder: Path, last_state: bool = False) -> Path:
    rows = [{"id": f"e{i}", **dict(episode)} for i, episode in enumerate(episodes())]
    for row in rows:
        if last_state:
            row["observations"] = np.concatenate([row["observations"], row.pop("next_observations")[-1:]])
            del row["timeouts"]
    columns = {name: [np.asarray(row[name]).tolist() for row in rows] for name in rows[0]}
    matrix = pa.list_(pa.list_(pa.float32()))
    kinds = {"observations": matrix, "next_observations": matrix, "actions": matrix, "rewards": pa.list_(pa.float32())}
    arrays = {name: pa.array(column, kinds.get(name)) for name, column in columns.items()}
    parquet.write_table(pa.table(arrays), folder / "rows.parquet", row_group_size=5)
    return folder / "rows.parquet"


def json_lines(path: Path, documents: Iterable[dict[str, Any]]) -> Path:
    text = "".join(json.dumps(document) + "\n" for document in documents)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def rllib(folder: Path, name: str = "output.json") -> Path:
    """As JsonWriter: batches of 20 steps, whatever episodes they are of."""
    steps = {name: joined(episodes())[ours] for name, ours in RLLIB.items()}
    steps["eps_id"] = np.repeat(np.arange(len(LENGTHS)) + 7, LENGTHS)
    starts = range(0, sum(LENGTHS), 20)
    batches = ({name: column[i : i + 20].tolist() for name, column in steps.items()} for i in starts)
    return json_lines(folder / name, ({"type": "SampleBatch", **batch, "infos": [{}] * 3} for batch in batches))


def step_lines(folder: Path, name: str = "t.jsonl") -> Path:
    steps = joined(episodes())
    names = {"obs": "observations", "action": "actions", "reward": "rewards", "done": "terminals"}
    names |= {"truncated": "timeouts", "next_obs": "next_observations"}
    rows = ({name: steps[ours][i].tolist() for name, ours in names.items()} for i in range(sum(LENGTHS)))
    return json_lines(folder / name, rows)


def episode_lines(folder: Path) -> Path:
    rows = [{name: column.tolist() for name, column in episode.items()} for episode in episodes()]
    return json_lines(folder / "t.json", rows)


WRITERS: dict[str, tuple[Callable[..., Path], dict[str, Any], str | None]] = {
    "csv": (as_csv, {}, None),
    "csv, gzipped": (as_csv, {"name": "t.csv.gz"}, None),
    "tsv": (as_csv, {"name": "t.tsv", "separator": "\t"}, None),
    "tsv with decimal commas, gzipped": (as_csv, {"name": "t.TSV.gz", "separator": "\t", "comma": ","}, None),
    "csv with decimal commas": (as_csv, {"separator": ";", "comma": ",", "encoding": "utf-8-sig"}, None),
    "csv in UTF-16": (as_csv, {"encoding": "utf-16"}, None),
    "csv in UTF-16, gzipped": (as_csv, {"encoding": "utf-16", "name": "t.csv.gz"}, None),
    "csv without a heading": (as_csv, {"heading": False}, POSITIONS),
    "csv without a heading, marked": (as_csv, {"heading": False, "encoding": "utf-8-sig"}, POSITIONS),
    "csv without a heading, with commas": (as_csv, {"heading": False, "separator": ";", "comma": ","}, POSITIONS),
    "lists in cells": (list_cells, {}, None),
    "lists of fixed size in cells": (list_cells, {"fixed": True}, None),
    "an episode per row": (episode_rows, {}, None),
    "an episode per row with a last state": (episode_rows, {"last_state": True}, None),
    "rllib": (rllib, {}, None),
    "rllib, gzipped": (rllib, {"name": "output.json.gz"}, None),
    "a step per line": (step_lines, {}, None),
    "an episode per line": (episode_lines, {}, None),
}


@pytest.mark.parametrize("name", WRITERS)
def test_the_same_episodes_in_every_table(tmp_path: Path, name: str) -> None:
    writer, how, columns = WRITERS[name]
    transitions, _ = load(writer(tmp_path, **how), columns)
    for column in COLUMNS:
        np.testing.assert_array_equal(getattr(transitions, column), joined(episodes())[column], err_msg=column)


@pytest.mark.parametrize(
    ("name", "understood"),
    [
        ("csv in UTF-16", "; read as UTF-16; observations ="),
        ("csv without a heading", "; no heading: columns are called 0, 1, ...; observations = 0 + 1 + 2;"),
        ("csv with decimal commas", "decimal commas in columns obs_0, obs_1, obs_2, action_0, action_1, reward, next"),
        ("an episode per row", "12 rows, one per episode, of lists of steps; observations = observations"),
        ("rllib", "JSON lines, a batch of steps in each; observations = obs"),
        ("a step per line", "JSON lines, a step in each; observations = obs"),
    ],
)
def test_what_was_understood_of_a_table_is_in_the_source(tmp_path: Path, name: str, understood: str) -> None:
    writer, how, columns = WRITERS[name]
    assert understood in load(writer(tmp_path, **how), columns)[1]


def test_the_help_names_every_layout() -> None:
    text = str(FetchData.model_fields["layout"].description)
    listed = text.split(": ")[1].removesuffix(" (files only)").replace(" or ", ", ").split(", ")
    assert listed == list(LAYOUTS)


# CSV.


def write(folder: Path, content: str | bytes, name: str = "my.csv") -> Path:
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder / name


def test_a_file_without_heading_and_without_a_map_is_refused_with_its_positions(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the file holds 0, 1, 2 \(no heading: columns are called 0, 1, \.\.\.\)\."):
        load(write(tmp_path, "0.5,-1,true\n1.5,2,false\n"))


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("0.5,nan,-1e-3,True\n", ["0", "1", "2", "3"]),
        ('"0.5";" 1,5";1.234,5\n', ["0", "1", "2"]),
        ("\n\n0.5\t1\n", ["0", "1"]),
        ("0,1,2\n0.5,1,2\n", ["0", "1", "2"]),
        ("a,1,2\n0.5,1,2\n", ["a", "1", "2"]),
        (",1,2\n0.5,1,2\n", ["", "1", "2"]),
        ("true,false\n1,0\n", ["true", "false"]),
        ("0.5,2019-01-01\n", ["0.5", "2019-01-01"]),
    ],
)
def test_a_first_row_of_numbers_is_data(tmp_path: Path, content: str, names: list[str]) -> None:
    assert open_log([write(tmp_path, content)]).names == names


def test_the_first_row_of_a_file_without_heading_is_read(tmp_path: Path) -> None:
    rows = open_log([write(tmp_path, "5,0.5\n6,1.5\n")]).read(["0", "1"], [])
    assert rows["0"].tolist() == [5, 6] and rows["1"].tolist() == [0.5, 1.5]
    headed = open_log([write(tmp_path, "0,1\n6,1.5\n")])
    assert headed.read(["0"], [])["0"].tolist() == [6] and headed.note == "the first row, 0 to 1, is the heading"


def test_files_with_and_without_heading_do_not_go_together(tmp_path: Path) -> None:
    write(tmp_path, "a,b\n1,2\n", "w0.csv")
    write(tmp_path, "1,2\n3,4\n", "w1.csv")
    with pytest.raises(InputError, match=r"w1\.csv has no column of w0\.csv: 0, 1, not a, b\."):
        open_log(log_files(tmp_path))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "latin-1", "utf-16", "utf-32"])
def test_names_and_labels_in_every_encoding(tmp_path: Path, encoding: str) -> None:
    log = open_log([write(tmp_path, "Temp (°C);Größe\n1;Ä\n2;ü\n".encode(encoding))])
    assert log.names == ["Temp (°C)", "Größe"]
    rows = log.read(["Temp (°C)"], ["Größe"])
    assert rows["Temp (°C)"].tolist() == [1, 2] and rows["Größe"].tolist() == [0, 1]
    told = {"cp1252": "read as cp1252", "latin-1": "read as cp1252", "utf-16": "read as UTF-16"}
    assert log.note == told.get(encoding, "read as UTF-32" if encoding == "utf-32" else "")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"x,y\n1,\x81\n", "my.csv holds bytes that are not text in UTF-8 or cp1252."),
        ("x,y\n1,2\n".encode("utf-16-le"), "my.csv holds NUL characters: it is no text, or UTF-16 without"),
        ("x,y\n1,2\n".encode("utf-16")[:-1], "my.csv holds bytes that are not text in UTF-16."),
    ],
)
def test_what_is_no_text_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(InputError) as caught:
        open_log([write(tmp_path, content)])
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize("cut", [20, -5, -1])
def test_a_gzip_file_that_is_cut_off_is_damaged(tmp_path: Path, cut: int) -> None:
    path = as_csv(tmp_path, "t.csv.gz")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(CorruptError, match=r"t\.csv\.gz is not a gzip file, is truncated or is damaged"):
        load(path)


def cells(folder: Path, *columns: str, separator: str = ";") -> dict[str, list[float]]:
    """Columns a, b, ... with the cells in the words of a text, read as numbers."""
    names = [chr(ord("a") + i) for i in range(len(columns))]
    rows = zip(*(column.split() for column in columns), strict=True)
    text = "\n".join([separator.join([*names, "label"]), *(separator.join([*row, "x"]) for row in rows)])
    read = open_log([write(folder, text, "my.tsv" if separator == "\t" else "my.csv")]).read(names, [])
    return {name: read[name].tolist() for name in names}


@pytest.mark.parametrize("separator", [";", "\t"])
@pytest.mark.parametrize(
    ("column", "numbers"),
    [
        ("60,000 60,101 7,250", [60, 60.101, 7.25]),
        ("0,5 7 -,25 +1e3 1,5E-2", [0.5, 7, -0.25, 1000, 0.015]),
        ("1.234,5 12,5 1.234.567 1.000 3", [1234.5, 12.5, 1234567, 1000, 3]),
        ("1.234.567 204.196 7", [1234567, 204196, 7]),
        ("1.234 204.196", [1.234, 204.196]),
        ("0.5 1e3 7", [0.5, 1000, 7]),
    ],
)
def test_decimal_commas(tmp_path: Path, column: str, numbers: list[float], separator: str) -> None:
    assert cells(tmp_path, column, separator=separator)["a"] == numbers


def test_what_one_column_proves_holds_for_the_others(tmp_path: Path) -> None:
    assert cells(tmp_path, "1,234 987 5", "0,5 0,25 1")["a"] == [1.234, 987, 5]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["0,5 1,5 2.5"], "column a, row 2: '2.5' has no decimal comma, but '0,5' in row 0 has one. Write all"),
        (["0,5 1,234,567"], "column a, row 1: '1,234,567' has no decimal comma, but '0,5' in row 0 has one."),
        (["7 0,5 1,234.5"], "column a, row 2: '1,234.5' has no decimal comma, but '0,5' in row 1 has one."),
        (["0,5 1.234"], "column a, row 1: '1.234' may be 1234 or 1.234, as there are decimal commas in this table."),
        (["5 204.196", "0,5 1,5"], "column a, row 1: '204.196' may be 204196 or 204.196, as there are decimal commas"),
        (["987 1,234"], "column a, row 1: '1,234' may be 1234 or 1.234, as other cells have no comma. Write numbers"),
        (["1,234 5,678", "0.5 7"], "column a, row 0: '1,234' may be 1234 or 1.234, as there are decimal points in"),
        (["1,234.5 7"], "column a, row 0: '1,234.5' is not a number. Write numbers with a decimal point and without"),
        (["0,5 € 7"], "column a, row 1: '€' is not a number."),
    ],
)
def test_commas_that_may_mean_two_things_are_refused(tmp_path: Path, columns: list[str], message: str) -> None:
    with pytest.raises(InputError) as caught:
        cells(tmp_path, *columns)
    assert caught.value.message.startswith(f"my.csv: {message}")


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (
            "F,M",
            "column x holds text ('F' in row 0), not numbers; categories: one column per value, --columns obs=x:on",
        ),
        ("€ 3.5,€ 4", "column x holds text ('€ 3.5' in row 0), not numbers; categories"),
        (
            "2130-01-01 00:00:00,x",
            "column x holds time stamps ('2130-01-01 00:00:00' in row 0): give a number, or leave",
        ),
        ("06:00,07:00", "column x holds time stamps ('06:00' in row 0): give a number, or leave the column out."),
        ("3,n/a", "column x, row 1: 'n/a' is not a number. Remove or repair this episode."),
    ],
)
def test_columns_that_are_no_numbers(tmp_path: Path, column: str, message: str) -> None:
    path = write(tmp_path, "x,a,r\n" + "".join(f"{cell},0.5,1\n" for cell in column.split(",")))
    with pytest.raises(InputError) as caught:
        load(path, "obs=x,action=a,reward=r")
    assert caught.value.message.startswith(f"my.csv: {message}")
    with pytest.raises(InputError) as caught:
        load(path, "obs=r,action=a,reward=x")
    assert "onehot" not in caught.value.message


# Parquet.


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


# JSON lines.

STEP = {"obs": [1.0, 2.0], "action": [0.5], "reward": 1.0}
PACKED = base64.b64encode(b"\x04\x22\x4d\x18" + b"\x60" * 50).decode()  # the mark of an LZ4 frame


def batch(steps: int = 2) -> Episode:
    actions = [[0.5 * i] for i in range(steps)]
    return {"type": "SampleBatch", "obs": [[1.0, 2.0]] * steps, "actions": actions, "rewards": [1.0] * steps}


def line(**changes: Any) -> str:
    return json.dumps(STEP | changes) + "\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"my\.json holds no line\."),
        (line() + "{" * 3, r"line 2 is not a JSON object \(Expecting property name"),
        (line() + "\n[1]\n", r"line 3 holds no JSON object\."),
        (line() + '{"obs": ' + "[" * 100_000, r"line 2 is nested too deeply\."),
        (line() + '{"obs": ' + "9" * 5000 + "}", "line 2 is not a JSON object"),
        (line() + line(obs=[1.0]), r"line 2: obs has \[1\] a step, but \[2\] in the first line\."),
        (line() + line(obs=[1.0, [2.0]]), "line 2: obs is not a list of numbers, or of lists of one length"),
        (
            line() + line(obs=["a", 1.0]),
            r"column obs holds text \('a' in line 2\), not numbers; categories: one column",
        ),
        (line() + line(reward=None), r"line 2 has no value for reward\."),
        (line() + line(done=True), r"line 2 has done, but the first has not\."),
        (json.dumps(batch() | {"obs": PACKED}), r"line 1: obs is packed: write it with compress_columns=\[\]"),
        (json.dumps(batch() | {"rewards": [1.0]}), r"line 1: rewards has 1 steps, but obs has 2\."),
        (json.dumps(batch() | {"rewards": 1.0}), r"line 1: rewards has no list of steps\."),
        (json.dumps({"type": "MultiAgentBatch", "policy_batches": {"a": {}, "b": {}}}), "of several policies: write"),
    ],
)
def test_lines_that_do_not_do_are_refused(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(write(tmp_path, content, "my.json"))


def test_the_batches_of_one_policy_are_read(tmp_path: Path) -> None:
    document = {
        "type": "MultiAgentBatch",
        "count": 3,
        "policy_batches": {"default_policy": batch(3) | {"dones": [0, 0, 1]}},
    }
    transitions, _ = load(json_lines(tmp_path / "my.jsonl", [document, document]))
    assert transitions.terminals.tolist() == [False, False, True] * 2


def test_labels_in_lines_may_be_words(tmp_path: Path) -> None:
    lines = [STEP | {"obs": [float(i), 0.0], "action": [0.5 * i], "episode": "ab"[i // 3]} for i in range(6)]
    transitions, _ = load(json_lines(tmp_path / "my.jsonl", lines))
    assert (
        transitions.observations[:, 0].tolist() == [0, 1, 3, 4] and transitions.timeouts.tolist() == [False, True] * 2
    )


@pytest.mark.parametrize("one", [batch(3) | {"actions": [0, 1, 0]}, STEP | {"action": 1}])
def test_discrete_actions_in_lines_are_refused(tmp_path: Path, one: Episode) -> None:
    with pytest.raises(InputError, match="holds discrete actions"):
        load(json_lines(tmp_path / "my.jsonl", [one, one, one]))


def test_objects_in_a_line_are_groups(tmp_path: Path) -> None:
    lines = [STEP | {"obs": {"arm": [float(i)], "cube": {}, "t": i}, "action": [0.5 * i]} for i in range(4)]
    path = json_lines(tmp_path / "my.jsonl", lines)
    assert open_log([path]).names == ["obs/arm", "obs/t", "action", "reward"]
    assert load(path)[0].observations.tolist() == [[0, 0], [1, 1], [2, 2]]


def test_json_beside_other_files_is_not_read(tmp_path: Path) -> None:
    as_csv(tmp_path)
    (tmp_path / "about.json").write_text("{}")
    assert log_files(tmp_path) == [tmp_path / "t.csv"]
    (tmp_path / "t.csv").unlink()
    assert log_files(tmp_path) == [tmp_path / "about.json"]
