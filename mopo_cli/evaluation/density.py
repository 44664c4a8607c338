"""Where do rollouts leave the data, and does the penalty grow there? (DROP Fig. 3)

How thin data are around a row is told by its distance to the k-th nearest of them: 1 / distance^D is the k-NN
estimate of the density, so both rank rows alike. The data's own distances, of rows that are not among those
they are measured to, say what is usual. Maps show states and actions, on a common scale, in two dimensions.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter
from scipy.stats import rankdata

from mopo_cli.evaluation.diagnosis import spearman

Values = NDArray[np.float64]
Projection = Callable[[Values], Values]
"""Takes rows `[n, D]` to `[n, 2]`."""

NEIGHBOURS = 10
COVERED_SHARE = 0.99
"""The share of the data that the region they cover holds."""
_EDGES = (*(i / 10 for i in range(10)), COVERED_SHARE, 1.0)
_BLOCK_ROWS = 256
_CELLS = 120  # of a map, along each axis


@dataclass(frozen=True)
class Step:
    """The rows at one step of a rollout; step 1 starts from a state of the data."""

    step: int
    rows: int
    distance: float
    """median distance to the data"""
    outside: float
    """share of the rows outside the region that holds 99 % of the data"""
    spearman: dict[str, float]
    """rank correlation of each uncertainty with the distance; NaN where one of them does not vary"""


@dataclass(frozen=True)
class Region:
    """Where data are as dense as around their own rows between the shares ``low`` and ``high``, the densest first."""

    low: float
    high: float
    rows: int
    share: float
    """of the rollouts' rows; of the data's it is high - low"""
    mean: dict[str, float]
    """of each uncertainty; NaN where there is no row"""
    rank: dict[str, float]
    """mean rank of each uncertainty among all rows, 0 the lowest and 1 the highest"""


@dataclass(frozen=True)
class Departure:
    """How far rollouts go from the data, and how their uncertainties go with it. `asdict` gives what JSON has."""

    rows: int
    distance: float
    data_distance: float
    """median distances: of the rollouts' rows, and of the data's own"""
    outside: float
    spearman: dict[str, float]
    steps: list[Step]
    regions: list[Region]


def neighbour_distance(queries: Values, references: Values, k: int = NEIGHBOURS) -> Values:
    """Distance `[n]` of each row `[n, D]` to the k-th nearest reference row `[m, D]`; of fewer than k, the farthest.

    Euclidean, by brute force: it takes the same time in a hundred dimensions, where a tree gains nothing.
    """
    squares = (references**2).sum(axis=1)
    nearest = min(k, len(references)) - 1
    distance = np.empty(len(queries))
    for start in range(0, len(queries), _BLOCK_ROWS):
        rows = queries[start : start + _BLOCK_ROWS]
        near = np.partition(squares - 2 * rows @ references.T, nearest, axis=1)[:, nearest] + (rows**2).sum(axis=1)
        distance[start : start + _BLOCK_ROWS] = np.sqrt(np.maximum(near, 0.0))
    return distance


def departure(
    distance: ArrayLike, data_distance: ArrayLike, uncertainties: Mapping[str, ArrayLike], step: ArrayLike
) -> Departure:
    """What the distances `[n]` of rollouts' rows tell beside the data's own `[m]`.

    ``uncertainties`` `[n]` and ``step`` `[n]`, counted from 0, are of the rollouts' rows.
    """
    d, of_data, steps = np.asarray(distance, np.float64), np.asarray(data_distance, np.float64), np.asarray(step)
    u = {name: np.asarray(values, np.float64) for name, values in uncertainties.items()}
    outside = d > np.quantile(of_data, COVERED_SHARE)
    return Departure(
        len(d),
        float(np.median(d)),
        float(np.median(of_data)),
        float(outside.mean()),
        {name: spearman(values, d) for name, values in u.items()},
        [_step(int(k), steps == k, d, outside, u) for k in np.unique(steps)],
        _regions(d, of_data, u),
    )


def _step(k: int, here: NDArray[np.bool_], d: Values, outside: NDArray[np.bool_], u: Mapping[str, Values]) -> Step:
    correlations = {name: spearman(values[here], d[here]) for name, values in u.items()}
    return Step(k + 1, int(here.sum()), float(np.median(d[here])), float(outside[here].mean()), correlations)


def _regions(d: Values, of_data: Values, u: Mapping[str, Values]) -> list[Region]:
    place = np.searchsorted(np.quantile(of_data, _EDGES[1:-1]), d, side="left")
    ranks = {name: (rankdata(values) - 0.5) / len(values) for name, values in u.items()}
    regions = []
    for i, (low, high) in enumerate(pairwise(_EDGES)):
        here = place == i
        mean, rank = ({name: _mean(values[here]) for name, values in of.items()} for of in (u, ranks))
        regions.append(Region(low, high, int(here.sum()), float(here.mean()), mean, rank))
    return regions


def _mean(values: Values) -> float:
    return float(values.mean()) if len(values) else np.nan


@dataclass(frozen=True, eq=False)
class Density:
    """The density of points in the plane: ``share`` `[cells, cells]` of them by cell of x and y, smoothed."""

    x: Values
    y: Values
    """edges `[cells + 1]`"""
    share: Values
    level: float
    """the share in a cell from which on the cells hold 99 % of the points"""

    def at(self, points: Values) -> Values:
        """The share `[n]` in the cells of points `[n, 2]`, 0 beyond the edges."""
        i, j = (np.searchsorted(edges, points[:, axis]) - 1 for axis, edges in enumerate((self.x, self.y)))
        inside = (i >= 0) & (i < len(self.x) - 1) & (j >= 0) & (j < len(self.y) - 1)
        shares = np.zeros(len(points))
        shares[inside] = self.share[i[inside], j[inside]]
        return shares

    def outside(self, points: Values) -> float:
        """The share of points `[n, 2]` outside the region that holds 99 % of those the density is of."""
        return float((self.at(points) < self.level).mean())


def density_map(points: Values) -> Density:
    """The density of points `[n, 2]` by Gaussian kernels, half as wide as Scott's rule says, which is for one hill."""
    bandwidth = np.maximum(points.std(axis=0), 1e-9) * len(points) ** (-1 / 6) / 2
    low, high = points.min(axis=0) - 3 * bandwidth, points.max(axis=0) + 3 * bandwidth
    edges = [np.linspace(a, b, _CELLS + 1) for a, b in zip(low, high, strict=True)]
    counts, x, y = np.histogram2d(points[:, 0], points[:, 1], bins=edges)
    share = gaussian_filter(counts / len(points), bandwidth * _CELLS / (high - low), mode="constant")
    density = Density(x, y, share, 0.0)
    return Density(x, y, share, float(np.quantile(density.at(points), 1 - COVERED_SHARE)))


