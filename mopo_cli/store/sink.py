"""A file for the HDF5 library to write to. The library crashes where a write fails, so here none ever does."""

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Buffer

# What the library reads back while it closes a file is small; columns come in larger pieces.
_KEPT_BYTES = 1 << 16


class Sink(io.RawIOBase):
    """The file at ``path``, emptied. After a failed write `error` is set and small writes are kept in memory.

    So the library can close the file in peace; `check` then raises what went wrong.
    """

    def __init__(self, path: Path) -> None:
        self.error: BaseException | None = None
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        self._position = self._size = 0
        self._kept: list[tuple[int, bytes]] = []

    def check(self) -> None:
        """Raise the first error that a write met, if any."""
        if self.error is not None:
            raise self.error

    def write(self, data: "Buffer") -> int:
        """Write all of ``data`` at the present position."""
        content = memoryview(data).cast("B")
        if self.error is None:
            try:
                _write_all(self._descriptor, content, self._position)
            except BaseException as error:  # a second Ctrl-C, too, must not cut through the library
                self.error = error
        if self.error is not None and len(content) <= _KEPT_BYTES:
            self._kept.append((self._position, bytes(content)))
        self._position += len(content)
        self._size = max(self._size, self._position)
        return len(content)

    def readinto(self, buffer: "Buffer") -> int:
        """Fill ``buffer`` from the present position; zeros where nothing was written."""
        target = memoryview(buffer).cast("B")
        start, end = self._position, self._position + len(target)
        read = os.pread(self._descriptor, len(target), start)
        target[:] = read + bytes(len(target) - len(read))
        for place, content in self._kept:
            first, last = max(place, start), min(place + len(content), end)
            if first < last:
                target[first - start : last - start] = content[first - place : last - place]
        self._position = end
        return len(target)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position, which is returned."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    def truncate(self, size: int | None = None) -> int:
        """Make the file that long."""
        self._size = self._position if size is None else size
        if self.error is None:
            try:
                os.ftruncate(self._descriptor, self._size)
            except BaseException as error:
                self.error = error
        return self._size

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            os.close(self._descriptor)
        super().close()


def _write_all(descriptor: int, content: memoryview, position: int) -> None:
    while content:
        count = os.pwrite(descriptor, content, position)
        content, position = content[count:], position + count
