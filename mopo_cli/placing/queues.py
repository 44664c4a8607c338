"""Where submitit puts jobs: processes of this machine, or Slurm. What is asked of both: submit, and is a job gone."""

import math
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from io import StringIO
from pathlib import Path
from typing import Any, Protocol

from mopo_cli.errors import SettingsError
from mopo_cli.placing.engine import Resources, first_line
from mopo_cli.placing.submitted import OF_TERMINALS, Work, lock_file, read_state
from mopo_cli.store.documents import SubmissionDocument
from mopo_cli.store.lock import take_lock

_STARTS_SECONDS = 120.0
_ASK_SECONDS = 30.0
_SETTLES_SECONDS = 60.0
_LIMIT_MINUTES = 60
_FOREVER = 10**6
"""How often a job may be queued again, and the minutes that a local one may take: each goes on from its checkpoint."""
_COUNTS = ("nodes", "ntasks_per_node", "array_parallelism", "signal_delay_s")
_SHELL = ("setup", "teardown", "srun_args")
_TAKEN = ("array", "output", "error", "open_mode", "parsable", "wrap")


class Queue(Protocol):
    """Carries out what is submitted, ``largest`` jobs at once. ``poll_seconds`` is how often it pays to look."""

    largest: int
    poll_seconds: float

    def room(self, in_use: Sequence[str | None]) -> list[str | None]:
        """The CUDA devices of each further job that may be submitted while those with these devices are there."""

    def submit(self, works: Sequence[Work]) -> list[str]:
        """Submit jobs together; returns their ids. They are not disturbed by signals to this process."""

    def is_gone(self, file: Path, batch: Path, record: SubmissionDocument) -> bool:
        """Whether a job is neither waiting nor at work any more."""

    def is_waiting(self, record: SubmissionDocument) -> bool:
        """Whether a job that was at work waits again."""

    def obituary(self, batch: Path, record: SubmissionDocument) -> tuple[str, bool]:
        """Why a job is gone that did not say so itself, and whether a person wanted that."""


class Local:
    """Processes of this machine, as many at once as its CPUs and GPUs are enough for."""

    largest = 1
    poll_seconds = 0.5

    def __init__(self, resources: Resources) -> None:
        self._slots = slots(resources)
        self._started: dict[str, Any] = {}

    def room(self, in_use: Sequence[str | None]) -> list[str | None]:
        """See `Queue`."""
        free: list[str | None] = list(self._slots)
        for devices in in_use:
            with suppress(ValueError):
                free.remove(devices)
        return free

    def submit(self, works: Sequence[Work]) -> list[str]:
        """See `Queue`."""
        from submitit import LocalExecutor
        from submitit.helpers import clean_env

        executor = LocalExecutor(works[0].batch, max_num_timeout=_FOREVER)
        executor.update_parameters(timeout_min=_FOREVER)
        with clean_env(), _undisturbed(), _without_streams():
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

    def is_waiting(self, record: SubmissionDocument) -> bool:
        """See `Queue`."""
        return False

    def obituary(self, batch: Path, record: SubmissionDocument) -> tuple[str, bool]:
        """See `Queue`."""
        return _last_words(batch, record) or "its process was killed", False


