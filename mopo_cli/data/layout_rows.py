"""The plain layouts: a row per step, under a heading (CSV, Parquet) or in arrays (HDF5, NPZ)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from mopo_cli.data import arrow
from mopo_cli.data.checks import Check, require
from mopo_cli.data.layout import Columns, Layout, Log, Wanted
from mopo_cli.data.npz import npz_names, npz_shapes, read_npz
from mopo_cli.errors import InputError
from mopo_cli.store import columns as hdf5
from mopo_cli.store.files import check_file
from mopo_cli.store.run import DATA_FILES

TABLES = (".csv", ".parquet")


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


@dataclass(frozen=True)
class Arrays:
    """The arrays in an HDF5 or NPZ file."""

    path: Path

    def names(self) -> list[str]:
        """The names of all, in the order of the file (HDF5: sorted)."""
        if self._is_npz:
            return npz_names(self.path)
        with hdf5.open_hdf5(self.path) as file:
            return hdf5.column_names(file)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of those that hold numbers or text of fixed length; none is read."""
        if self._is_npz:
            return npz_shapes(self.path)
        with hdf5.open_hdf5(self.path) as file:
            return hdf5.column_shapes(file)

    def read(self, names: Sequence[str], text: Sequence[str] = ()) -> Columns:
        """Arrays as they are stored; those of `text` may be text. Memory is bounded by what the file holds."""
        if self._is_npz:
            return read_npz(self.path, names, text)
        with hdf5.open_hdf5(self.path) as file:
            return hdf5.read_columns(file, names, text)

    @property
    def _is_npz(self) -> bool:
        return self.path.suffix.lower() == ".npz"


def typed(path: Path, name: str, column: NDArray[Any], wanted: Wanted) -> NDArray[Any]:
    """A column as it is wanted: labels as codes, words as text, others as they are. Errors as `codes`."""
    if name in wanted.labels:
        return codes(path, name, column)
    if name in wanted.words:
        return np.char.decode(column) if column.dtype.kind == "S" else column.astype(np.str_)
    return column


def codes(path: Path, name: str, values: NDArray[Any]) -> NDArray[np.int64]:
    """Labels `[N]` as numbers, equal where the labels are. InputError for other shapes, NaN and infinity."""
    if not values.ndim or values.size != len(values):
        raise InputError(f"{path.name}: column {name} has shape {values.shape}, not [rows] or [rows, 1].")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values.ravel()))[0])
        require([Check(name, "labels", f"{path.name}: column {name} holds NaN or infinity in row {row}.", row)])
    return np.unique(values.ravel(), return_inverse=True)[1].astype(np.int64)


def _open_rows(path: Path) -> Log | None:
    if path.suffix.lower() in TABLES:
        return None
    check_kind(path)
    arrays = Arrays(path)

    def read(wanted: Wanted) -> Columns:
        raw = arrays.read(wanted.names, [*wanted.labels, *wanted.words])
        return {name: typed(path, name, column, wanted) for name, column in raw.items()}

    return Log(arrays.names(), read)


def _open_table(path: Path) -> Log | None:
    if path.suffix.lower() not in TABLES:
        return None
    return Log(arrow.table_names(path), lambda wanted: arrow.read_table(path, wanted), is_table=True)


ROWS = Layout("HDF5 or NPZ with one array per column, a row per step", _open_rows)
TABLE = Layout("CSV or Parquet with a heading, a row per step", _open_table)
