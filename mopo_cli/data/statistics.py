"""What a dataset is like: returns, episodes, ranges, saturated actions, idle columns and coverage."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mopo_cli.data.coverage import coverage, joint_blocks, repeated_rows
from mopo_cli.data.transitions import (
    DatasetInfo,
    Floats,
    Transitions,
    episode_ends,
    episode_lengths,
    episode_returns,
)
from mopo_cli.data.validate import Summary, summarise

BINS = 20
NEAR = 0.01
"""An action is at a bound when it lies within this share of the range."""
COPY_CORRELATION = 1 - 1e-6
_COLUMN_BLOCK = 8

Relation = Literal["equal", "negated", "correlated"]


@dataclass(frozen=True)
class Histogram:
    """Counts of equal bins; ``edges`` is one longer than ``counts``."""

    edges: list[float]
    counts: list[int]


@dataclass(frozen=True)
class Column:
    """One dimension over all rows, in the data's own units; ``std`` is the population's."""

    name: str
    min: float
    p1: float
    median: float
    p99: float
    max: float
    mean: float
    std: float


@dataclass(frozen=True)
class Saturation:
    """Shares of an action dimension's rows at its bounds, and its histogram from the lower to the upper."""

    name: str
    low: float
    high: float
    at_low: float
    at_high: float
    counts: list[int]


@dataclass(frozen=True)
class Copy:
    """A column that says nothing beyond an earlier one: its equal, its negative, or a linear function of it."""

    name: str
    of: str
    relation: Relation
    correlation: float


@dataclass(frozen=True)
class Neighbours:
    """Distances to the nearest neighbour in another stretch of the data; see `data.coverage.coverage`."""

    quantiles: dict[str, float]
    histogram: Histogram
    queries: int
    references: int
    dimensions: int


@dataclass(frozen=True)
class DatasetStatistics:
    """A dataset at a glance; `dataclasses.asdict` gives what JSON has types for.

    Dimensions are named ``obs[0]`` … and ``action[0]`` …, shares lie in [0, 1], quantiles are keyed p1, p10, …
    """

    summary: Summary
    returns: Histogram
    """undiscounted, one per episode"""
    lengths: Histogram
    length_quantiles: dict[str, float]
    endings: dict[str, float]
    """share of episodes that end by ``terminal``, ``timeout``, or ``neither``: a record cut off"""
    terminal_share: float
    """of rows"""
    observations: list[Column]
    actions: list[Column]
    rewards: Column
    saturation: list[Saturation]
    saturated_share: float
    """of all action entries"""
    constant: list[str]
    copies: list[Copy]
    unchanged: list[str]
    """observation dimensions that no step ever changes, the constant ones among them"""
    repeated_share: float
    """of rows whose state and action equal an earlier row's"""
    neighbours: Neighbours | None
    """None where no two stretches can be compared"""


def dataset_statistics(transitions: Transitions, info: DatasetInfo, seed: int = 0) -> DatasetStatistics:
    """The statistics of at least one transition whose columns `check_columns` and `check_bounds` have passed.

    ``seed`` draws the rows that the neighbours are looked for among; all else is exact over all rows.
    """
    lengths = episode_lengths(transitions)
    observations = _describe(transitions.observations, "obs")
    actions = _describe(transitions.actions, "action")
    columns = [*observations, *actions]
    saturation = _saturation(transitions.actions, info)
    return DatasetStatistics(
        summary=summarise(transitions),
        returns=_histogram(episode_returns(transitions)),
        lengths=_histogram(lengths.astype(np.float64)),
        length_quantiles=_quantiles(lengths.astype(np.float64), (0, 10, 50, 90, 100)),
        endings=_endings(transitions),
        terminal_share=float(transitions.terminals.mean()),
        observations=[_moved(column, by) for column, by in zip(observations, _offset(transitions, info), strict=True)],
        actions=actions,
        rewards=_describe(transitions.rewards[:, None], "reward")[0],
        saturation=saturation,
        saturated_share=float(np.mean([s.at_low + s.at_high for s in saturation])),
        constant=[column.name for column in columns if column.min == column.max],
        copies=_copies(transitions, columns),
        unchanged=_unchanged(transitions, info),
        repeated_share=repeated_rows(transitions) / len(transitions),
        neighbours=_neighbours(transitions, columns, seed),
    )


def _offset(transitions: Transitions, info: DatasetInfo) -> list[float]:
    offset = info.observation_offset
    return [0.0] * transitions.obs_dim if offset is None else offset.tolist()


