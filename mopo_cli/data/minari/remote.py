"""Minari's datasets elsewhere: downloaded, and listed, by a process of their own that the library works in.

The library prints, cannot be told to stop, and says nothing of how far it is. In a process of its own it can
be stopped at any time, and how far it is shows in the files that it writes.
"""

import errno
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from difflib import get_close_matches
from typing import Any

from mopo_cli.data.minari.sets import is_begun, is_here, local_sets, mend, minari_root
from mopo_cli.errors import CorruptError, InputError, NetworkError

STALL_SECONDS = 120.0
"""How long nothing may arrive before a download is given up."""

_LOOK_SECONDS = 0.5
_LONGEST_MESSAGE = 300
_CLOSE = 3
_TRY_AGAIN = "try again later, or name another remote with MINARI_REMOTE"
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)


def download(dataset_id: str, on_bytes: Callable[[int], None] = lambda _: None) -> None:
    """Bring a dataset that is not here, or goes on with a download that was broken off, into Minari's root.

    ``on_bytes(n)`` is told of n more bytes, also of none, and may raise to stop; what has arrived stays.
    Raises InputError for an id that the remote does not have, with the closest of those that are here;
    NetworkError when it cannot be reached or sends nothing; CorruptError for an incomplete set that is no
    download.
    """
    begun = is_begun(dataset_id)
    if is_here(dataset_id) and not begun:
        raise CorruptError(f"The Minari set in {minari_root() / dataset_id} is incomplete.", mend(dataset_id))
    try:
        task = {"download": dataset_id, "force": begun}
        _work(f"The Minari set {dataset_id} cannot be downloaded", task, on_bytes)
    except InputError as error:
        close = get_close_matches(dataset_id, local_sets(), n=_CLOSE, cutoff=0.5)
        here = f"; on this machine: {', '.join(close)}" if close else ""
        raise InputError(error.message.rstrip(".") + here + ".", "mopo fetch-data --list --remote") from error


def remote_sets() -> dict[str, dict[str, Any]]:
    """The metadata of every dataset of the remote ($MINARI_REMOTE, else Farama's), by id.

    Raises NetworkError when it cannot be reached, InputError when this Python lacks what it takes.
    """
    return dict(_work("Minari's remote cannot be listed", {"list": True}))


def _work(what: str, task: dict[str, Any], on_bytes: Callable[[int], None] = lambda _: None) -> Any:
    """The answer to ``task``, from the process; ``what`` begins the sentence of a failure."""
    # -P: a file in the working directory must not stand in for a library.
    command = [sys.executable, "-P", "-m", __name__, json.dumps(task)]
    environment = {**os.environ, "MINARI_DATASETS_PATH": str(minari_root().absolute())}
    environment |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    before, last = _held(), time.monotonic()
    silent = subprocess.DEVNULL
    with subprocess.Popen(command, env=environment, stdin=silent, stdout=subprocess.PIPE, stderr=silent) as process:
        try:
            answer = None
            while answer is None:
                with suppress(subprocess.TimeoutExpired):
                    answer, _ = process.communicate(timeout=_LOOK_SECONDS)
                held, now = _held(), time.monotonic()
                on_bytes(held - before)
                if held != before:
                    before, last = held, now
                if answer is None and now > last + STALL_SECONDS:
                    raise NetworkError(f"{what}: no data came for {STALL_SECONDS:g} seconds.", _TRY_AGAIN)
        finally:
            process.kill()
    return _understand(what, answer, process.returncode)


def _held() -> int:
    """The bytes of all files under Minari's root."""
    sizes = 0
    for folder, _, names in os.walk(minari_root()):
        for name in names:
            try:
                sizes += os.stat(os.path.join(folder, name)).st_size
            except OSError:
                continue  # a file that was renamed meanwhile
    return sizes


def _understand(what: str, answer: bytes, code: int) -> Any:
    try:
        reply = json.loads(answer)
    except ValueError:
        reply = {"error": "network", "message": f"its process ended with code {code}."}
    if "error" not in reply:
        return reply["result"]
    if reply["error"] == "input":
        raise InputError(f"{what}: {reply['message']}")
    raise NetworkError(f"{what}: {reply['message']}", _TRY_AGAIN)


def _main(task: dict[str, Any]) -> dict[str, Any]:
    """What the process does: the result, or the kind of error and its sentence."""
    try:
        import minari

        _check_reachable()
        if "download" not in task:
            return {"result": minari.list_remote_datasets()}
        try:
            minari.download_dataset(task["download"], force_download=task["force"])
        except ValueError as error:
            if type(error) is ValueError:
                raise ValueError(_refusal(task["download"], error)) from error
            raise
        return {"result": None}
    except Exception as error:  # whatever the network's libraries raise
        line = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        message = "".join(c if c.isprintable() else " " for c in line)[:_LONGEST_MESSAGE].rstrip(". ")
        return {"error": "input" if _is_ours(error) else "network", "message": f"{message}."}


def _refusal(dataset_id: str, error: ValueError) -> str:
    """Why minari refuses: its own sentence for a set that the remote has, else the sets beside it that it has."""
    import minari

    space = dataset_id.rpartition("/")[0]
    there = minari.list_remote_datasets(prefix=f"{space}/" if space else dataset_id.rpartition("-v")[0])
    if dataset_id in there:
        return str(error)
    close = get_close_matches(dataset_id, there, n=_CLOSE, cutoff=0)
    return f"there is no such set; similar ones are {', '.join(close)}" if close else "there is no such set"


def _is_ours(error: Exception) -> bool:
    """Whether it would fail with the best of networks: minari's own refusal, a missing library, a full disk."""
    # Of plain ValueError are only minari's refusals; the network's libraries raise classes derived from it.
    return isinstance(error, ImportError) or type(error) is ValueError or getattr(error, "errno", None) in _DISK


def _check_reachable() -> None:
    """One request without retries: the library would try for half a minute where there is no network at all."""
    kind, mark, _ = os.environ.get("MINARI_REMOTE", "hf://").partition("://")
    if not mark or kind not in ("hf", "gcp"):
        raise ValueError("MINARI_REMOTE must be hf://ORGANISATION or gcp://BUCKET")
    if kind == "hf":
        from huggingface_hub import constants, get_session

        get_session().head(constants.ENDPOINT, timeout=constants.HF_HUB_ETAG_TIMEOUT)


if __name__ == "__main__":
    with warnings.catch_warnings(), redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")
        _answer = json.dumps(_main(json.loads(sys.argv[1])), default=str)
    sys.stdout.write(_answer)
