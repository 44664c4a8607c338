"""`mopo job` as a child process, which ends when the process that waits for it is killed."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG = 1
OF_TERMINALS = {signal.SIGINT, signal.SIGHUP, signal.SIGUSR1}
"""Signals of a terminal go to all that was started from it; a job that was submitted goes on without it."""


def start_job(
    arguments: Sequence[str],
    log: Path,
    environment: Mapping[str, str],
    folder: Path | None = None,
    at_loss: signal.Signals = signal.SIGTERM,
) -> "subprocess.Popen[bytes]":
    """Start `mopo job ARGUMENTS`, in ``folder`` if there is one, as the first of a group of processes.

    What it says on stderr goes into ``log``. When this process dies, it gets the signal ``at_loss``.
    """
    with log.open("wb") as stderr:
        return subprocess.Popen(
            [sys.executable, "-m", "mopo_cli", "job", *arguments],
            env=dict(environment),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
            preexec_fn=_end_with(os.getpid(), at_loss),
        )


def end_job(process: "subprocess.Popen[bytes]") -> None:
    """End a job with all processes that it has started; nothing if it has ended."""
    if process.poll() is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _end_with(parent: int, signum: signal.Signals) -> Callable[[], None]:
    """What a child does first: take all signals, and this one when its parent dies, where the system can do that."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)

    def prepare() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, OF_TERMINALS)
        if prctl is not None:
            prctl(_PR_SET_PDEATHSIG, int(signum))
            if os.getppid() != parent:
                os.kill(os.getpid(), signum)

    return prepare
