"""Targets that are learned in standard deviations: an ensemble is the same in whatever units the data are."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from probes.gpu import as_on_cuda
from torch import Tensor

from mopo_cli.dynamics.ensemble import Ensemble
from mopo_cli.dynamics.fit import FitSettings, FitState, fit_checkpoint, fitted, restore_fit, start_fit
from mopo_cli.dynamics.split import Examples, split_data
from mopo_cli.dynamics.training import advance, holdout_errors
from mopo_cli.engine.streams import stream
from mopo_cli.nets.scales import column_scales

RAW = FitSettings(3, 16, 2, 64, 1e-3, (2.5e-5, 5e-5, 1e-4), 0.2, 1000, 5, 0.01, 3)
STANDARDISED = replace(RAW, target_scale="standardised")
SEEDS = (0, 4)


def make_data(units: Tensor, centre: Tensor, rows: int = 800) -> Examples:
    """Two observations and a reward in these units, around `centre` in them, and one action."""
    draw = stream(0, "test/units")
    observation, action = torch.randn(rows, 2, generator=draw), 2 * torch.rand(rows, 1, generator=draw) - 1
    noise = 0.1 * torch.randn(rows, 3, generator=draw)
    change = torch.cat([action - 0.3 * observation[:, :1], observation[:, :1] * action, observation.prod(1, True)], 1)
    inputs = torch.cat([(observation.double() + centre) * units[:2], action.double()], dim=1)
    return Examples(inputs.float(), ((change + noise).double() * units).float())


ONES, NO_CENTRE = torch.ones(3, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)


def train(data: Examples, settings: FitSettings) -> FitState:
    fit = start_fit(data, settings, SEEDS)
    while not fit.done:
        advance(fit, 1000)
    return fit


def predictions(data: Examples, ensemble: Ensemble) -> tuple[Tensor, Tensor]:
    return ensemble.predict(data.inputs[:, :2], data.inputs[:, 2:])


@pytest.mark.parametrize("s", range(len(SEEDS)))
def test_powers_of_two_as_units_change_no_bit(s: int) -> None:
    units = torch.tensor([2.0**-22, 2.0**20, 2.0**-7], dtype=torch.float64)
    plain, other = make_data(ONES, NO_CENTRE), make_data(units, NO_CENTRE)
    mean, std = predictions(plain, fitted(train(plain, STANDARDISED), s))
    scaled_mean, scaled_std = predictions(other, fitted(train(other, STANDARDISED), s))
    assert torch.equal(mean * units.float(), scaled_mean) and torch.equal(std * units.float(), scaled_std)


def test_any_units_change_predictions_by_rounding_only() -> None:
    units, centre = torch.tensor([3.1e-7, 4.7e5, 1e-9], dtype=torch.float64), torch.tensor([10.0, -40.0]).double()
    plain, other = make_data(ONES, centre), make_data(units, centre)
    mean, std = predictions(plain, fitted(train(plain, STANDARDISED), 0))
    scaled_mean, scaled_std = predictions(other, fitted(train(other, STANDARDISED), 0))
    deviation = plain.targets.std(dim=0)
    assert ((scaled_mean.double() / units - mean).abs() < 1e-4 * deviation).all()
    assert ((scaled_std.double() / units - std).abs() < 1e-4 * deviation).all()
    # Raw targets of such units are another matter.
    raw = predictions(other, fitted(train(other, RAW), 0))[0].double() / units
    assert ((raw - mean).abs() > deviation).double().mean() > 0.3


def test_targets_that_are_standard_already_are_learned_as_they_are() -> None:
    data = make_data(ONES, NO_CENTRE)
    train_rows = split_data(data, RAW.holdout_fraction, RAW.holdout_max, 0).train
    mean, std = column_scales(data.targets[train_rows])
    data = replace(data, targets=((data.targets - mean) / std).float())
    raw, standardised = (predictions(data, fitted(train(data, settings), 0)) for settings in (RAW, STANDARDISED))
    for one, other in zip(raw, standardised, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_what_never_changes_is_predicted_to_stay_and_the_rest_is_scaled_by_the_training_rows() -> None:
    data = make_data(ONES, NO_CENTRE)
    data.targets[:, 1] = 0.25
    fit = train(data, STANDARDISED)
    ensemble, split = fitted(fit, 1), fit.splits[1]
    assert ensemble.target_mean is not None and ensemble.target_std is not None
    rows = data.targets[split.train].double().numpy()
    np.testing.assert_allclose(ensemble.target_mean, rows.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(ensemble.target_std, rows.std(axis=0), rtol=1e-6)
    mean, std = predictions(data, ensemble)
    assert (mean[..., 1] == 0.25).all() and (std[..., 1] == 0).all() and (std[..., [0, 2]] > 0).all()

    # Networks are compared by errors in which every target counts the same.
    mse, _ = holdout_errors(fit, ensemble.flat, 1)
    held = data.targets[split.holdout]
    error = (mean[:, split.holdout] - held).square().mean(dim=1) / ensemble.target_std.square()
    torch.testing.assert_close(mse[:, [0, 2]], error[:, [0, 2]], rtol=1e-4, atol=1e-6)


def test_a_fit_goes_on_from_a_checkpoint_as_if_nothing_had_happened() -> None:
    data = make_data(ONES, NO_CENTRE)
    whole, half = train(data, STANDARDISED), start_fit(data, STANDARDISED, SEEDS)
    advance(half, 7)
    again = start_fit(data, STANDARDISED, SEEDS)
    restore_fit(again, *fit_checkpoint(half))
    while not again.done:
        advance(again, 1000)
    assert torch.equal(again.best, whole.best)


def test_the_whole_stack_at_once_as_on_cuda_scales_each_seed_by_its_own_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_data(torch.tensor([1e-3, 1e3, 1.0]).double(), NO_CENTRE)
    by_network = train(data, STANDARDISED)
    with as_on_cuda(monkeypatch):
        at_once = train(data, STANDARDISED)
    assert not torch.equal(by_network.splits[0].targets.mean, by_network.splits[1].targets.mean)
    torch.testing.assert_close(at_once.best, by_network.best, rtol=1e-3, atol=1e-4)


def test_one_network_by_row_predicts_as_all_do_and_raw_targets_have_no_scale() -> None:
    data = make_data(ONES, NO_CENTRE)
    ensemble = fitted(train(data, STANDARDISED), 0)
    network = torch.arange(len(data.inputs)) % 3
    mean, std = predictions(data, ensemble)
    drawn = ensemble.predict_by(network, data.inputs[:, :2], data.inputs[:, 2:])
    rows = torch.arange(len(network))
    torch.testing.assert_close(drawn[0], mean[network, rows])
    torch.testing.assert_close(drawn[1], std[network, rows])
    raw = fitted(train(data, RAW), 0)
    assert raw.target_mean is None and raw.target_std is None
