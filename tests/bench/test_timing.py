"""Calls by turns, on a clock that the calls themselves turn: what is counted, for how long, and how it spreads."""

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, repeat

import pytest
import torch

from mopo_cli.bench.timing import Seconds, by_turns, in_pairs, seconds_of, spread_in_words

CPU = torch.device("cpu")
Call = Callable[..., Callable[[], None]]


@pytest.fixture
def calls() -> list[str]:
    """The names of all calls, in order."""
    return []


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, calls: list[str]) -> Call:
    """Gives a call, by its name, that takes so many seconds."""
    passed = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: passed[0])

    def make(name: str, takes: Iterable[float]) -> Callable[[], None]:
        seconds: Iterator[float] = iter(takes)

        def work() -> None:
            calls.append(name)
            passed[0] += next(seconds)

        return work

    return make


def test_the_median_leaves_out_the_warm_up_and_outliers(call: Call) -> None:
    result = seconds_of(call("a", [100.0, 1.0, 2.0, 50.0, 3.0, 4.0]), 0.5, CPU)
    assert result == Seconds(3.0, 2.0) and result.spread == pytest.approx(2 / 3)


def test_what_is_steady_is_repeated_until_the_budget_is_spent(call: Call, calls: list[str]) -> None:
    assert seconds_of(call("a", repeat(0.5)), 10.0, CPU) == Seconds(0.5)
    assert len(calls) == 1 + 20


@pytest.mark.parametrize(("takes", "turns"), [((0.5, 0.54), 20), ((0.5, 0.6), 55)])
def test_what_is_not_steady_gets_three_times_as_long(
    call: Call, calls: list[str], takes: tuple[float, float], turns: int
) -> None:
    """Half a second and sometimes more: within 10 % or not."""
    result = seconds_of(call("a", chain.from_iterable(repeat(takes))), 10.0, CPU)
    assert len(calls) - 1 == pytest.approx(turns, abs=1)
    assert (result.spread < 0.1) == (turns == 20)


def test_what_becomes_steady_is_repeated_until_then(call: Call, calls: list[str]) -> None:
    restless = [1.0, *(1.0, 2.0) * 3]
    result = seconds_of(call("a", chain(restless, repeat(1.0))), 6.0, CPU)
    assert len(calls) == 1 + 13 and result == Seconds(1.0)


def test_two_are_called_by_turns_and_the_other_for_a_quarter_of_the_time(call: Call, calls: list[str]) -> None:
    work, other = call("work", repeat(8.0)), call("other", repeat(0.5))
    assert in_pairs(work, other, 20.0, CPU) == (Seconds(8.0), Seconds(0.5))
    warm_up, turn = ["work", "other"] * 2, ["work", *["other"] * 4]
    assert calls == warm_up + turn * 6  # one of them warms up too


def test_a_slow_minute_meets_both_alike(call: Call) -> None:
    """From the fifth turn on all takes twice as long: what each takes differs, and their ratio does not."""
    slows = [*repeat(1.0, 5), *repeat(2.0, 40)]
    one, other = by_turns([call("a", slows), call("b", (4 * each for each in slows))], 20.0, CPU)
    assert one.median / other.median == 0.25 and one.spread == other.spread


def test_longer_than_the_budget_there_are_five(call: Call, calls: list[str]) -> None:
    seconds_of(call("a", chain.from_iterable(repeat((1.0, 5.0)))), 0.1, CPU)
    assert len(calls) == 1 + 5


@pytest.mark.parametrize(("spread", "words"), [(None, None), (0.0, "0%"), (0.099, "10%"), (0.23, "unsteady: 23%")])
def test_what_is_said_of_it(spread: float | None, words: str | None) -> None:
    assert spread_in_words(spread) == words


def test_parts_of_one_thing_are_added_and_shared_out() -> None:
    assert Seconds(2.0, 0.5) * 0.5 + Seconds(1.0, 0.25) == Seconds(2.0, 0.5)
