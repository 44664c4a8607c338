"""Where in the data a model is unsure, and where it errs, by rows that were held out of its training."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
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
_BLOCK = 1000
"""Rows that are predicted at once."""


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
class ErrorsByInput:
    """How uncertainty goes with error over ``rows`` rows, and in which part of each input they are highest."""

    rows: int
    relation: Relation
    least_sure: list[Part]
    """by uncertainty, the highest first"""
    worst: list[Part]
    """by error, the highest first"""


def uncertainty_and_error(ensemble: Ensemble, examples: Examples, rows: Tensor) -> tuple[Values, Values]:
    """The ensemble's uncertainty and its true error in these ``rows`` `[n]` of the examples, `[n]` both.

    Both are in standard deviations that the targets have over these rows. The uncertainty is `max-var` over all
    networks; the error is ||mean_i mu_i - target||_2.
    """
    scale = divisors(*column_scales(examples.targets[rows]))
    blocks = [_in_block(ensemble, examples, some, scale) for some in rows.split(_BLOCK)]
    uncertainty, error = (torch.cat(columns).cpu().numpy() for columns in zip(*blocks, strict=True))
    return uncertainty, error


def _in_block(ensemble: Ensemble, examples: Examples, rows: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    inputs = examples.inputs[rows]
    predicted = ensemble.predict(inputs[:, : examples.obs_dim], inputs[:, examples.obs_dim :])
    # The square of a target in tiny units, in its deviations, can be beyond float32.
    mean, std = (each.double() for each in predicted)
    error = ((mean.mean(dim=0) - examples.targets[rows]) / scale).norm(dim=1)
    return uncertainties(mean, std, PenaltyForm(scale=scale))[:, 0], error


def errors_by_input(names: Sequence[str], inputs: ArrayLike, uncertainty: ArrayLike, error: ArrayLike) -> ErrorsByInput:
    """Of each column of ``inputs`` `[n, D]`, called by the ``names``, the parts with the highest means of both.

    ``uncertainty`` and ``error`` are `[n]`, all finite. Columns that do not vary are left out.
    """
    columns = np.asarray(inputs, np.float64).T
    u, e = np.asarray(uncertainty, np.float64), np.asarray(error, np.float64)
    every = [list(_parts(name, column, u, e)) for name, column in zip(names, columns, strict=True)]
    by_uncertainty = _highest(every, lambda part: part.uncertainty)
    return ErrorsByInput(len(u), relation(u, e), by_uncertainty, _highest(every, lambda part: part.error))


def _highest(every: Sequence[Sequence[Part]], by: Callable[[Part], float]) -> list[Part]:
    """Of each column that has parts its highest one, the highest of all first."""
    return sorted((max(parts, key=by) for parts in every if parts), key=by, reverse=True)


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
