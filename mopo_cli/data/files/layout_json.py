"""Layouts of JSON lines: a batch of steps per line, as RLlib writes them, and a step per line."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mopo_cli.data.files.json_logs import Cells, Line, first_line, read_lines
from mopo_cli.data.files.layout import Columns, Layout, Log, Wanted
from mopo_cli.data.files.layout_rows import typed
from mopo_cli.errors import InputError
from mopo_cli.store.run import JSON_LINES, data_ending

# Of lines that become one array.
_BYTES, _LINES = 32 << 20, 4096


def is_json(path: Path) -> bool:
    """Whether the file is one of JSON lines, by its name."""
    return data_ending(path.name) in JSON_LINES


def names_of(line: Line) -> list[str]:
    """The names of the columns in a line; what is no number, text or list of them is refused when it is read."""
    return list(line.values)


def _open_rllib(path: Path) -> Log | None:
    if not is_json(path) or not (first := first_line(path)).is_batch:
        return None

    def read(wanted: Wanted) -> Columns:
        cells, parts = Cells(path, wanted.text, wanted.missing), defaultdict(list)
        for line in read_lines(path):
            arrays = {name: cells.array(name, cells.value(line, name), line.number) for name in wanted.names}
            _refuse_other_lengths(path, line.number, arrays)
            for name, array in arrays.items():
                parts[name].append(array)
        return _columns(path, parts, wanted)

    return Log(names_of(first), read, is_table=True, note="JSON lines, a batch of steps in each")


def _open_lines(path: Path) -> Log | None:
    if not is_json(path):
        return None

    def read(wanted: Wanted) -> Columns:
        cells, parts = Cells(path, wanted.text, wanted.missing), defaultdict(list)
        lengths: dict[str, int] = {}
        for some in _groups(path):
            for name in wanted.names:
                values = [cells.value(line, name) for line in some]
                if wanted.missing:
                    values = _filled(values, some, name, lengths)
                parts[name].append(_steps(cells, name, values, some))
        return _columns(path, parts, wanted)

    return Log(names_of(first_line(path)), read, is_table=True, note="JSON lines, a step in each")


def _columns(path: Path, parts: Mapping[str, list[NDArray[Any]]], wanted: Wanted) -> Columns:
    columns = {name: _stacked(path, name, arrays) for name, arrays in parts.items()}
    return {name: typed(path, name, column, wanted) for name, column in columns.items()}


def _groups(path: Path) -> Iterator[list[Line]]:
    some: list[Line] = []
    held = 0
    for line in read_lines(path):
        some.append(line)
        held += line.bytes
        if held >= _BYTES or len(some) >= _LINES:
            yield some
            some, held = [], 0
    if some:
        yield some


def _filled(values: list[Any], some: list[Line], name: str, lengths: dict[str, int]) -> list[Any]:
    """Values of which a list that is missing is one of NaN, as long as the others; ``lengths`` are those by name."""
    length = next((len(value) for value in values if isinstance(value, list)), lengths.get(name))
    if length is None:
        return values
    lengths[name] = length
    return [
        [float("nan")] * length if line.values.get(name) is None else value
        for value, line in zip(values, some, strict=True)
    ]


def _steps(cells: Cells, name: str, values: list[Any], some: list[Line]) -> NDArray[Any]:
    """A column of some lines; the error of a line where they do not go together."""
    try:
        return cells.array(name, values, some[0].number)
    except InputError:
        arrays = [cells.array(name, value, line.number) for value, line in zip(values, some, strict=True)]
    numbers = [line.number for line in some]
    return _stacked(cells.path, name, [array[None] for array in arrays], numbers)


def _stacked(path: Path, name: str, arrays: list[NDArray[Any]], numbers: Sequence[int] | None = None) -> NDArray[Any]:
    """Arrays one after another; InputError where their widths differ. ``numbers``: those of their lines."""
    for i, array in enumerate(arrays):
        if array.shape[1:] != arrays[0].shape[1:]:
            where = f"line {numbers[i]}" if numbers is not None else "a later line"
            shapes = f"{list(array.shape[1:])} a step, but {list(arrays[0].shape[1:])} in the first line"
            raise InputError(f"{path.name}: {where}: {name} has {shapes}.")
    return np.concatenate(arrays)


def _refuse_other_lengths(path: Path, number: int, arrays: dict[str, NDArray[Any]]) -> None:
    (first, like), *others = arrays.items()
    for name, array in ((first, like), *others):
        if not array.ndim or len(array) != len(like):
            steps = f"{len(array)} steps, but {first} has {len(like)}" if array.ndim else "no list of steps"
            raise InputError(f"{path.name}: line {number}: {name} has {steps}.")


RLLIB = Layout("JSON lines of batches, as RLlib's JsonWriter writes with compress_columns=[]", _open_rllib)
LINES = Layout('JSON lines with one step in each, as {"obs": [0.1, 0.2], "action": [1.0], "reward": 0.5}', _open_lines)
