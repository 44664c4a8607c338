"""Raw columns as they should be: matrices and vectors of f4, flags of bool, and the ends that labels mark."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mopo_cli.data.checks import Check
from mopo_cli.data.files.column_map import WIDE
from mopo_cli.data.transitions import Bools
from mopo_cli.data.validate import finite

REPAIR = "remove or repair these episodes"
FLAGS = ("terminals", "timeouts")


def tidy_column(column: NDArray[Any], ours: str, name: str, where: str, flat: bool) -> tuple[NDArray[Any], Check]:
    """A raw column for ``ours``: `[N, width]` or `[N]` f4, flags bool, the labels of episodes as they are.

    Besides, what is wrong with it, told of ``name`` in ``where``. ``flat``: whether `[N]` is a matrix of width 1.
    """
    if ours in WIDE:
        if flat and column.ndim == 1:
            column = column[:, None]
        if column.ndim != 2:
            return column, Check(name, "shape", f"{where}: column {name} has shape {column.shape}, not [rows, width].")
    else:
        if column.ndim == 2 and column.shape[1] == 1:
            column = column[:, 0]
        if column.ndim != 1:
            fault = f"{where}: column {name} has shape {column.shape}, not [rows] or [rows, 1]."
            return column, Check(name, "shape", fault)
    if ours == "episode":
        return column, Check(name, "labels")
    return _flags(column, name, where) if ours in FLAGS else _floats(column, name, where)


def end_episodes(
    labels: NDArray[np.int64], terminals: Bools, timeouts: Bools, name: str, where: str
) -> tuple[Bools, Check]:
    """Timeouts `[N]`, true as well in the last row of every run of equal labels `[N]` that is no terminal.

    It is a fault where a label comes again after another, and where a terminal is not the last row of its label.
    """
    first = np.flatnonzero(np.diff(labels, prepend=labels[:1] - 1))
    last = np.zeros(len(labels), np.bool_)
    last[first[1:] - 1] = True
    last[-1:] = True
    check = Check(name, "rows of an episode together")
    firsts = np.unique(labels[first], return_index=True)[1]
    if len(firsts) < len(first):
        row = int(np.delete(first, firsts)[0])
        fault = (
            f"{where}: column {name}: row {row} continues an episode that ended before. If several episodes share "
            "this value, as those of two workers may, give each its own value, such as worker and episode together. "
            "If the rows of one episode are not next to each other, name the column of their step or time, as step=t."
        )
        check = Check(name, check.what, fault, row)
    elif (terminals & ~last).any():
        row = int(np.flatnonzero(terminals & ~last)[0])
        fault = (
            f"{where}: row {row} is a terminal, but its episode ({name}) continues in the next row: mark only the last "
            "row of an episode."
        )
        check = Check(name, check.what, fault, row)
    return timeouts | (last & ~terminals), check


def _flags(column: NDArray[Any], name: str, where: str) -> tuple[Bools, Check]:
    odd = np.flatnonzero((column != 0) & (column != 1))
    fault = f"{where}: column {name} holds {column[odd[0]]} in row {odd[0]}, not 0 or 1." if len(odd) else ""
    return column.astype(np.bool_), Check(name, "0 or 1", fault, int(odd[0]) if len(odd) else None)


def _floats(column: NDArray[Any], name: str, where: str) -> tuple[NDArray[np.float32], Check]:
    # What does not fit becomes infinite, which is a fault like any other infinity.
    with np.errstate(over="ignore"):
        floats = column.astype(np.float32)
    mend = f"{REPAIR}, or say with --missing what to do with rows that lack a value"
    return floats, finite(name, floats, where, mend if np.isnan(floats).any() else REPAIR)