def _moved(column: Column, by: float) -> Column:
    """The column of a stored dimension in the data's own units."""
    places = ("min", "p1", "median", "p99", "max", "mean")
    return replace(column, **{name: getattr(column, name) + by for name in places}) if by else column


def _describe(values: Floats, name: str) -> list[Column]:
    described: list[Column] = []
    width = values.shape[1]
    for start in range(0, width, _COLUMN_BLOCK):
        block = values[:, start : start + _COLUMN_BLOCK].T.astype(np.float64, order="C")
        points = np.quantile(block, [0.01, 0.5, 0.99], axis=1)
        # Of a constant the standard deviation is 0 and not near it: equal f4 add up exactly in f8.
        table = np.stack([block.min(1), *points, block.max(1), block.mean(1), block.std(1)], axis=1)
        described += [
            Column(name if width == 1 and name == "reward" else f"{name}[{start + i}]", *map(float, row))
            for i, row in enumerate(table)
        ]
    return described


def _endings(transitions: Transitions) -> dict[str, float]:
    ends = episode_ends(transitions)
    terminal = transitions.terminals[ends]
    timeout = transitions.timeouts[ends] & ~terminal
    shares = {"terminal": terminal, "timeout": timeout, "neither": ~(terminal | timeout)}
    return {name: float(share.mean()) for name, share in shares.items()}


def _saturation(actions: Floats, info: DatasetInfo) -> list[Saturation]:
    low, high = info.action_low.astype(np.float64), info.action_high.astype(np.float64)
    saturation = []
    for dim in range(actions.shape[1]):
        place = (actions[:, dim] - low[dim]) / (high[dim] - low[dim])
        counts, _ = np.histogram(np.clip(place, 0, 1), BINS, (0, 1))
        shares = float((place <= NEAR).mean()), float((place >= 1 - NEAR).mean())
        saturation.append(Saturation(f"action[{dim}]", float(low[dim]), float(high[dim]), *shares, counts.tolist()))
    return saturation


def _copies(transitions: Transitions, columns: list[Column]) -> list[Copy]:
    """The columns, constant ones left out, that an earlier one determines, each with the first such."""
    mean, std = _moments(columns)
    varying = np.flatnonzero(std > 0)
    products = np.zeros((len(varying), len(varying)))
    for block in joint_blocks(transitions):
        scaled = (block[:, varying] - mean[varying]) / std[varying]
        products += scaled.T @ scaled
    correlations = products / len(transitions)
    copies = []
    for place, second in enumerate(varying.tolist()):
        close = np.flatnonzero(np.abs(correlations[place, :place]) > COPY_CORRELATION)
        if len(close):
            first = int(varying[close[0]])
            a, b = _column(transitions, first), _column(transitions, second)
            relation: Relation = "equal" if (a == b).all() else "negated" if (a == -b).all() else "correlated"
            correlation = float(np.clip(correlations[place, close[0]], -1, 1))
            copies.append(Copy(columns[second].name, columns[first].name, relation, correlation))
    return copies


def _unchanged(transitions: Transitions, info: DatasetInfo) -> list[str]:
    equal = transitions.next_observations == transitions.observations
    if not info.terminal_next_known:
        equal = equal[~transitions.terminals]
    return [f"obs[{dim}]" for dim in np.flatnonzero(equal.all(axis=0))]


def _neighbours(transitions: Transitions, columns: list[Column], seed: int) -> Neighbours | None:
    covered = coverage(transitions, *_moments(columns), np.random.default_rng(seed))
    if covered is None:
        return None
    return Neighbours(
        quantiles=_quantiles(covered.distances, (1, 10, 50, 90, 99)),
        histogram=_histogram(covered.distances),
        queries=len(covered.distances),
        references=covered.references,
        dimensions=covered.dimensions,
    )


def _moments(columns: list[Column]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.array([column.mean for column in columns]), np.array([column.std for column in columns])


def _column(transitions: Transitions, place: int) -> Floats:
    """Column ``place`` of the observations beside the actions."""
    beyond = place - transitions.obs_dim
    return transitions.observations[:, place] if beyond < 0 else transitions.actions[:, beyond]


def _histogram(values: NDArray[np.float64]) -> Histogram:
    low, high = float(values.min()), float(values.max())
    # Closer than that, bins would be narrower than the numbers can tell apart.
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        return Histogram([low, high], [len(values)])
    counts, edges = np.histogram(values, BINS)
    return Histogram(edges.tolist(), counts.tolist())


def _quantiles(values: NDArray[np.float64], percents: tuple[int, ...]) -> dict[str, float]:
    points = np.quantile(values, [percent / 100 for percent in percents])
    return {f"p{percent}": float(point) for percent, point in zip(percents, points, strict=True)}
