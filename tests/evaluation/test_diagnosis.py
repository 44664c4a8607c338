"""The figures of a diagnosis against scipy's own, closed forms, and columns about which nothing can be said."""

import itertools
import json
import sys
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from mopo_cli.evaluation.diagnosis import diagnose, error_by_step, relation

pytestmark = pytest.mark.filterwarnings("error")


def sample(n: int = 2000, ties: bool = False) -> Any:
    draw = np.random.default_rng(0)
    u = draw.gamma(2.0, 3.0, n)
    u = np.round(u) if ties else u
    return u.astype(np.float32), (0.5 * u + draw.gamma(1.0, 2.0, n)).astype(np.float32)


@pytest.mark.parametrize("ties", [False, True])
def test_regression_and_correlations_are_scipys(ties: bool) -> None:
    u, error = sample(ties=ties)
    result, expected = relation(u, error), scipy.stats.linregress(u.astype("f8"), error.astype("f8"))
    assert (result.slope, result.intercept) == pytest.approx((expected.slope, expected.intercept))
    assert result.pearson == pytest.approx(expected.rvalue)
    assert result.spearman == pytest.approx(scipy.stats.spearmanr(u, error).statistic)


def test_scipy_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every train-model comes here, and would start a second later."""
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    assert relation([1, 2, 2, 3], [1, 5, 4, 9]).spearman == pytest.approx(4.5 / np.sqrt(4.5 * 5))


def test_an_exact_line_and_an_exact_order() -> None:
    u = np.arange(50.0)
    line, order = relation(u, 3 - 2 * u), relation(u, np.exp(u))
    assert (line.slope, line.intercept, line.pearson, line.spearman) == pytest.approx((-2, 3, -1, -1))
    assert order.spearman == pytest.approx(1) and order.pearson < 0.5


def test_the_calibration_is_by_tenths_of_the_uncertainty() -> None:
    u, error = sample()
    order = np.argsort(u)
    for result, rows in zip(relation(u, error).calibration, order.reshape(10, 200), strict=True):
        low, high = np.percentile(error[rows].astype("f8"), [10, 90])
        assert result.rows == 200
        assert (result.uncertainty, result.error) == pytest.approx((u[rows].mean(), error[rows].mean()), rel=1e-5)
        assert (result.error_p10, result.error_p90) == pytest.approx((low, high), rel=1e-5)


def test_rows_of_one_uncertainty_are_in_one_bin() -> None:
    u = np.repeat([5.0, 1.0, 2.0], [10, 80, 10])
    error = np.arange(100.0)
    bins = relation(u, error).calibration
    assert [(b.rows, b.uncertainty) for b in bins] == [(80, 1.0), (10, 2.0), (10, 5.0)]
    assert [b.error for b in bins] == pytest.approx([49.5, 94.5, 4.5])


@given(st.lists(st.tuples(st.floats(0, 1e6, width=32), st.floats(0, 1e6, width=32)), min_size=1, max_size=60))
def test_bins_hold_every_row_once_in_order(rows: list[Any]) -> None:
    u, error = np.array(rows).T
    bins = relation(u, error).calibration
    assert sum(b.rows for b in bins) == len(rows)
    assert sum(b.rows * b.error for b in bins) == pytest.approx(error.sum())
    assert all(a.uncertainty < b.uncertainty for a, b in itertools.pairwise(bins))


@pytest.mark.parametrize(
    ("u", "error", "slope"),
    [([2, 2, 2], [1, 2, 6], np.nan), ([1, 2, 3], [4, 4, 4], 0.0), ([1], [1], np.nan), ([], [], np.nan)],
)
def test_nothing_goes_with_what_does_not_vary(u: Any, error: Any, slope: Any) -> None:
    result = relation(u, error)
    assert np.isnan([result.pearson, result.spearman]).all()
    assert np.isnan(result.intercept) == np.isnan(slope)
    assert result.slope == pytest.approx(slope, nan_ok=True)
    assert sum(b.rows for b in result.calibration) == len(u)


def test_the_error_by_step() -> None:
    step = np.array([1, 0, 1, 1, 0, 3])
    error = np.array([4.0, 1.0, 8.0, 6.0, 3.0, 9.0])
    first, second, fourth = error_by_step(step, error)
    assert asdict(first) == pytest.approx({"step": 1, "rows": 2, "mean": 2.0, "median": 2.0, "p90": 2.8})
    assert asdict(second) == pytest.approx({"step": 2, "rows": 3, "mean": 6.0, "median": 6.0, "p90": 7.6})
    assert asdict(fourth) == pytest.approx({"step": 4, "rows": 1, "mean": 9.0, "median": 9.0, "p90": 9.0})


def test_rows_without_a_true_error_are_counted_and_left_out() -> None:
    u, error = sample(200)
    step = np.arange(200) % 2
    lost = error.copy()
    lost[::10], lost[50] = np.nan, np.inf
    kept = np.isfinite(lost)
    diagnosis = diagnose({"a": u, "b": -u}, lost, step)
    assert (diagnosis.rows, diagnosis.unknown) == (int(kept.sum()), int((~kept).sum()))
    assert list(diagnosis.uncertainties) == ["a", "b"]
    assert diagnosis.uncertainties["a"] == relation(u[kept], error[kept])
    assert diagnosis.uncertainties["b"].pearson == pytest.approx(-diagnosis.uncertainties["a"].pearson)
    assert diagnosis.steps == error_by_step(step[kept], error[kept])
    json.dumps(asdict(diagnosis), allow_nan=False)


def test_no_row_at_all() -> None:
    diagnosis = diagnose({"a": np.ones(3)}, np.full(3, np.nan), np.zeros(3))
    assert (diagnosis.rows, diagnosis.unknown, diagnosis.steps) == (0, 3, [])
    assert diagnosis.uncertainties["a"].calibration == []
