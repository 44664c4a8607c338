"""Publish files whole or not at all: temporary file, fsync, rename, fsync of the folder."""

import errno
import hashlib
import json
import math
import os
import secrets
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mopo_cli.errors import CorruptError, InputError
from mopo_cli.store.files import check_file

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_TEMPORARY = ".mopo-tmp"


def make_folder(folder: Path) -> None:
    """Create ``folder`` and its parents; InputError naming it when that is not allowed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error


@contextmanager
def publish(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path`` (created if need be) that replaces it on clean exit.

    The temporary file exists, is empty and ends as ``path`` does. On an error it is removed and ``path``
    stays as it was; a reader never sees half a file. InputError when the folder cannot be written or is full, or
    ``path`` is a folder itself.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder, not a file.")
    make_folder(path.parent)
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{_TEMPORARY}{path.suffix}")
    try:
        temporary.touch(exist_ok=False)
    except OSError as error:
        raise cannot_write(path.parent, error) from error
    try:
        yield temporary
        move_into_place(temporary, path)
    except OSError as error:
        if error.errno in _FULL or str(error.filename) == str(temporary):
            raise cannot_write(path.parent, error) from error
        raise
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def move_into_place(temporary: Path, path: Path) -> None:
    """Rename a finished file to ``path`` in the same folder, on disk before it bears that name; OSError if it fails."""
    fsync(temporary)
    os.replace(temporary, path)
    fsync(path.parent)


def discard_leftovers(folder: Path, name: str = "**/.*", but: Collection[Path] = ()) -> None:
    """Remove the temporary files that killed processes left under ``folder``; call it under its lock.

    ``name`` is a glob for the path in the folder, without the ending of temporary files. What is in the folders
    ``but`` stays.
    """
    # Who is at work there removes folders while they are looked through; the rest is left to the next start.
    with suppress(FileNotFoundError):
        for leftover in folder.glob(f"{name}{_TEMPORARY}*"):
            if leftover.is_file() and not any(map(leftover.is_relative_to, but)):
                leftover.unlink(missing_ok=True)


def plain(value: Any) -> Any:
    """``value`` in the terms of strict JSON: tuples are lists, paths text, NaN and infinities null."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_text(path: Path, text: str) -> None:
    """Publish text as UTF-8."""
    with publish(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Publish ``plain(value)`` as JSON: sorted keys, two spaces, a trailing newline."""
    text = json.dumps(plain(value), sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def read_json(path: Path) -> Any:
    """The value in a JSON file; InputError when it cannot be opened, CorruptError when it does not parse."""
    try:
        return json.loads(_read_text(path))
    except (ValueError, RecursionError) as error:
        raise CorruptError(f"{path} is not valid JSON ({error}).") from error


def read_jsonl(path: Path) -> list[Any]:
    """The value of every line; InputError when the file cannot be opened, CorruptError when a line does not parse."""
    try:
        return [json.loads(line) for line in _read_text(path).splitlines()]
    except (ValueError, RecursionError) as error:
        raise CorruptError(f"{path} is not valid JSON lines ({error}).") from error


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes; InputError when it cannot be opened."""
    check_file(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync(path: Path) -> None:
    """Bring a file or folder to the disk; OSError if that fails."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_text(path: Path) -> str:
    check_file(path)
    return path.read_text(encoding="utf-8")


def cannot_write(folder: Path, error: OSError) -> InputError:
    """What to tell of a folder in which nothing can be written."""
    if file := next((place for place in (folder, *folder.parents) if place.is_file()), None):
        return InputError(f"{file} is a file, not a folder.", hint="use another folder")
    before = "free some space there, or " if error.errno in _FULL else ""
    return InputError(f"The folder {folder} cannot be written: {error.strerror}.", hint=f"{before}use another folder")
