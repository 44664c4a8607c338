"""Processes forked from this one, which answer its questions: each has an interpreter, and so a lock, of its own.

Threads of one interpreter take turns wherever they are between two operations of torch; a step of a small network is
hundreds of operations. A forked process sees all that this one had when it was forked, at no cost until it is
changed, and what is in `shared_floats` as it is now.
"""

import mmap
import os
import platform
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

from mopo_cli.engine.team import Team
from mopo_cli.engine.workers import forget_threads, join_team, use_threads


def can_fork() -> bool:
    """Whether processes can be forked here: on macOS they could not use its numerical libraries."""
    return sys.platform == "linux"


def can_team() -> bool:
    """Whether they can take steps together: elsewhere a write may be seen before one that was made earlier."""
    return can_fork() and platform.machine() in ("x86_64", "AMD64")


def shared_floats(*shape: int) -> Tensor:
    """Zeros `shape` in memory that is the same in this process and those forked from it; it takes room when used."""
    # Nameless memory: a container's /dev/shm is small.
    return torch.frombuffer(mmap.mmap(-1, max(1, prod(shape)) * 4), dtype=torch.float32)[: prod(shape)].view(shape)


class LostError(Exception):
    """A forked process has ended by itself."""


@dataclass(eq=False)
class Helper:
    """A forked process, or several that take their steps together; `busy` from being asked until it has answered."""

    processes: list[Any] = field(default_factory=list)
    connections: list[Connection] = field(default_factory=list)
    busy: bool = False

    def ask(self, question: Any) -> None:
        """Have it work on something, which is sent to it; LostError where it has ended."""
        self.busy = True
        with _noticing():
            for connection in self.connections:
                connection.send(question)

    def answer(self) -> list[Any]:
        """What each of its processes answers, waited for, or raise what one raised; LostError where one has ended."""
        found: dict[Connection, Any] = {}
        while left := [connection for connection in self.connections if connection not in found]:
            with _noticing():
                # Who has failed answers, and those who wait for it never will.
                ready = wait(left)
                came = {connection: connection.recv() for connection in left if connection in ready}
            for connection, (failure, answer) in came.items():
                if failure is not None:
                    self.busy = False
                    raise failure
                found[connection] = answer
        self.busy = False
        return [found[connection] for connection in self.connections]


@dataclass
class Helpers:
    """Forked processes."""

    each: list[Helper] = field(default_factory=list)

    def idle(self) -> list[Helper]:
        """Those that can be asked."""
        return [helper for helper in self.each if not helper.busy]

    def answered(self) -> list[Helper]:
        """Wait for any that is busy, and return those whose answer is there, or who have ended."""
        busy = {own: helper for helper in self.each if helper.busy for own in helper.connections}
        return list(dict.fromkeys(busy[own] for own in wait(list(busy))))  # type: ignore[index]


@contextmanager
def forked(count: int, work: Callable[[Any], Any], threads: int = 1, together: int = 1) -> Iterator[Helpers]:
    """Helpers that answer every question by `work(question)` on so many threads; they end with the block.

    Each has `together` processes, which share out what `work` spreads (see `engine.workers.spread`). Questions and
    answers are pickled. Signals are for this process, and if it ends, however it does, so do they.
    """
    helpers = Helpers()
    lifeline, held = os.pipe()
    try:
        for _ in range(count):
            helper, team = Helper(), Team(together) if together > 1 else None
            helpers.each.append(helper)
            for rank in range(together):
                ours, theirs = Pipe()
                helper.connections.append(ours)
                inherited = [connection for own in helpers.each for connection in own.connections]
                place = team.at(rank) if team is not None else None
                helper.processes.append(_fork(theirs, inherited, lifeline, held, work, threads, place))
                theirs.close()
        yield helpers
    finally:
        for helper in helpers.each:
            for process in helper.processes:
                process.kill()
                process.join()
            for connection in helper.connections:
                connection.close()
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
    team: Team | None,
) -> None:
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)
    os.close(held)  # else the lifeline would hold as long as any of these processes
    for other in inherited:
        other.close()
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    forget_threads()
    use_threads(threads)
    join_team(team)
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
