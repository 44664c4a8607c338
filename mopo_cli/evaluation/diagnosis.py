"""Does an uncertainty know where the model errs? How it goes with the true error, and the error by rollout step.

The true error is the distance of the model's prediction from the simulator's next state, see `tasks.oracle`. The
figures are those of COMBO (Fig. 2: uncertainty against true error) and DROP (Fig. 2: true error over the rollout).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Values = NDArray[np.float64]

TENTHS = 10


@dataclass(frozen=True)
class Bin:
    """Rows whose uncertainty lies between two of its quantiles: both means, and the error's middle 80 %."""

    rows: int
    uncertainty: float
    error: float
    error_p10: float
    error_p90: float


@dataclass(frozen=True)
class Relation:
    """How the error goes with an uncertainty: error = slope u + intercept by least squares, and two correlations.

    NaN where it is not defined: nothing goes with a column that is constant.
    """

    slope: float
    intercept: float
    pearson: float
    spearman: float
    calibration: list[Bin]
    """the tenths of the rows by uncertainty, from the lowest up; equal uncertainties stay in one bin"""


@dataclass(frozen=True)
class StepError:
    """The error of the rows at one step of a rollout; step 1 starts from a state of the data."""

    step: int
    rows: int
    mean: float
    median: float
    p90: float


@dataclass(frozen=True)
class Diagnosis:
    """How the true error of ``rows`` rows goes with each uncertainty and with the step.

    Of ``unknown`` rows more the true error is not known; nothing here speaks of them. `dataclasses.asdict` gives
    what JSON has types for.
    """

    rows: int
    unknown: int
    uncertainties: dict[str, Relation]
    steps: list[StepError]


def diagnose(uncertainties: Mapping[str, ArrayLike], error: ArrayLike, step: ArrayLike) -> Diagnosis:
    """Compare ``error`` `[n]`, NaN where not known, with every uncertainty `[n]` and with ``step`` `[n]`, from 0 on."""
    errors = np.asarray(error, np.float64)
    finite = np.isfinite(errors)
    errors = errors[finite]
    return Diagnosis(
        len(errors),
        int((~finite).sum()),
        {name: relation(np.asarray(values)[finite], errors) for name, values in uncertainties.items()},
        error_by_step(np.asarray(step)[finite], errors),
    )


def relation(uncertainty: ArrayLike, error: ArrayLike) -> Relation:
    """How ``error`` `[n]` goes with ``uncertainty`` `[n]`, both finite."""
    u, e = np.asarray(uncertainty, np.float64), np.asarray(error, np.float64)
    slope = intercept = np.nan
    if _varies(u):
        centred = u - u.mean()
        slope = float(centred @ e / (centred @ centred))
        intercept = float(e.mean() - slope * u.mean())
    return Relation(slope, intercept, _correlation(u, e), spearman(u, e), _calibration(u, e))


def spearman(a: Values, b: Values) -> float:
    """The rank correlation of ``a`` `[n]` and ``b`` `[n]`; NaN where one of them does not vary."""
    return _correlation(_ranks(a), _ranks(b))


def error_by_step(step: ArrayLike, error: ArrayLike) -> list[StepError]:
    """The ``error`` `[n]` at each ``step`` `[n]`, counted from 0 as rollout files do."""
    steps, e = np.asarray(step), np.asarray(error, np.float64)
    out = []
    for k in np.unique(steps):
        here = e[steps == k]
        median, p90 = np.quantile(here, (0.5, 0.9))
        out.append(StepError(int(k) + 1, len(here), float(here.mean()), float(median), float(p90)))
    return out


def _varies(values: Values) -> bool:
    return len(values) > 1 and bool(values.min() < values.max())


def _correlation(a: Values, b: Values) -> float:
    return float(np.corrcoef(a, b)[0, 1]) if _varies(a) and _varies(b) else np.nan


def _ranks(values: Values) -> Values:
    # Not SciPy's rankdata: to import it takes a second and 60 MB, and train-model always comes here.
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Values = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return ranks


def _calibration(u: Values, e: Values) -> list[Bin]:
    if not len(u):
        return []
    inner = np.unique(np.quantile(u, np.arange(1, TENTHS) / TENTHS))
    place = np.searchsorted(inner, u, side="left")
    bins = []
    for k in np.unique(place):
        here = place == k
        p10, p90 = np.quantile(e[here], (0.1, 0.9))
        bins.append(Bin(int(here.sum()), float(u[here].mean()), float(e[here].mean()), float(p10), float(p90)))
    return bins
