"""Whether a file computes the same actions as the policy that it was made of."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mopo_cli.policy.weights import Weights

_MOST_ROWS = 1000
_LEAST = 1e-5  # of the range of actions
# Two sums in another order round as much, but not alike: the largest differences are a few times those from the exact.
_TIMES = 8.0
_BEYOND = (0.0, 0.1, 1.0, 10.0)  # times the range of the data


def some_rows(observations: NDArray[Any]) -> NDArray[Any]:
    """At most 1000 of the rows `[N, O]`, evenly spread, the first and the last among them."""
    places = np.linspace(0, len(observations) - 1, min(_MOST_ROWS, len(observations))).round().astype(np.int64)
    return observations[places]


def extremes(of_data: dict[str, list[float]]) -> NDArray[np.float64]:
    """Observations `[2 * 4, O]` in which all numbers are at an end of their range in the data, or far beyond it."""
    low, high = np.array(of_data["min"]), np.array(of_data["max"])
    return np.concatenate([[low - by * (high - low), high + by * (high - low)] for by in _BEYOND])


def difference(
    weights: Weights, policy: Callable[[Any], NDArray[Any]], exported: Callable[[Any], NDArray[Any]], rows: NDArray[Any]
) -> tuple[float, float]:
    """How far the exported policy's actions are from the policy's at rows `[N, O]`, and how far they may be.

    Both are shares of the range of actions. They may be 1e-5 apart, or as far as float32 explains: a few times the
    distance between the policy's actions and those of the same ``weights`` in float64. Infinite where one is NaN.
    """
    span = weights.high.astype(np.float64) - weights.low
    actions = policy(rows).astype(np.float64)
    apart = np.abs(exported(rows) - actions) / span
    rounding = np.abs(actions - weights.double().act(rows)) / span
    return float(np.nan_to_num(apart, nan=np.inf).max()), max(_LEAST, _TIMES * float(rounding.max()))
