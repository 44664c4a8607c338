"""Neighbours and repeated rows, against plain loops and SciPy's tree."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from mopo_cli.data import coverage as module
from mopo_cli.data.coverage import coverage, repeated_rows
from mopo_cli.data.transitions import Transitions


def log(columns: np.ndarray, ends: list[int], act_dim: int = 1) -> Transitions:
    """Rows `[N, O + act_dim]` whose episodes end, as timeouts, at the rows ``ends``."""
    columns = columns.astype(np.float32)
    obs, n = columns[:, :-act_dim], len(columns)
    timeouts = np.isin(np.arange(n), ends)
    return Transitions(obs, columns[:, -act_dim:], np.zeros(n, np.float32), obs, np.zeros(n, np.bool_), timeouts)


def moments(transitions: Transitions) -> tuple[np.ndarray, np.ndarray]:
    joint = np.concatenate([transitions.observations, transitions.actions], axis=1, dtype=np.float64)
    return joint.mean(axis=0), joint.std(axis=0)


def measure(transitions: Transitions, seed: int = 0) -> module.Coverage | None:
    return coverage(transitions, *moments(transitions), np.random.default_rng(seed))


def walk(n: int, dims: int, seed: int = 0) -> np.ndarray:
    """A random walk: a row's nearest rows are those just before and after it."""
    return np.random.default_rng(seed).standard_normal((n, dims)).cumsum(axis=0)


def test_distances_are_those_a_loop_over_other_episodes_finds() -> None:
    columns = np.insert(walk(300, 4), 2, 7.0, axis=1) * [1, 100, 1, 1e-3, 1]  # a constant among columns of all scales
    ends = [0, 39, 40, 199, 299]
    measured = measure(log(columns, ends))
    assert measured is not None
    assert (measured.dimensions, measured.references, len(measured.distances)) == (4, 300, 300)

    scaled = columns.astype(np.float32).astype(np.float64)[:, [0, 1, 3, 4]]
    scaled = (scaled - scaled.mean(axis=0)) / scaled.std(axis=0)
    episode = np.searchsorted(ends, np.arange(300))
    naive = [
        min(np.linalg.norm(scaled[i] - scaled[j]) for j in range(300) if episode[j] != episode[i]) for i in range(300)
    ]
    np.testing.assert_allclose(measured.distances, np.sort(naive), rtol=1e-9)
    tree = cKDTree(scaled).query(scaled, k=2)[0][:, 1]
    assert np.median(tree) < 0.5 * np.median(measured.distances), (
        "the rows next to each other would have told otherwise"
    )


def test_a_long_episode_is_compared_with_its_other_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STRETCH", 50)
    columns = walk(125, 3)
    measured = measure(log(columns, []))
    assert measured is not None
    scaled = columns.astype(np.float32).astype(np.float64)
    scaled = (scaled - scaled.mean(axis=0)) / scaled.std(axis=0)
    trees = [cKDTree(np.delete(scaled, np.s_[start : start + 50], axis=0)) for start in (0, 50, 100)]
    expected = np.sort([trees[i // 50].query(scaled[i])[0] for i in range(125)])
    np.testing.assert_allclose(measured.distances, expected, rtol=1e-9)


def test_what_cannot_be_compared_is_none() -> None:
    assert measure(log(walk(30, 3), [])) is None, "one stretch"
    assert measure(log(np.ones((30, 3)), [4, 9])) is None, "nothing varies"


def test_a_copy_elsewhere_is_at_no_distance_however_large_the_numbers() -> None:
    episode = walk(60, 12) + 1e4
    measured = measure(log(np.concatenate([episode, episode]), [59]))
    assert measured is not None
    assert not measured.distances.any()


def test_drawn_rows_are_seeded_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUERIES", 200)
    monkeypatch.setattr(module, "REFERENCES", 500)
    data = log(walk(2000, 3), list(range(99, 2000, 100)))
    first, again, other = (measure(data, seed) for seed in (0, 0, 1))
    assert first and again and other
    assert (len(first.distances), first.references) == (200, 500)
    assert np.array_equal(first.distances, again.distances)
    assert not np.array_equal(first.distances, other.distances)


@pytest.mark.parametrize("block", [7, 1 << 15])
def test_repeated_rows_are_those_that_numpy_counts(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(module, "_BLOCK_ROWS", block)
    draw = np.random.default_rng(0)
    # Few values of few bits each: what a weak hash confuses.
    columns = 2.0 ** draw.integers(-3, 4, (4000, 5)) * draw.choice([-1, 0, 1], (4000, 5))
    columns[::9] = columns[0]
    assert repeated_rows(log(columns, [])) == 4000 - len(np.unique(columns + 0.0, axis=0)) > 400


def test_rows_that_differ_in_the_action_alone_are_not_repeated() -> None:
    columns = np.zeros((6, 3))
    columns[:, 2] = [0, 1, 2, 1, -0.0, 5]
    assert repeated_rows(log(columns, [])) == 2
