from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import trim_mean

from mopo_cli.errors import InputError
from mopo_cli.evaluation.stats import bootstrap_iqm, iqm, mean_std, normalised_score, normalised_std

HALFCHEETAH = (-280.178953, 12135.0)
HOPPER = (-20.272305, 3234.3)
WALKER2D = (1.629008, 4592.3)
finite = st.floats(-1e6, 1e6)


def test_mean_and_population_std_by_hand() -> None:
    mean, std = mean_std([[2.0, 4.0, 4.0, 4.0], [5.0, 5.0, 7.0, 9.0]])
    assert (mean, std) == (5.0, 2.0)
    assert mean_std([7.5]) == (7.5, 0.0)


@given(st.lists(finite, min_size=1, max_size=60))
def test_iqm_is_the_mean_with_a_quarter_trimmed_from_each_end(values: Any) -> None:
    assert iqm(values) == pytest.approx(trim_mean(values, 0.25), rel=1e-12, abs=1e-6)


def test_iqm_by_hand() -> None:
    assert iqm([1000.0, 1.0, 3.0, -1000.0]) == 2.0
    assert iqm([[1.0, 2.0, 3.0]]) == 2.0
    assert iqm(np.arange(8.0).reshape(2, 4)) == 3.5


def test_a_diverged_seed_is_not_trimmed_out_of_sight() -> None:
    scores = np.ones((4, 5))
    scores[2, 3] = np.nan
    assert np.isnan(iqm(scores))
    assert np.isnan(bootstrap_iqm(scores)).all()


def test_equal_scores_have_an_interval_without_width() -> None:
    assert bootstrap_iqm(np.full((3, 10), 4.25)) == (4.25, 4.25)


def test_the_interval_is_a_function_of_its_seed() -> None:
    scores = np.random.default_rng(0).normal(size=(4, 6))
    assert bootstrap_iqm(scores, seed=1) == bootstrap_iqm(scores, seed=1)
    assert bootstrap_iqm(scores, seed=1) != bootstrap_iqm(scores, seed=2)


def test_the_interval_moves_and_grows_with_the_scores() -> None:
    scores = np.random.default_rng(0).normal(size=(4, 6))
    low, high = bootstrap_iqm(scores)
    assert low < iqm(scores) < high
    assert bootstrap_iqm(10 + 3 * scores) == pytest.approx((10 + 3 * low, 10 + 3 * high))


def test_seeds_that_differ_are_not_taken_for_many_independent_episodes() -> None:
    # Each seed repeats one value a thousand times: only three numbers are known, not three thousand.
    low, high = bootstrap_iqm(np.repeat([[0.0], [50.0], [100.0]], 1000, axis=1))
    assert low <= 10 and high >= 90


def test_with_one_seed_the_episodes_vary() -> None:
    low, high = bootstrap_iqm(np.arange(20.0)[None])
    assert 3 < low < 9.5 < high < 16


def test_the_interval_covers_the_true_value_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    trials, seeds, episodes = 200, 10, 10
    covered, width = 0, 0.0
    for trial in range(trials):
        scores = 7 + rng.normal(size=(seeds, 1)) + rng.normal(size=(seeds, episodes))
        low, high = bootstrap_iqm(scores, n=400, seed=trial)
        covered += low <= 7 <= high
        width += (high - low) / trials
    exact_for_the_mean = 2 * 1.96 * np.sqrt(1 / seeds + 1 / (seeds * episodes))
    assert 0.87 <= covered / trials <= 0.99
    assert 0.75 * exact_for_the_mean < width < 1.5 * exact_for_the_mean


@pytest.mark.parametrize(
    ("ret", "reference", "score"),
    [
        # The first MOPO version prints both a return (Table 3) and its score (Table 1).
        (6418.3, HALFCHEETAH, 54.0),
        (1963.5, WALKER2D, 42.7),
        (3234.3, HOPPER, 100.0),
        (-20.272305, HOPPER, 0.0),
    ],
)
def test_scores_agree_with_the_papers(ret: float, reference: Any, score: float) -> None:
    assert normalised_score(ret, *reference) == pytest.approx(score, abs=0.06)


def test_the_score_of_the_spread_is_the_spread_of_the_scores() -> None:
    returns = np.array([100.0, 900.0, 2500.0, 3000.0])
    std_of_scores = normalised_score(returns, *HOPPER).std()
    assert normalised_std(float(returns.std()), *HOPPER) == pytest.approx(std_of_scores)


@pytest.mark.parametrize("maximum", [5.0, 4.0, float("nan")])
def test_reference_scores_must_span_something(maximum: float) -> None:
    with pytest.raises(InputError, match="reference score"):
        normalised_score(1.0, 5.0, maximum)
    with pytest.raises(InputError, match="reference score"):
        normalised_std(1.0, 5.0, maximum)


def test_a_single_score_has_no_interval() -> None:
    assert np.isnan(bootstrap_iqm([[4.25]])).all() and iqm([[4.25]]) == 4.25
