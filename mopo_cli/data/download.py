"""Bring a file whose size and sha256 are known over HTTP, whatever the network does meanwhile.

The bytes gather in a partial file beside the target, and the same call made again goes on from it. The target
appears when size and sha256 are right, and not before.
"""

import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from urllib3 import BaseHTTPResponse

from mopo_cli.data.http import Trouble, get
from mopo_cli.errors import InputError, LockedError, NetworkError
from mopo_cli.store.atomic import move_into_place, sha256_file

_CHUNK = 1 << 18
_LOCK_SECONDS = 3.0
_LOOK_SECONDS = 0.5  # between two looks at the signals while waiting
_ELSEWHERE = "free some space there, or use another cache folder: MOPO_HOME=/path/with/space"


@dataclass(frozen=True)
class Remote:
    """A file elsewhere, known to the byte."""

    url: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Patience:
    """Seconds to wait for a connection and for the next byte; tries in a row that bring nothing new; pauses between.

    The first pause lasts ``pause`` seconds and each further one twice as long, or as long as the server asks,
    but never longer than ``longest_pause``.
    """

    connect: float = 15.0
    silence: float = 30.0
    attempts: int = 6
    pause: float = 1.0
    longest_pause: float = 60.0
    sleep: Callable[[float], None] = time.sleep


DEFAULT_PATIENCE = Patience()


def partial_file(target: Path) -> Path:
    """Where the bytes of an unfinished download to ``target`` lie."""
    return target.with_name(f"{target.name}.part")


def is_file_of(path: Path, size: int, sha256: str) -> bool:
    """Whether ``path`` is a file of that size and that content; only one of the right size is read."""
    return path.is_file() and path.stat().st_size == size and sha256_file(path) == sha256


def download(
    remote: Remote,
    target: Path,
    mend: str,
    on_bytes: Callable[[int], None] = lambda _: None,
    on_trouble: Callable[[str], None] = lambda _: None,
    patience: Patience = DEFAULT_PATIENCE,
) -> None:
    """Bring ``remote`` to ``target``, or do nothing where it is there already.

    What fails in passing (no connection, silence, an early end, status 408, 429 and 5xx) is tried again, from
    where it broke off if the server can; ``on_trouble`` is told so in a sentence. ``on_bytes(n)`` is told of n
    more bytes in the partial file, less than 0 when it is begun again; it is called while waiting too and may
    raise to stop: the partial file stays.

    Raises NetworkError, whose hint is ``mend``, when the server does not give the file that is known;
    InputError where the folder cannot be written or is full; LockedError while another process downloads it.
    """
    with _writable(target.parent), _alone(target):
        if is_file_of(target, remote.size, remote.sha256):
            return
        transfer = _Transfer(remote, partial_file(target), mend, on_bytes, on_trouble, patience)
        _check_space(transfer)
        _bring(transfer)
        move_into_place(transfer.part, target)


@dataclass
class _Transfer:
    """A partial file on its way to being whole."""

    remote: Remote
    part: Path
    mend: str
    on_bytes: Callable[[int], None]
    on_trouble: Callable[[str], None]
    patience: Patience
    of_one_piece = False  # all of it from one answer

    def __post_init__(self) -> None:
        self.done = self.part.stat().st_size if self.part.is_file() else 0
        if self.done > self.remote.size:
            self.discard()

    def discard(self) -> None:
        """Throw the partial file away."""
        self.part.unlink(missing_ok=True)
        self._count(-self.done)

    def take(self, response: BaseHTTPResponse) -> None:
        """Write the body of an answer: after what is there already, or of status 200 in its place."""
        whole = response.status == 200
        if whole and response.length_remaining not in (None, self.remote.size):
            raise Trouble(f"the file has {response.length_remaining:,} bytes, not {self.remote.size:,}", passes=False)
        if whole:
            self._count(-self.done)
        self.of_one_piece = whole
        with self.part.open("wb" if whole else "ab") as file:
            while left := self.remote.size - self.done:
                chunk = response.read1(min(left, _CHUNK), decode_content=False)
                if not chunk:
                    raise Trouble("the file ended early", passes=True)
                file.write(chunk)
                self._count(len(chunk))

    def failed(self, reason: str) -> NetworkError:
        """The error of a download that is given up."""
        kept = f" ({self.done:,} of {self.remote.size:,} bytes are kept)" if self.done else ""
        return NetworkError(f"{self.remote.url} cannot be downloaded: {reason}{kept}.", hint=self.mend)

    def _count(self, n: int) -> None:
        self.done += n
        if n:
            self.on_bytes(n)


