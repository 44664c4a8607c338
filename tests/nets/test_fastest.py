"""The faster library is taken, by a clock that the test turns, where it is faster by enough."""

import itertools
import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mopo_cli.nets import fastest as module
from mopo_cli.nets import libraries, products
from mopo_cli.nets.fastest import fastest
from mopo_cli.nets.libraries import KINDS, Choice, Kind, Library, all_by


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[Choice, float], Callable[[], float]]:
    """Gives the clock of a machine on which one library takes `times` as long as the other."""

    def make(faster: Choice, times: float) -> Callable[[], float]:
        passed = [0.0]

        def work(kind: Kind) -> tuple[Callable[[], object], int]:
            def multiply() -> None:
                now: Library = "onednn" if kind in (libraries.to_onednn or ()) else "mkl"
                passed[0] += 0.001 if faster[kind] == now else 0.001 * times

            return multiply, 1_000_000_000

        monkeypatch.setattr(module, "_work", work)
        monkeypatch.setattr(module, "can_use_onednn", lambda dtype: True)
        return lambda: passed[0]

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_the_library_that_is_faster(machine: Callable[..., Callable[[], float]], kind: Kind) -> None:
    wanted: Choice = {**all_by("mkl"), kind: "onednn"}
    before = libraries.in_use()
    result = fastest(machine(wanted, 2.0), time.perf_counter)
    assert result.choice == wanted and libraries.in_use() == before
    assert result.speeds[kind] == pytest.approx({"onednn": 1000.0, "mkl": 500.0})


def test_of_nearly_equal_ones_it_is_mkl(machine: Callable[..., Callable[[], float]]) -> None:
    assert fastest(machine(all_by("onednn"), 1.09), time.perf_counter).choice == all_by("mkl")
    assert fastest(machine(all_by("onednn"), 1.11), time.perf_counter).choice == all_by("onednn")


def test_a_burst_of_other_work_changes_nothing(machine: Callable[..., Callable[[], float]]) -> None:
    quiet, calls = machine(all_by("onednn"), 2.0), [0]

    def disturbed() -> float:
        calls[0] += 1
        return quiet() + (calls[0] // 20)  # a second, in the middle of one work in ten

    assert fastest(disturbed, time.perf_counter).choice == all_by("onednn")


@pytest.mark.parametrize(
    ("step", "passes", "turns"),
    [(0.0, 0.0, module._MOST), (10.0, 0.0, module._LEAST), (1e-4, 0.0, 25), (1e-4, 10.0, module._LEAST)],
)
def test_it_ends_however_slow_the_machine_or_coarse_the_clock(
    machine: Callable[..., Callable[[], float]], step: float, passes: float, turns: int
) -> None:
    """Turns of works that take `step` seconds each, while `passes` seconds pass between two looks at the wall clock."""
    machine(all_by("onednn"), 2.0)
    looks, wall = itertools.count(), itertools.count()
    fastest(lambda: step * next(looks), lambda: passes * next(wall))
    assert next(looks) == 2 * 2 * len(KINDS) * (1 + turns)


def test_where_onednn_is_not_all_is_mkl_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "can_use_onednn", lambda dtype: dtype == torch.float32)
    monkeypatch.setattr(module, "_SURE", 0.0)
    monkeypatch.setattr(module, "_SIZES", dict.fromkeys(module._SIZES, ((20, 20, 20),)))
    monkeypatch.setattr(products, "_by_onednn", lambda left, right, *_: left @ right)
    result = fastest(itertools.count().__next__, time.perf_counter)
    assert result.choice == {kind: "onednn" if kind.startswith("float32") else "mkl" for kind in KINDS}


def test_the_products_that_are_measured_are_of_the_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only those of the kind at hand go to oneDNN, and all of them do; the operations are those counted by hand."""
    made: list[int] = []

    def noted(left: Tensor, right: Tensor, *_: object) -> Tensor:
        made.append(2 * left.shape[0] * left.shape[1] * right.shape[1])
        return torch.zeros(left.shape[0], right.shape[1], dtype=left.dtype)

    monkeypatch.setattr(products, "_by_onednn", noted)
    for kind in KINDS:
        work, operations = module._work(kind)
        made.clear()
        libraries.use({kind: "onednn"})
        work()
        assert sum(made) == operations, kind
