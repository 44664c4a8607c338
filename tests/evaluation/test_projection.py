"""Principal components against the eigenvectors of the covariance, and against a plane that is known."""

import sys
import types
from importlib.metadata import PackageNotFoundError
from typing import Any, NoReturn

import numpy as np
import pytest

from mopo_cli.evaluation import density as projection
from mopo_cli.evaluation.density import fit_scaler, principal_components, umap_projection, umap_version


def rows(n: int = 500, width: int = 6) -> Any:
    draw = np.random.default_rng(0)
    return draw.normal(size=(n, 3)) @ draw.normal(size=(3, width)) + 0.1 * draw.normal(size=(n, width)) + 5


def test_scaled_rows_have_mean_0_and_deviation_1() -> None:
    data = np.column_stack([rows(), np.full(500, 7.0), 1e-4 * rows()[:, :1]])
    scaler = fit_scaler(data.astype(np.float32))
    scaled = scaler(data.astype(np.float32))
    assert scaler.columns.tolist() == [0, 1, 2, 3, 4, 5, 7]
    assert scaled.mean(axis=0) == pytest.approx(np.zeros(7), abs=1e-9)
    assert scaled.std(axis=0) == pytest.approx(np.ones(7))
    single = scaler(data[:1])
    assert single == pytest.approx(scaled[:1], rel=1e-3, abs=1e-3)


def test_where_nothing_varies_there_is_no_scale() -> None:
    with pytest.raises(ValueError, match="no column varies"):
        fit_scaler(np.ones((5, 3)))


def test_components_are_the_eigenvectors_of_the_covariance() -> None:
    data = rows()
    project, shares = principal_components(data)
    values, vectors = np.linalg.eigh(np.cov(data.T))
    assert shares == pytest.approx((values[::-1] / values.sum())[:2].tolist())
    other = np.random.default_rng(1).normal(size=(20, 6))
    for k in range(2):
        vector = vectors[:, -1 - k] * np.sign(vectors[np.abs(vectors[:, -1 - k]).argmax(), -1 - k])
        assert project(other)[:, k] == pytest.approx((other - data.mean(axis=0)) @ vector)
    assert project(data).mean(axis=0) == pytest.approx([0, 0], abs=1e-9)
    assert np.cov(project(data).T) == pytest.approx(np.diag(values[::-1][:2]), abs=1e-9)


def test_a_plane_is_mapped_without_loss() -> None:
    draw = np.random.default_rng(0)
    base = np.linalg.qr(draw.normal(size=(9, 2)))[0]
    plane = draw.normal(size=(300, 2)) * [3, 1]
    project, shares = principal_components(plane @ base.T)
    assert sum(shares) == pytest.approx(1)
    between = project(plane @ base.T)
    assert np.linalg.norm(between[:1] - between, axis=1) == pytest.approx(np.linalg.norm(plane[:1] - plane, axis=1))


@pytest.mark.parametrize(("n", "width"), [(50, 1), (2, 5)])
def test_less_than_two_dimensions_are_drawn_on_a_line(n: int, width: int) -> None:
    data = rows(n, width)
    project, shares = principal_components(data)
    assert shares == pytest.approx([1, 0], abs=1e-12)
    assert project(data)[:, 1] == pytest.approx(np.zeros(n), abs=1e-9)
    gaps = np.linalg.norm(data - data[0], axis=1)
    assert np.abs(project(data)[:, 0] - project(data)[0, 0]) == pytest.approx(gaps)


def test_umap_is_asked_for_a_map_that_comes_out_the_same_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    class UMAP:
        def __init__(self, **how: Any) -> None:
            asked.update(how)

        def fit(self, data: Any) -> Any:
            asked["rows"] = data
            return self

        def transform(self, data: Any) -> Any:
            return data[:, :2].astype(np.float32)

    monkeypatch.setitem(sys.modules, "umap", types.SimpleNamespace(UMAP=UMAP))
    data = rows()
    placed = umap_projection(data, 3)(data[:4])
    assert placed.dtype == np.float64 and placed == pytest.approx(data[:4, :2])
    assert asked["random_state"] == 3 and asked["rows"] is data


def test_umap_s_version_is_known_without_importing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> NoReturn:
        raise PackageNotFoundError(name)

    monkeypatch.setitem(sys.modules, "umap", None)  # an import would fail
    monkeypatch.setattr(projection, "version", lambda name: {"umap-learn": "1.2"}[name])
    assert umap_version() == "1.2"
    monkeypatch.setattr(projection, "version", absent)
    assert umap_version() is None
    with pytest.raises(ImportError):
        umap_projection(rows(), 0)