@dataclass(frozen=True, eq=False)
class Map:
    """Data and rollouts in the plane: what its axes are, the density of the data, and the rollouts' rows `[n, 2]`."""

    name: str
    axes: tuple[str, str]
    density: Density
    points: Values


@dataclass(frozen=True, eq=False)
class Scaler:
    """Columns in standard deviations from their mean; a column of ``columns`` `[D]` varies, the others are left out."""

    mean: Values
    std: Values
    columns: NDArray[np.int64]

    def __call__(self, rows: ArrayLike) -> Values:
        """Rows `[n, O + A]` -> `[n, D]`."""
        scaled: Values = (np.asarray(rows, np.float64)[:, self.columns] - self.mean) / self.std
        return scaled


def fit_scaler(rows: ArrayLike) -> Scaler:
    """The scaler of states and actions `[n, O + A]`. ValueError where no column varies."""
    matrix = np.asarray(rows, np.float64)
    columns = np.flatnonzero(matrix.min(axis=0) < matrix.max(axis=0))
    if not len(columns):
        raise ValueError("no column varies")
    used = matrix[:, columns]
    return Scaler(used.mean(axis=0), used.std(axis=0), columns)


def principal_components(rows: Values) -> tuple[Projection, list[float]]:
    """The first two principal components of rows `[n, D]`, n > 1, and the share of the variance that each explains.

    A component points to where its largest weight is positive; the second of a single column is zero.
    """
    mean = rows.mean(axis=0)
    _, spread, directions = np.linalg.svd(rows - mean, full_matrices=False)
    first = np.zeros((2, rows.shape[1]))
    first[: len(directions)] = directions[:2]
    largest = np.abs(first).argmax(axis=1)
    first[first[[0, 1], largest] < 0] *= -1
    shares = np.zeros(2)
    shares[: len(spread)] = (spread**2 / (spread**2).sum())[:2]

    def project(these: Values) -> Values:
        projected: Values = (these - mean) @ first.T
        return projected

    return project, shares.tolist()


def umap_version() -> str | None:
    """The version of umap-learn, None where it is not installed. Does not import it, which takes seconds."""
    try:
        return version("umap-learn")
    except PackageNotFoundError:
        return None


def umap_projection(rows: Values, seed: int) -> Projection:
    """The map by UMAP (McInnes et al. 2018) of rows `[n, D]`, with its authors' settings; further rows find their
    place in it. Raises whatever the import of umap-learn raises.
    """
    from umap import UMAP

    fitted = UMAP(random_state=seed, n_jobs=1).fit(rows)

    def project(these: Values) -> Values:
        return np.asarray(fitted.transform(these), np.float64)

    return project
