"""Processes that take their steps together: each its own units, what it tells is heard as it was told."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mopo_cli.engine import team as teams
from mopo_cli.engine.processes import Helper, LostError, can_team, forked
from mopo_cli.engine.streams import stream
from mopo_cli.engine.team import Team, Told
from mopo_cli.engine.workers import spread, spread_evenly, use_threads

pytestmark = pytest.mark.skipif(not can_team(), reason="needs processes that can take steps together")


@pytest.fixture(autouse=True)
def one_thread_afterwards() -> Iterator[None]:
    yield
    use_threads(1)


def ask(size: int, work: Callable[[Any], Any], questions: int = 1, threads: int = 1) -> list[list[Any]]:
    """What every process of a team answers to the questions 0, 1, …"""
    with forked(1, work, threads, size) as helpers:
        (helper,) = helpers.each
        answers = []
        for question in range(questions):
            helper.ask(question)
            answers.append(helper.answer())
        return answers


def numbers(*shape: int, dtype: torch.dtype = torch.float32, name: str = "x") -> Tensor:
    drawn = torch.randn(shape, generator=stream(0, f"test/{name}"))
    return drawn > 0 if dtype == torch.bool else (100 * drawn).to(dtype)


def plain(told: Told) -> Any:
    """As numpy and Python can send it."""
    if isinstance(told, tuple):
        return tuple(plain(one) for one in told)
    return None if told is None else (str(told.dtype), tuple(told.shape), told.double().flatten().tolist())


KINDS = st.sampled_from([torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.bool])
TENSORS = st.builds(
    lambda dtype, shape, name: numbers(*shape, dtype=dtype, name=str(name)),
    KINDS,
    st.lists(st.integers(0, 4), max_size=3),
    st.integers(0, 9),
)
PIECES = st.lists(st.one_of(st.none(), TENSORS, st.lists(TENSORS, max_size=3).map(tuple)), max_size=6)


@settings(deadline=None, max_examples=15)
@given(st.lists(PIECES, min_size=2, max_size=3))
def test_what_is_told_is_heard_by_all(told: list[list[Told]]) -> None:
    team = Team(len(told))

    def work(rank: int) -> Any:
        return [[plain(piece) for piece in pieces] for pieces in team.at(rank).exchange(told[rank])]

    with forked(len(told), work) as helpers:
        for rank, helper in enumerate(helpers.each):
            helper.ask(rank)
        for helper in helpers.each:
            assert helper.answer() == [[[plain(piece) for piece in pieces] for pieces in told]]


def test_more_than_there_is_room_for_comes_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for two of these at a time, and to say of three what they are; one process has little to tell."""
    monkeypatch.setattr(teams, "_HEAD", 8 * (2 + 3 * 5) + 56)
    monkeypatch.setattr(teams, "_ROOM", teams._HEAD + 2 * 4096)
    counts = (0, 1, 8, 3, 20)

    def work(question: int) -> list[float]:
        size = 1 if question == 4 else 1000
        found = spread(lambda i: torch.full((size,), 100.0 * question + i), counts[question])
        assert all(tensor.shape == (size,) and bool((tensor == tensor[0]).all()) for tensor in found)
        return [float(tensor[0]) for tensor in found]

    for question, answers in enumerate(ask(3, work, len(counts))):
        assert answers == [[100.0 * question + i for i in range(counts[question])]] * 3

    def too_large(_: int) -> list[Tensor]:
        return spread(lambda i: torch.zeros(3000), 4)

    with pytest.raises(RuntimeError, match="bytes to tell"):
        ask(2, too_large)


def test_each_unit_is_changed_by_the_process_it_belongs_to_alone() -> None:
    def work(_: int) -> tuple[list[float], list[int], int]:
        state = torch.zeros(5)

        def change(u: int) -> Tensor:
            state[u] += 1
            return torch.tensor(os.getpid())

        for _ in range(3):
            who = spread(change, 5)
        return state.tolist(), [int(pid) for pid in who], os.getpid()

    ((first, second),) = ask(2, work)
    assert first[0] == [3, 0, 3, 0, 3] and second[0] == [0, 3, 0, 3, 0]
    assert first[1] == second[1] == [first[2], second[2], first[2], second[2], first[2]]


