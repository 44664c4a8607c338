"""Processes forked from the one that tests: there is no interpreter to start, and all is imported already."""

import gc
import os
import shlex
import signal
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any

from conftest import Outcome

from mopo_cli.__main__ import main
from mopo_cli.engine import parallel
from mopo_cli.errors import STOP_SIGNALS
from mopo_cli.nets import libraries

Process = subprocess.Popen[str]

# What commands import as they go is imported once.
for _name in ("mopo_cli.cli.app", "mopo_cli.stages.fetch_data", "matplotlib.figure", "gymnasium", "mujoco"):
    import_module(_name)


def forked(work: Callable[[], Any], pass_fds: Sequence[int] = (), **options: Any) -> Process:
    """A process, as of `Popen`, that does some work and ends with the exit code that it returns.

    It has the files that `Popen` would give it, signal handlers, threads and products as a fresh interpreter has them,
    and all that is patched here. It is nothing for what depends on how an interpreter starts.
    """

    def instead_of_a_program() -> None:
        code = 1
        try:
            _be_fresh(pass_fds)
            code = work() or 0
        except SystemExit as end:
            code = int(end.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError):
                    stream.flush()
            os._exit(code)

    # Its signals are those of Python, which are not those that a program is started with.
    usual: dict[str, Any] = {"stdin": subprocess.DEVNULL, "text": True, "restore_signals": False}
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # of threads: they hold no lock
        return subprocess.Popen(["-"], preexec_fn=instead_of_a_program, pass_fds=pass_fds, **usual | options)


def forked_mopo(line: str, **options: Any) -> Process:
    """A process that carries out a command line."""
    return forked(lambda: main(shlex.split(line)), **options)


def forked_python(command: Sequence[str], **options: Any) -> Process:
    """In the place of `Popen`: a process that carries out the script of `[python, "-c", script, …]`."""

    def work() -> None:
        sys.argv = list(command[1:2]) + list(command[3:])
        exec(command[2], {"__name__": "__main__"})

    return forked(work, **options)


def ended(process: Process, seconds: float = 120) -> Outcome:
    """How a process ends whose stdout and stderr are pipes or lead elsewhere."""
    out, err = process.communicate(timeout=seconds)
    return Outcome(process.returncode, out or "", err or "")


def _be_fresh(kept: Sequence[int]) -> None:
    gc.enable()
    # Also the descriptor from which `Popen` is waiting to hear that a program was started. They lead nowhere but are
    # not closed: at the next fork libraries look after theirs.
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in map(int, os.listdir("/dev/fd")):
        if descriptor > 2 and descriptor not in kept and descriptor != nowhere:
            os.dup2(nowhere, descriptor, inheritable=False)
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        setattr(sys, name, open(number, mode, buffering=1, closefd=False, encoding="utf-8"))  # noqa: SIM115
    for signum in STOP_SIGNALS:
        signal.signal(signum, signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL)
    parallel._workers.clear()  # the threads stayed behind
    libraries.use(None)
