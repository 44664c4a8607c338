"""An ensemble's gradient steps, replayed as a GPU's graphs are: the same bits as those of the steps."""

from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from probes.fits import TINY, make_data
from probes.gpu import as_on_cuda, record

from mopo_cli.dynamics.fit import FitState, fit_checkpoint, restore_fit, start_fit
from mopo_cli.dynamics.split import Examples
from mopo_cli.dynamics.training import advance
from mopo_cli.engine.capture import Recorder, cuda_graph

# Of these seeds one leaves the stack early.
SEEDS = (0, 7, 3)
SETTINGS = replace(TINY, hidden=12)


def train(data: Examples, recorder: Recorder | None = None, **settings: Any) -> tuple[FitState, list[int], list[Any]]:
    """The finished fit, how many ensembles were active in each epoch, and the reports."""
    fit = start_fit(data, replace(SETTINGS, **settings), SEEDS, recorder)
    active, reports = [], []
    while not fit.done:
        report = advance(fit, 4)
        if report is not None:
            active.append(len(report.active))
            reports.append(report)
    return fit, active, reports


@pytest.mark.parametrize(
    "settings",
    [{}, {"spectral_norm": "per-network"}, {"spectral_norm": "shared"}, {"target_scale": "standardised"}],
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("whole", [False, True])
def test_replayed_steps_are_the_steps(
    settings: dict[str, Any], precision: str, whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings | {"update_precision": precision}
    data = make_data()
    with as_on_cuda(monkeypatch) if whole else nullcontext():
        (plain, active, reports), (replayed, _, others) = train(data, **settings), train(data, record, **settings)
    assert replayed.engine.why_eager is None
    assert len(set(active)) > 1, "the example must have an ensemble leave the stack early"
    assert torch.equal(plain.best, replayed.best) and torch.equal(plain.best_mse, replayed.best_mse)
    for one, other in zip(reports, others, strict=True):
        assert torch.equal(one.nll, other.nll) and torch.equal(one.mse, other.mse)


def test_steps_are_replayed_from_the_second_on_and_recorded_anew_when_the_stack_shrinks() -> None:
    calls = {"recorded": 0, "replayed": 0}

    def counting(work: Callable[[], None]) -> Callable[[], object]:
        calls["recorded"] += 1
        replay = record(work)

        def again() -> None:
            calls["replayed"] += 1
            replay()

        return again

    fit, active, _ = train(make_data(), counting)
    stacks = len(set(active))
    steps = 9 * len(active)
    assert calls == {"recorded": stacks, "replayed": steps - stacks} and fit.engine.why_eager is None


def test_training_taken_up_again_records_anew() -> None:
    data = make_data()
    plain, _, _ = train(data)
    stopped = start_fit(data, SETTINGS, SEEDS, record)
    for _ in range(4):
        advance(stopped, 4)
    state = deepcopy(fit_checkpoint(stopped))
    resumed = start_fit(data, SETTINGS, SEEDS, record)
    restore_fit(resumed, *state)
    while not resumed.done:
        advance(resumed, 4)
    assert resumed.engine.why_eager is None and torch.equal(resumed.best, plain.best)


def test_a_step_that_is_not_what_was_recorded_is_noticed() -> None:
    fits: list[FitState] = []

    def wrong(work: Callable[[], None]) -> Callable[[], object]:
        replay = record(work)
        return lambda: (replay(), fits[-1].flat[0].mul_(1 + 1e-3))

    data = make_data()
    plain, _, _ = train(data)
    fit = start_fit(data, SETTINGS, SEEDS, wrong)
    fits.append(fit)
    while not fit.done:
        advance(fit, 4)
    assert fit.engine.why_eager is not None and not fit.engine._recorded
    assert torch.equal(plain.best, fit.best)


@pytest.mark.gpu
@pytest.mark.parametrize("spectral_norm", ["none", "per-network", "shared"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_graphs_are_the_steps(spectral_norm: str, precision: str) -> None:
    data = make_data(device="cuda")
    settings: Any = {"spectral_norm": spectral_norm, "update_precision": precision}
    (_, _, reports), (replayed, active, others) = train(data, **settings), train(data, cuda_graph, **settings)
    assert replayed.engine.why_eager is None and len(set(active)) > 1
    for one, other in zip(reports[:3], others[:3], strict=True):  # what rounds otherwise drifts apart
        torch.testing.assert_close(one.nll, other.nll, rtol=1e-2, atol=1e-3)
