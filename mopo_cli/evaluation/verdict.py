"""Whether a policy is better than what was logged: estimates with intervals, and the verdict made of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import hypot, inf, sqrt
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm, t

Verdict = Literal["better", "not shown to be better", "worse"]
MOST_OUTSIDE = 0.2
"""The share of a policy's actions that may be unlike any in the log: of what these lead to, nothing is measured."""
ROUNDING = 1e-9
"""Numbers that differ by this share of themselves are equal."""
MOST_MISSED = 0.05
"""How much an estimator may miss what is in the log by, as a share of what its worse and better thirds differ by."""


@dataclass(frozen=True)
class Estimate:
    """A value with the bounds of its 95 % interval."""

    value: float
    low: float
    high: float

    def gap(self, other: "Estimate") -> float:
        """How far the intervals are apart, 0 where they have a number in common but for rounding."""
        apart = max(self.low - other.high, other.low - self.high, 0.0)
        return apart if apart > ROUNDING * max(abs(self.value), abs(other.value)) else 0.0

    def widened(self, by: float) -> "Estimate":
        """The same value with so much more on either side."""
        return Estimate(self.value, self.low - by, self.high + by)

    def joined(self, half: float) -> "Estimate":
        """The same value with a further, independent error, whose interval is `half` wide on either side."""
        low, high = (hypot(self.value - bound, half) for bound in (self.low, self.high))
        return Estimate(self.value, self.value - low, self.value + high)


def interval_over_bootstraps(replicates: ArrayLike) -> Estimate:
    """Of K replicates `[K]`, each of another bootstrap of the data: their mean, and what their spread says of it."""
    values = np.asarray(replicates, np.float64)
    return _around(values.mean(), values.std(ddof=1) if len(values) > 1 else inf, len(values) - 1)


def interval_over_networks(values: ArrayLike) -> Estimate:
    """Of values `[K, starts]`, by K networks from the same starts: the spread of both counts.

    All networks may be wrong in one way, so their spread is not divided by the root of their number. Degrees of
    freedom are those of a sum of two variances (Welch 1947; Satterthwaite 1946).
    """
    table = np.asarray(values, np.float64)
    of_networks, of_starts = _spreads(table)
    networks, starts = (count - 1 for count in table.shape)
    if not (networks and starts):
        return _around(table.mean(), sqrt(of_networks + of_starts), max(networks, 1))
    both = of_networks**2 / networks + of_starts**2 / starts
    return _around(table.mean(), sqrt(of_networks + of_starts), (of_networks + of_starts) ** 2 / both if both else 1)


def interval_over_critics(values: ArrayLike) -> Estimate:
    """As `interval_over_networks`, with the degrees of freedom of K networks alone.

    Critics learn from what they say themselves: what they all have wrong by it is in neither spread, and the wider
    interval holds it.
    """
    table = np.asarray(values, np.float64)
    return _around(table.mean(), sqrt(sum(_spreads(table))), max(len(table), 2) - 1)


def _spreads(table: NDArray[np.float64]) -> tuple[float, float]:
    """Variances of `[K, starts]`: of a network's mean, and of the mean over the starts."""
    networks, starts = table.shape
    of_networks = float(table.mean(axis=1).var(ddof=1)) if networks > 1 else 0.0
    return of_networks, float(table.mean(axis=0).var(ddof=1)) / starts if starts > 1 else inf


def interval_over_episodes(returns: ArrayLike, n: int = 2000, seed: int = 0) -> Estimate:
    """Of returns of episodes `[E]`: their mean, and the percentile interval of `n` bootstraps of the episodes.

    Percentiles of few episodes are too close together. So they are taken further out, and no bound is nearer than
    Student's. Source: the expanded percentile interval of Hesterberg 2015, "What Teachers Should Know about the
    Bootstrap".
    """
    values = np.asarray(returns, np.float64)
    count = len(values)
    if count == 1:
        return _around(values[0], inf, 0)
    drawn = np.random.default_rng(seed).integers(count, size=(n, count))
    student = _around(values.mean(), values.std(ddof=1) / sqrt(count), count - 1)
    tail = 100 * norm.cdf(sqrt(count / (count - 1)) * t.ppf(0.025, count - 1))
    low, high = np.percentile(values[drawn].mean(axis=1), [tail, 100 - tail])
    return Estimate(student.value, min(float(low), student.low), max(float(high), student.high))


