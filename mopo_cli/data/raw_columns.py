"""The raw columns of a data file, HDF5, NPZ, CSV or Parquet: numbers as they are stored, labels as codes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from mopo_cli.data import arrow
from mopo_cli.data.checks import Check, require
from mopo_cli.data.npz import npz_names, read_npz
from mopo_cli.errors import InputError
from mopo_cli.store import columns as hdf5
from mopo_cli.store.files import check_file
from mopo_cli.store.run import DATA_FILES


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
