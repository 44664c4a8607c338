"""Where in the data a model is unsure, and where it errs, by rows that were held out of its training."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from mopo_cli.dynamics.ensemble import Ensemble
from mopo_cli.dynamics.penalties import PenaltyForm, uncertainties
from mopo_cli.dynamics.split import Examples
from mopo_cli.evaluation.diagnosis import Relation, relation
from mopo_cli.nets.scales import column_scales, divisors

Values = NDArray[np.float64]

_PARTS = 5
_LEAST_ROWS = 10
"""Means over fewer rows say nothing."""


@dataclass(frozen=True)
class Part:
    """The rows in which one number of the inputs is from ``low`` to ``high``, at most a fifth of them but for ties.

    ``uncertainty`` and ``error`` are means over these rows divided by those over all rows.
    """

    input: str
    low: float
    high: float
    rows: int
    uncertainty: float
    error: float


@dataclass(frozen=True)
class Unsure:
    """How uncertainty goes with error over ``rows`` rows, and in which part of each input it is highest."""

    rows: int
    relation: Relation
    parts: list[Part]


def doubt(ensemble: Ensemble, examples: Examples, rows: Tensor) -> tuple[Values, Values]:
    """The ensemble's uncertainty and its true error in these ``rows`` `[n]` of the examples, `[n]` both.

    Both are in standard deviations that the targets have over these rows. The uncertainty is `max-var` over all
    networks; the error is ||mean_i mu_i - target||_2.
    """
    inputs, targets = examples.inputs[rows], examples.targets[rows]
    mean, std = ensemble.predict(inputs[:, : examples.obs_dim], inputs[:, examples.obs_dim :])
    scale = divisors(*column_scales(targets)).float()
    unsure = uncertainties(mean, std, PenaltyForm(scale=scale))[:, 0]
    error = ((mean.mean(dim=0) - targets) / scale).norm(dim=1)
    return unsure.double().cpu().numpy(), error.double().cpu().numpy()


def where_unsure(names: Sequence[str], inputs: ArrayLike, uncertainty: ArrayLike, error: ArrayLike) -> Unsure:
    """Of each column of ``inputs`` `[n, D]`, called by the ``names``, the part with the highest mean uncertainty.

    ``uncertainty`` and ``error`` are `[n]`, all finite. The most unsure part comes first; columns that do not vary
    are left out.
    """
    columns = np.asarray(inputs, np.float64).T
    u, e = np.asarray(uncertainty, np.float64), np.asarray(error, np.float64)
    highest = (
        max(parts, key=lambda part: part.uncertainty)
        for name, column in zip(names, columns, strict=True)
        if (parts := list(_parts(name, column, u, e)))
    )
    return Unsure(len(u), relation(u, e), sorted(highest, key=lambda part: -part.uncertainty))


def _parts(name: str, column: Values, uncertainty: Values, error: Values) -> Iterator[Part]:
    values = np.unique(column)
    if len(values) < 2:
        return
    few = len(values) <= _PARTS
    inner = values[1:] if few else np.unique(np.quantile(column, np.arange(1, _PARTS) / _PARTS))
    place = np.searchsorted(inner, column, side="right")
    for k in range(len(inner) + 1):
        here = place == k
        if here.sum() >= _LEAST_ROWS:
            of = column[here]
            means = (_ratio(of_rows[here].mean(), of_rows.mean()) for of_rows in (uncertainty, error))
            yield Part(name, float(of.min()), float(of.max()), int(here.sum()), *means)


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else np.nan
