"""Text files that nobody vouches for: plain or gzipped, in the encoding in which their bytes are text."""

import codecs
import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from mopo_cli.errors import CorruptError, InputError
from mopo_cli.store.columns import check_ratio
from mopo_cli.store.files import check_file

_BLOCK = 1 << 20
# UTF-32 first: its mark begins with that of UTF-16.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
UTF8 = "utf-8"


def is_gzipped(path: Path) -> bool:
    """Whether the file's name says that it is packed by gzip."""
    return path.suffix.lower() == ".gz"


def blocks(path: Path) -> Iterator[bytes]:
    """The bytes of a file, unpacked.

    InputError where it cannot be opened, or unpacks to more than a log of its size does; CorruptError for damage.
    """
    with _opened(path) as file:
        while block := file.read(_BLOCK):
            if is_gzipped(path):
                check_ratio(path, file.tell())
            yield block


def lines(path: Path, longest: int) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that are not blank, unpacked, each with its number from 1; errors as `blocks`.

    InputError for a line of more than ``longest`` bytes.
    """
    before, rest = 0, b""
    for block in chain(blocks(path), [b"\n"]):
        *whole, rest = (rest + block).split(b"\n")
        for number, line in enumerate([*whole, rest], before + 1):
            if len(line) > longest:
                raise InputError(f"{path.name}: line {number} is longer than {longest:,} bytes.")
            if number <= before + len(whole) and line.strip():
                yield number, line
        before += len(whole)


def text_encoding(path: Path) -> tuple[str, int]:
    """The encoding in which all of a file is text, and how many bytes it has unpacked; errors as `blocks`.

    UTF-16 and UTF-32 by their marks; else UTF-8, else cp1252, which is Latin-1 as Windows writes it. InputError for
    other bytes, and for text that holds NUL.
    """
    first = next(blocks(path), b"")
    marked = next((name for mark, name in _MARKS.items() if first.startswith(mark)), None)
    encodings = (marked,) if marked else (UTF8, "cp1252")
    for encoding in encodings:
        decoder, size = codecs.getincrementaldecoder(encoding)(), 0
        try:
            for block in blocks(path):
                size += len(block)
                _refuse_nul(path, decoder.decode(block))
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            continue
        return encoding, size
    what = marked.upper() if marked else "UTF-8 or cp1252"
    raise InputError(f"{path.name} holds bytes that are not text in {what}.", hint="save it as UTF-8")


def as_utf8(path: Path, encoding: str) -> bytes:
    """A file of text in that encoding as UTF-8, all of it."""
    decoder = codecs.getincrementaldecoder(encoding)()
    return b"".join(decoder.decode(block).encode() for block in blocks(path))


def _refuse_nul(path: Path, text: str) -> None:
    if "\0" in text:
        raise InputError(
            f"{path.name} holds NUL characters: it is no text, or UTF-16 without a byte order mark.",
            hint="save it as UTF-8",
        )


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    check_file(path)
    try:
        with path.open("rb") as plain:
            if is_gzipped(path):
                with gzip.GzipFile(fileobj=plain) as unpacked:
                    yield unpacked  # type: ignore[misc]  # it is read like any other file
            else:
                yield plain
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CorruptError(f"{path.name} is not a gzip file, is truncated or is damaged ({error}).") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
