"""What a worker of Ray does: brings a job's inputs onto its node and carries the job out in a child process."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mopo_cli.errors import InputError, MopoError
from mopo_cli.placing.job_process import end_job, start_job
from mopo_cli.placing.parcels import Parcel

_POLL_SECONDS = 1.0
_TAIL_BYTES = 65536
_PREFIX, _LOCK = "mopo-job-", "worker.lock"
_LOG = "log"
_PACKAGE = Path(__file__).parents[2]
_ABSENT = re.compile(r"No module named '(\w+)")
_BROKEN = re.compile(r"(?:ImportError|cannot be imported): (.+)")
_FULL = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT), "The disk is full", "The disk quota is used up")

_checked: set[Path] = set()
_aside = ThreadPoolExecutor(1)


@dataclass
class Task:
    """A job to carry out: what is in its file, and what an earlier attempt left. ``inputs`` are by sha256."""

    name: str
    attempt: int
    job: dict[str, Any]
    inputs: Mapping[str, Any]
    kept: Parcel = field(default_factory=dict)


@dataclass
class Outcome:
    """How a job ended: its exit code (negative: by a signal), what it said last and, if it finished, its results.

    ``unfit`` says why this ``node`` can carry out no job at all.
    """

    where: str
    node: str
    code: int = 1
    text: str = ""
    results: Parcel | None = None
    unfit: str = ""


def carry_out(task: Task, keeper: Any) -> Outcome:
    """Carry out a job on this node, telling the keeper how far it is and leaving there what it is to go on from."""
    import ray

    from mopo_cli.placing.parcels import results, unpack

    where, node = ray.util.get_node_ip_address(), ray.get_runtime_context().get_node_id()
    if _get(keeper.tell.remote(task.name, task.attempt, where, None, None)):
        return Outcome(where, node, 128 + signal.SIGTERM)
    try:
        folder, lock = _folder()
    except (OSError, MopoError) as error:
        return Outcome(where, node, unfit=_no_room(error))
    try:
        try:
            document = task.job | {"inputs": _bring(task.job["inputs"], task.inputs)}
            (folder / "job.json").write_text(json.dumps(document), encoding="utf-8")
            unpack(task.kept, folder / "run")
        except (OSError, MopoError) as error:
            return Outcome(where, node, unfit=_no_room(error))
        code = _watch(folder, task, keeper, where)
        text = (folder / _LOG).read_bytes()[-_TAIL_BYTES:].decode(errors="replace")
        if unfit := _unfit(code, text):
            return Outcome(where, node, unfit=unfit)
        return Outcome(where, node, code, text, results(folder / "run", task.job["stage"]))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def _folder() -> tuple[Path, Any]:
    """A folder for one job and the lock that keeps it, without what killed workers left."""
    from mopo_cli.store.lock import take_lock

    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(MopoError):  # another user's
            if lock := take_lock(left / _LOCK):
                shutil.rmtree(left, ignore_errors=True)
                lock.release()
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        if lock := take_lock(folder / _LOCK):
            return folder, lock


def _unfit(code: int, text: str) -> str:
    """Why this node can carry out no job, by how one ended and what it said; nothing where that was the job's fault."""
    from mopo_cli.placing.engine import first_line

    if code not in (1, InputError.exit_code):
        return ""
    if any(said in text for said in _FULL):
        return first_line(text).rstrip(".")
    if absent := _ABSENT.search(text):
        return f"the package {absent[1]} is not installed there"
    if broken := _BROKEN.search(text):
        return f"mopo cannot be imported there: {broken[1].rstrip('.')}"
    return ""


def _watch(folder: Path, task: Task, keeper: Any, where: str) -> int:
    """Carry out the job in a folder to its end, and tell the keeper meanwhile; returns the exit code."""
    from mopo_cli.placing.engine import epochs
    from mopo_cli.placing.parcels import kept_since

    run, stopping = folder / "run", False
    sent: dict[str, tuple[int, int]] = {}
    kept_since(run, sent)  # what it was given
    process = start_job_here(folder)
    try:
        code = None
        while code is None:
            with suppress(subprocess.TimeoutExpired):
                code = process.wait(_POLL_SECONDS)
            epoch, value = epochs(run) or (None, None)
            kept = kept_since(run, sent) if code != 0 else {}  # else there are results
            stop = _get(keeper.tell.remote(task.name, task.attempt, where, epoch, value, kept))
            if stop and not stopping and code is None:
                stopping = True
                process.terminate()
        return code
    finally:
        end_job(process)


def start_job_here(folder: Path) -> "subprocess.Popen[bytes]":
    """Start the job of a folder; what it saves after this worker is lost would be of no use."""
    path = os.pathsep.join(filter(None, (str(_PACKAGE), os.environ.get("PYTHONPATH"))))
    environment = {name: value for name, value in os.environ.items() if name != "MOPO_RUN"} | {"PYTHONPATH": path}
    arguments = [str(folder / "job.json"), "--run", str(folder / "run")]
    return start_job(arguments, folder / _LOG, environment, folder, at_loss=signal.SIGKILL)


def _bring(files: Mapping[str, Mapping[str, str]], contents: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """A job's inputs where they are on this node."""
    cache = Path(tempfile.gettempdir()) / f"mopo-inputs-{os.getuid()}"
    cache.mkdir(mode=0o700, exist_ok=True)
    return {
        role: {**file, "path": str(_input(cache, Path(file["path"]).suffix, file["sha256"], contents))}
        for role, file in files.items()
    }


def _input(cache: Path, suffix: str, digest: str, contents: Mapping[str, Any]) -> Path:
    """A file of the node's cache, written if it is not there whole."""
    from mopo_cli.store.atomic import publish, sha256_file

    path = cache / f"{digest}{suffix}"
    if not (path.is_file() and (path in _checked or sha256_file(path) == digest)):
        content = _get(contents[digest])
        with publish(path) as temporary, temporary.open("wb") as file:
            file.write(content)
    _checked.add(path)
    return path


def _get(reference: Any) -> Any:
    """What Ray is to give. While the main thread of a task waits for it, Ray lets another task have its CPUs."""
    import ray

    return _aside.submit(ray.get, reference).result()


def _no_room(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"nothing can be written there ({error.strerror or error})"
    return str(error).rstrip(".")
