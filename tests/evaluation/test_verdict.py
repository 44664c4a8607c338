"""Intervals cover what they should, weights are what loops over episodes say, and a verdict needs all estimators."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from mopo_cli.evaluation.verdict import (
    Estimate,
    importance_estimates,
    interval_over_bootstraps,
    interval_over_critics,
    interval_over_episodes,
    interval_over_networks,
    verdict,
    verdict_of_seeds,
)


@pytest.mark.parametrize(("count", "quantile"), [(2, 12.706), (8, 2.365), (30, 2.045)])
def test_the_interval_is_that_of_student(count: int, quantile: float) -> None:
    """The quantiles of the tables, times the deviation of the replicates."""
    values = np.random.default_rng(0).normal(size=count)
    estimate = interval_over_bootstraps(values)
    assert estimate.high - estimate.value == pytest.approx(quantile * values.std(ddof=1), rel=1e-3)
    assert estimate.value - estimate.low == pytest.approx(estimate.high - estimate.value)


def test_one_replicate_says_nothing_of_its_spread() -> None:
    estimate = interval_over_bootstraps([3.0])
    assert (estimate.value, estimate.low, estimate.high) == (3.0, -math.inf, math.inf)


@pytest.mark.parametrize("count", [2, 5, 10, 30])
@pytest.mark.parametrize("kind", ["normal", "exponential"])
def test_few_episodes_make_wide_intervals(kind: str, count: int) -> None:
    """Of two episodes a bootstrap's percentiles would hold the mean in half of the samples."""
    rng, covered = np.random.default_rng(1), 0
    for _ in range(300):
        estimate = interval_over_episodes(
            rng.normal(5, 2, count) if kind == "normal" else rng.exponential(5, count), n=300
        )
        covered += estimate.low <= 5 <= estimate.high
    assert (0.92 if kind == "normal" else 0.86) <= covered / 300 <= 0.98


def test_an_interval_of_skewed_returns_reaches_further_to_their_side() -> None:
    """There the bootstrap bounds it: by the table of Student's t, 2.0452 for 29, its quantile is
    Phi(2.0452 sqrt(30 / 29)) = 0.98125 instead of 0.975."""
    returns = np.random.default_rng(0).exponential(5, 30)
    estimate = interval_over_episodes(returns, n=20_000)
    means = np.random.default_rng(9).choice(returns, (20_000, 30)).mean(axis=1)
    usual, further = np.quantile(means, [0.975, 0.98125])
    assert estimate.high == pytest.approx(further, abs=(further - usual) / 3)
    assert estimate.high - estimate.value > 1.05 * (estimate.value - estimate.low)


def test_one_episode_bounds_nothing() -> None:
    assert interval_over_episodes([3.0]) == Estimate(3.0, -math.inf, math.inf)


@pytest.mark.parametrize("kind", ["replicates", "episodes", "stack"])
def test_intervals_cover_the_truth_as_often_as_they_say(kind: str) -> None:
    """Of 400 samples with mean 5: replicates vary as the data do, episodes are exponential, networks err together."""
    rng, covered = np.random.default_rng(0), 0
    for _ in range(400):
        if kind == "replicates":
            estimate = interval_over_bootstraps(rng.normal(5, 2) + rng.normal(0, 2, 8))
        elif kind == "episodes":
            estimate = interval_over_episodes(rng.exponential(5, 60), n=400)
        else:  # each network is off by an error of its own, and the data by one of all networks, as large
            values = 5 + rng.normal(0, 1) + rng.normal(0, 1, (7, 1)) + rng.normal(0, 1, 50)
            estimate = interval_over_networks(values)
        covered += estimate.low <= 5 <= estimate.high
    assert 0.9 <= covered / 400 <= 0.995


@pytest.mark.parametrize("share", [0.01, 1.0, 100.0])
def test_two_spreads_have_the_degrees_of_freedom_of_welch_s_test(share: float) -> None:
    """Networks and starts add up, so that their means are two independent samples; scipy compares such."""
    rng = np.random.default_rng(3)
    networks, starts = share * rng.normal(0, 0.3, 5), rng.normal(0, 1, 30)
    welch = scipy.stats.ttest_ind(math.sqrt(5) * networks, starts, equal_var=False)
    half = scipy.stats.t.ppf(0.975, welch.df) * math.sqrt(networks.var(ddof=1) + starts.var(ddof=1) / 30)
    estimate, wider = (
        interval_over_networks(networks[:, None] + starts),
        interval_over_critics(networks[:, None] + starts),
    )
    assert estimate.high - estimate.value == pytest.approx(half) == estimate.value - estimate.low
    assert wider.value == estimate.value
    assert (wider.high - wider.value) / half == pytest.approx(2.7764 / scipy.stats.t.ppf(0.975, welch.df), rel=1e-4)


