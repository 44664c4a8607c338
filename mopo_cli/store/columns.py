"""Reading columns out of HDF5 files that nobody vouches for.

A column is a dataset stored in the file itself, of numbers, and not larger than such a file can hold; so
reading one neither opens another file nor takes more memory than the file's size explains.
"""

import math
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
from numpy.typing import NDArray

from mopo_cli.errors import CorruptError, InputError, MopoError

# No compression that HDF5 ships shrinks numbers further than this; more is a file that lies about its size.
_LARGEST_RATIO = 1100
_SMALL_BYTES = 64 << 20


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open a file for reading; whatever the HDF5 library finds wrong inside the block is a CorruptError.

    InputError when it is not a file that can be opened.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist or is not a file.")
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        with h5py.File(path, "r", locking="best-effort") as file:
            yield file
    except MopoError:
        raise
    except Exception as error:  # h5py has no error class of its own: damage shows as any of a dozen
        raise CorruptError(f"{path} is not an HDF5 file, is cut short or is damaged ({error}).") from error


def stored_names(file: h5py.File, group: str = "/") -> list[str]:
    """The sorted names in a group of the file; none when there is no such group."""
    if group == "/":
        return sorted(file)
    found = file.get(group) if _is_stored(file, group) else None
    return sorted(found) if isinstance(found, h5py.Group) else []


def column_names(file: h5py.File) -> list[str]:
    """The sorted paths of the datasets stored in the file; no link is followed."""
    found = set(file)
    file.visit(found.add)
    return sorted(name for name in found if _is_stored(file, name) and isinstance(file[name], h5py.Dataset))


def read_columns(file: h5py.File, names: Iterable[str], text: Container[str] = ()) -> dict[str, NDArray[Any]]:
    """Read whole columns of numbers as they are stored; those in ``text`` may be text of fixed length.

    Raises InputError for one that is missing, is no column of numbers, lies outside the file (a link, a
    virtual dataset, external storage), or is declared larger than the file can hold.
    """
    columns = {name: _column(file, name, "fiubS" if name in text else "fiub") for name in names}
    declared = sum(math.prod(column.shape) * column.dtype.itemsize for column in columns.values())
    check_declared(Path(file.filename), declared)
    return {name: column[()] for name, column in columns.items()}


def column_shape(file: h5py.File, name: str) -> tuple[int, ...]:
    """The shape of a column of numbers, which is not read; raises what `read_columns` does."""
    return tuple(_column(file, name, "fiub").shape)


def check_declared(path: Path, declared: int) -> None:
    """InputError when a file declares more bytes of columns than any compression could have put into it."""
    held = path.stat().st_size
    if declared > max(_SMALL_BYTES, _LARGEST_RATIO * held):
        raise InputError(f"{path} declares {declared:,} bytes of columns but holds {held:,} bytes.")


def _column(file: h5py.File, name: str, kinds: str) -> h5py.Dataset:
    where = f"{file.filename}: column {name}"
    if not _is_stored(file, name):
        raise InputError(
            f"{where} is missing, or a link and not stored in it; "
            f"the file holds {', '.join(sorted(file)[:12]) or 'nothing'}."
        )
    column = file[name]
    if not isinstance(column, h5py.Dataset) or column.shape is None or column.dtype.kind not in kinds:
        raise InputError(f"{where} does not hold numbers{' or text of fixed length' if 'S' in kinds else ''}.")
    if column.is_virtual or column.external:
        raise InputError(f"{where} has its numbers outside the file.")
    return column


def _is_stored(file: h5py.File, name: str) -> bool:
    """Whether every part of the path is a hard link: soft and external ones may lead out of the file."""
    parts = name.split("/")
    for depth in range(len(parts)):
        place = "/".join(parts[: depth + 1])
        try:
            link = file.get(place, getlink=True)
        except KeyError:
            return False
        if not isinstance(link, h5py.HardLink):
            return False
    return True
