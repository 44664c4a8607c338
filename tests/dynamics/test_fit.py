"""Fitting an ensemble: to a system known in closed form, and the bookkeeping of splits, stops and snapshots."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from mopo_cli.dynamics import training as module
from mopo_cli.dynamics.fit import FitSettings, FitState, fitted, start_fit
from mopo_cli.dynamics.penalties import UNCERTAINTIES
from mopo_cli.dynamics.split import Examples, split_data
from mopo_cli.dynamics.training import EpochReport, advance, holdout_errors, steps_per_epoch
from mopo_cli.engine.streams import stream

# s' = s + B a + noise, r = w s + c a + noise
MOVE = torch.tensor([[0.5, -0.3, 0.2], [0.1, 0.4, -0.6]])
WEIGHT, COST = torch.tensor([0.2, -0.1, 0.3]), torch.tensor([-0.5, 0.3])
SIGMA = torch.tensor([0.1, 0.3, 0.2, 0.4])  # the reward's is the last
SETTINGS = FitSettings(3, 32, 2, 256, 1e-3, (2.5e-5, 5e-5, 1e-4), 0.2, 1000, 5, 0.01, None)
TINY = replace(SETTINGS, hidden=9, batch_size=37)


def truth(observation: Tensor, action: Tensor) -> Tensor:
    """The mean of (s' - s, r)."""
    return torch.cat([action @ MOVE, (observation @ WEIGHT + action @ COST)[:, None]], dim=1)


def make_data(rows: int, sigma: Tensor = SIGMA) -> Examples:
    draw = stream(0, "test/linear")
    observation = torch.randn(rows, 3, generator=draw) * torch.tensor([1.0, 2.0, 0.5]) + 3
    action = torch.rand(rows, 2, generator=draw) * 2 - 1
    target = truth(observation, action) + sigma * torch.randn(rows, 4, generator=draw)
    return Examples.of(observation, action, target[:, 3], observation + target[:, :3])


def train(fit: FitState) -> list[EpochReport]:
    reports = []
    while not fit.done:
        report = advance(fit, 1000)
        assert report is not None
        reports.append(report)
    return reports


def test_a_linear_gaussian_system_is_learned() -> None:
    data = make_data(6000)
    fit = start_fit(data, SETTINGS, (0,))
    reports = train(fit)
    ensemble = fitted(fit, 0)
    draw = stream(1, "test/fresh")
    observation = torch.randn(1000, 3, generator=draw) * torch.tensor([1.0, 2.0, 0.5]) + 3
    action = torch.rand(1000, 2, generator=draw) * 2 - 1
    mean, std = ensemble.predict(observation, action)
    error = (mean - truth(observation, action)).square().mean(dim=1).sqrt()  # [K, D]
    assert (error < 0.25 * SIGMA).all(), "the mean is the truth's, to a quarter of the noise"
    typical = std.median(dim=1).values
    np.testing.assert_allclose(typical, SIGMA.expand(3, -1), rtol=0.2)
    penalty = UNCERTAINTIES["max-var"](mean, std).median().item()
    assert penalty == pytest.approx(SIGMA.norm().item(), rel=0.08), "in closed form the norm of sigma"
    assert UNCERTAINTIES["ens"](mean, std).median().item() < 0.2 * SIGMA.norm().item()
    noise = SIGMA.square()
    mse, likelihood = holdout_errors(fit, ensemble.flat, 0)
    np.testing.assert_allclose(mse, noise.expand(3, -1), rtol=0.2)
    np.testing.assert_allclose(mse.mean(dim=1), noise.mean().expand(3), rtol=0.1)
    np.testing.assert_allclose(likelihood, (1 + noise.log()).mean().expand(3), atol=0.1)
    np.testing.assert_allclose(reports[-1].nll, (1 + noise.log()).mean().expand(1, 3), atol=0.1)


def test_targets_are_the_difference_and_the_reward_in_raw_units() -> None:
    observation, action = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.5]])
    data = Examples.of(observation, action, torch.tensor([7.0]), torch.tensor([[1.5, -1.0]]))
    assert data.inputs.tolist() == [[1.0, 2.0, 0.5]] and data.targets.tolist() == [[0.5, -3.0, 7.0]]
    assert data.obs_dim == 2