class Slurm:
    """A cluster that Slurm schedules; the run's folder is one that all its machines share.

    SettingsError where the commands of Slurm are not there or it cannot give what is asked for.
    """

    largest = 1000
    poll_seconds = 2.0

    def __init__(self, resources: Resources, options: dict[str, str]) -> None:
        for command in ("sbatch", "srun", "squeue"):
            if shutil.which(command) is None:
                raise SettingsError(
                    f"--on slurm needs Slurm's command {command}, which is not on this machine.",
                    hint="run the command on a machine of the cluster, or use --on local",
                )
        if resources.gpus % 1:
            raise SettingsError(
                f"Slurm gives whole GPUs: --gpus-per-job cannot be {resources.gpus:g}.",
                hint="--gpus-per-job 1, and --cells-per-job for more work on it",
            )
        self._parameters = sbatch_parameters(resources, options)
        self._asked = -math.inf
        self._queued: dict[str, str] | None = None
        self._absent: dict[str, float] = {}

    def room(self, in_use: Sequence[str | None]) -> list[str | None]:
        """See `Queue`."""
        return [None] * self.largest

    def submit(self, works: Sequence[Work]) -> list[str]:
        """See `Queue`. SettingsError where sbatch refuses."""
        from submitit import SlurmExecutor
        from submitit.helpers import clean_env

        executor = SlurmExecutor(works[0].batch, max_num_timeout=_FOREVER)
        executor.update_parameters(**self._parameters)
        try:
            with clean_env(), _undisturbed(), redirect_stderr(StringIO()):
                return [job.job_id for job in executor.submit_array(list(works))]
        except RuntimeError as error:
            raise SettingsError(
                f"sbatch refused the jobs: {_refusal(str(error))}", hint="give its options as --slurm KEY=VALUE"
            ) from error

    def is_gone(self, file: Path, batch: Path, record: SubmissionDocument) -> bool:
        """See `Queue`. Slurm and shared folders may tell a minute late."""
        if not batch.is_dir():
            return True
        queued, now = self._ask(), time.time()
        if queued is None or record["id"] in queued:
            self._absent.pop(record["id"], None)
            return False
        since = self._absent.setdefault(record["id"], now)
        return now - since >= _SETTLES_SECONDS and now - record["at"] >= _SETTLES_SECONDS

    def is_waiting(self, record: SubmissionDocument) -> bool:
        """See `Queue`."""
        return (self._ask() or {}).get(record["id"]) in ("PENDING", "REQUEUED", "REQUEUE_HOLD")

    def obituary(self, batch: Path, record: SubmissionDocument) -> tuple[str, bool]:
        """See `Queue`."""
        from submitit import SlurmJob

        state = SlurmJob(batch, record["id"]).get_info("force").get("State", "")
        if state.startswith("CANCELLED"):
            return "it was cancelled in Slurm", True
        words = _last_words(batch, record)
        return (f"Slurm says {state}" if state and state != "COMPLETED" else words or "it left the queue"), False

    def _ask(self) -> dict[str, str] | None:
        """The states of this user's jobs in the queue by their ids; None where Slurm does not answer."""
        if time.monotonic() - self._asked >= _ASK_SECONDS:
            self._asked = time.monotonic()
            command = ["squeue", "--me", "--array", "--noheader", "--format=%i %T"]
            answer = subprocess.run(command, capture_output=True, text=True, check=False)
            lines = [line.split() for line in answer.stdout.splitlines()]
            self._queued = None if answer.returncode else {line[0]: line[1] for line in lines if len(line) == 2}
        return self._queued


def sbatch_parameters(resources: Resources, options: dict[str, str]) -> dict[str, Any]:
    """submitit's parameters: what a job gets and ``options`` of sbatch, any of which it need not know.

    A job has an hour unless ``time`` says otherwise, and is queued again where that is too short. SettingsError for an
    option that is set already or has no such value.
    """
    parameters: dict[str, Any] = {"job_name": "mopo", "wckey": None, "time": _LIMIT_MINUTES, "nodes": 1}
    parameters["cpus_per_task"] = resources.cpus
    if resources.gpus:
        parameters["gpus_per_node"] = int(resources.gpus)
    others: dict[str, Any] = {}
    for name, value in options.items():
        if name in _TAKEN:
            raise SettingsError(f"--slurm {name} is set by mopo and cannot be changed.")
        if name in _COUNTS:
            if not value.isdecimal():
                raise SettingsError(f"--slurm {name} must be a whole number, not {value!r}.")
            parameters[name] = int(value)
        elif name in _SHELL:
            parameters[name] = [value]
        elif name == "use_srun":
            parameters[name] = value != "false"
        else:
            others[name] = value == "true" or value
    return {**parameters, "additional_parameters": others}


def slots(resources: Resources) -> list[str]:
    """The CUDA devices of each job that fits on this machine at once; "" for none. SettingsError where none fits."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    most = max(1, cores // resources.cpus)
    if not resources.gpus:
        return [""] * most
    devices = _devices()
    if resources.gpus < 1:
        places = [device for _ in range(int(1 / resources.gpus + 1e-9)) for device in devices]
    else:
        each = math.ceil(resources.gpus)
        places = [",".join(devices[i : i + each]) for i in range(0, len(devices) - each + 1, each)]
    if not places:
        raise SettingsError(
            f"--gpus-per-job {resources.gpus:g}: this machine has {len(devices)} GPUs that can be used."
        )
    return places[:most]


@contextmanager
def _undisturbed() -> Iterator[None]:
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


def _devices() -> list[str]:
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in visible.split(",") if name.strip()]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def _last_words(batch: Path, record: SubmissionDocument) -> str:
    """What the process around a job said, where the job could not be begun."""
    path = batch / f"{record['id']}_0_log.err"
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    return first_line(text) if re.search(r"^[\w.]*(Error|Exception)\b", text, re.MULTILINE) else ""


def _refusal(text: str) -> str:
    """The sentence in which sbatch says what is wrong."""
    lines = [line for line in text.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith("sbatch: ")] or lines or ["it did not say why"]
    return told[-1].removeprefix("sbatch: ").removeprefix("error: ").rstrip(".") + "."
