"""The plain layouts: a row per step, under a heading (CSV, Parquet) or in arrays (HDF5, NPZ)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from mopo_cli.data.checks import Check, require
from mopo_cli.data.files.arrow import text_column, values_of
from mopo_cli.data.files.arrow_values import SHOWN
from mopo_cli.data.files.csv_tables import open_csv
from mopo_cli.data.files.layout import Columns, Layout, Log, Wanted
from mopo_cli.data.files.npz import npz_names, npz_shapes, read_npz
from mopo_cli.data.files.parquet_tables import open_parquet
from mopo_cli.errors import InputError
from mopo_cli.store import columns as hdf5
from mopo_cli.store.files import check_file
from mopo_cli.store.run import DATA_FILES, JSON_LINES, TEXT_TABLES, data_ending

PARQUET = ".parquet"
_OTHERS = (*TEXT_TABLES, *JSON_LINES, PARQUET)


def check_kind(path: Path) -> None:
    """InputError unless the file is of a kind that is read: by the end of its name, or HDF5 by what it holds."""
    if path.name.lower().endswith(DATA_FILES):
        return
    check_file(path)
    if not h5py.is_hdf5(path):
        raise InputError(
            f"{path} is not an HDF5 (.h5, .hdf5), NPZ (.npz), CSV (.csv, .tsv), Parquet (.parquet) or JSON (.json, "
            ".jsonl) file; CSV and JSON files may be gzipped (.csv.gz).",
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
    """A column as it is wanted: labels as codes, words as text, points of time in seconds, others as they are.

    Text is taken as that of a table is. InputError for labels of other shapes, UnusableData for a bad cell.
    """
    if name in wanted.text and column.dtype.kind in "SU":
        _check_vector(path, name, column)
        words = np.char.decode(column, "utf-8", "backslashreplace") if column.dtype.kind == "S" else column
        return values_of(path, {name: text_column(words.ravel())}, wanted)[name]
    if name in wanted.labels:
        return codes(path, name, column)
    return column.astype(np.str_) if name in wanted.words else column


def open_arrays(path: Path) -> Arrays | None:
    """The arrays in an HDF5 or NPZ file; None for a file of another kind. InputError for what no layout reads."""
    if data_ending(path.name) in _OTHERS:
        return None
    check_kind(path)
    return Arrays(path)


def codes(path: Path, name: str, values: NDArray[Any]) -> NDArray[np.int64]:
    """Labels `[N]` as numbers, equal where the labels are. InputError for other shapes, NaN and infinity."""
    _check_vector(path, name, values)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values.ravel()))[0])
        require([Check(name, "labels", f"{path.name}: column {name} holds NaN or infinity in row {row}.", row)])
    return np.unique(values.ravel(), return_inverse=True)[1].astype(np.int64)


def _check_vector(path: Path, name: str, values: NDArray[Any]) -> None:
    if not values.ndim or values.size != len(values):
        raise InputError(f"{path.name}: column {name} has shape {values.shape}, not [rows] or [rows, 1].")


def _open_rows(path: Path) -> Log | None:
    if (arrays := open_arrays(path)) is None:
        return None

    def read(wanted: Wanted) -> Columns:
        raw = arrays.read(wanted.names, wanted.text)
        return {name: typed(path, name, column, wanted) for name, column in raw.items()}

    return Log(arrays.names(), read)


def _open_table(path: Path) -> Log | None:
    ending = data_ending(path.name)
    if ending == PARQUET:
        return open_parquet(path)
    if ending not in TEXT_TABLES:
        return None
    log = open_csv(path)
    if len(log.names) == 1:
        raise InputError(
            f"{path.name} has only one column ({log.names[0][:SHOWN]!r}), and a log has more: write commas, "
            "semicolons or tabs between the cells."
        )
    return log


ROWS = Layout("HDF5 or NPZ with one array per column, a row per step", _open_rows)
TABLE = Layout("CSV or Parquet with one column per number or list, a row per step", _open_table)
