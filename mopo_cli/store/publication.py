"""Several files published as one: all are written and synced elsewhere first, then moved to their places."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mopo_cli.store.atomic import cannot_write, fsync, make_folder


@contextmanager
def published_together(folder: Path) -> Iterator["Publication"]:
    """A `Publication` that is committed when the block ends, and discarded where it fails."""
    out = Publication(folder)
    try:
        yield out
        out.commit()
    finally:
        out.discard()


class Publication:
    """Files that appear together or not at all.

    Write each to ``stage(path)``, then ``commit``; ``discard`` drops what was not committed. ``folder`` holds the
    staged files. It is used by nothing else and lies on the file system of the files' places.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._staged: dict[Path, Path] = {}
        self._removed: set[Path] = set()

    def stage(self, path: Path) -> Path:
        """Where to write the file that `commit` moves to ``path``. The file that is staged last is moved last.

        The folder is made; InputError when it cannot be.
        """
        place = self._staged.pop(path, None) or self._folder / str(len(self._staged)) / path.name
        make_folder(place.parent)
        self._staged[path] = place
        self._removed.discard(path)
        return place

    def remove(self, path: Path) -> None:
        """`commit` removes the file at ``path``, unless one is staged for it."""
        if path not in self._staged:
            self._removed.add(path)

    def at_present(self, path: Path) -> Path:
        """Where the file is now that will be at ``path`` after `commit`."""
        return self._staged.get(path, path)

    def names(self, folder: Path) -> set[str]:
        """The names of the files that ``folder`` will hold after `commit`."""
        there = {path.name for path in folder.iterdir() if path not in self._removed} if folder.is_dir() else set()
        return there | {path.name for path in self._staged if path.parent == folder}

    def commit(self) -> None:
        """Move every staged file to its place and remove what is to go; InputError, and all as before, on failure."""
        moved: list[Path] = []
        made: list[Path] = []
        last = next(reversed(self._staged), None)
        try:
            for path in self._staged:
                made += [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
                make_folder(path.parent)
            for path, staged in self._staged.items():
                if path == last:
                    self._sync(moved)
                # A second name for the old file, by which it can be put back; there is no moment without a file.
                with suppress(OSError):
                    os.link(path, _backup(staged))
                os.replace(staged, path)
                moved.append(path)
            self._sync(moved[-1:])
        except OSError as error:
            self._undo(moved, made)
            raise cannot_write(Path(error.filename2 or error.filename or self._folder).parent, error) from error
        except BaseException:
            self._undo(moved, made)
            raise
        for path in self._removed:
            with suppress(OSError):
                path.unlink()
        self.discard()

    def discard(self) -> None:
        """Forget what was not committed."""
        self._staged.clear()
        self._removed.clear()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _undo(self, moved: list[Path], made: list[Path]) -> None:
        for path in moved:
            backup = _backup(self._staged[path])
            with suppress(OSError):
                os.replace(backup, path) if backup.exists() else path.unlink()
        for folder in sorted(made, key=lambda folder: len(folder.parts), reverse=True):
            with suppress(OSError):
                folder.rmdir()

    @staticmethod
    def _sync(paths: list[Path]) -> None:
        for folder in dict.fromkeys(path.parent for path in paths):
            fsync(folder)


def _backup(staged: Path) -> Path:
    return staged.with_name(f"{staged.name}.old")
