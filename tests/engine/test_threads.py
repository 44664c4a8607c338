"""Work shared out over threads: every piece once, results in order, errors raised here, and never a deadlock."""

from collections import Counter
from collections.abc import Callable, Iterator
from threading import Barrier, Event, Lock, Thread, get_ident
from time import sleep
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from mopo_cli.engine.parallel import spread, spread_evenly, thread_count, use_threads
from mopo_cli.engine.streams import stream

PATIENCE = 20.0  # seconds after which what never ends is called so


@pytest.fixture(autouse=True)
def one_thread_afterwards() -> Iterator[None]:
    yield
    use_threads(1)


def within_patience(work: Callable[[], Any]) -> Any:
    """What `work` returns on a thread of its own; fails where it would hang."""
    results: list[Any] = []
    thread = Thread(target=lambda: results.append(work()), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive(), "deadlock"
    return results[0]


def everyone(count: int) -> list[int]:
    """The thread of each of `count` pieces that wait for one another, so that no thread can take two."""
    barrier = Barrier(count)

    def wait(_: int) -> int:
        barrier.wait(PATIENCE)
        return get_ident()

    return spread(wait, count)


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(0, 60))
@example(4, 2)
@example(4, 4)
@example(4, 5)
@pytest.mark.parametrize("share", [spread, spread_evenly])
def test_every_piece_is_computed_once_and_given_back_in_order(share: Any, threads: int, count: int) -> None:
    use_threads(threads)
    assert thread_count() == threads
    computed: list[int] = []

    def work(i: int) -> str:
        computed.append(i)
        return f"piece {i}"

    assert share(work, count) == [f"piece {i}" for i in range(count)]
    assert Counter(computed) == Counter(range(count))


def test_the_order_holds_when_the_first_are_the_last_to_end() -> None:
    use_threads(3)

    def work(i: int) -> int:
        sleep(0.02 * (6 - i))
        return i * i

    assert spread(work, 6) == [0, 1, 4, 9, 16, 25]


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_as_many_threads_compute_as_were_asked_for_and_this_is_one(threads: int) -> None:
    use_threads(threads)
    used = everyone(threads)
    assert len(set(used)) == threads and used[0] == get_ident()


def test_threads_grow_and_shrink() -> None:
    for threads in (3, 1, 4, 2, 2, 3):
        use_threads(threads)
        assert thread_count() == threads
        assert len(set(everyone(threads))) == threads
    use_threads(2)
    assert len(set(spread(lambda _: get_ident(), 200))) <= 2
    use_threads(1)
    assert set(spread(lambda _: get_ident(), 20)) == {get_ident()}


def test_a_thread_begins_with_the_same_pieces_every_time() -> None:
    """A network then finds in its thread's cache what it left there."""
    use_threads(3)
    barrier = Barrier(3)

    def wait(_: int) -> int:
        barrier.wait(PATIENCE)
        return get_ident()

    first = spread(wait, 6)
    assert first[:3] == first[3:] and len(set(first)) == 3
    assert all(spread(wait, 6) == first for _ in range(5))


def test_a_thread_without_work_takes_what_is_left() -> None:
    """Piece 0 waits for all others, two of which its thread would else have taken."""
    use_threads(2)
    others = [Event() for _ in range(6)]

    def work(i: int) -> bool:
        if i == 0:
            return all(event.wait(PATIENCE) for event in others[1:])
        others[i].set()
        return True

    assert spread(work, 6) == [True] * 6


def test_no_thread_of_torch_s_own_and_no_autograd_on_the_helpers() -> None:
    torch.set_num_threads(2)
    use_threads(3)
    assert torch.get_num_threads() == 1
    barrier = Barrier(3)

    def look(_: int) -> tuple[bool, int]:
        barrier.wait(PATIENCE)
        return torch.is_grad_enabled(), torch.get_num_threads()

    assert spread(look, 3) == [(True, 1), (False, 1), (False, 1)]
    with torch.no_grad():
        assert spread(look, 3) == [(False, 1)] * 3
    assert torch.is_grad_enabled()


class Fault(Exception):
    pass


@pytest.mark.parametrize("fault", [Fault, KeyError, KeyboardInterrupt])
@pytest.mark.parametrize("place", [0, 1, 2], ids=["here", "helper", "other helper"])
def test_an_exception_is_raised_here_when_all_have_stopped(place: int, fault: type[BaseException]) -> None:
    """KeyError is what a set raises inside; an interrupt is no Exception."""
    use_threads(3)
    raised, barrier, lock = fault("the one"), Barrier(3), Lock()
    begun: list[int] = []
    running = 0

    def work(i: int) -> None:
        nonlocal running
        with lock:
            begun.append(i)
            running += 1
        try:
            if i < 3:
                barrier.wait(PATIENCE)
            if i == place:
                raise raised
            sleep(0.1)
        finally:
            with lock:
                running -= 1

    with pytest.raises(fault) as caught:
        spread(work, 100)
    assert caught.value is raised and running == 0
    assert len(begun) < 50, "the rest is not begun"
    ended = len(begun)
    assert len(set(everyone(3))) == 3, "all threads work on"
    assert spread(lambda i: i, 50) == list(range(50)) and len(begun) == ended


