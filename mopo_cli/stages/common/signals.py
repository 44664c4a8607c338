"""Signals that save and stop a stage."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

from mopo_cli.errors import STOP_SIGNALS, Stopped
from mopo_cli.stages.common.options import Options
from mopo_cli.store.run import RunFolder, remember_run

# `timeout` signals the command and then all of its process group, the command again.
_TOGETHER_SECONDS = 0.3


class Signalled(Protocol):
    """What signals stop; ``signal`` is the number of the one that came, 0 if none did."""

    signal: int


class Stoppable(Signalled, Protocol):
    """A stage at work in a run."""

    run: RunFolder
    options: Options


@contextmanager
def stopped_by_signals(stage: Stoppable) -> Iterator[None]:
    """Stopped at the end of the block where a signal came within it; the run is then the current one."""
    try:
        yield
        if stage.signal:
            raise Stopped(stage.signal)
    except Stopped as stopped:
        remember_run(stage.run)
        if stage.options.force:
            stopped.hint = "with --force the same command starts from the beginning"
        raise


@contextmanager
def catch_signals(stage: Signalled) -> Iterator[None]:
    """Within it the first of `STOP_SIGNALS` is noted in the stage, and another one, later, exits at once."""
    # Only the main thread may install handlers; elsewhere the caller's stay in force.
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    came = 0.0

    def note(signum: int, _frame: FrameType | None) -> None:
        nonlocal came
        if not stage.signal:
            stage.signal, came = signum, time.monotonic()
        elif time.monotonic() - came > _TOGETHER_SECONDS:
            raise SystemExit(128 + signum)

    before = {signum: signal.signal(signum, note) for signum in STOP_SIGNALS}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
