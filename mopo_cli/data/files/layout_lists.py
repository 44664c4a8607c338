"""The layout of tables with one episode per row, of which cells are lists of steps: Parquet, or JSON lines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mopo_cli.data.files import json_logs
from mopo_cli.data.files.arrow import values_of
from mopo_cli.data.files.arrow_values import is_list, sequences_of
from mopo_cli.data.files.layout import Layout, Log, Wanted
from mopo_cli.data.files.layout_episodes import EPISODE, Episode, Place, log_of
from mopo_cli.data.files.layout_json import is_json
from mopo_cli.data.files.layout_rows import PARQUET
from mopo_cli.data.files.parquet_tables import depth, list_lengths, parquet_types, read_parquet
from mopo_cli.data.files.resolve_columns import conventional
from mopo_cli.errors import InputError
from mopo_cli.store.run import data_ending

Lengths = dict[str, NDArray[np.int64]]


class _Rows(Protocol):
    """A file whose rows may be episodes."""

    @property
    def path(self) -> Path: ...

    def depths(self) -> dict[str, int]:
        """How many lists there are around the numbers of a column."""

    def fractions(self) -> set[str]:
        """The columns of single numbers that need not be whole."""

    def lengths(self, names: Sequence[str]) -> Lengths:
        """The lengths of the lists in columns, `[rows]`."""

    def read(self, names: Sequence[str], text: Sequence[str] = ()) -> Mapping[str, Any]:
        """Columns as one array for each row, those of `text` of text."""


@dataclass(frozen=True)
class _Parquet:
    path: Path

    def depths(self) -> dict[str, int]:
        depths = {name: depth(kind) for name, kind in parquet_types(self.path).items()}
        return {name: lists for name, lists in depths.items() if lists is not None and lists <= 2}

    def fractions(self) -> set[str]:
        from pyarrow import types

        return {name for name, kind in parquet_types(self.path).items() if types.is_floating(kind)}

    def lengths(self, names: Sequence[str]) -> Lengths:
        return list_lengths(self.path, names)

    def read(self, names: Sequence[str], text: Sequence[str] = ()) -> Mapping[str, Any]:
        wanted = Wanted([name for name in names if name not in text], words=text)
        columns = read_parquet(self.path, wanted, 2)
        lists = {name: column for name, column in columns.items() if is_list(column.type)}
        single = {name: column for name, column in columns.items() if name not in lists}
        sequences: dict[str, Any] = {}

        def convert(name: str, column: Any) -> NDArray[Any]:
            sequences[name] = sequences_of(column)
            return np.empty(0)

        values_of(self.path, lists, Wanted(), convert)
        return sequences | dict(values_of(self.path, single, wanted))


@dataclass(frozen=True)
class _Json:
    path: Path

    def depths(self) -> dict[str, int]:
        depths = {name: json_logs.depth(value) for name, value in json_logs.first_line(self.path).values.items()}
        return {name: lists for name, lists in depths.items() if lists is not None and lists <= 2}

    def fractions(self) -> set[str]:
        return {name for name, value in json_logs.first_line(self.path).values.items() if isinstance(value, float)}

    def lengths(self, names: Sequence[str]) -> Lengths:
        lines = ([line.values.get(name) for name in names] for line in json_logs.read_lines(self.path))
        lengths = [[len(value) if isinstance(value, list) else 0 for value in values] for values in lines]
        return dict(zip(names, np.array(lengths, np.int64).T, strict=True))

    def read(self, names: Sequence[str], text: Sequence[str] = ()) -> Mapping[str, Any]:
        cells = json_logs.Cells(self.path, text)
        columns: dict[str, list[NDArray[Any]]] = {name: [] for name in names}
        for line in json_logs.read_lines(self.path):
            for name, arrays in columns.items():
                array = cells.array(name, cells.value(line, name), line.number)
                if arrays and array.shape[1:] != arrays[0].shape[1:]:
                    shapes = f"{list(array.shape[1:])} a step, but {list(arrays[0].shape[1:])} in the first line"
                    raise InputError(f"{self.path.name}: line {line.number}: {name} has {shapes}.")
                arrays.append(array)
        return columns


def _open_lists(path: Path) -> Log | None:
    rows: _Rows
    if data_ending(path.name) == PARQUET:
        rows = _Parquet(path)
    elif is_json(path):
        rows = _Json(path)
    else:
        return None
    depths = rows.depths()
    lists = [name for name, around in depths.items() if around]
    if not lists or not (lengths := _sequences(rows, depths, lists)):
        return None
    steps = lengths[_steps_of(lengths)]
    if not len(steps) or (steps == 0).any():
        row = int(np.flatnonzero(steps == 0)[0]) if len(steps) else 0
        raise InputError(f"{path.name}: row {row} holds no steps, but each row should be an episode.")
    single = {name: np.zeros(len(steps), np.int64) for name in depths if name not in lists}
    episodes = [
        Episode(
            int(count),
            int(count),
            {
                name: Place(name, (int(each[i]),) if name in lists else (), i)
                for name, each in (lengths | single).items()
            },
        )
        for i, count in enumerate(steps)
    ]
    if len(episodes) == 1:  # which may be all of a log
        log = log_of(rows, episodes, "one row of lists of steps")
        return replace(log, is_table=True) if log.following else replace(log, is_table=True, episode=None, part=EPISODE)
    return replace(log_of(rows, episodes, f"{len(episodes)} rows, one per episode, of lists of steps"), is_table=True)


def _sequences(rows: _Rows, depths: dict[str, int], lists: list[str]) -> Lengths:
    """The lengths of the lists in the columns of lists, none where a row is one step.

    A row is an episode where its reward is a list, not of one number beside a vector; where no column is called a
    reward, where there is a list of lists and no number by itself.
    """
    usual = conventional(list(depths))
    if "rewards" not in usual:
        return rows.lengths(lists) if max(depths.values()) == 2 and not rows.fractions() else {}
    (reward,) = usual["rewards"]
    if reward not in lists:
        return {}
    vectors = all(depths[name] < 2 for name in usual.get("observations", ()))
    return {} if vectors and (rows.lengths([reward])[reward] <= 1).all() else rows.lengths(lists)


def _steps_of(lengths: Lengths) -> str:
    """The column whose lists have as many entries as there are steps: the actions, else one like the most others."""
    if actions := conventional(list(lengths)).get("actions"):
        return actions[0]
    return max(lengths, key=lambda name: sum(np.array_equal(lengths[name], other) for other in lengths.values()))


LISTS = Layout("Parquet or JSON lines with one episode per row, of which cells are lists of steps", _open_lists)
