"""A process that carries out one `mopo job` after another, so that imports are paid once; it ends with its stdin.

It reads lines of JSON, each the job's file, the folder to carry it out in and the file of what it says, and answers
each with the exit code. Before the first it says why it cannot.
"""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any, TextIO

_COMMAND = """\
from mopo_cli.placing.attendant import attend

def load():
    import mujoco, platformdirs, typer  # which a job would miss only later
    import mopo_cli.stages.jobs.carry_out
    from mopo_cli.__main__ import main
    from mopo_cli.nets import libraries

    def run(arguments):
        libraries.use(None)
        return main(arguments)

    return run

attend(load)
"""
"""What Python is to run: rooms above this one are named in the text alone."""

VISIBLE = "CUDA_VISIBLE_DEVICES"
_PACKAGE = Path(__file__).parents[2]
_CRASHED = 1


class Attendant:
    """The other end: starts such a process, the first of a group of processes, and gives it jobs."""

    def __init__(self) -> None:
        path = os.pathsep.join(filter(None, (str(_PACKAGE), os.environ.get("PYTHONPATH"))))
        self.visible = os.environ.get(VISIBLE)
        self.process: subprocess.Popen[bytes] = subprocess.Popen(
            [sys.executable, "-c", _COMMAND],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=tempfile.gettempdir(),
            env={name: value for name, value in os.environ.items() if name != "MOPO_RUN"} | {"PYTHONPATH": path},
            start_new_session=True,
        )
        answer = self._answer()
        self.unfit: str = answer["unfit"] if answer else ""
        if answer is None and self.process.wait() > 0:  # else it was killed, which is no fault of what is installed
            self.unfit = "mopo cannot be imported there"

    def order(self, folder: Path) -> None:
        """Have it carry out the job in a folder."""
        order = {"file": str(folder / "job.json"), "folder": str(folder / "run"), "log": str(folder / "log")}
        with suppress(BrokenPipeError):  # `code` will say so
            _pipe(self.process.stdin).write(json.dumps(order).encode() + b"\n")
            _pipe(self.process.stdin).flush()

    def code(self, seconds: float) -> int | None:
        """The exit code of the job; None where it goes on for longer than this."""
        answer = self._answer(seconds)
        return self.process.poll() if answer is None else int(answer["code"])

    def _answer(self, seconds: float | None = None) -> dict[str, Any] | None:
        stdout = _pipe(self.process.stdout)
        if not select.select([stdout], [], [], seconds)[0]:
            return None
        line = stdout.readline()
        return dict(json.loads(line)) if line.endswith(b"\n") else None

    def end(self) -> None:
        """End it with what it has started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            with suppress(OSError):
                _pipe(stream).close()


def attend(load: Callable[[], Callable[[Sequence[str]], int]]) -> None:
    """Answer stdin until it ends, also in the middle of a job, with all processes of this one's group.

    ``load`` imports what jobs need and returns what runs a command line. The first answer is ``unfit``: why that cannot
    be imported, or nothing.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no answer
    try:
        run = load()
    except ModuleNotFoundError as error:
        _answer(answers, {"unfit": f"the package {error.name} is not installed there"})
        return
    except (ImportError, OSError) as error:  # of a library that a package is made of
        _answer(answers, {"unfit": f"mopo cannot be imported there: {error}"})
        return
    _answer(answers, {"unfit": ""})
    orders: SimpleQueue[dict[str, str]] = SimpleQueue()
    threading.Thread(target=_listen, args=(orders,), daemon=True).start()
    while True:
        order = orders.get()
        _answer(answers, {"code": _carry_out(run, order)})


def _carry_out(run: Callable[[Sequence[str]], int], order: dict[str, str]) -> int:
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)
    try:
        return run(["job", order["file"], "--run", order["folder"]])
    except SystemExit as end:  # the second signal
        return end.code if isinstance(end.code, int) else _CRASHED


def _listen(orders: "SimpleQueue[dict[str, str]]") -> None:
    # By the descriptor: processes are forked meanwhile, and a lock of sys.stdin would be forked as it is.
    text = b""
    while part := os.read(0, 1 << 16):
        text += part
        *lines, text = text.split(b"\n")
        for line in lines:
            orders.put(json.loads(line))
    os.killpg(0, signal.SIGKILL)


def _answer(answers: TextIO, value: dict[str, Any]) -> None:
    answers.write(json.dumps(value) + "\n")
    answers.flush()


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream
