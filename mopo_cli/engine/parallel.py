"""Work shared out over the cores of this machine, by threads or by forked processes; no result depends on how many.

Threads (`spread`) compute the pieces of one step: a network, or a block of rows, from start to end. Torch's own threads
split every single operation and wait for one another after each: on a machine with other work that costs more than it
gains, and how an operation is split shows in its last bits.

Processes (`forked`) compute many steps in a row. Threads of one interpreter take turns wherever they are between two
operations of torch, and a step of a small network is hundreds of operations; a process has an interpreter of its own.
A forked one sees all that this one had when it was forked, at no cost until it is changed, and what is in
`shared_floats` as it is now.
"""

import mmap
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from math import prod
from multiprocessing import get_context
from multiprocessing.connection import Connection, Pipe, wait
from queue import SimpleQueue
from traceback import format_exc
from typing import Any, TypeVar

import torch
from torch import Tensor

from mopo_cli.errors import ignore_stop_signals

Result = TypeVar("Result")


class _Worker(threading.Thread):
    """A thread that carries out jobs, one after the other."""

    def __init__(self) -> None:
        super().__init__(name="mopo-worker", daemon=True)
        self.jobs: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.start()

    def run(self) -> None:
        torch.set_num_threads(1)
        torch.set_grad_enabled(False)
        while True:
            self.jobs.get()()


_workers: list[_Worker] = []
_busy = threading.Lock()


def use_threads(count: int) -> None:
    """Let `spread` use `count` threads, the calling one among them, and torch's operations one each.

    Like torch's own number of threads this holds for the process, and changes no result.
    """
    torch.set_num_threads(1)
    del _workers[count - 1 :]
    _workers.extend(_Worker() for _ in range(count - 1 - len(_workers)))


def thread_count() -> int:
    """How many threads `spread` uses."""
    return len(_workers) + 1


def spread(work: Callable[[int], Result], count: int) -> list[Result]:
    """Compute `[work(0), …, work(count - 1)]`, each by whichever thread is free. Autograd is off on all but this one.

    An exception of any of them is raised here once all threads have stopped. Within `work`, and on any thread
    but one at a time, `spread` computes alone.
    """
    if count < 2 or not _workers or not _busy.acquire(blocking=False):
        return [work(i) for i in range(count)]
    try:
        return _spread(work, count)
    finally:
        _busy.release()


@contextmanager
def working_alone() -> Iterator[None]:
    """Meanwhile `spread` computes alone."""
    free = _busy.acquire(blocking=False)
    try:
        yield
    finally:
        if free:
            _busy.release()


def spread_evenly(work: Callable[[int], Result], count: int) -> list[Result]:
    """As `spread`, but a piece that would be left over for one thread alone comes last, free to use all of them."""
    even = count - 1 if count % thread_count() == 1 else count
    return spread(work, even) + [work(i) for i in range(even, count)]


def _spread(work: Callable[[int], Result], count: int) -> list[Result]:
    results: list[Any] = [None] * count
    owner: dict[int, int] = {}  # piece -> the thread that computes it
    failures: list[BaseException] = []
    ends: SimpleQueue[None] = SimpleQueue()
    workers = _workers[: count - 1]
    threads = len(workers) + 1

    def compute(thread: int) -> None:
        # Every thread begins with the same pieces each time: what it computed of a network is still in its cache.
        order = sorted(range(count), key=lambda i: (i - thread) % threads)
        try:
            for i in order:
                if not failures and owner.setdefault(i, thread) == thread:
                    results[i] = work(i)
        except BaseException as failure:
            failures.append(failure)
        finally:
            ends.put(None)

    for thread, worker in enumerate(workers, 1):
        worker.jobs.put(partial(compute, thread))
    compute(0)
    for _ in range(threads):
        ends.get()
    if failures:
        raise failures[0]
    return results


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
    """A forked process; `busy` from a `send` to its `receive`."""

    process: Any
    connection: Connection
    busy: bool = False

    def send(self, task: Any) -> None:
        """Have it work on a task; LostError where it has ended."""
        self.busy = True
        with _noticing():
            self.connection.send(task)

    def receive(self) -> Any:
        """Wait for the result of its task and return it, or raise what it raised; LostError where it has ended."""
        with _noticing():
            failure, result = self.connection.recv()
        self.busy = False
        if failure is not None:
            raise failure
        return result


@dataclass
class Helpers:
    """Forked processes."""

    each: list[Helper] = field(default_factory=list)

    def idle(self) -> list[Helper]:
        """Those without a task."""
        return [helper for helper in self.each if not helper.busy]

    def ready(self) -> list[Helper]:
        """Wait for any that is busy, and return those whose result is there, or that have ended."""
        busy = {helper.connection: helper for helper in self.each if helper.busy}
        return [busy[connection] for connection in wait(list(busy))]  # type: ignore[index]


@contextmanager
def forked(count: int, work: Callable[[Any], Any], threads: int = 1) -> Iterator[Helpers]:
    """Helpers that compute `work(task)` for every task sent to them, on so many threads; they end with the block.

    Tasks and results are pickled. Signals are for this process, and if it ends, however it does, so do they.
    """
    helpers = Helpers()
    lifeline, held = os.pipe()
    try:
        for _ in range(count):
            ours, theirs = Pipe()
            inherited = [ours, *(helper.connection for helper in helpers.each)]
            process = get_context("fork").Process(
                target=_serve, args=(theirs, inherited, lifeline, held, work, threads), daemon=True
            )
            with warnings.catch_warnings():
                # Python warns of other threads: ours wait for work and hold no lock.
                warnings.simplefilter("ignore", DeprecationWarning)
                process.start()
            helpers.each.append(Helper(process, ours))
            theirs.close()
        yield helpers
    finally:
        for helper in helpers.each:
            helper.process.kill()
            helper.process.join()
            helper.connection.close()
        os.close(lifeline)
        os.close(held)


def _serve(
    connection: Connection,
    inherited: list[Connection],
    lifeline: int,
    held: int,
    work: Callable[[Any], Any],
    threads: int,
) -> None:
    ignore_stop_signals()
    os.close(held)  # else the lifeline would hold as long as any of these processes
    for other in inherited:
        other.close()
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    _workers.clear()  # the threads stayed behind
    use_threads(threads)
    torch.set_grad_enabled(False)
    with suppress(EOFError, OSError):
        while True:
            task = connection.recv()
            connection.send(_outcome(work, task))


def _outcome(work: Callable[[Any], Any], task: Any) -> tuple[Exception | None, Any]:
    try:
        return None, work(task)
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
