"""Arrays of numbers and text out of NPZ files that nobody vouches for: no size is taken on trust."""

import math
import re
import zipfile
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from mopo_cli.errors import CorruptError, InputError, MopoError
from mopo_cli.store.columns import check_declared
from mopo_cli.store.files import check_file

_ENDING = ".npy"
_HEADER_READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def npz_names(path: Path) -> list[str]:
    """The names of the arrays in the order of the file; errors as `read_npz`."""
    with _open(path) as archive:
        return _names(archive)


def npz_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the arrays of numbers or text, by name; none is read. Errors as `read_npz`."""
    with _open(path) as archive:
        headers = {name: _header(archive, path, name) for name in _names(archive)}
        return {name: shape for name, (shape, dtype) in headers.items() if dtype.kind in "fiubSU"}


def read_npz(path: Path, names: Iterable[str], text: Container[str] = ()) -> dict[str, NDArray[Any]]:
    """Read arrays of numbers, those in ``text`` also of text, as they are stored.

    InputError where the file cannot be opened or holds a path that leads out of it, where an array is missing,
    holds Python objects or is declared larger than the file can hold; CorruptError for a damaged file.
    """
    with _open(path) as archive:
        members = {name: _member(archive, path, name, "fiubSU" if name in text else "fiub") for name in names}
        check_declared(path, sum(member.file_size for member in members.values()))
        arrays: dict[str, NDArray[Any]] = {}
        for name, member in members.items():
            with archive.open(member) as file:
                arrays[name] = np.ascontiguousarray(npy.read_array(file, allow_pickle=False))
                file.read()  # only at the end of a member is its checksum compared
        return arrays


@contextmanager
def _open(path: Path) -> Iterator[zipfile.ZipFile]:
    check_file(path)
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                if re.search(r"^[/\\]|^[A-Za-z]:|(^|[/\\])\.\.([/\\]|$)", member.filename):
                    raise InputError(
                        f"{path} contains the path {member.filename!r}, which leads out of it; such a file is not read."
                    )
            yield archive
    except (MopoError, MemoryError):
        raise
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    except Exception as error:  # damage shows as any of a dozen errors of zipfile, zlib and numpy
        raise CorruptError(f"{path} is not an NPZ file, is truncated or is damaged ({error}).") from error


def _names(archive: zipfile.ZipFile) -> list[str]:
    return [name.removesuffix(_ENDING) for name in archive.namelist() if name.endswith(_ENDING)]


def _member(archive: zipfile.ZipFile, path: Path, name: str, kinds: str) -> zipfile.ZipInfo:
    where = f"{path}: column {name}"
    if name not in _names(archive):
        raise InputError(f"{where} is missing; the file holds {', '.join(_names(archive)[:12]) or 'nothing'}.")
    member = archive.getinfo(name + _ENDING)
    shape, dtype = _header(archive, path, name)
    if dtype.hasobject:
        raise InputError(f"{where} holds Python objects, which are never loaded: save it as an array of numbers.")
    if dtype.kind not in kinds:
        raise InputError(f"{where} does not hold numbers.")
    if any(length < 0 for length in shape) or math.prod(shape) * dtype.itemsize > member.file_size:
        raise CorruptError(f"{path}: column {name} has shape {shape}, for which the file has too few bytes.")
    return member


def _header(archive: zipfile.ZipFile, path: Path, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    with archive.open(archive.getinfo(name + _ENDING)) as file:
        version = npy.read_magic(file)
        if version not in _HEADER_READERS:  # the later ones are for records with names
            raise InputError(f"{path}: column {name} does not hold numbers.")
        shape, _, dtype = _HEADER_READERS[version](file)
        return shape, dtype