def _around(value: float, deviation: float, freedom: int) -> Estimate:
    half = float(t.ppf(0.975, freedom)) * deviation if freedom else inf
    return Estimate(float(value), float(value - half), float(value + half))


def verdict(floor: Estimate, estimates: Mapping[str, Estimate], outside: float) -> Verdict:
    """What the estimates of a policy, by estimator, say of it beside the logged behaviour.

    All must agree: "better" where each one's lower bound is above the upper one of `floor`, and no more than
    `MOST_OUTSIDE` of its actions are outside of the log; "worse" where each one's upper bound is below the lower one.
    Without an estimate nothing is shown.
    """
    inside = outside <= MOST_OUTSIDE
    if inside and estimates and all(estimate.low > floor.high for estimate in estimates.values()):
        return "better"
    if estimates and all(estimate.high < floor.low for estimate in estimates.values()):
        return "worse"
    return "not shown to be better"


def verdict_of_seeds(verdicts: list[Verdict]) -> Verdict:
    """Of several seeds: what all of them are."""
    return verdicts[0] if verdicts and all(one == verdicts[0] for one in verdicts) else "not shown to be better"


@dataclass(frozen=True)
class Weighted:
    """Estimates by importance weights: weighted importance sampling, doubly robust, and what the weights are worth."""

    importance: float
    doubly_robust: float
    effective: float
    """Effective number of episodes, (sum of w)^2 / sum of w^2."""


def importance_estimates(
    log_ratio: NDArray[np.float64],
    reward: NDArray[np.float64],
    q: NDArray[np.float64],
    value: NDArray[np.float64],
    next_value: NDArray[np.float64],
    first: NDArray[np.int64],
    gamma: float,
) -> Weighted:
    """Weigh logged episodes by how probable a policy makes them (DOPE, Fu et al. 2021).

    Of N rows: `log_ratio` log pi(a|s) - log pi_b(a|s), rewards, Q(s, a), V(s) and V(s'), which is 0 after a terminal;
    `first` `[E]` are the rows that episodes begin with. Weights of all episodes at a step sum to one.

    WIS = sum_i w_i G_i, with w by whole episodes, and G_i with gamma^T V(s_T) for what follows the record.
    DR = mean V(s_0) + sum_t gamma^t sum_i w_it (r_t + gamma V(s_t+1) - Q(s_t, a_t)), with w up to that step.
    """
    ends = np.append(first[1:], len(reward))
    lengths = ends - first
    longest = int(lengths.max())
    # [E, longest]; an episode that has ended keeps its weight.
    at = np.minimum(first[:, None] + np.arange(longest), ends[:, None] - 1)
    within = np.arange(longest) < lengths[:, None]
    sums = np.cumsum(np.where(within, log_ratio[at], 0.0), axis=1)
    weights = np.exp(sums - sums.max(axis=0))
    weights /= weights.sum(axis=0)
    discounts = gamma ** np.arange(longest)
    returns = (np.where(within, reward[at], 0.0) * discounts).sum(axis=1)
    returns += gamma**lengths * next_value[ends - 1]  # what follows a record that ends before the task
    whole = weights[:, -1]
    errors = np.where(within, reward[at] + gamma * next_value[at] - q[at], 0.0)
    robust = value[first].mean() + float((discounts * (weights * errors).sum(axis=0)).sum())
    return Weighted(float(whole @ returns), float(robust), float(1 / np.square(whole).sum()))
