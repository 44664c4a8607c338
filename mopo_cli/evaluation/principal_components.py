"""States and actions on a common scale, and two dimensions out of them: principal components, and UMAP's map."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import numpy as np
from numpy.typing import ArrayLike, NDArray

Values = NDArray[np.float64]
Projection = Callable[[Values], Values]
"""Takes rows `[n, D]` to `[n, 2]`."""


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
