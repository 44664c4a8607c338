"""Distances and densities of clouds whose density is known, and what is told of rollouts that leave one."""

import itertools
import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from mopo_cli.evaluation.density import density_map, departure, neighbour_distance

pytestmark = pytest.mark.filterwarnings("error")


@given(st.integers(1, 12), st.integers(1, 40), st.integers(1, 5), st.integers(1, 12), st.floats(-1e3, 1e3))
def test_the_distance_is_that_to_the_k_th_nearest(sought: Any, held: Any, width: int, k: int, away: Any) -> None:
    draw = np.random.default_rng(sought * held)
    a, b = draw.normal(size=(sought, width)) + away, draw.normal(size=(held, width)) + away
    expected = np.sort(cdist(a, b), axis=1)[:, min(k, held) - 1]
    assert neighbour_distance(a, b, k) == pytest.approx(expected, abs=1e-4)


def test_many_rows_are_measured_block_by_block() -> None:
    draw = np.random.default_rng(0)
    a, b = draw.normal(size=(600, 3)), draw.normal(size=(100, 3))
    assert neighbour_distance(a, b, 4) == pytest.approx(np.sort(cdist(a, b), axis=1)[:, 3], abs=1e-6)
    assert neighbour_distance(b, b, 1) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("width", [2, 6])
def test_distances_rank_rows_as_a_gaussian_s_density_does(width: int) -> None:
    draw = np.random.default_rng(0)
    references, queries = draw.normal(size=(8000, width)), 1.5 * draw.normal(size=(500, width))
    mahalanobis = np.linalg.norm(queries, axis=1)
    rank = scipy.stats.spearmanr(neighbour_distance(queries=queries, references=references), mahalanobis).statistic
    assert rank > 0.95
    # And as the known density has it: k = n density volume(distance), in the plane.
    if width == 2:
        near = mahalanobis < 1.5
        density = np.exp(-(mahalanobis[near] ** 2) / 2) / (2 * np.pi)
        volume = np.pi * neighbour_distance(queries[near], references, 50) ** 2
        assert np.median(len(references) * density * volume) == pytest.approx(50, rel=0.05)


def left(n: int = 4000) -> Any:
    """Distances of data and of rollouts that leave them step by step; an uncertainty that knows and one that errs."""
    draw = np.random.default_rng(1)
    data_distance, step = draw.exponential(size=25 * n), np.arange(n) % 4
    distance = draw.exponential(size=n) * (1 + step)
    return data_distance, distance, {"knows": distance**3, "errs": -distance, "same": np.ones(n)}, step


def test_the_share_outside_grows_as_rollouts_leave() -> None:
    data_distance, distance, uncertainties, step = left()
    result = departure(distance, data_distance, uncertainties, step)
    # Of an exponential, 1 % lies beyond ln 100; of one s times as wide, 100 ^ (-1 / s) of it.
    for place, here in enumerate(result.steps):
        mine = distance[step == place]
        assert (here.step, here.rows, here.distance) == (place + 1, 1000, pytest.approx(np.median(mine)))
        assert here.outside == pytest.approx(100 ** (-1 / (place + 1)), abs=0.03)
        assert here.spearman == pytest.approx({"knows": 1, "errs": -1, "same": np.nan}, nan_ok=True)
        turned = departure(distance, data_distance, {"turns": distance * (-1) ** step}, step)
        assert turned.steps[place].spearman["turns"] == pytest.approx((-1) ** place)
    assert result.outside == pytest.approx(np.mean([here.outside for here in result.steps]))
    assert (result.rows, result.distance, result.data_distance) == (4000, np.median(distance), np.median(data_distance))
    assert result.spearman == pytest.approx({"knows": 1, "errs": -1, "same": np.nan}, nan_ok=True)
    json.dumps(asdict(result))


def test_regions_are_those_of_the_data() -> None:
    data_distance, distance, uncertainties, step = left()
    regions = departure(distance, data_distance, uncertainties, step).regions
    edges = [*(k / 10 for k in range(10)), 0.99, 1]
    assert [(r.low, r.high) for r in regions] == list(itertools.pairwise(edges))
    assert sum(r.rows for r in regions) == 4000 and sum(r.share for r in regions) == pytest.approx(1)
    order = np.argsort(np.argsort(distance))
    for r in regions:
        low = np.quantile(data_distance, r.low) if r.low else -1
        high = np.quantile(data_distance, r.high) if r.high < 1 else np.inf
        here = (distance > low) & (distance <= high)
        assert r.rows == here.sum() and r.share == pytest.approx(here.mean())
        assert r.mean == pytest.approx(
            {"knows": (distance[here] ** 3).mean(), "errs": -distance[here].mean(), "same": 1}
        )
        rank = (order[here] + 0.5).mean() / 4000
        assert r.rank == pytest.approx({"knows": rank, "errs": 1 - rank, "same": 0.5})


def test_rollouts_that_are_like_the_data_are_in_all_regions_alike() -> None:
    draw = np.random.default_rng(0)
    result = departure(draw.normal(size=20000), draw.normal(size=20000), {}, np.zeros(20000))
    assert result.outside == pytest.approx(0.01, abs=0.003)
    assert [r.share for r in result.regions] == pytest.approx([*[0.1] * 9, 0.09, 0.01], abs=0.01)


def test_a_region_without_rows_has_no_mean() -> None:
    result = departure([0.0, 0.0], np.arange(100.0), {"a": [1.0, 2.0]}, [0, 0])
    assert result.regions[0].mean == {"a": 1.5}
    assert np.isnan(result.regions[-1].mean["a"]) and np.isnan(result.regions[-1].rank["a"])
    assert [r.rows for r in result.regions] == [2, *[0] * 10]


def test_a_map_s_density_is_the_gaussian_s() -> None:
    draw = np.random.default_rng(0)
    scale = np.array([3.0, 0.5])
    points = draw.normal(size=(20000, 2)) * scale + [10, -4]
    density = density_map(points)
    assert density.share.sum() == pytest.approx(1, abs=1e-3)
    area = np.diff(density.x)[0] * np.diff(density.y)[0]
    places = draw.uniform(-1.2, 1.2, size=(400, 2))
    true = np.exp(-(places**2).sum(axis=1) / 2) / (2 * np.pi * scale.prod())
    assert density.at(places * scale + [10, -4]) / area == pytest.approx(true, rel=0.3)
    # 99 % of a Gaussian in the plane lie within sqrt(2 ln 100) deviations of its middle.
    assert density.outside(points) == pytest.approx(0.01, abs=1e-3)
    angle = np.linspace(0, 6, 50)
    ring = np.column_stack([np.cos(angle), np.sin(angle)]) * np.sqrt(2 * np.log(100))
    assert density.outside(0.85 * ring * scale + [10, -4]) == 0
    assert density.outside(1.25 * ring * scale + [10, -4]) == 1


def test_beyond_the_edges_there_is_nothing() -> None:
    density = density_map(np.random.default_rng(0).normal(size=(500, 2)))
    far = np.array([[50.0, 0.0], [-50.0, 0.0], [0.0, 50.0], [0.0, -50.0]])
    assert density.at(far).tolist() == [0] * 4 and density.outside(far) == 1
    assert density.at(np.zeros((1, 2)))[0] > density.level


def test_points_in_one_place_have_a_density() -> None:
    density = density_map(np.full((20, 2), 3.0))
    assert density.outside(np.full((4, 2), 3.0)) == 0 and density.outside(np.zeros((4, 2))) == 1
