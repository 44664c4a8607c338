"""Threads that share out independent pieces of work, each piece computed by one thread from start to end.

Torch's own threads split every single operation and wait for one another after each: on a machine with other
work that costs more than it gains, and how an operation is split shows in its last bits. Here the piece is a
network or a block of rows, so that results are the same with any number of threads.
"""

from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")


class _Worker(Thread):
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
_busy = Lock()


def use_threads(count: int) -> None:
    """Let `spread` use `count` threads, the calling one among them, and torch's operations one each.

    Like torch's own number of threads this holds for the process, and changes no result.
    """
    torch.set_num_threads(1)
    del _workers[count - 1 :]
    _workers.extend(_Worker() for _ in range(count - 1 - len(_workers)))


def forget_threads() -> None:
    """In a process that was forked: the threads stayed behind."""
    _workers.clear()


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
        return _share_out(work, count)
    finally:
        _busy.release()


def spread_evenly(work: Callable[[int], Result], count: int) -> list[Result]:
    """As `spread`, but a piece that would be left over for one thread alone comes last, free to use all of them."""
    even = count - 1 if count % thread_count() == 1 else count
    return spread(work, even) + [work(i) for i in range(even, count)]


def _share_out(work: Callable[[int], Result], count: int) -> list[Result]:
    results: list[Any] = [None] * count
    left = set(range(count))
    done: SimpleQueue[BaseException | None] = SimpleQueue()
    helpers = _workers[: count - 1]
    threads = len(helpers) + 1

    def taken(i: int) -> bool:
        try:
            left.remove(i)  # at most one thread succeeds
        except KeyError:
            return False
        return True

    def take(thread: int) -> None:
        # Every thread begins with pieces of its own: what it computed of a network before is still in its cache.
        order = sorted(range(count), key=lambda i: (i - thread) % threads)
        try:
            for i in order:
                if taken(i):
                    results[i] = work(i)
        except BaseException as failure:
            left.clear()
            done.put(failure)
        else:
            done.put(None)

    for thread, helper in enumerate(helpers, 1):
        helper.jobs.put(partial(take, thread))
    take(0)
    failures = [done.get() for _ in range(threads)]
    for failure in failures:
        if failure is not None:
            raise failure
    return results
