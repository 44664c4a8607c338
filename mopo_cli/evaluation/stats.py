"""Statistics of returns over seeds and episodes."""

from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mopo_cli.errors import InputError

FloatArray = NDArray[np.float64]
Values = TypeVar("Values", float, FloatArray)


def mean_std(values: ArrayLike) -> tuple[float, float]:
    """Mean and population standard deviation (0 for a single value) of all `values`."""
    array = np.asarray(values, dtype=np.float64)
    return float(array.mean()), float(array.std())


def iqm(values: ArrayLike) -> float:
    """Interquartile mean: the mean of what is left without the lowest and the highest quarter.

    Of each end, floor(n / 4) values are dropped. NaN if any value is NaN: a diverged seed must not be
    trimmed out of sight. Source: Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the
    Statistical Precipice".
    """
    return float(_iqm_rows(np.asarray(values, dtype=np.float64).reshape(1, -1))[0])


def bootstrap_iqm(scores: ArrayLike, n: int = 2000, seed: int = 0) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the IQM of `scores [seeds, episodes]`, from `n` resamples.

    Each resample draws the seeds (the clusters) with replacement and then, within each drawn seed, its
    episodes: the episodes of one policy stand and fall together, and an interval that took them for
    independent would be too narrow. With one seed only the episodes vary: the interval then speaks of that
    policy, not of the algorithm. (NaN, NaN) for a single score, and if any score is NaN.
    """
    table = np.asarray(scores, dtype=np.float64)
    seeds, episodes = table.shape
    rng = np.random.default_rng(seed)
    drawn_seeds = rng.integers(seeds, size=(n, seeds, 1))
    drawn_episodes = rng.integers(episodes, size=(n, seeds, episodes))
    if np.isnan(table).any() or table.size == 1:
        return float("nan"), float("nan")
    low, high = np.percentile(_iqm_rows(table[drawn_seeds, drawn_episodes].reshape(n, -1)), [2.5, 97.5])
    return float(low), float(high)


def normalised_score(ret: Values, minimum: float, maximum: float) -> Values:
    """100 (R - min) / (max - min) with the reference returns of a dataset's family (D4RL, Fu et al. 2020).

    Raises `InputError` unless `minimum < maximum`.
    """
    return 100.0 * (ret - minimum) / _span(minimum, maximum)


def normalised_std(std: Values, minimum: float, maximum: float) -> Values:
    """A standard deviation of returns on the scale of `normalised_score`: only the span counts.

    Raises `InputError` unless `minimum < maximum`.
    """
    return 100.0 * std / _span(minimum, maximum)


def _iqm_rows(values: FloatArray) -> FloatArray:
    cut = values.shape[1] // 4
    kept = np.sort(values, axis=1)[:, cut : values.shape[1] - cut]
    means: FloatArray = np.where(np.isnan(values).any(axis=1), np.nan, kept.mean(axis=1))
    return means


def _span(minimum: float, maximum: float) -> float:
    if not minimum < maximum:
        raise InputError(f"The reference score maximum {maximum} must be above the minimum {minimum}.")
    return maximum - minimum
