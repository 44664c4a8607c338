"""How densely data cover the state-action space: distances to the nearest neighbour, and repeated rows."""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from mopo_cli.data.transitions import Floats, Transitions, episode_lengths, episode_starts

QUERIES, REFERENCES = 2_000, 50_000
STRETCH = 1_000
"""Steps after which a long episode counts as another stretch."""
_BLOCK_ROWS = 1 << 15
_BLOCK_QUERIES = 128

Floats64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Coverage:
    """How far rows lie from the nearest row of another stretch, over z-scored states and actions."""

    distances: Floats64
    """`[queries]`, ascending; in standard deviations"""
    references: int
    """rows among which the neighbours were looked for"""
    dimensions: int
    """columns measured: those that are not constant. Two rows drawn at random from normal data would lie about
    ``sqrt(2 * dimensions)`` apart"""


def coverage(
    transitions: Transitions, mean: Floats64, std: Floats64, generator: np.random.Generator
) -> Coverage | None:
    """Distances between drawn rows and their nearest neighbours among other drawn rows; None where there are none.

    ``mean`` and ``std`` `[O + A]` are those of the columns; a column with std 0 is left out. Up to `QUERIES`
    rows are measured against up to `REFERENCES` rows, both without replacement, so that sets of more rows than
    that compare with each other; a smaller set has sparser references and larger distances.

    A neighbour must come from another stretch: another episode, or another `STRETCH` steps of a longer one.
    The rows just before and after lie one step away however thin the data are, and would measure the length
    of a step instead of whether anything else in the data came by. Euclidean, by brute force: a tree gains
    nothing in a hundred dimensions.
    """
    used = std > 0
    queries = _draw(len(transitions), QUERIES, generator)
    references = _draw(len(transitions), REFERENCES, generator)
    if not used.any():
        return None
    columns = np.flatnonzero(used)
    queried, reference = (_scaled(transitions, rows, mean, std)[:, columns] for rows in (queries, references))
    stretches = _stretches(transitions)
    distances = _nearest(queried, reference, stretches[queries], stretches[references])
    distances = np.sort(distances[np.isfinite(distances)])
    return Coverage(distances, len(references), len(columns)) if len(distances) else None


def repeated_rows(transitions: Transitions) -> int:
    """Number of rows whose state and action equal those of an earlier row; 0 and -0 are equal."""
    digests = [
        b"".join(blake2b(row.tobytes(), digest_size=16).digest() for row in block + np.float32(0))
        for block in joint_blocks(transitions)
    ]
    return len(transitions) - len(np.unique(np.frombuffer(b"".join(digests), "V16")))


def _draw(rows: int, most: int, generator: np.random.Generator) -> NDArray[np.int64]:
    return np.sort(generator.choice(rows, min(rows, most), replace=False))


def _scaled(transitions: Transitions, rows: NDArray[np.int64], mean: Floats64, std: Floats64) -> Floats64:
    joint = np.concatenate([transitions.observations[rows], transitions.actions[rows]], axis=1, dtype=np.float64)
    return (joint - mean) / np.where(std > 0, std, 1.0)


def _stretches(transitions: Transitions) -> NDArray[np.int64]:
    """A number `[N]` that rows share when they belong to the same stretch."""
    starts = np.repeat(episode_starts(transitions), episode_lengths(transitions))
    rows = np.arange(len(transitions))
    return rows - (rows - starts) % STRETCH


def _nearest(
    queries: Floats64, references: Floats64, stretch: NDArray[np.int64], reference_stretch: NDArray[np.int64]
) -> Floats64:
    """Distance `[Q]` of each row to the nearest held row of another stretch, infinite where there is none."""
    distances = np.full(len(queries), np.inf)
    half_squares = (references**2).sum(axis=1) / 2
    for start in range(0, len(queries), _BLOCK_QUERIES):
        block = slice(start, start + _BLOCK_QUERIES)
        order = half_squares - queries[block] @ references.T  # ranks as the distance does
        order[stretch[block, None] == reference_stretch] = np.inf
        nearest = order.argmin(axis=1)
        has_neighbour = np.isfinite(order[np.arange(len(order)), nearest])
        # From the difference itself: the ranking is off by rounding, in which a distance of 0 would drown.
        gaps = np.sqrt(((queries[block] - references[nearest]) ** 2).sum(axis=1))
        distances[block] = np.where(has_neighbour, gaps, np.inf)
    return distances


def joint_blocks(transitions: Transitions) -> Iterator[Floats]:
    """Observations beside actions, `[n, O + A]` at a time."""
    for start in range(0, len(transitions), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        yield np.concatenate([transitions.observations[rows], transitions.actions[rows]], axis=1)
