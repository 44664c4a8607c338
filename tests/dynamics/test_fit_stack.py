"""Ensembles trained side by side are what each would be alone; training taken up again is what it would have been."""

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from probes.fits import TINY, make_data, train

from mopo_cli.dynamics.fit import FitSettings, fit_checkpoint, fitted, restore_fit, start_fit
from mopo_cli.dynamics.training import advance

MODES = ("none", "per-network", "shared")


def assert_alone_as_stacked(settings: FitSettings, seeds: tuple[int, ...], rows: int = 400) -> list[int]:
    data = make_data(rows)
    stacked, active = train(data, settings, seeds)
    for s, seed in enumerate(seeds):
        alone, _ = train(data, settings, (seed,))
        assert torch.equal(stacked.best[s], alone.best[0]), seed
        assert torch.equal(stacked.best_mse[s], alone.best_mse[0]), seed
    return active


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seeds", [(0, 7, 3), (3, 7, 0)])
def test_seeds_of_a_stack_equal_each_alone_also_when_they_stop_at_different_epochs(
    seeds: tuple[int, ...], mode: str
) -> None:
    active = assert_alone_as_stacked(replace(TINY, spectral_norm=mode), seeds)
    assert active[0] == 3 and 0 < active[-1] < 3, "the example must have ensembles leave the stack early"


@pytest.mark.parametrize(("batch", "hidden"), [(1, 7), (64, 32), (5, 17)])
def test_awkward_sizes_are_no_exception(batch: int, hidden: int) -> None:
    assert_alone_as_stacked(replace(TINY, batch_size=batch, hidden=hidden, max_epochs=2), (0, 7), rows=60)


@pytest.mark.parametrize("seeds", [(0,), (0, 7, 3), (0, 7, 3, 1)])
@pytest.mark.parametrize("networks", [1, 3])
def test_any_number_of_ensembles_is_no_exception(seeds: tuple[int, ...], networks: int) -> None:
    assert_alone_as_stacked(replace(TINY, batch_size=7, networks=networks, max_epochs=1), seeds, rows=60)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("networks", "seeds"), [(1, (0,)), (3, (0,)), (2, (0, 7))])
def test_the_number_of_threads_changes_no_byte(
    networks: int, seeds: tuple[int, ...], mode: str, use_threads: Callable[[int], None]
) -> None:
    data, ends = make_data(250), []
    settings = replace(TINY, networks=networks, batch_size=101, hidden=111, spectral_norm=mode, max_epochs=2)
    for threads in (1, 2, 3):
        use_threads(threads)
        fit, _ = train(data, settings, seeds)
        mean, std = fitted(fit, 0).predict(data.inputs[:, :3], data.inputs[:, 3:])
        ends.append((fit.best, fit.best_mse, mean, std))
    for other in ends[1:]:
        assert all(torch.equal(tensor, same) for tensor, same in zip(ends[0], other, strict=True))


@pytest.mark.parametrize(("batch", "block"), [(37, 1), (37, 3), (37, 1000), (7, 1), (7, 20)])
def test_the_size_of_a_block_changes_nothing(batch: int, block: int) -> None:
    """Epochs of 9 and of 46 steps."""
    data = make_data()
    settings = replace(TINY, batch_size=batch, max_epochs=2)
    whole, _ = train(data, settings, (0, 7))
    fit = start_fit(data, settings, (0, 7))
    while not fit.done:
        advance(fit, block)
    assert torch.equal(whole.best, fit.best)


@pytest.mark.parametrize(("mode", "seeds"), [("none", (0, 7)), ("per-network", (3, 7)), ("shared", (3, 7))])
def test_training_taken_up_after_any_block_ends_as_if_it_had_not_stopped(mode: str, seeds: tuple[int, ...]) -> None:
    data = make_data()
    settings = replace(TINY, patience=1 if mode == "none" else 0, max_epochs=6, spectral_norm=mode)
    whole = start_fit(data, settings, seeds)
    states = []
    while not whole.done:
        states.append(deepcopy(fit_checkpoint(whole)))
        advance(whole, 4)
    assert len({len(numbers["active"]) for _, numbers in states}) == 2, "one is taken up with an ensemble gone"
    for tensors, numbers in states:
        fit = start_fit(data, settings, seeds)
        restore_fit(fit, tensors, numbers)
        while not fit.done:
            advance(fit, 4)
        assert torch.equal(fit.best, whole.best) and torch.equal(fit.best_mse, whole.best_mse)
        assert (fit.epoch, fit.epochs_without_gain, fit.adam.steps) == (
            whole.epoch,
            whole.epochs_without_gain,
            whole.adam.steps,
        )


def test_training_is_taken_up_from_memory_that_is_not_aligned_and_leaves_it_as_it_was() -> None:
    data, settings = make_data(), replace(TINY, max_epochs=2)
    whole, fit = start_fit(data, settings, (0, 7)), start_fit(data, settings, (0, 7))
    advance(whole, 4)
    tensors, numbers = deepcopy(fit_checkpoint(whole))
    odd = {name: torch.cat([torch.zeros(1), tensor.flatten()])[1:].view_as(tensor) for name, tensor in tensors.items()}
    restore_fit(fit, odd, numbers)
    for training in (whole, fit):
        while not training.done:
            advance(training, 1000)
    assert torch.equal(fit.best, whole.best) and torch.equal(fit.best_mse, whole.best_mse)
    assert all(torch.equal(odd[name], tensor) for name, tensor in tensors.items())


def test_the_state_is_json_and_tensors() -> None:
    data = make_data()
    fit = start_fit(data, TINY, (0,))
    advance(fit, 3)
    tensors, numbers = fit_checkpoint(fit)
    assert json.loads(json.dumps(numbers)) == numbers
    assert all(isinstance(tensor, torch.Tensor) for tensor in tensors.values())


def test_the_report_of_a_resumed_epoch_counts_the_steps_before_the_stop() -> None:
    data = make_data()
    whole, resumed = start_fit(data, TINY, (0,)), start_fit(data, TINY, (0,))
    expected = advance(whole, 1000)
    first = start_fit(data, TINY, (0,))
    advance(first, 5)
    restore_fit(resumed, *fit_checkpoint(first))
    report = advance(resumed, 1000)
    assert expected is not None and report is not None
    assert torch.equal(report.nll, expected.nll) and torch.equal(report.mse, expected.mse)
