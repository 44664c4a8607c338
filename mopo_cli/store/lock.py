"""One process at a time in a run folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from mopo_cli.errors import InputError, LockedError
from mopo_cli.store.atomic import discard_leftovers, make_folder

_WAIT_SECONDS = 3.0
_ANOTHER = "wait until it ends, stop it, or use another run folder: --run PATH"


@contextmanager
def run_lock(folder: Path, hint: str = _ANOTHER) -> Iterator[None]:
    """Hold ``folder`` (created if need be) for this process; the same process may take it again inside.

    LockedError after three seconds when another process holds it; InputError when it cannot be written. A
    folder that was created here and in which nothing was stored is removed again.
    """
    created = [place for place in (folder, *folder.parents) if not place.exists()]
    make_folder(folder)
    path = folder / ".lock"
    lock = FileLock(path, is_singleton=True)
    try:
        lock.acquire(timeout=_WAIT_SECONDS)
    except Timeout as error:
        raise LockedError(
            f"Another mopo process is working in {folder} (lock file {path}).",
            hint,
        ) from error
    except OSError as error:
        raise InputError(f"The lock file {path} cannot be written: {error.strerror}.") from error
    try:
        yield
    finally:
        if created and list(folder.iterdir()) == [path]:
            path.unlink()
            for place in created:
                if any(place.iterdir()):
                    break
                place.rmdir()
        lock.release()


def take_lock(path: Path) -> FileLock | None:
    """The lock of a file, which is made, if no other process holds it; else None. Its ``release`` ends it."""
    make_folder(path.parent)
    lock = FileLock(path, is_singleton=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    except OSError as error:
        raise InputError(f"The lock file {path} cannot be written: {error.strerror}.") from error
    return lock


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a folder of the cache, without what killed processes left half written. LockedError where another has it."""
    with run_lock(folder, hint="wait until it ends or stop it"):
        discard_leftovers(folder)
        yield
