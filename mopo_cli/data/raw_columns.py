"""The columns of a data file, HDF5, NPZ, CSV or Parquet: as they are stored, labels as codes; and as they should be.

That is matrices and vectors of f4, flags of bool, and the ends that labels mark.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from mopo_cli.data import arrow
from mopo_cli.data.checks import Check, require
from mopo_cli.data.npz import npz_names, read_npz
from mopo_cli.data.transitions import Bools
from mopo_cli.data.validate import finite
from mopo_cli.errors import InputError
from mopo_cli.store import columns as hdf5
from mopo_cli.store.files import check_file
from mopo_cli.store.run import DATA_FILES

WIDE = ("observations", "actions", "next_observations")
FLAGS = ("terminals", "timeouts")


def is_table(path: Path) -> bool:
    """Whether a file's columns are single numbers under a heading; in the others they are arrays, found by a path."""
    return path.suffix.lower() in (".csv", ".parquet")


def check_kind(path: Path) -> None:
    """InputError unless the file is of a kind that is read: by the end of its name, or HDF5 by what it holds."""
    if path.suffix.lower() in DATA_FILES:
        return
    check_file(path)
    if not h5py.is_hdf5(path):
        raise InputError(
            f"{path} is not an HDF5 (.h5, .hdf5), NPZ (.npz), CSV (.csv) or Parquet (.parquet) file.",
            hint="save it as one of these",
        )


def column_names(path: Path) -> list[str]:
    """The names of all columns, in the order of the file (HDF5: sorted). Errors as `check_kind` and `read_raw`."""
    check_kind(path)
    if is_table(path):
        return arrow.table_names(path)
    if path.suffix.lower() == ".npz":
        return npz_names(path)
    with hdf5.open_hdf5(path) as file:
        return hdf5.column_names(file)


def read_raw(path: Path, numbers: Sequence[str], labels: Sequence[str] = ()) -> dict[str, NDArray[Any]]:
    """Read columns by name: ``numbers`` of any numeric type, ``labels`` as int64 codes, equal where the values are.

    In CSV and Parquet, text that is a number counts as one, ``true`` and ``false`` as 1 and 0; whole numbers
    stay integers. Memory is bounded by what the file holds. Raises UnusableData (an InputError) telling the
    first cell of every column that is empty or no number, InputError for what else cannot be read, CorruptError
    for a damaged file.
    """
    if is_table(path):
        return arrow.read_table(path, numbers, labels)
    if path.suffix.lower() == ".npz":
        raw = read_npz(path, [*numbers, *labels], labels)
    else:
        with hdf5.open_hdf5(path) as file:
            raw = hdf5.read_columns(file, [*numbers, *labels], labels)
    return {name: _codes(path, name, column) if name in labels else column for name, column in raw.items()}


def _codes(path: Path, name: str, values: NDArray[Any]) -> NDArray[np.int64]:
    if not values.ndim or values.size != len(values):
        raise InputError(f"{path.name}: column {name} has shape {values.shape}, not [rows] or [rows, 1].")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values.ravel()))[0])
        require([Check(name, "labels", f"{path.name}: column {name} holds NaN or infinity in row {row}.", row)])
    return np.unique(values.ravel(), return_inverse=True)[1].astype(np.int64)


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
            "If the rows of one episode are not next to each other, sort the rows by episode and by time."
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
    return floats, finite(name, floats, where)
