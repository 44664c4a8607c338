"""``--on local`` and ``--on slurm``: jobs by submitit, which go on when this process has left."""

import logging
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mopo_cli.errors import SettingsError
from mopo_cli.placing.board import Board
from mopo_cli.placing.engine import ATTEMPTS, FINAL, Engine, Resources, epochs, job_folder
from mopo_cli.placing.queues import Local, Queue
from mopo_cli.placing.slurm import Slurm
from mopo_cli.placing.submitted import (
    Work,
    drop_record,
    last_saved,
    read_record,
    read_state,
    record_file,
    write_record,
)
from mopo_cli.store.atomic import cannot_write, make_folder, read_json
from mopo_cli.store.documents import SubmissionDocument
from mopo_cli.store.packages import require_package

_FOLDER = ".submitit"


@dataclass
class _Open:
    """A job that is neither done nor given up; ``record`` is of its present submission."""

    file: Path
    record: SubmissionDocument | None
    failures: int = 0
    saved: int = 0

    @property
    def name(self) -> str:
        return self.file.stem


class Submitit(Engine):
    """Jobs as processes of this machine, or as arrays of jobs in Slurm with ``parameters`` of sbatch.

    SettingsError where submitit or Slurm is not there, or a parameter cannot be used.
    """

    jobs_go_on = True

    def __init__(self, on: Literal["local", "slurm"], resources: Resources, parameters: dict[str, str]) -> None:
        require_package(f"--on {on}", "submitit")
        self._on: Literal["local", "slurm"] = on
        self._queue: Queue = Local(resources) if on == "local" else Slurm(resources, parameters)
        self._has_said_why = False

    def place(self, files: Sequence[Path], board: Board, should_stop: Callable[[], bool]) -> None:
        """See `Engine`. Jobs that an earlier process submitted and that are not over yet are not submitted again."""
        import submitit  # noqa: F401  it sets its logger up when it is imported

        logging.getLogger("submitit").setLevel(logging.CRITICAL + 1)
        open_jobs = [_Open(file, self._still_there(file)) for file in files]
        memory = [read_json(file).get("memory", 0) for file in files]
        while open_jobs:
            for job in open_jobs:
                self._look(job, board)
            open_jobs = [job for job in open_jobs if board.lines[job.name].state not in ("done", "failed")]
            self._submit_waiting(open_jobs, memory, board)
            if not open_jobs or should_stop():
                break
            time.sleep(self._queue.poll_seconds)
        if board.count("done") == len(files) > 0:  # what failed jobs wrote may tell why
            for folder in {file.parent for file in files}:
                _tidy(folder)

    def _still_there(self, file: Path) -> SubmissionDocument | None:
        record = read_record(file)
        if record is None:
            return None
        batch = _batch(file, record)
        state = read_state(batch, file)
        if state is not None and state["state"] in ("ended", "stopped"):
            return None
        if record["engine"] != self._on:
            raise SettingsError(
                f"The job {file.stem} was submitted with --on {record['engine']} and has not reported its end.",
                hint=f"collect it with --on {record['engine']}, or end it and remove {record_file(file)}",
            )
        return None if self._queue.is_gone(file, batch, record) else record

    def _look(self, job: _Open, board: Board) -> None:
        """Tell the board what has become of a job."""
        if job.record is None:
            return
        batch = _batch(job.file, job.record)
        # In this order: what it says last is there before it is gone.
        gone = self._queue.is_gone(job.file, batch, job.record)
        state = read_state(batch, job.file)
        if state is not None and state["state"] == "ended" and state["code"] == 0:
            drop_record(job.file)
            board.change(job.name, "done", state["host"])
        elif state is not None and state["state"] in ("ended", "stopped"):
            self._failed(job, board, state["why"], state["code"] in FINAL)
        elif gone:
            self._failed(job, board, *self._queue.why_gone(batch, job.record))
        elif state is None or state["state"] == "requeued" or self._queue.is_waiting(job.record, state["at"]):
            board.change(job.name, "waiting")
        else:
            board.change(job.name, "running", state["host"], *(epochs(job_folder(job.file)) or ()))

    def _failed(self, job: _Open, board: Board, why: str, final: bool) -> None:
        drop_record(job.file)
        job.record = None
        saved = last_saved(job.file)
        job.failures = 1 if saved > job.saved else job.failures + 1
        board.change(job.name, "failed" if final or job.failures >= ATTEMPTS else "waiting", why=why)

    def _submit_waiting(self, jobs: Sequence[_Open], memory: Sequence[int], board: Board) -> None:
        """Submit what is not submitted, as far as there is room for jobs with so much memory each; say once why not."""
        room = self._queue.room([job.record["devices"] for job in jobs if job.record is not None], memory)
        waiting = [job for job in jobs if job.record is None]
        while waiting and room:
            beside = [job for job in waiting if job.file.parent == waiting[0].file.parent]
            together = list(zip(beside, room, strict=False))[: self._queue.largest]
            submitted = [job.name for job, _ in together]
            waiting = [job for job in waiting if job.name not in submitted]
            for job, _ in together:
                job.saved = last_saved(job.file)
            batch = together[0][0].file.parent / _FOLDER / secrets.token_hex(6)
            with _removed_if_failed(batch):
                ids = self._queue.submit([Work(job.file, batch, devices) for job, devices in together])
            for (job, devices), identity in zip(together, ids, strict=True):
                job.record = SubmissionDocument(
                    engine=self._on, id=identity, batch=batch.name, devices=devices, at=time.time()
                )
                write_record(job.file, job.record)
            room = self._queue.room([job.record["devices"] for job in jobs if job.record is not None], memory)
        if waiting and (why := self._queue.why_waiting) and not self._has_said_why:
            board.note(why)
            self._has_said_why = True


@contextmanager
def _removed_if_failed(batch: Path) -> Iterator[None]:
    """The folder of a submission, which is made, and removed where nothing comes of it. InputError as `make_folder`."""
    make_folder(batch)
    try:
        yield
    except BaseException as error:
        shutil.rmtree(batch, ignore_errors=True)
        with suppress(OSError):
            batch.parent.rmdir()
        if isinstance(error, OSError):
            raise cannot_write(batch.parent, error) from error
        raise


def _tidy(jobs: Path) -> None:
    """Remove what is left of the submissions of jobs that are done, here or while no process watched them."""
    needed = set()
    for file in jobs.glob("*.json"):
        if (record := read_record(file)) is not None:
            state = read_state(_batch(file, record), file)
            if state is not None and state["state"] == "ended" and state["code"] == 0:
                drop_record(file)
            else:
                needed.add(record["batch"])
    for batch in (jobs / _FOLDER).glob("*"):
        if batch.name not in needed:
            shutil.rmtree(batch, ignore_errors=True)
    with suppress(OSError):
        (jobs / _FOLDER).rmdir()


def _batch(file: Path, record: SubmissionDocument) -> Path:
    return file.parent / _FOLDER / record["batch"]
