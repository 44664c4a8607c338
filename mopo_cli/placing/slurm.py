"""Slurm, by submitit: what a submission says, and what the queue says of it."""

import math
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

from mopo_cli.errors import SettingsError
from mopo_cli.placing.engine import Resources
from mopo_cli.placing.queues import FOREVER, last_words, log_of, undisturbed
from mopo_cli.placing.submitted import Work
from mopo_cli.store.documents import SubmissionDocument

_ASK_SECONDS = 30.0
_ANSWER_SECONDS = 30.0  # for which it is waited; without an answer the jobs count as they did
_SETTLES_SECONDS = 60.0
_LIMIT_MINUTES = 60
_COUNTS = ("nodes", "ntasks_per_node", "array_parallelism", "signal_delay_s")
_NO_MEMORY = re.compile(r"exceeded (job )?memory limit|oom[-_ ]kill", re.IGNORECASE)
_SHELL = ("setup", "teardown", "srun_args")
_TAKEN = ("array", "output", "error", "open_mode", "parsable", "wrap")


class Slurm:
    """A cluster that Slurm schedules; the run's folder is one that all its machines share.

    SettingsError where the commands of Slurm are not there or it cannot give what is asked for.
    """

    largest = 1000
    poll_seconds = 2.0
    why_waiting = ""

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

    def room(self, in_use: Sequence[str | None], memory: Sequence[int]) -> list[str | None]:
        """See `Queue`. Slurm decides what begins."""
        return [None] * self.largest

    def submit(self, works: Sequence[Work]) -> list[str]:
        """See `Queue`. SettingsError where sbatch refuses."""
        from submitit import SlurmExecutor

        executor = SlurmExecutor(works[0].batch, max_num_timeout=FOREVER)
        executor.update_parameters(**self._parameters)
        try:
            with _outside_of_jobs(), undisturbed(), redirect_stderr(StringIO()):
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

    def is_waiting(self, record: SubmissionDocument, since: float) -> bool:
        """See `Queue`."""
        state = (self._ask() or {}).get(record["id"])
        return self._asked > since and state in ("PENDING", "REQUEUED", "REQUEUE_HOLD")

    def why_gone(self, batch: Path, record: SubmissionDocument) -> tuple[str, bool]:
        """See `Queue`."""
        from submitit import SlurmJob

        state = SlurmJob(batch, record["id"]).get_info("force").get("State", "")
        if state.startswith("CANCELLED"):
            return "it was cancelled in Slurm", True
        # With some settings of Slurm such a job only counts as failed.
        if state == "OUT_OF_MEMORY" or _NO_MEMORY.search(log_of(batch, record)):
            return "Slurm ended it for lack of memory: --slurm mem=SIZE gives a job more", False
        words = last_words(batch, record)
        return (f"Slurm says {state}" if state and state != "COMPLETED" else words or "it left the queue"), False

    def _ask(self) -> dict[str, str] | None:
        """The states of this user's jobs in the queue by their ids; None where Slurm does not answer."""
        if time.time() - self._asked >= _ASK_SECONDS:
            self._asked = time.time()
            command = ["squeue", "--me", "--array", "--noheader", "--format=%i %T"]
            try:
                answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_ANSWER_SECONDS)
            except subprocess.TimeoutExpired:
                self._queued = None
                return None
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


@contextmanager
def _outside_of_jobs() -> Iterator[None]:
    """Within it nothing in the environment tells of a job of Slurm that this process runs in: it would be inherited.

    The user's defaults for sbatch, and where Slurm's configuration is, stay.
    """
    inside = [name for name in os.environ if name.startswith("SLURM_") and name != "SLURM_CONF"]
    kept = {name: os.environ.pop(name) for name in inside} if "SLURM_JOB_ID" in os.environ else {}
    try:
        yield
    finally:
        os.environ.update(kept)


def _refusal(text: str) -> str:
    """The sentence in which sbatch says what is wrong."""
    lines = [line for line in text.splitlines() if line.strip()]
    said = [line for line in lines if line.startswith("sbatch: ")] or lines or ["it did not say why"]
    return said[-1].removeprefix("sbatch: ").removeprefix("error: ").removeprefix("fatal: ").rstrip(".") + "."
