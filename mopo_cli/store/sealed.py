"""HDF5 files that mopo writes: described by attributes, and sealed, so that damage is found when they are read.

There is a checksum on every block and on the structure, and a digest of the whole content.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from mopo_cli.errors import CorruptError, InputError
from mopo_cli.store.atomic import plain
from mopo_cli.store.sink import Sink

SCHEMA_VERSION = 1
_CONTENT = "content_sha256"
OF_FILE = ("schema_version", "kind", _CONTENT)
"""The attributes that tell of the file and not of its content."""

# A block fits HDF5's block cache, and a file of few rows stays small.
_BLOCK_BYTES, _BLOCK_ROWS = 1 << 20, 4096


class NewFile:
    """A file in the making: columns that may grow, and the digest of what was written to each."""

    def __init__(self, file: h5py.File, sink: Sink) -> None:
        self._file, self._sink = file, sink
        self.digests: dict[str, Any] = {}

    def append(self, name: str, column: NDArray[Any], growing: bool = False) -> None:
        """Add rows to a column, which is created first if need be; OSError where the disk is full."""
        if name not in self.digests:
            self.digests[name] = hashlib.sha256()
            _new_column(self._file, name, column, growing)
        self.digests[name].update(np.ascontiguousarray(column).data)
        stored = self._file[name]
        rows = len(stored)
        if growing:
            stored.resize(rows + len(column), axis=0)
        stored[rows if growing else 0 :] = column
        self._sink.check()


@contextmanager
def create(path: Path, kind: str, attributes: dict[str, Any]) -> Iterator[NewFile]:
    """Make a file of that kind; ``attributes`` are str, int, float, None or arrays. OSError on a full disk."""
    with Sink(path) as sink:
        try:
            # From v110 on the format has checksums on its own structure.
            with h5py.File(sink, "w", libver=("v110", "v110")) as file:
                for name, value in {**attributes, "schema_version": SCHEMA_VERSION, "kind": kind}.items():
                    _write_attribute(file, name, value)
                made = NewFile(file, sink)
                yield made
                digests = {name: digest.hexdigest() for name, digest in made.digests.items()}
                _write_attribute(file, _CONTENT, _content_digest(_plain_attributes(file, path), digests))
        finally:
            sink.check()


def _new_column(file: h5py.File, name: str, like: NDArray[Any], growing: bool) -> None:
    width = like.shape[1:]
    row_bytes = max(1, math.prod(width) * like.dtype.itemsize)
    rows = max(1, min(_BLOCK_ROWS, _BLOCK_BYTES // row_bytes))
    file.create_dataset(
        name,
        (0 if growing else len(like), *width),
        like.dtype,
        chunks=(rows if growing else min(rows, len(like)), *width),
        maxshape=(None if growing else len(like), *width),
        fletcher32=True,
        track_times=False,
    )


def _content_digest(attributes: dict[str, Any], columns: dict[str, str]) -> str:
    """SHA-256 of attributes and of the columns' own digests; independent of how the file is laid out."""
    return hashlib.sha256(json.dumps([plain(attributes), columns], sort_keys=True).encode()).hexdigest()


def check_content(path: Path, attributes: dict[str, Any], columns: dict[str, NDArray[Any]]) -> None:
    """CorruptError where the content is not what was written; files of older versions do not tell."""
    if _CONTENT not in attributes:
        return
    digests = {name: hashlib.sha256(np.ascontiguousarray(column).data).hexdigest() for name, column in columns.items()}
    described = {name: value for name, value in attributes.items() if name != _CONTENT}
    if _content_digest(described, digests) != attributes[_CONTENT]:
        raise CorruptError(f"{path} is damaged or was edited: its content does not match its checksum.")


def _write_attribute(file: h5py.File, name: str, value: Any) -> None:
    if isinstance(value, str):
        # Text of its own fixed length lies under the header's checksum. Variable-length text does not, and
        # damage to it can keep the HDF5 library reading forever.
        text = value.encode(errors="backslashreplace")
        file.attrs.create(name, text, dtype=h5py.string_dtype("utf-8", max(1, len(text))))
    else:
        file.attrs[name] = h5py.Empty("f4") if value is None else value


def read_attributes(file: h5py.File, path: Path, kind: str) -> dict[str, Any]:
    """All attributes in Python's own types. InputError where the file is of another kind or they are odd."""
    attributes = _plain_attributes(file, path)
    version, stated = attributes.get("schema_version"), attributes.get("kind")
    if version != SCHEMA_VERSION or stated != kind:
        raise InputError(
            f"{path} is not a {kind} file of schema {SCHEMA_VERSION}: it says kind {stated!r}, schema {version!r}."
        )
    return attributes


def _plain_attributes(file: h5py.File, path: Path) -> dict[str, Any]:
    return {name: _read_attribute(file, path, name) for name in file.attrs}


def _read_attribute(file: h5py.File, path: Path, name: str) -> Any:
    """An attribute in Python's own types; h5py gives numpy scalars, and Empty for what was None."""
    if file.attrs.get_id(name).dtype.kind not in "fiubS":
        raise InputError(f"{path}: attribute {name} is neither numbers nor text of fixed length.")
    value = file.attrs[name]
    if isinstance(value, h5py.Empty):
        return None
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: attribute {name} is not UTF-8 text.") from error
    return value.item() if isinstance(value, np.generic) else value
