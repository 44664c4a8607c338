"""Where a model is unsure: the parts of each input by hand, uncertainty and error by the formulas of predictions."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mopo_cli.dynamics.ensemble import Ensemble
from mopo_cli.dynamics.fit import FitSettings, fitted, start_fit
from mopo_cli.dynamics.split import Examples
from mopo_cli.dynamics.training import advance
from mopo_cli.evaluation.errors_by_input import errors_by_input, uncertainty_and_error

N = 500
DRAW = np.random.default_rng(0)
COLUMN, OTHER = DRAW.normal(size=N), DRAW.normal(size=N)


def test_the_unsure_part_is_the_one_where_the_uncertainty_was_put() -> None:
    above = np.quantile(COLUMN, 0.8)
    uncertainty = np.where(above <= COLUMN, 3.0, 1.0)
    error = np.where(above <= COLUMN, 0.5, 0.25)
    unsure = errors_by_input(["other", "hot", "constant"], np.stack([OTHER, COLUMN, 0 * COLUMN], 1), uncertainty, error)
    first, second = unsure.least_sure
    assert (first.input, first.rows, second.input) == ("hot", 100, "other")
    assert (first.low, first.high) == (np.sort(COLUMN)[400], COLUMN.max())
    assert (first.uncertainty, first.error) == pytest.approx((3 / 1.4, 0.5 / 0.3))
    assert second.uncertainty < 1.5 and unsure.rows == N and unsure.relation.spearman == pytest.approx(1)


def test_where_it_errs_is_told_also_where_it_is_sure() -> None:
    above, low = np.quantile(COLUMN, 0.8), np.quantile(OTHER, 0.2)
    uncertainty, error = np.where(above <= COLUMN, 3.0, 1.0), np.where(low > OTHER, 4.0, 1.0)
    unsure = errors_by_input(["other", "hot"], np.stack([OTHER, COLUMN], 1), uncertainty, error)
    assert [part.input for part in unsure.least_sure] == ["hot", "other"]
    first, second = unsure.worst
    assert (first.input, first.rows, second.input) == ("other", 100, "hot")
    assert (first.low, first.high) == (OTHER.min(), np.sort(OTHER)[99])
    assert first.error == pytest.approx(4 / 1.6) and first.error > second.error


def test_a_number_of_few_values_has_a_part_for_each() -> None:
    gear = DRAW.integers(3, size=N).astype(float)
    (part,) = errors_by_input(["gear"], gear[:, None], 1 + (gear == 1), np.ones(N)).least_sure
    assert (part.low, part.high, part.rows) == (1, 1, (gear == 1).sum())
    assert part.uncertainty == pytest.approx(2 / (1 + (gear == 1).mean())) and part.error == 1


def test_where_rows_are_few_or_without_error_nothing_is_made_up() -> None:
    rare = np.r_[np.zeros(N - 9), np.ones(9)]
    (part,) = errors_by_input(["rare"], rare[:, None], 1 + rare, np.zeros(N)).least_sure
    assert (part.low, part.high, part.rows) == (0, 0, N - 9) and np.isnan(part.error)
    assert errors_by_input(["few"], np.arange(9.0)[:, None], np.ones(9), np.ones(9)).least_sure == []


@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0, 1.5, 2.0, 7.0, 8.0, 9.0]), st.floats(0.1, 10)), min_size=30))
def test_a_part_is_all_rows_between_its_ends(rows: list[tuple[float, float]]) -> None:
    column, uncertainty = map(np.array, zip(*rows, strict=True))
    for part in errors_by_input(["x"], column[:, None], uncertainty, uncertainty).least_sure:
        here = (part.low <= column) & (column <= part.high)
        assert here.sum() == part.rows
        assert part.uncertainty == part.error == pytest.approx(uncertainty[here].mean() / uncertainty.mean())


def examples(reward: float = 4.0) -> Examples:
    """Two observations, of which the first one moves by large steps, and an action."""
    observation, action = torch.randn(N, 2, generator=torch.Generator().manual_seed(3)), torch.linspace(-1, 1, N)
    change = torch.stack([1000 * action, observation[:, 0]], dim=1)
    return Examples.of(observation, action[:, None], torch.full((N,), reward), observation + change)


def trained(data: Examples, scale: str) -> Ensemble:
    fit = start_fit(data, FitSettings(3, 16, 2, 64, 1e-3, (0.0,) * 3, 0.2, 1000, 5, 0.01, 2, target_scale=scale), (0,))
    while not fit.done:
        advance(fit, 100)
    return fitted(fit, 0)


@pytest.mark.parametrize("scale", ["raw", "standardised"])
def test_uncertainty_and_error_are_those_of_the_formulas(scale: str) -> None:
    data = examples()
    ensemble = trained(data, scale)
    rows = torch.arange(0, N, 7)
    uncertainty, error = uncertainty_and_error(ensemble, data, rows)
    mean, std = (each.double().numpy() for each in ensemble.predict(data.inputs[rows, :2], data.inputs[rows, 2:]))
    targets = data.targets[rows].double().numpy()
    unit = targets.std(axis=0)
    unit[2] = 4.0  # a constant reward has no deviation: its size is the unit
    np.testing.assert_allclose(uncertainty, np.sqrt(((std / unit) ** 2).sum(axis=2)).max(axis=0), rtol=1e-4)
    np.testing.assert_allclose(error, np.sqrt((((mean.mean(axis=0) - targets) / unit) ** 2).sum(axis=1)), rtol=1e-4)


def test_targets_in_tiny_units_overflow_nothing() -> None:
    """Their square in standard deviations is beyond float32: a network's least deviation is 0.007 in raw units."""
    data = examples(reward=1e-25)
    uncertainty, error = uncertainty_and_error(trained(data, "raw"), data, torch.arange(N))
    assert np.isfinite([uncertainty, error]).all() and uncertainty.min() > 1e20


def test_many_rows_are_not_predicted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """All predictions of a large --holdout-max would take more memory than the training did."""
    data, sizes = examples(), []
    ensemble = trained(data, "raw")
    whole = uncertainty_and_error(ensemble, data, torch.arange(N))
    predict = Ensemble.predict

    def counted(self: Ensemble, observation: Any, action: Any) -> Any:
        sizes.append(len(observation))
        return predict(self, observation, action)

    monkeypatch.setattr(Ensemble, "predict", counted)
    several = uncertainty_and_error(ensemble, data, torch.arange(N).repeat(5))
    assert sum(sizes) == 5 * N and max(sizes) <= 1000
    np.testing.assert_allclose(several, np.tile(whole, 5), rtol=1e-4)
