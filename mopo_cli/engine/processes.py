"""Processes forked from this one, which answer its questions: each has an interpreter, and so a lock, of its own.

Threads of one interpreter take turns wherever they are between two operations of torch; a step of a small network is
hundreds of operations. A forked process sees all that this one had when it was forked, at no cost until it is
changed, and what is in `shared_floats` as it is now.
"""

import mmap
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from math import prod
from multiprocessing import get_context
from multiprocessing.connection import Connection, Pipe, wait
from traceback import format_exc
from typing import Any

import torch
from torch import Tensor

from mopo_cli.engine.workers import forget_threads, use_threads


def can_fork() -> bool:
    """Whether processes can be forked here: on macOS they could not use its numerical libraries."""
    return sys.platform == "linux"


def shared_floats(*shape: int) -> Tensor:
    """Zeros `shape` in memory that is the same in this process and those forked from it; it takes room when used."""
    # Nameless memory: a container's /dev/shm is small.
    return torch.frombuffer(mmap.mmap(-1, max(1, prod(shape)) * 4), dtype=torch.float32)[: prod(shape)].view(shape)


class LostError(Exception):
    """A forked process has ended by itself."""


@dataclass(eq=False)
class Helper:
    """A forked process; `busy` from being asked until it has answered."""

    process: Any
    connection: Connection
    busy: bool = False

    def ask(self, question: Any) -> None:
        """Have it work on something, which is sent to it; LostError where it has ended."""
        self.busy = True
        with _noticing():
            self.connection.send(question)

    def answer(self) -> Any:
        """What it answers, waited for, or raise what it raised; LostError where it has ended."""
        with _noticing():
            failure, answer = self.connection.recv()
        self.busy = False
        if failure is not None:
            raise failure
        return answer


@dataclass
class Helpers:
    """Forked processes."""

    each: list[Helper] = field(default_factory=list)

    def idle(self) -> list[Helper]:
        """Those that can be asked."""
        return [helper for helper in self.each if not helper.busy]

    def answered(self) -> list[Helper]:
        """Wait for any that is busy, and return those whose answer is there, or who have ended."""
        busy = {helper.connection: helper for helper in self.each if helper.busy}
        return [busy[connection] for connection in wait(list(busy))]  # type: ignore[index]


@contextmanager
def forked(count: int, work: Callable[[Any], Any], threads: int = 1) -> Iterator[Helpers]:
    """Helpers that answer every question by `work(question)` on so many threads; they end with the block.

    Questions and answers are pickled. Signals are for this process, and if it ends, however it does, so do they.
    """
    helpers = Helpers()
    lifeline, held = os.pipe()
    try:
        for _ in range(count):
            ours, theirs = Pipe()
            inherited = [ours, *(helper.connection for helper in helpers.each)]
            helpers.each.append(Helper(_fork(theirs, inherited, lifeline, held, work, threads), ours))
            theirs.close()
        yield helpers
    finally:
        for helper in helpers.each:
            helper.process.kill()
            helper.process.join()
            helper.connection.close()
        os.close(lifeline)
        os.close(held)


def _fork(*given: Any) -> Any:
    process = get_context("fork").Process(target=_serve, args=given, daemon=True)
    with warnings.catch_warnings():
        # Python warns of other threads: ours wait for work and hold no lock.
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    return process


def _serve(
    connection: Connection,
    inherited: list[Connection],
    lifeline: int,
    held: int,
    work: Callable[[Any], Any],
    threads: int,
) -> None:
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)
    os.close(held)  # else the lifeline would hold as long as any of these processes
    for other in inherited:
        other.close()
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    forget_threads()
    use_threads(threads)
    torch.set_grad_enabled(False)
    with suppress(EOFError, OSError):
        while True:
            question = connection.recv()
            connection.send(_answer(work, question))


def _answer(work: Callable[[Any], Any], question: Any) -> tuple[Exception | None, Any]:
    try:
        return None, work(question)
    except Exception as failure:
        failure.add_note(f"in a process that helps:\n{format_exc()}")
        return failure, None


def _end_with(lifeline: int) -> None:
    os.read(lifeline, 1)  # returns when the process that holds the other end has ended
    os._exit(1)


@contextmanager
def _noticing() -> Iterator[None]:
    try:
        yield
    except (EOFError, OSError) as error:
        raise LostError("a process that helps has ended") from error
