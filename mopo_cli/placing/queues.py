"""Where submitit puts jobs: processes of this machine, or Slurm. What is asked of both: submit, and is a job gone."""

import math
import os
import re
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from mopo_cli.errors import SettingsError
from mopo_cli.placing.engine import Resources, first_line, killed
from mopo_cli.placing.job_process import OF_TERMINALS
from mopo_cli.placing.resources import gpu_names
from mopo_cli.placing.submitted import Work, lock_file, read_state
from mopo_cli.store.documents import SubmissionDocument
from mopo_cli.store.lock import take_lock
from mopo_cli.store.machine import cpu_count, free_memory

_STARTS_SECONDS = 120.0
FOREVER = 10**6
"""How often a job may be queued again, and the minutes that a local one may take: each goes on from its checkpoint."""


class Queue(Protocol):
    """Carries out what is submitted, ``largest`` jobs at once. ``poll_seconds`` is how often it pays to look.

    ``why_waiting`` says why there is no more `room`, where that is not for lack of CPUs and GPUs.
    """

    largest: int
    poll_seconds: float
    why_waiting: str

    def room(self, in_use: Sequence[str | None], memory: Sequence[int]) -> list[str | None]:
        """The CUDA devices of each further job that may be submitted while those with these devices are there.

        ``memory`` are the bytes that each of all jobs takes, 0 where that does not matter.
        """

    def submit(self, works: Sequence[Work]) -> list[str]:
        """Submit jobs together; returns their ids. They are not disturbed by signals to this process."""

    def is_gone(self, file: Path, batch: Path, record: SubmissionDocument) -> bool:
        """Whether a job is neither waiting nor at work any more."""

    def is_waiting(self, record: SubmissionDocument, since: float) -> bool:
        """Whether a job that was at work, and said so then, is known to wait again."""

    def why_gone(self, batch: Path, record: SubmissionDocument) -> tuple[str, bool]:
        """Why a job is gone that did not say so itself, and whether a person wanted that."""


class Local:
    """Processes of this machine, as many at once as its CPUs, GPUs and memory are enough for."""

    largest = 1
    poll_seconds = 0.5
    why_waiting = ""

    def __init__(self, resources: Resources) -> None:
        self._slots = slots(resources)
        self._memory = free_memory()
        self._is_whole = False  # whether none of them took any of it then
        self._started: dict[str, Any] = {}

    def room(self, in_use: Sequence[str | None], memory: Sequence[int]) -> list[str | None]:
        """See `Queue`. A job that cannot fit is none the less submitted, and says so itself."""
        free: list[str | None] = list(self._slots)
        for devices in in_use:
            with suppress(ValueError):
                free.remove(devices)
        if not in_use:
            self._memory, self._is_whole = free_memory(), True
        if self._memory is None:
            return free
        # Beside jobs that an earlier command began it is not known which could never fit: that is seen once they end.
        largest = max((size for size in memory if size <= self._memory or not self._is_whole), default=0)
        at_once = self._memory // largest if largest else len(self._slots)
        if at_once < len(self._slots):
            self.why_waiting = (
                f"A job may take {largest / 1e9:.2g} GB, and {self._memory / 1e9:.2g} GB are free: at most {at_once} "
                "run at once. Fewer --cells-per-job need less."
            )
        return free[: max(0, at_once - len(in_use))]

    def submit(self, works: Sequence[Work]) -> list[str]:
        """See `Queue`."""
        from submitit import LocalExecutor

        executor = LocalExecutor(works[0].batch, max_num_timeout=FOREVER)
        executor.update_parameters(timeout_min=FOREVER)
        with undisturbed(), _without_streams():
            jobs = [executor.submit(work) for work in works]
        self._started |= {job.job_id: job for job in jobs}
        return [job.job_id for job in jobs]

    def is_gone(self, file: Path, batch: Path, record: SubmissionDocument) -> bool:
        """See `Queue`."""
        if not batch.is_dir():
            return True
        lock = take_lock(lock_file(batch, file))
        if lock is None:
            return False
        lock.release()
        state = read_state(batch, file)
        if state is not None and state["state"] != "requeued":
            return True
        if (started := self._started.get(record["id"])) is not None:
            return bool(started.done())
        return time.time() - (state or record)["at"] > _STARTS_SECONDS

    def is_waiting(self, record: SubmissionDocument, since: float) -> bool:
        """See `Queue`."""
        return False

    def why_gone(self, batch: Path, record: SubmissionDocument) -> tuple[str, bool]:
        """See `Queue`."""
        return last_words(batch, record) or killed(signal.SIGKILL), False


def slots(resources: Resources) -> list[str]:
    """The CUDA devices of each job that fits on this machine at once; "" for none. SettingsError where none fits."""
    most = max(1, cpu_count() // resources.cpus)
    if not resources.gpus:
        return [""] * most
    devices = gpu_names()
    if resources.gpus < 1:
        places = [device for _ in range(min(most, int(1 / resources.gpus + 1e-9))) for device in devices]
    else:
        each = math.ceil(resources.gpus)
        places = [",".join(devices[i : i + each]) for i in range(0, len(devices) - each + 1, each)]
    if not places:
        raise SettingsError(
            f"--gpus-per-job {resources.gpus:g}: this machine has {len(devices)} GPUs that can be used."
        )
    return places[:most]


@contextmanager
def undisturbed() -> Iterator[None]:
    """What is started within it does not get the signals of the terminal; this process gets them afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, OF_TERMINALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _without_streams() -> Iterator[None]:
    """What is started within it does not keep the terminal, or a pipe that somebody waits at the end of."""
    streams = (0, 1, 2)
    kept = [os.dup(stream) for stream in streams]
    nothing = os.open(os.devnull, os.O_RDWR)
    try:
        for stream in streams:
            os.dup2(nothing, stream)
        yield
    finally:
        for stream, copy in zip(streams, kept, strict=True):
            os.dup2(copy, stream)
            os.close(copy)
        os.close(nothing)


def log_of(batch: Path, record: SubmissionDocument) -> str:
    """What the process around a job wrote to stderr, and the scheduler with it."""
    path = batch / f"{record['id']}_0_log.err"
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def last_words(batch: Path, record: SubmissionDocument) -> str:
    """What the process around a job said, where the job could not be begun."""
    text = log_of(batch, record)
    return first_line(text) if re.search(r"^[\w.]*(Error|Exception)\b", text, re.MULTILINE) else ""