def test_when_several_fail_one_is_raised() -> None:
    use_threads(3)
    barrier = Barrier(3)

    def work(i: int) -> None:
        barrier.wait(PATIENCE)
        raise Fault(i)

    for _ in range(5):
        with pytest.raises(Fault):
            spread(work, 3)
    assert len(set(everyone(3))) == 3


def test_an_exception_of_a_single_thread_or_piece_is_raised_too() -> None:
    def work(i: int) -> None:
        raise Fault(i)

    for threads, count in ((1, 5), (3, 1)):
        use_threads(threads)
        with pytest.raises(Fault, match="0"):
            spread(work, count)
    with pytest.raises(Fault, match="3"):
        spread_evenly(lambda i: work(i) if i == 3 else None, 4)
    assert len(set(everyone(3))) == 3


def test_within_work_spread_computes_alone() -> None:
    use_threads(3)
    barrier = Barrier(3)

    def outer(i: int) -> tuple[int, list[tuple[int, int]]]:
        barrier.wait(PATIENCE)
        return get_ident(), spread(lambda j: (get_ident(), 10 * i + j), 4)

    result = within_patience(lambda: spread(outer, 6))
    for i, (thread, pieces) in enumerate(result):
        assert pieces == [(thread, 10 * i + j) for j in range(4)]
    assert len({thread for thread, _ in result}) == 3


def test_another_thread_computes_alone_while_the_helpers_are_busy() -> None:
    use_threads(3)
    started, release = Barrier(4), Event()

    def wait(i: int) -> int:
        started.wait(PATIENCE)
        assert release.wait(PATIENCE)
        return i

    results: list[list[int]] = []
    first = Thread(target=lambda: results.append(spread(wait, 3)), daemon=True)
    first.start()
    started.wait(PATIENCE)
    try:
        threads = within_patience(lambda: [get_ident(), *spread(lambda _: get_ident(), 9)])
        assert len(set(threads)) == 1
        assert set(spread(lambda _: get_ident(), 9)) == {get_ident()}
    finally:
        release.set()
        first.join(PATIENCE)
    assert results == [[0, 1, 2]]
    assert len(set(everyone(3))) == 3, "and all of them afterwards"


def test_several_threads_at_once_each_get_their_own_results() -> None:
    use_threads(3)
    results: dict[int, list[list[int]]] = {}

    def call(name: int) -> None:
        results[name] = [spread(lambda i: 1000 * name + i, 7) for _ in range(200)]

    callers = [Thread(target=call, args=(name,), daemon=True) for name in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(PATIENCE)
    assert results == {name: [[1000 * name + i for i in range(7)]] * 200 for name in range(4)}


def test_what_is_left_over_evenly_may_use_all_threads_itself() -> None:
    """Seven on three threads: six side by side, each alone, and then one whose parts are shared out."""
    use_threads(3)
    begun: list[int] = []
    side_by_side = Barrier(3)

    def work(i: int) -> set[int]:
        begun.append(i)
        if i == 6:
            return set(everyone(3))
        side_by_side.wait(PATIENCE)
        return set(spread(lambda _: get_ident(), 3))

    result = within_patience(lambda: spread_evenly(work, 7))
    assert all(len(used) == 1 for used in result[:6]) and len(set.union(*result[:6])) == len(result[6]) == 3
    assert begun[-1] == 6, "only when the others are done"
    assert within_patience(lambda: spread_evenly(lambda _: len(set(everyone(3))), 1)) == [3]
    pair = Barrier(2)
    two = within_patience(lambda: spread_evenly(lambda _: (pair.wait(PATIENCE), get_ident())[1], 2))
    assert len(set(two)) == 2, "each on a thread of its own"


def test_results_are_the_same_bits_with_any_number_of_threads() -> None:
    x = torch.randn(9, 61, 47, generator=stream(0, "test/x"))
    weight = torch.randn(47, 33, generator=stream(0, "test/w"))

    def work(i: int) -> Tensor:
        return torch.softmax(x[i] @ weight, dim=-1).logsumexp(dim=0)

    expected = torch.stack([work(i) for i in range(9)])
    for threads in (1, 2, 3, 4):
        use_threads(threads)
        for share in (spread, spread_evenly):
            assert all(torch.equal(torch.stack(share(work, 9)), expected) for _ in range(10))
