"""What a file of logs holds and what mopo takes its columns for: the answer to `mopo fetch-data --explain`."""

from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mopo_cli.data.checks import UnusableData
from mopo_cli.data.files.column_map import short_name
from mopo_cli.data.files.layout import Columns, Log, Wanted
from mopo_cli.data.files.layouts import LAYOUTS, open_log
from mopo_cli.data.files.resolve_columns import conventional, numbered
from mopo_cli.errors import MopoError

_FIRST = 3
_PLACES = {"obs": "STATE+STATE", "action": "ACTION", "reward": "REWARD"}


@dataclass(frozen=True)
class Column:
    """A column of the file: its shape without the rows, the range of its numbers (None for text), its first values.

    `role` is what it is taken for, as in --columns; empty where it is not used.
    """

    name: str
    shape: tuple[int, ...]
    least: float | None
    greatest: float | None
    first: str
    role: str


@dataclass(frozen=True)
class Explanation:
    """What a file is: its layout, what was understood, its rows and columns, and a map of columns to edit."""

    layout: str
    understood: str
    rows: int
    columns: list[Column]
    column_map: str


def explain(paths: Sequence[Path], layout: str | None = None) -> Explanation:
    """Describe the log in these files. InputError or CorruptError where it cannot be opened at all."""
    log = open_log(paths, layout)
    roles = {name: short_name(ours) for ours, names in conventional(log.names).items() for name in names}
    numbers = _numbers(log)
    described = [_column(log, name, roles.get(name, ""), numbers.get(name)) for name in log.names]
    about = LAYOUTS[log.layout].about
    understood = f"{about}; {log.note}" if log.note else about
    rows = max((count for count, _ in described), default=0)
    columns = [column for _, column in described]
    # An image can be no column of ours.
    flat = {column.name for column in columns if len(column.shape) < 2}
    return Explanation(log.layout, understood, rows, columns, _suggested_map(log, flat))


def _suggested_map(log: Log, flat: Container[str]) -> str:
    """A map for --columns with what was understood of flat columns, and a place to fill in for what was not."""
    parts = dict(_PLACES)
    for ours, names in conventional(log.names).items():
        short = short_name(ours)
        there = names if all(name in log.names for name in names) else numbered(short, log.names)
        if usable := [name for name in there if name in flat]:
            parts[short] = "+".join(usable)
    return ",".join(f"{name}={value}" for name, value in parts.items())


def _numbers(log: Log) -> Columns:
    """The columns that hold numbers, read together as `fetch-data` does: how one is written tells of the others."""
    names = log.names
    try:
        return log.read(Wanted(names, missing=True))
    except UnusableData as error:
        others = {check.column for check in error.checks if check.fault}
        names = [name for name in names if name not in others]
    except MopoError:
        return {}
    try:
        return log.read(Wanted(names, missing=True))
    except MopoError:
        return {}


def _column(log: Log, name: str, role: str, numbers: NDArray[Any] | None) -> tuple[int, Column]:
    """Its rows, and numbers with their range; what are no numbers as text; what cannot be read with the reason."""
    values = _read(log, Wanted([name], missing=True)) if numbers is None else numbers
    if isinstance(values, str) or values.dtype.kind not in "fiub":
        values = _read(log, Wanted(words=[name]))
        if isinstance(values, str):
            return 0, Column(name, (), None, None, values, role)
        return len(values), Column(name, (), None, None, ", ".join(map(repr, values[:_FIRST].tolist())), role)
    numbers = values.astype(np.float64)
    finite = numbers[np.isfinite(numbers)]
    least, greatest = (float(finite.min()), float(finite.max())) if len(finite) else (None, None)
    first = ", ".join(f"{value:.6g}" for value in numbers.reshape(-1)[:_FIRST])
    return len(numbers) if numbers.ndim else 0, Column(name, values.shape[1:], least, greatest, first, role)


def _read(log: Log, wanted: Wanted) -> NDArray[Any] | str:
    """The only wanted column, or why it cannot be read."""
    (name,) = wanted.names
    try:
        return log.read(wanted)[name]
    except MopoError as error:
        return error.message
