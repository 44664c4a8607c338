"""The same episodes in tables and JSON lines, as programs write them, give the same transitions, bit for bit."""

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
from data.test_layouts import LENGTHS, episodes, joined, load
from pyarrow import parquet

from mopo_cli.config.schema_data import FetchData
from mopo_cli.data.files.layouts import LAYOUTS
from mopo_cli.data.transitions import COLUMNS

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
