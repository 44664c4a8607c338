"""Tables of cells in files of every kind, written as people and their programs write them."""

import csv
import gzip
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

TEXT = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
ENDINGS = (*TEXT, ".parquet", ".jsonl", ".jsonl.gz", ".npz", ".h5")


@dataclass
class Column:
    """A column of a file: its name, what it is (``obs``, ``step``, ... or empty) and its cells, None where empty.

    ``kind`` is its ending in a map, ``mapped`` the name that a map gives it, where that is another one.
    """

    name: str
    role: str
    cells: list[Any]
    kind: str = ""
    mapped: str = ""


@dataclass
class Style:
    """How text is written: the separator, the decimal sign, points between thousands, and so on."""

    separator: str = ","
    comma: bool = False
    thousands: bool = False
    decimals: int | None = None
    """None: as many digits as there are."""
    encoding: str = "utf-8"
    heading: bool = True
    newline: str = "\n"
    flags: tuple[str, str] = ("0", "1")
    empty: str = ""
    cut: int | None = None
    """The row that lacks its last cell."""

    def cell(self, value: Any) -> str:
        """A value as text."""
        if value is None:
            return self.empty
        if isinstance(value, bool):
            return self.flags[value]
        if not isinstance(value, float):
            return str(value)
        text = repr(value) if self.decimals is None else f"{value:{',' if self.thousands else ''}.{self.decimals}f}"
        return text.translate(str.maketrans(",.", ".,")) if self.comma else text


def write(path: Path, columns: list[Column], style: Style) -> None:
    """The columns in a file of the kind that its name says."""
    if path.name.endswith(TEXT):
        _write_text(path, columns, style)
    elif path.suffix == ".parquet":
        pq.write_table(pa.table([pa.array(c.cells) for c in columns], [c.name for c in columns]), path)
    elif ".jsonl" in path.name:
        rows = zip(*(column.cells for column in columns), strict=True)
        names = [column.name for column in columns]
        lines = [json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False) for row in rows]
        save(path, "".join(f"{line}\n" for line in lines).encode())
    else:
        write_arrays(path, {column.name: _array(column.cells) for column in columns})


def write_arrays(path: Path, arrays: dict[str, Any]) -> None:
    """Arrays in an NPZ or HDF5 file."""
    if path.suffix == ".npz":
        np.savez_compressed(path, **arrays)
        return
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            array = np.asarray(array)
            file[name] = np.char.encode(array, "utf-8") if array.dtype.kind == "U" else array


def save(path: Path, content: bytes) -> None:
    """Bytes in a file, packed where its name says so."""
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def _array(cells: list[Any]) -> Any:
    is_text = any(isinstance(cell, str) for cell in cells)
    return np.array([("" if is_text else np.nan) if cell is None else cell for cell in cells])


def _write_text(path: Path, columns: list[Column], style: Style) -> None:
    file = io.StringIO()
    writer = csv.writer(file, delimiter=style.separator, lineterminator=style.newline)
    if style.heading:
        writer.writerow([column.name for column in columns])
    rows = list(zip(*([style.cell(cell) for cell in column.cells] for column in columns), strict=True))
    writer.writerows(row[:-1] if i == style.cut else row for i, row in enumerate(rows))
    save(path, file.getvalue().encode(style.encoding))