def _bring(transfer: _Transfer) -> None:
    """Make the partial file whole; one that was pieced together wrongly is begun again once."""
    for last in (False, True):
        _gather(transfer)
        digest = sha256_file(transfer.part)
        if digest == transfer.remote.sha256:
            return
        transfer.discard()
        if last or transfer.of_one_piece:
            raise transfer.failed(f"its sha256 is {digest}, not {transfer.remote.sha256}")
        transfer.on_trouble("The resumed download is damaged: starting again from the beginning.")


def _gather(transfer: _Transfer) -> None:
    """Ask until the partial file has its size, with longer and longer pauses while nothing new comes."""
    patience, size = transfer.patience, transfer.remote.size
    furthest, failures = transfer.done, 0
    while transfer.done < size:
        try:
            _receive(transfer)
        except Trouble as trouble:
            # A hundredth of the file counts as new, so that a server that never holds is not asked forever.
            if transfer.done > furthest + size // 100:
                furthest, failures = transfer.done, 0
            failures += 1
            if not trouble.passes:
                raise transfer.failed(trouble.reason) from trouble
            if failures >= patience.attempts:
                raise transfer.failed(f"{trouble.reason}, {failures} times in a row") from trouble
            pause = patience.pause * 2 ** (failures - 1) if trouble.wait is None else trouble.wait
            pause = min(pause, patience.longest_pause)
            transfer.on_trouble(f"{trouble.reason[:1].upper()}{trouble.reason[1:]}: trying again in {pause:g} s.")
            _wait(pause, transfer)


def _receive(transfer: _Transfer) -> None:
    """One request for what is lacking, and where the server does not give just that, one for the whole."""
    url, patience = transfer.remote.url, transfer.patience
    if transfer.done:
        with get(url, transfer.done, patience.connect, patience.silence) as response:
            if response.status == 200 or _continues(response, transfer):
                return transfer.take(response)
    with get(url, 0, patience.connect, patience.silence) as response:
        if response.status != 200:
            raise Trouble(f"the server answers {response.status} instead of 200", passes=False)
        transfer.take(response)


def _continues(response: BaseHTTPResponse, transfer: _Transfer) -> bool:
    """Whether an answer holds exactly what the partial file lacks."""
    size, done = transfer.remote.size, transfer.done
    content_range = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", response.headers.get("Content-Range", ""))
    if response.status != 206 or content_range is None or response.length_remaining not in (None, size - done):
        return False
    first, last, whole = content_range.groups()
    return (int(first), int(last)) == (done, size - 1) and whole in ("*", str(size))


def _wait(seconds: float, transfer: _Transfer) -> None:
    while seconds > 0:
        transfer.on_bytes(0)
        transfer.patience.sleep(min(seconds, _LOOK_SECONDS))
        seconds -= _LOOK_SECONDS


def _check_space(transfer: _Transfer) -> None:
    folder, lacking = transfer.part.parent, transfer.remote.size - transfer.done
    free = shutil.disk_usage(folder).free
    if free < lacking:
        raise InputError(
            f"The folder {folder} has {free / 1e6:,.0f} MB of free space, but {lacking / 1e6:,.0f} MB are needed.",
            hint=_ELSEWHERE,
        )


@contextmanager
def _writable(folder: Path) -> Iterator[None]:
    """Create ``folder``; what goes wrong in it is an InputError that names it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise InputError(f"The folder {folder} cannot be written: {error.strerror}.", hint=_ELSEWHERE) from error


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    path = target.with_name(f".{target.name}.lock")
    lock = FileLock(path)
    try:
        lock.acquire(timeout=_LOCK_SECONDS)
    except Timeout as error:
        raise LockedError(
            f"Another mopo process is downloading {target} (lock file {path}).", hint="wait until it ends or stop it"
        ) from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()
