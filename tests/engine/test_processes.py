"""Forked processes: they answer, share memory, pass on what fails, and never outlive the one that forked them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from mopo_cli.engine.parallel import LostError, can_fork, forked, shared_floats, spread, thread_count, use_threads

pytestmark = pytest.mark.skipif(not can_fork(), reason="needs processes that can be forked")

PATIENCE = 20.0


def ended(pid: int) -> bool:
    """Whether a process has ended, within `PATIENCE` seconds; one that was left behind may wait to be buried."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        try:
            with open(f"/proc/{pid}/stat") as stat:
                if stat.read().rsplit(")", 1)[1].split()[0] == "Z":
                    return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def send_each(count: int, work: Callable[[Any], Any], task: Any = None) -> list[Any]:
    with forked(count, work) as helpers:
        for helper in helpers.idle():
            helper.send(task)
        assert not helpers.idle()
        return [helper.receive() for helper in helpers.each]


def test_each_is_a_process_of_its_own_and_ends_with_the_block() -> None:
    pids = send_each(3, lambda _: os.getpid())
    assert len({*pids, os.getpid()}) == 4
    assert all(ended(pid) for pid in pids)


def test_they_see_what_was_here_when_they_were_forked_and_shared_memory_as_it_is() -> None:
    shared, plain = shared_floats(2, 3), torch.zeros(3)
    plain[0] = 7

    def work(task: int) -> list[float]:
        shared[task] += 1
        plain[1] += 1
        return [*plain.tolist(), float(shared[1 - task].sum())]

    with forked(2, work) as helpers:
        first, second = helpers.each
        plain[2] = 5
        first.send(0)
        assert first.receive() == [7, 1, 0, 0]
        shared[0, 1] = 9
        second.send(1)
        assert second.receive() == [7, 1, 0, 11]
    assert shared.tolist() == [[1, 9, 1], [1, 1, 1]] and plain.tolist() == [7, 0, 5]


@pytest.mark.parametrize("shape", [(0,), (3, 0, 2), (1,), (17, 5)])
def test_shared_floats_are_zeros_of_any_shape(shape: tuple[int, ...]) -> None:
    floats = shared_floats(*shape)
    assert floats.shape == shape and floats.dtype == torch.float32 and not floats.any()


def test_the_first_result_is_noticed_first() -> None:
    with forked(2, lambda seconds: time.sleep(seconds) or seconds) as helpers:
        slow, fast = helpers.each
        slow.send(0.5)
        fast.send(0.0)
        assert helpers.ready() == [fast] and not helpers.idle()
        assert fast.receive() == 0.0 and helpers.idle() == [fast]
        assert helpers.ready() == [slow]


def test_they_compute_on_threads_of_their_own() -> None:
    def work(_: Any) -> tuple[int, int, list[int]]:
        return thread_count(), torch.get_num_threads(), spread(lambda i: i * i, 5)

    use_threads(4)
    try:
        for threads in (1, 2):
            with forked(1, work, threads) as helpers:
                helpers.each[0].send(None)
                assert helpers.each[0].receive() == (threads, 1, [0, 1, 4, 9, 16])
        assert thread_count() == 4 and spread(lambda i: i, 5) == [0, 1, 2, 3, 4]
    finally:
        use_threads(1)


def test_an_error_is_raised_here_with_where_it_came_from_and_the_process_goes_on() -> None:
    def work(task: int) -> float:
        return 1 / task

    with forked(1, work) as helpers:
        (helper,) = helpers.each
        helper.send(0)
        with pytest.raises(ZeroDivisionError) as caught:
            helper.receive()
        assert "return 1 / task" in "".join(caught.value.__notes__)
        helper.send(2)
        assert helper.receive() == 0.5


def test_a_process_that_ends_by_itself_is_noticed() -> None:
    with forked(2, lambda _: os.kill(os.getpid(), signal.SIGKILL)) as helpers:
        lost, idle = helpers.each
        lost.send(None)
        assert helpers.ready() == [lost]
        with pytest.raises(LostError):
            lost.receive()
        with pytest.raises(LostError):
            lost.send(None)
        assert helpers.idle() == [idle]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_signals_are_for_the_process_that_forked_them(signum: signal.Signals) -> None:
    assert send_each(1, lambda _: os.kill(os.getpid(), signum) or "alive") == ["alive"]


SCRIPT = """
import os, sys, time
from mopo_cli.engine.parallel import forked
with forked(2, lambda busy: print(os.getpid(), flush=True) or time.sleep(busy)) as helpers:
    for helper, busy in zip(helpers.each, (0, 1000)):
        helper.send(busy)
    helpers.each[0].receive()
    time.sleep(1000)
"""


def test_they_end_when_the_process_that_forked_them_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(parent.stdout.readline()) for _ in range(2)]
        parent.kill()
        assert all(ended(pid) for pid in pids), "one waits for a task, the other is at work"