def test_a_piece_of_no_unit_and_a_single_one_are_everyone_s() -> None:
    def work(_: int) -> list[int]:
        who = lambda i: torch.tensor(os.getpid())  # noqa: E731
        alone, left_over = spread(who, 1), spread_evenly(who, 1)
        mixed = spread(who, 4, [1, None, 0, None].__getitem__)
        owned = spread(who, 1, lambda i: 1)
        return [int(pid) for pid in (*alone, *left_over, *mixed, *owned)] + [os.getpid()]

    ((first, second),) = ask(2, work)
    (*a, mine), (*b, yours) = first, second
    assert a == [mine, mine, yours, mine, mine, mine, yours] and b == [yours, yours, yours, yours, mine, yours, yours]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("size", [2, 3])
def test_what_is_spread_within_a_piece_is_computed_where_the_piece_is(size: int, threads: int) -> None:
    def work(_: int) -> list[bool]:
        def outer(i: int) -> Tensor:
            inner = spread(lambda j: torch.tensor(os.getpid()), 3)
            return torch.tensor(all(int(pid) == os.getpid() for pid in inner))

        return [bool(same) for same in (*spread(outer, 7), *spread_evenly(outer, 7))]

    assert ask(size, work, threads=threads) == [[[True] * 14] * size]


def test_results_are_the_same_bits_in_any_team() -> None:
    x, weight = numbers(7, 61, 47), numbers(47, 33, name="w")

    def work(_: int) -> Any:
        found = spread_evenly(lambda i: (torch.softmax(x[i] @ weight, dim=-1), x[i].t()), 7)
        return [tensor.contiguous().numpy() for piece in found for tensor in piece]

    expected = work(0)
    for size in (2, 3, 5):
        (answers,) = ask(size, work)
        for found in answers:
            assert all((a == b).all() for a, b in zip(found, expected, strict=True))


def test_what_was_heard_stays_while_others_are_ahead() -> None:
    """Now one, now another process is late."""

    def work(_: int) -> list[list[float]]:
        def piece(i: int, turn: int) -> Tensor:
            time.sleep(0.002 if (turn + i) % 3 == 0 else 0.0)
            return torch.full((5000,), 10.0 * turn + i)

        heard = [spread(lambda i, turn=turn: piece(i, turn), 3) for turn in range(40)]  # type: ignore[misc]
        return [[float(found.min()), float(found.max())] for turn in heard for found in turn]

    assert ask(3, work) == [[[[10.0 * turn + i] * 2 for turn in range(40) for i in range(3)]] * 3]


def test_who_is_slow_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by those who have stopped to look all the time."""
    monkeypatch.setattr(teams, "_LOOKS", 10)

    def work(question: int) -> list[float]:
        def piece(i: int) -> Tensor:
            time.sleep(0.3 if i == question else 0.0)
            return torch.tensor(float(10 * question + i))

        return [float(number) for number in spread(piece, 2)]

    assert ask(2, work, 2) == [[[0.0, 1.0]] * 2, [[10.0, 11.0]] * 2]


@pytest.mark.parametrize("place", [0, 1])
def test_what_one_raises_is_raised_here_while_others_wait_for_it(place: int) -> None:
    def work(_: int) -> None:
        spread(lambda i: 1 // 0 if i == place else None, 2)

    with pytest.raises(ZeroDivisionError):
        ask(2, work)


@pytest.mark.parametrize("place", [0, 1])
def test_one_that_ends_while_others_wait_for_it_is_noticed(place: int) -> None:
    def work(_: int) -> None:
        spread(lambda i: os.kill(os.getpid(), signal.SIGKILL) if i == place else None, 2)

    pids: list[int] = []
    with pytest.raises(LostError), forked(2, work, together=2) as helpers:
        assert all(isinstance(helper, Helper) and len(helper.processes) == 2 for helper in helpers.each)
        pids = [process.pid for helper in helpers.each for process in helper.processes]
        helpers.each[1].ask(None)
        assert helpers.answered() == [helpers.each[1]]
        helpers.each[1].answer()
    assert len(set(pids)) == 4
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
