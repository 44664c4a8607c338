"""Missing values in logs: which rows are kept, with what in them, and where the record is cut."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mopo_cli.data.transitions import Bools

Remedy = Literal["refuse", "drop-rows", "split-episodes", "fill-forward"]


@dataclass(frozen=True)
class Kept:
    """Columns with their missing values filled in, which rows are `kept` `[N]`, and after which the record is `cut`.

    `note` has the counts, in words.
    """

    columns: dict[str, NDArray[Any]]
    kept: Bools
    cut: Bools
    note: str


def mend(columns: Mapping[str, NDArray[Any]], episode: NDArray[np.int64], remedy: Remedy) -> Kept:
    """Do as `remedy` says with the missing values (NaN) in columns `[N]` or `[N, width]`; `episode` `[N]` has labels.

    - drop-rows: a row that lacks a value is left out, and the rows before and after it follow one another;
    - split-episodes: it is left out, and the record is cut there;
    - fill-forward: it takes the value of the row before it; rows before the first value of an episode are left out.
    """
    filled = dict(columns)
    count = 0
    for name, column in columns.items():
        lacks = _lacks(column)
        if lacks.any():
            count += int(lacks.sum())
            if remedy == "fill-forward":
                filled[name] = _filled(column, episode)
    lacking = np.zeros(len(episode), np.bool_)
    for column in filled.values():
        lacking |= _lacks(column).reshape(len(episode), -1).any(axis=1)
    kept = ~lacking
    ends = np.diff(episode, append=episode[-1:] + 1) != 0
    # An end whose row is left out moves to the last row before it that is kept.
    cut = _last_kept(kept, lacking if remedy == "split-episodes" else lacking & ends, episode)
    where = f"in {int(lacking.sum())} rows, which were left out"
    if remedy == "fill-forward":
        where = f"filled with the value before; {int(lacking.sum())} rows without one were left out"
    return Kept(filled, kept, cut, f"{count} missing values {where}" if count else "no value is missing")


def _lacks(column: NDArray[Any]) -> Bools:
    return np.isnan(column) if column.dtype.kind == "f" else np.zeros(column.shape, np.bool_)


def _filled(column: NDArray[Any], episode: NDArray[np.int64]) -> NDArray[Any]:
    """Each missing value replaced by the last one before it in its episode, if there is one."""
    lacks = _lacks(column).reshape(len(column), -1)
    rows = np.arange(len(column))[:, None]
    begins = np.maximum.accumulate(np.where(np.diff(episode, prepend=episode[:1] - 1) != 0, rows[:, 0], 0))[:, None]
    last = np.maximum(np.maximum.accumulate(np.where(lacks, -1, rows), axis=0), begins)
    return np.take_along_axis(column.reshape(len(column), -1), last, axis=0).reshape(column.shape)


def _last_kept(kept: Bools, before: Bools, episode: NDArray[np.int64]) -> Bools:
    """The kept rows `[N]` that come last, in their episode, before a row of `before` `[N]`."""
    last = np.maximum.accumulate(np.where(kept, np.arange(len(kept)), -1))
    rows = np.flatnonzero(before)
    rows = rows[last[rows] >= 0]
    cut = np.zeros(len(kept), np.bool_)
    cut[last[rows][episode[last[rows]] == episode[rows]]] = True
    return cut
