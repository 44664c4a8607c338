"""Ensembles trained by processes that take every step together: bit for bit what one process learns."""

import os
import signal
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from probes.fits import TINY, make_data

from mopo_cli.dynamics import crew as crews
from mopo_cli.dynamics.crew import crew_size, open_crew
from mopo_cli.dynamics.fit import Fit, fit_state, restore_fit, start_fit
from mopo_cli.dynamics.split import FitData
from mopo_cli.dynamics.training import EpochReport, advance
from mopo_cli.engine.processes import LostError, can_team

pytestmark = pytest.mark.skipif(not can_team(), reason="needs processes that can take steps together")


def reports(fit: Fit, take: Callable[[int], EpochReport | None], steps: int) -> list[EpochReport]:
    """Train to the end, so many steps at a time."""
    found = []
    while not fit.done:
        report = take(steps)
        found += [report] if report is not None else []
    return found


def assert_same(one: Fit, other: Fit) -> None:
    (tensors, numbers), (others, same) = fit_state(one), fit_state(other)
    assert numbers == same and tensors.keys() == others.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, others[name]), name


@pytest.mark.parametrize("threads", [2, 3, 5])
@pytest.mark.parametrize(("networks", "seeds"), [(3, (0,)), (3, (0, 7, 3)), (2, (0, 7)), (4, (5,))])
def test_any_number_of_processes_learns_the_same(
    networks: int, seeds: tuple[int, ...], threads: int, use_threads: Callable[[int], None]
) -> None:
    use_threads(threads)
    data, how = make_data(), replace(TINY, networks=networks)
    alone, together = start_fit(data, how, seeds), start_fit(data, how, seeds)
    expected = reports(alone, lambda steps: advance(alone, data, steps), 4)
    with open_crew(together, data) as take:
        found = reports(together, take, 4)
    assert_same(together, alone)
    for one, other in zip(found, expected, strict=True):
        assert (one.epoch, one.active) == (other.epoch, other.active)
        assert torch.equal(one.nll, other.nll) and torch.equal(one.mse, other.mse)
    if len(seeds) == 3:
        assert 0 < len(found[-1].active) < len(found[0].active), "an ensemble must leave the stack early"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_at_the_size_of_the_paper(precision: str, use_threads: Callable[[int], None]) -> None:
    use_threads(2)
    data = make_data(1500)
    how = replace(TINY, networks=7, hidden=200, layers=4, batch_size=256, weight_decay=(1e-4,) * 5, max_epochs=2)
    how = replace(how, update_precision=precision)  # type: ignore[arg-type]
    alone, together = start_fit(data, how, (0,)), start_fit(data, how, (0,))
    reports(alone, lambda steps: advance(alone, data, steps), 50)
    with open_crew(together, data) as take:
        reports(together, take, 50)
    assert_same(together, alone)


def test_training_is_taken_up_by_another_crew_or_by_none_after_any_block(use_threads: Callable[[int], None]) -> None:
    use_threads(2)
    data, how = make_data(), replace(TINY, patience=1, max_epochs=6)
    whole = start_fit(data, how, (0, 7))
    states = []
    with open_crew(whole, data) as take:
        while not whole.done:
            states.append(deepcopy(fit_state(whole)))
            take(4)
    assert len({len(numbers["active"]) for _, numbers in states}) == 2, "one is taken up with an ensemble gone"
    for k, (tensors, numbers) in enumerate(states):
        fit = start_fit(data, how, (0, 7))
        # Before the processes are there, and while they are.
        if k % 3 == 0:
            restore_fit(fit, tensors, numbers)
        if k % 3 == 1:
            restore_fit(fit, tensors, numbers)
            reports(fit, lambda steps, fit=fit: advance(fit, data, steps), 4)  # type: ignore[misc]
        else:
            with open_crew(fit, data) as take:
                if k % 3 == 2:
                    take(4)
                    restore_fit(fit, tensors, numbers)
                reports(fit, take, 4)
        assert torch.equal(fit.best, whole.best) and torch.equal(fit.best_mse, whole.best_mse)
        assert (fit.epoch, fit.stale, fit.adam.steps) == (whole.epoch, whole.stale, whole.adam.steps)


def test_a_lost_process_is_told(use_threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch) -> None:
    use_threads(2)
    data = make_data()
    fit, take_steps = start_fit(data, TINY, (0,)), crews.take_steps

    def then_it_ends(fit: Fit, data: FitData, steps: int) -> None:
        take_steps(fit, data, steps)
        if fit.step > 4 and not fit.nll_sum.isnan().any():
            os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(crews, "take_steps", then_it_ends)
    with open_crew(fit, data) as take:
        take(3)
        with pytest.raises(LostError):
            take(4)


def test_who_trains_alone(use_threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert crew_size(TINY, 3, cpu) == 0, "one thread"
    use_threads(4)
    assert [crew_size(TINY, seeds, cpu) for seeds in (1, 2, 9)] == [3, 4, 4]
    assert crew_size(replace(TINY, networks=1), 3, cpu) == 0
    assert crew_size(TINY, 3, torch.device("cuda")) == 0
    for mode in ("per-network", "shared"):
        assert crew_size(replace(TINY, spectral_norm=mode), 3, cpu) == 0
    data = make_data()
    monkeypatch.setattr(crews, "can_team", lambda: False)
    assert crew_size(TINY, 3, cpu) == 0
    fit, alone = start_fit(data, TINY, (0,)), start_fit(data, TINY, (0,))
    with open_crew(fit, data) as take:
        take(5)
    advance(alone, data, 5)
    assert_same(fit, alone)
