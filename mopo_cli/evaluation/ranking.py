"""Which policy to choose: criteria that need no simulator, and how well they order cells where the truth is known."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, nan

import numpy as np
from scipy.stats import rankdata, spearmanr

LEAST = 3
"""Cells below which a rank correlation says nothing."""


@dataclass(frozen=True)
class Evidence:
    """What can be measured of one policy without a simulator.

    `metrics` are the numbers of its last training epoch; its returns are those of its greedy actions over whole
    episodes in the model, discounted (NaN where it has not acted there). `fqe` is the mean of its fitted-Q critics at
    the start, `fqe_deviation` their standard deviation. `model_fqe` is the discounted return in single networks; where
    an episode leaves the data, the critics give the rest.
    """

    metrics: Mapping[str, float]
    penalised_return: float = nan
    model_return: float = nan
    uncertainty: float = nan
    action_distance: float = nan
    outside: float = nan
    fqe: float = nan
    fqe_deviation: float = nan
    model_fqe: float = nan


@dataclass(frozen=True)
class Criterion:
    """A number to order policies by: what it is, in a line, and whether the highest or the lowest is the best."""

    meaning: str
    highest: bool
    value: Callable[[Evidence], float | None] = lambda evidence: None
    """None where a policy has no such number"""
    ranks_of: tuple[str, ...] = ()
    """criteria of which this is the mean of the ranks; of all of them the highest is the best"""

    def oriented(self, value: float) -> float:
        """The value with its sign such that more is better."""
        return value if self.highest else -value


@dataclass(frozen=True)
class Ranking:
    """A way to rank: its criteria by name, of which the first orders the cells.

    ``metric`` is the one number of the training logs that it reads; None: it lets the policies act in the model.
    """

    criteria: dict[str, Criterion]
    metric: str | None = None


_OFFLINE = {
    "penalised-return": Criterion(
        "discounted return in the penalised model: what MOPO maximises, and its bound on the true return",
        True,
        lambda evidence: evidence.penalised_return,
    ),
    "model-return": Criterion(
        "discounted return in the plain model, without a penalty",
        True,
        lambda evidence: evidence.model_return,
    ),
    "uncertainty": Criterion(
        "mean u per step of its episodes in the model: how far it goes from what the model knows",
        False,
        lambda evidence: evidence.uncertainty,
    ),
    "action-distance": Criterion(
        "mean squared distance of its actions from the data's, in states of the data: how far it goes from them",
        False,
        lambda evidence: evidence.action_distance,
    ),
    "unlike": Criterion(
        "share of its actions that are unlike the log's in similar states",
        False,
        lambda evidence: evidence.outside,
    ),
    "q": Criterion(
        "mean Q of the last epoch, by the critics that it was trained with, on its batches and with its penalty",
        True,
        lambda evidence: evidence.metrics.get("q"),
    ),
}
_COMBO = {
    "regulariser": Criterion(
        "mean Q of the policy's actions, in states of model and data, less mean Q of the data: the critics' excess",
        False,
        lambda evidence: evidence.metrics.get("regulariser"),
    )
}
_FQE = {
    "joint": Criterion(
        "mean of the ranks by fqe-low and model-fqe, which err in different ways",
        False,
        ranks_of=("fqe-low", "model-fqe"),
    ),
    "fqe-low": Criterion(
        "fqe less one standard deviation of its critics: what the log promises at least",
        True,
        lambda evidence: evidence.fqe - evidence.fqe_deviation,
    ),
    "model-fqe": Criterion(
        "discounted return in single networks of the model; where these leave the data, fitted Q estimates the rest",
        True,
        lambda evidence: evidence.model_fqe,
    ),
    "fqe": Criterion(
        "discounted return by fitted Q evaluation, where the data's episodes start: what the log says of it",
        True,
        lambda evidence: evidence.fqe,
    ),
}
RANKINGS = {
    "offline": Ranking(_OFFLINE),
    "ope": Ranking(_FQE | _OFFLINE),
    "combo": Ranking(_COMBO, "regulariser"),
}
"""The ways to rank, by name.

``ope`` trains critics of every policy on the log; ``combo`` is the selection rule of COMBO, §3: the lowest regulariser
of the last epoch.
"""


Column = Sequence[float | None]
"""A number of each policy or cell, None for those that have none."""


def best_first(criterion: Criterion, values: Column, ties: Column | None = None) -> list[int]:
    """Places of ``values`` from the best to the worst; those without a value come last.

    Equals are in the order of ``ties``, the highest first, or else keep their own.
    """
    merit = [-inf if value is None else criterion.oriented(value) for value in values]
    second = [-inf if tie is None else tie for tie in ties or [0.0] * len(values)]
    return sorted(range(len(values)), key=lambda place: (-merit[place], -second[place]))


def mean_ranks(columns: Sequence[Column]) -> list[float | None]:
    """The mean of the ranks, from 1 on, in several columns in which more is better; None where one has no value."""
    rows = list(zip(*columns, strict=True))
    complete = [place for place, row in enumerate(rows) if None not in row]
    means: list[float | None] = [None] * len(rows)
    if complete:
        values = np.array([rows[place] for place in complete], np.float64)
        for place, mean in zip(complete, rankdata(-values, axis=0).mean(axis=1), strict=True):
            means[place] = float(mean)
    return means


def rank_correlation(criterion: Criterion, values: Column, truth: Column) -> float | None:
    """Spearman's rank correlation with the true returns: 1 where the criterion orders the cells exactly as they do.

    Over the cells that have both; None where these are fewer than three, or all equal in one of the two.
    """
    pairs = [(criterion.oriented(v), t) for v, t in zip(values, truth, strict=True) if v is not None and t is not None]
    if len(pairs) < LEAST or any(len(set(column)) == 1 for column in zip(*pairs, strict=True)):
        return None
    return float(spearmanr(*zip(*pairs, strict=True)).statistic)


def regret(criterion: Criterion, values: Column, truth: Column, ties: Column | None = None) -> float | None:
    """The best true return minus that of the cell the criterion puts first, among the cells that have one.

    None where no cell has a true return, or the criterion has no value for any that does.
    """
    true = {place: value for place, value in enumerate(truth) if value is not None}
    chosen = [place for place in best_first(criterion, values, ties) if place in true and values[place] is not None]
    return max(true.values()) - true[chosen[0]] if chosen else None
