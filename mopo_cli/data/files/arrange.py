"""The rows of a log as they are learned from: categories as numbers, in the order of their steps, nothing missing."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mopo_cli.data.checks import Check, require
from mopo_cli.data.files.categories import one_hot
from mopo_cli.data.files.layout import Columns, Log
from mopo_cli.data.files.missing import Remedy, mend
from mopo_cli.data.files.order import order_rows
from mopo_cli.data.files.resolve_columns import FileColumns
from mopo_cli.data.transitions import Bools


@dataclass
class Rows:
    """Columns of rows as they were read, and what tells where episodes end.

    `episode` `[N]` are labels, one per episode, `part` `[N]` those of pieces that the record is cut into, None where
    nothing gives them. `dimensions` are the names of the columns that categories became, `numbers` `[N]` the places
    that the rows had in the log, and `begins` those of the first row of each file.
    """

    raw: Columns
    episode: NDArray[np.int64] | None
    part: NDArray[np.int64] | None
    numbers: NDArray[np.int64]
    begins: NDArray[np.int64]
    dimensions: dict[str, list[str]] = field(default_factory=dict)

    def select(self, rows: NDArray[Any]) -> None:
        """Keep these rows, in this order."""
        self.raw = {name: column[rows] for name, column in self.raw.items()}
        self.episode = None if self.episode is None else self.episode[rows]
        self.part = None if self.part is None else self.part[rows]
        self.numbers = self.numbers[rows]

    def in_files(self, checks: Sequence[Check], paths: Sequence[Path]) -> list[Check]:
        """The checks, which say as well where a row is in the file, if it has another place there."""
        return [
            replace(
                check,
                fault=self._placed(check.fault, check.row, paths),
                warning=self._placed(check.warning, check.row, paths),
            )
            for check in checks
        ]

    def _placed(self, text: str, row: int | None, paths: Sequence[Path]) -> str:
        if not text or row is None or row >= len(self.numbers) or (self.numbers[row] == row and len(paths) == 1):
            return text
        number = int(self.numbers[row])
        file = int(np.searchsorted(self.begins, number, side="right")) - 1
        return f"{text} Row {row} is row {number - self.begins[file]} of {paths[file].name}."

    def cut_after(self, rows: Bools) -> None:
        """End the record after these rows `[N]`."""
        before = np.zeros(len(rows), np.int64) if self.part is None else self.part
        ends = rows | (np.diff(before, append=before[-1:]) != 0)
        self.part = np.concatenate([[0], np.cumsum(ends)[:-1]])


def arrange(
    where: str, of: FileColumns, raw: Columns, log: Log, missing: Remedy, notes: list[str]
) -> tuple[Rows, list[Check]]:
    """Arrange what was read of the columns `of` a log, and say what was done: in `notes`, and as warnings.

    Categories become columns of 0 and 1; rows are sorted by their step within episodes, and the record is cut where
    steps are missing; missing values are mended. UnusableData where columns differ in length or rows cannot be ordered.
    """
    labels = [raw[name] for name in (*of.sources.get("episode", ()), log.episode) if name is not None]
    file = None if log.file is None else raw[log.file]
    pieces = [raw[name] for name in (log.part, log.file) if name is not None]
    part = _together(pieces) if pieces else None
    labels += [part] if labels and part is not None else []
    numbers = np.arange(next((len(column) for column in raw.values() if column.ndim), 0))
    begins = np.flatnonzero(np.diff(file, prepend=-1)) if file is not None else numbers[:1]
    rows = Rows(raw, _together(labels) if labels else None, part, numbers, begins)
    checks = [_expand(where, rows, name) for name, kind in of.kinds.items() if kind == "onehot"]
    require(checks)
    if "step" in of.sources or missing != "refuse":
        require(_lengths(where, raw))
    if "step" in of.sources:
        checks += _sort(where, rows, of.sources["step"][0])
    if missing != "refuse":
        checks += _mend(where, rows, of, missing, notes)
    return rows, checks


def _together(labels: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """One label for each combination of several `[N]`."""
    return np.unique(np.stack(labels, axis=1), axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _expand(where: str, rows: Rows, name: str) -> Check:
    words, check = _vector(where, name, rows.raw[name], len(rows.numbers))
    if not check.fault:
        rows.raw[name], rows.dimensions[name], check = one_hot(words, name, where)
    return check


def _vector(where: str, name: str, column: NDArray[Any], rows: int) -> tuple[NDArray[Any], Check]:
    """A column as `[N]`, and whether it is one number or text per row."""
    if column.shape in ((rows,), (rows, 1)):
        return column.reshape(rows), Check(name, "shape")
    fault = f"{where}: column {name} has shape {column.shape}, not [rows] or [rows, 1]."
    return column, Check(name, "shape", fault)


def _lengths(where: str, raw: Columns) -> list[Check]:
    first = next(name for name, column in raw.items() if column.ndim)
    count = len(raw[first])
    return [
        Check(name, "number of rows", f"{where}: column {name} has {len(column)} rows, but {first} has {count}.")
        for name, column in raw.items()
        if column.ndim and len(column) != count
    ]


def _sort(where: str, rows: Rows, name: str) -> list[Check]:
    column, check = _vector(where, name, rows.raw[name], len(rows.numbers))
    require([check])
    step = column.astype(np.float64)
    if not np.isfinite(step).all():
        row = int(np.flatnonzero(~np.isfinite(step))[0])
        require([Check(name, "steps", f"{where}: column {name} holds no number in row {row}.", row)])
    # A step means the same in every file; without a column of episodes, files begin again.
    labels = rows.episode if rows.episode is not None else rows.part
    order = order_rows(step, labels, _content(rows), name, where)
    rows.select(order.rows)
    if rows.episode is not None or order.restarts:
        rows.episode = order.episode
    else:  # a clock that goes on: only flags tell where an episode ends
        rows.part = order.episode
    if order.gap.any():
        rows.cut_after(order.gap)
    return order.checks


def _content(rows: Rows) -> NDArray[np.int64]:
    """Numbers `[N]`, equal where rows are equal in every column that was read."""
    marks = [mark for mark in (rows.episode, rows.part) if mark is not None]
    content = np.zeros(len(next(iter(rows.raw.values()))), np.int64)
    for column in (*marks, *rows.raw.values()):
        for values in column.reshape(len(content), -1).T:
            distinct, numbers = np.unique(values, return_inverse=True)
            content = np.unique(content * len(distinct) + numbers, return_inverse=True)[1].astype(np.int64)
    return content


def _mend(where: str, rows: Rows, of: FileColumns, missing: Remedy, notes: list[str]) -> list[Check]:
    count = len(next(iter(rows.raw.values())))
    flags = [*of.sources.get("terminals", ()), *of.sources.get("timeouts", ())]
    rows.raw |= {name: np.nan_to_num(rows.raw[name]) for name in flags}  # an empty flag marks no end
    marks = [mark for mark in (rows.episode, rows.part) if mark is not None]
    ends = np.zeros(count, np.bool_)
    for name in flags:
        ends |= (rows.raw[name].reshape(count, -1) == 1).any(axis=1)
    episode = _together([*marks, np.cumsum(ends) - ends])
    marking = {*of.sources.get("episode", ()), *of.sources.get("step", ())}
    # A next observation in the log is that of the row left out, so the record ends there.
    remedy = "split-episodes" if missing == "drop-rows" and "next_observations" in of.sources else missing
    mended = mend({name: column for name, column in rows.raw.items() if name not in marking}, episode, remedy)
    checks = [
        _check_repeated(where, name, rows.raw[name], mended.columns[name]) for name in of.sources.get("rewards", ())
    ]
    checks += [_check_left_out(where, name, rows.raw[name], mended.kept) for name in of.sources.get("terminals", ())]
    rows.raw |= mended.columns
    if mended.cut.any():
        rows.cut_after(mended.cut)
    rows.select(mended.kept)
    notes.append(mended.note)
    return checks


def _check_left_out(where: str, name: str, flag: NDArray[Any], kept: Bools) -> Check:
    """A warning where rows that end the task were left out."""
    ends = (flag.reshape(len(kept), -1) == 1).any(axis=1)
    if not (count := int((ends & ~kept).sum())):
        return Check(name, "ends left out")
    warning = (
        f"{where}: {count} of {int(ends.sum())} rows that {name} marks lack a value and were left out, and with them "
        "these ends of the task. If such a row only holds the state in which an episode ended, mark the row before it."
    )
    return Check(name, "ends left out", warning=warning)


def _check_repeated(where: str, name: str, logged: NDArray[Any], filled: NDArray[Any]) -> Check:
    """A warning where rewards that are missing took the value of the row before."""
    if logged.dtype.kind != "f" or not (count := int((np.isnan(logged) & ~np.isnan(filled)).sum())):
        return Check(name, "missing rewards")
    warning = (
        f"{where}: {count} rewards of column {name} were missing and took the value of the row before. Their sum "
        f"is now {np.nansum(filled):.4g}, that of the log is {np.nansum(logged):.4g}. Where an empty cell means no "
        "reward, write 0."
    )
    return Check(name, "missing rewards", warning=warning)