def test_one_network_or_start_is_no_spread() -> None:
    """A network alone counts as two would, of one start nothing is said; what never differs has no width."""
    starts = np.arange(5.0)
    for of in (interval_over_networks, interval_over_critics):
        assert of([starts]).high - 2 == pytest.approx(12.706 * starts.std(ddof=1) / math.sqrt(5), rel=1e-4)
        assert of(starts[:, None]).high == math.inf
        assert of(np.full((3, 4), 7.0)) == Estimate(7.0, 7.0, 7.0)


def test_intervals_that_rounding_alone_sets_apart_agree() -> None:
    assert Estimate(7.0, 7.0, 7.0).gap(Estimate(7.0, 7.0 + 1e-14, 7.0 + 1e-14)) == 0
    assert Estimate(7.0, 7.0, 7.0).gap(Estimate(8.0, 7.5, 8.5)) == 0.5


intervals = st.tuples(st.floats(-5, 5), st.floats(0, 3)).map(lambda of: Estimate(of[0], of[0] - of[1], of[0] + of[1]))


@given(intervals, intervals, intervals)
def test_a_verdict_is_what_all_estimators_say(floor: Estimate, fqe: Estimate, model: Estimate) -> None:
    said = verdict(floor, {"fqe": fqe, "model": model}, 0.0)
    assert (said == "better") == (min(fqe.low, model.low) > floor.high)
    assert (said == "worse") == (max(fqe.high, model.high) < floor.low)
    mirrored = [Estimate(-one.value, -one.high, -one.low) for one in (floor, fqe, model)]
    opposite = {"better": "worse", "worse": "better"}
    assert verdict(mirrored[0], {"fqe": mirrored[1], "model": mirrored[2]}, 0.0) == opposite.get(said, said)


@given(intervals, intervals, st.floats(0, 5))
def test_an_interval_that_is_widened_by_the_gap_touches_the_other(one: Estimate, other: Estimate, more: float) -> None:
    gap = one.gap(other)
    assert gap == other.gap(one) >= 0
    assert one.widened(gap + 1e-9).gap(other) == 0
    assert one.widened(gap + more).gap(other) <= 1e-9 and (gap < 1e-7 or one.widened(gap / 2).gap(other) > 0)


@pytest.mark.parametrize(("outside", "said"), [(0.2, "better"), (0.21, "not shown to be better")])
def test_a_policy_that_does_what_the_log_does_not_is_not_called_better(outside: float, said: str) -> None:
    assert verdict(Estimate(0, -1, 1), {"fqe": Estimate(3, 2, 4)}, outside) == said
    assert verdict(Estimate(0, -1, 1), {"fqe": Estimate(-3, -4, -2)}, outside) == "worse"


def test_nothing_is_shown_without_an_estimator_or_where_seeds_differ() -> None:
    assert verdict(Estimate(0, -1, 1), {}, 0.0) == "not shown to be better"
    assert verdict_of_seeds(["better", "better"]) == "better"
    assert verdict_of_seeds(["better", "worse"]) == verdict_of_seeds([]) == "not shown to be better"


def test_weights_are_those_of_loops_over_episodes() -> None:
    rng, gamma, lengths = np.random.default_rng(1), 0.9, (3, 5, 1)
    first = np.cumsum((0, *lengths[:-1]))
    ratio, reward, q, value, next_value = rng.normal(size=(5, sum(lengths)))
    weighted = importance_estimates(ratio, reward, q, value, next_value, first, gamma)
    episodes = [range(begin, begin + length) for begin, length in zip(first, lengths, strict=True)]
    rho = [math.exp(sum(ratio[row] for row in rows)) for rows in episodes]
    returns = [
        sum(gamma**t * reward[row] for t, row in enumerate(rows)) + gamma ** len(rows) * next_value[rows[-1]]
        for rows in episodes
    ]
    importance = sum(r * g for r, g in zip(rho, returns, strict=True)) / sum(rho)
    robust = sum(value[begin] for begin in first) / 3
    for t in range(max(lengths)):
        at = [math.exp(sum(ratio[row] for row in rows[: t + 1])) for rows in episodes]
        for weight, rows in zip(at, episodes, strict=True):
            if t < len(rows):
                row = rows[t]
                robust += gamma**t * weight / sum(at) * (reward[row] + gamma * next_value[row] - q[row])
    assert weighted.importance == pytest.approx(importance)
    assert weighted.doubly_robust == pytest.approx(robust)
    assert weighted.effective == pytest.approx(sum(rho) ** 2 / sum(r * r for r in rho))


def test_of_a_policy_that_acts_as_the_log_all_episodes_count_alike() -> None:
    rng = np.random.default_rng(2)
    reward, zeros, first = rng.normal(size=40), np.zeros(40), np.arange(0, 40, 10)
    weighted = importance_estimates(zeros, reward, zeros, zeros, zeros, first, 1.0)
    assert weighted.effective == pytest.approx(4) and weighted.importance == pytest.approx(reward.sum() / 4)
    assert weighted.doubly_robust == pytest.approx(weighted.importance)
