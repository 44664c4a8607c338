"""Reading columns out of HDF5 files that nobody vouches for.

A column is a dataset stored in the file itself, of numbers, and not larger than such a file can hold; so
reading one neither opens another file nor takes more memory than the file's size explains and the machine has.
"""

import math
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
from h5py import h5l, h5o
from numpy.typing import NDArray

from mopo_cli.errors import CorruptError, InputError, MopoError
from mopo_cli.store.files import check_file
from mopo_cli.store.machine import free_memory

# Logs do not shrink further than this by compression, but for what is small; more is made to fill the memory.
_LARGEST_RATIO = 100
_SMALL_BYTES = 64 << 20
# Of the memory that is free: what is read is copied once, as it is put into columns of ours.
_LARGEST_SHARE = 0.5
# Of the groups and columns in a file, and of groups inside one another.
_MOST_OBJECTS, _DEEPEST = 100_000, 64


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open a file for reading; whatever the HDF5 library finds wrong inside the block is a CorruptError.

    InputError when it is not a file that can be opened.
    """
    check_file(path)
    try:
        with h5py.File(path, "r", locking="best-effort") as file:
            yield file
    except (MopoError, MemoryError):
        raise
    except Exception as error:  # h5py has no error class of its own: damage shows as any of a dozen
        raise CorruptError(f"{path} is not an HDF5 file, is truncated or is damaged ({error}).") from error


def stored_names(file: h5py.File, group: str = "/") -> list[str]:
    """The sorted names in a group of the file; none when there is no such group."""
    if group == "/":
        return sorted(file)
    item = file.get(group) if _is_stored(file, group) else None
    return sorted(item) if isinstance(item, h5py.Group) else []


def column_names(file: h5py.File) -> list[str]:
    """The sorted paths of the datasets stored in the file; no link is followed.

    InputError for a file of so many groups and columns, or so deep ones, as no log has.
    """
    names: list[str] = []
    places, seen, count = [("", file.id)], set(), 0
    while places:
        folder, group = places.pop()
        for link in group:
            count += 1
            if count > _MOST_OBJECTS:
                raise InputError(f"{file.filename} holds more than {_MOST_OBJECTS:,} groups and columns.")
            if group.links.get_info(link).type != h5l.TYPE_HARD:
                continue
            about, name = h5o.get_info(group, link), folder + link.decode(errors="surrogateescape")
            if about.type == h5o.TYPE_DATASET:
                names.append(name)
            elif about.type == h5o.TYPE_GROUP and (about.fileno, about.addr) not in seen:
                seen.add((about.fileno, about.addr))
                if name.count("/") + 1 >= _DEEPEST:
                    raise InputError(f"{file.filename} holds groups nested deeper than {_DEEPEST}.")
                places.append((f"{name}/", h5o.open(group, link)))
    return sorted(names)


def read_columns(file: h5py.File, names: Iterable[str], text: Container[str] = ()) -> dict[str, NDArray[Any]]:
    """Read whole columns of numbers as they are stored; those in ``text`` may be text of fixed length.

    Those that MATLAB saved have their dimensions in the order that they have there.

    Raises InputError for one that is missing, is no column of numbers, lies outside the file (a link, a
    virtual dataset, external storage), or is declared larger than the file can hold.
    """
    columns = {name: _column(file, name, "fiubS" if name in text else "fiub") for name in names}
    check_declared(Path(file.filename), sum(map(_bytes, columns.values())))
    return {name: column[()].T if _is_matlab(column) else column[()] for name, column in columns.items()}


def column_shapes(file: h5py.File) -> dict[str, tuple[int, ...]]:
    """The shapes of all columns that `read_columns` may read, by name."""
    columns = ((name, file[name]) for name in column_names(file))
    return {name: _shape(each) for name, each in columns if each.shape is not None and each.dtype.kind in "fiubS"}


def column_shape(file: h5py.File, name: str) -> tuple[int, ...]:
    """The shape of a column of numbers, which is not read; raises what `read_columns` does."""
    return _shape(_column(file, name, "fiub"))


def check_declared(path: Path, declared: int) -> None:
    """InputError when a file declares more bytes of columns than a log of its size holds, or than memory has room."""
    check_ratio(path, declared)
    check_room(path, declared)


def check_ratio(path: Path, declared: int) -> None:
    """InputError when a file declares, or unpacks to, more bytes than a log of its size holds."""
    held = path.stat().st_size
    if declared > max(_SMALL_BYTES, _LARGEST_RATIO * held):
        raise InputError(f"{path} declares {declared:,} bytes of columns, but the file has only {held:,} bytes.")


def check_room(path: Path, needed: int) -> None:
    """InputError when what is read from ``path`` takes more than the share of the free memory that is for it."""
    free = free_memory()
    if needed > _SMALL_BYTES and free is not None and needed > _LARGEST_SHARE * free:
        raise InputError(
            f"{path} holds {needed / 1e9:.1f} GB of columns, more than half of the {free / 1e9:.1f} GB of free memory.",
            hint="split the file, or use a machine with more memory",
        )


def _column(file: h5py.File, name: str, kinds: str) -> h5py.Dataset:
    where = f"{file.filename}: column {name}"
    if not _is_stored(file, name):
        raise InputError(
            f"{where} is missing (or a link, which is not followed); "
            f"the file holds {', '.join(sorted(file)[:12]) or 'nothing'}."
        )
    column = file[name]
    if not isinstance(column, h5py.Dataset) or column.shape is None or column.dtype.kind not in kinds:
        text = " or text of fixed length, as array.astype('S32') makes it" if "S" in kinds else ""
        raise InputError(f"{where} does not hold numbers{text}.")
    if column.is_virtual or column.external:
        raise InputError(f"{where} stores its numbers outside the file, which is not supported.")
    return column


def _shape(column: h5py.Dataset) -> tuple[int, ...]:
    return tuple(column.shape[::-1] if _is_matlab(column) else column.shape)


def _is_matlab(column: h5py.Dataset) -> bool:
    """Whether MATLAB saved it, which stores the dimensions of an array in reverse order."""
    return "MATLAB_class" in column.attrs


def _bytes(column: h5py.Dataset) -> int:
    """What reading it takes: of compressed columns at least one block, which may be larger than the column."""
    entries = max(math.prod(column.shape), math.prod(column.chunks or (0,)))
    return int(entries * column.dtype.itemsize)


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