@pytest.mark.parametrize(("rows", "held"), [(4000, 800), (5000, 1000), (9000, 1000), (6, 1), (4, 1)])
def test_a_fifth_is_held_out_and_at_most_a_thousand(rows: int, held: int) -> None:
    split = split_data(make_data(rows), SETTINGS.holdout_fraction, SETTINGS.holdout_max, 0)
    assert len(split.holdout) == held
    assert sorted([*split.train.tolist(), *split.holdout.tolist()]) == list(range(rows))


def test_the_split_is_random_by_the_seed() -> None:
    data = make_data(500)
    held = SETTINGS.holdout_fraction, SETTINGS.holdout_max
    first, again, other = (split_data(data, *held, seed) for seed in (3, 3, 4))
    assert torch.equal(first.holdout, again.holdout) and not torch.equal(first.holdout, other.holdout)
    assert 20 < sum(row < 250 for row in first.holdout.tolist()) < 80, "not the first or the last rows"


def test_the_scaler_is_of_the_training_rows_only() -> None:
    data = make_data(500)
    holdout = split_data(data, SETTINGS.holdout_fraction, SETTINGS.holdout_max, 0).holdout
    data.inputs[holdout] = 1e6
    data.inputs[:, 4] = 0.25  # constant
    split = split_data(data, SETTINGS.holdout_fraction, SETTINGS.holdout_max, 0)
    inputs = data.inputs[split.train].double().numpy()
    np.testing.assert_allclose(split.input_mean, inputs.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(split.input_std, [*inputs[:, :4].std(axis=0), 1.0], rtol=1e-6)
    ensemble = fitted(start_fit(data, TINY, (0,)), 0)
    assert torch.equal(ensemble.input_mean, split.input_mean) and torch.equal(ensemble.input_std, split.input_std)


def test_every_network_sees_its_own_bootstrap_in_an_order_of_its_own() -> None:
    data = make_data(1000)
    settings = replace(TINY, batch_size=40)  # 800 training rows: 20 full batches
    fit = start_fit(data, settings, (0, 1))
    epochs = []
    for _ in range(2):
        advance(fit, 1)
        assert fit.order is not None
        epochs.append(fit.order.clone())
        advance(fit, 1000)
    assert epochs[0].shape == (6, 800)
    first, second = (epoch.sort(dim=1).values for epoch in epochs)
    assert torch.equal(first, second), "one bootstrap for good"
    for k in range(6):
        assert not torch.equal(epochs[0][k], epochs[1][k]), "another order each epoch"
        assert set(epochs[0][k].tolist()) <= set(fit.splits[k // 3].train.tolist())
        assert len(first[k].unique()) / 800 == pytest.approx(1 - np.exp(-1), abs=0.05), "drawn with replacement"
        for other in range(k):
            assert (first[k] == first[other]).float().mean() < 0.2


def test_the_last_batch_is_filled_from_the_start_of_the_epoch() -> None:
    data = make_data(100)  # 80 to train on: 37 + 37 + 6
    fit = start_fit(data, TINY, (0,))
    assert steps_per_epoch(fit) == 3
    assert advance(fit, 2) is None and fit.order is not None
    assert fit.order.shape == (3, 111) and torch.equal(fit.order[:, 80:], fit.order[:, :31])
    assert isinstance(advance(fit, 99), EpochReport) and (fit.epoch, fit.step) == (1, 0)


def scripted(
    monkeypatch: pytest.MonkeyPatch, errors: list[list[float]], settings: FitSettings
) -> tuple[FitState, list[Tensor]]:
    """Train with hold-out errors [epoch][network] as told; returns the fit and its weights after every epoch."""
    weights: list[Tensor] = []

    def errors_of(fit: FitState, flat: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        weights.append(flat.clone())
        return torch.tensor(errors[len(weights) - 1])[:, None], torch.zeros(len(flat))

    monkeypatch.setattr(module, "holdout_errors", errors_of)
    data = make_data(100)
    fit = start_fit(data, replace(settings, networks=len(errors[0])), (0,))
    train(fit)
    return fit, weights


def test_training_stops_when_no_network_gains_and_each_is_restored_to_its_best(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = [
        [1.000, 1.0],  # both improve on infinity
        [0.500, 1.0],  # the first
        [0.496, 0.5],  # the second; 0.8 % is no gain
        [0.800, 0.6],
        [0.4949, 0.7],  # 1.02 % below the first's best of 0.5, not of 0.496
        [0.491, 0.496],  # from here on nothing gains a hundredth on 0.4949 and 0.5
        [9.000, float("nan")],
        [0.490, 0.496],
        [0.100, 0.1],  # never reached
    ]
    fit, weights = scripted(monkeypatch, errors, replace(TINY, patience=2))
    assert len(weights) == 8, "three epochs without a gain: patience + 1"
    assert fit.done and fit.best_mse[0].tolist() == pytest.approx([0.4949, 0.5])
    best = fitted(fit, 0).flat
    assert torch.equal(best[0], weights[4][0]) and torch.equal(best[1], weights[2][1])
    assert not torch.equal(weights[4], weights[7]), "the bounds of the log-variance are part of the snapshot"


def test_patience_of_five_is_six_epochs_as_in_the_paper_s_code(monkeypatch: pytest.MonkeyPatch) -> None:
    _, weights = scripted(monkeypatch, [[1.0]] * 20, TINY)
    assert len(weights) == 1 + 6


def test_an_ensemble_that_never_had_a_finite_error_stops_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    fit, weights = scripted(monkeypatch, [[float("nan"), 1.0]] * 20, replace(TINY, patience=1))
    assert len(weights) == 3 and fit.best_mse[0].tolist() == [float("inf"), 1.0]


def test_max_epochs_caps(monkeypatch: pytest.MonkeyPatch) -> None:
    falling = [[0.5**epoch] for epoch in range(9)]
    fit, weights = scripted(monkeypatch, falling, replace(TINY, max_epochs=4))
    assert len(weights) == fit.epoch == 4
    assert torch.equal(fitted(fit, 0).flat, weights[3])


def test_a_report_is_of_the_weights_at_the_end_of_its_epoch() -> None:
    data = make_data(300)
    fit = start_fit(data, TINY, (0, 1))
    report = advance(fit, 1000)
    assert report is not None and report.active == (0, 1) and report.epoch == 0
    for s in range(2):
        mse, _ = holdout_errors(fit, fit.flat[3 * s : 3 * s + 3], s)
        torch.testing.assert_close(report.mse[s], mse.mean(dim=1))
    assert report.nll.shape == (2, 3) and report.nll.isfinite().all()


def test_held_out_errors_by_hand() -> None:
    data = make_data(60)
    fit = start_fit(data, TINY, (0,))
    rows = fit.splits[0].holdout
    mse, likelihood = holdout_errors(fit, fit.flat, 0)
    observation, action = data.inputs[rows, :3], data.inputs[rows, 3:]
    mean, std = (x.double().numpy() for x in fitted(fit, 0).predict(observation, action))
    target = data.targets[rows].double().numpy()
    np.testing.assert_allclose(mse, ((mean - target) ** 2).mean(axis=1), rtol=1e-4)
    np.testing.assert_allclose(
        likelihood, ((mean - target) ** 2 / std**2 + 2 * np.log(std)).mean(axis=(1, 2)), rtol=1e-4
    )
