"""A job on the machine that carries it out: `mopo job FILE` as a child, which a scheduler may stop and start again.

How far it is can be read from `batch`, a folder that the submission made: nothing that lay there before is used.
"""

import os
import signal
import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock

from mopo_cli.errors import MopoError
from mopo_cli.placing.engine import ATTEMPTS, first_line, job_folder, killed
from mopo_cli.placing.job_process import start_job
from mopo_cli.store.atomic import write_json
from mopo_cli.store.documents import SubmissionDocument, WorkDocument, read_document

_POLL_SECONDS = 0.2
_LOOK_SECONDS = 1.0
_GRACE_SECONDS = 120.0


@dataclass
class Work:
    """A job as it is submitted; ``devices`` are its CUDA devices, or None for those that the scheduler shows.

    Called, it carries the job out and returns its exit code. SIGTERM has the job save and stop; SIGUSR1 and what
    submitit sends before a time limit or pre-emption have it queued again besides.
    """

    file: Path
    batch: Path
    devices: str | None = None
    stalls: int = 0

    def __call__(self) -> int:
        """Carry the job out."""
        requeue = next((h for s in (signal.SIGUSR2, signal.SIGUSR1) if callable(h := signal.getsignal(s))), None)
        came: list[int] = []
        for signum in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(signum, lambda number, _: came.append(number))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
        with FileLock(lock_file(self.batch, self.file)):
            saved = last_saved(self.file)
            self._tell("running")
            code = self._carry_out(came)
            if code == 0 or not came:
                self._tell("ended", code, "" if code == 0 else self._why(code))
                return code
            self.stalls = 0 if last_saved(self.file) > saved else self.stalls + 1
            if requeue is None or not _warned(came) or self.stalls >= ATTEMPTS:
                self._tell("stopped", code, f"stopped by {signal.Signals(came[0]).name}")
                return code
            self._tell("requeued")
            requeue(came[-1], None)
            return code

    def checkpoint(self) -> Any:
        """What submitit queues again: the same, which goes on from the checkpoint."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _carry_out(self, came: list[int]) -> int:
        environment = dict(os.environ)
        if self.devices is not None:
            environment["CUDA_VISIBLE_DEVICES"] = self.devices
        child = start_job([str(self.file)], self._stderr, environment)
        try:
            return self._wait(child, came)
        finally:
            child.kill()
            child.wait()

    def _wait(self, child: "subprocess.Popen[bytes]", came: list[int]) -> int:
        saving, looked = False, time.monotonic()
        while child.poll() is None:
            if came and not saving:  # a second signal would end it before it has saved
                saving = True
                child.terminate()
            if time.monotonic() - looked > _LOOK_SECONDS:
                looked = time.monotonic()
                if self._is_replaced():
                    child.kill()
            time.sleep(_POLL_SECONDS)
        return child.returncode

    def _is_replaced(self) -> bool:
        """Whether the job was submitted again, with --force: then this one is of no more use."""
        with suppress(MopoError):
            record = read_record(self.file)
            return record is not None and record["batch"] != self.batch.name
        return False

    @property
    def _stderr(self) -> Path:
        return self.batch / f"{self.file.stem}.err"

    def _why(self, code: int) -> str:
        if code < 0:
            return killed(-code)
        return first_line(self._stderr.read_text(encoding="utf-8", errors="replace"))

    def _tell(self, state: Literal["running", "stopped", "requeued", "ended"], code: int = 0, why: str = "") -> None:
        document = {"state": state, "code": code, "why": why, "host": socket.gethostname(), "pid": os.getpid()}
        write_json(_state_file(self.batch, self.file), {**document, "at": time.time()})


def _warned(came: list[int]) -> bool:
    """Whether a signal other than SIGTERM came, or comes soon.

    Slurm sends SIGTERM alone before it ends a job, which a user has cancelled, or which it queues again by itself.
    """
    grace = time.monotonic() + (_GRACE_SECONDS if os.environ.get("SUBMITIT_EXECUTOR") == "slurm" else 0.0)
    while set(came) == {signal.SIGTERM} and time.monotonic() < grace:
        time.sleep(_POLL_SECONDS)
    return set(came) != {signal.SIGTERM}


def lock_file(batch: Path, file: Path) -> Path:
    """What a job at work holds."""
    return batch / f"{file.stem}.lock"


def read_state(batch: Path, file: Path) -> WorkDocument | None:
    """What a submitted job says of itself, if it has begun."""
    path = _state_file(batch, file)
    return read_document(path, WorkDocument) if path.is_file() else None


def record_file(file: Path) -> Path:
    """Where it is noted how a job was submitted."""
    return job_folder(file) / "submitted.json"


def read_record(file: Path) -> SubmissionDocument | None:
    """How a job was submitted, if it was."""
    path = record_file(file)
    return read_document(path, SubmissionDocument) if path.is_file() else None


def write_record(file: Path, record: SubmissionDocument) -> None:
    """Note how a job was submitted, for whoever collects it. InputError where that cannot be written."""
    write_json(record_file(file), record)


def drop_record(file: Path) -> None:
    """Forget how a job was submitted: it has ended."""
    record_file(file).unlink(missing_ok=True)


def last_saved(file: Path) -> int:
    """When a job last saved a checkpoint or a part of it, in nanoseconds; 0 before the first."""
    saved = 0
    with suppress(FileNotFoundError):  # another process may be at work there
        for path in job_folder(file).glob(".state/**/*.safetensors"):
            saved = max(saved, path.stat().st_mtime_ns)
    return saved


def _state_file(batch: Path, file: Path) -> Path:
    return batch / f"{file.stem}.state.json"
