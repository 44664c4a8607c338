"""What is drawn of rollout files, panel by panel, and that odd ones are drawn at all."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from mopo_cli.evaluation.density import Map, density_map, departure
from mopo_cli.evaluation.diagnosis import diagnose
from mopo_cli.report import plots_rollouts as plots
from mopo_cli.report.canvas import DOTS_PER_INCH

NAMES = ("max-var", "avg-var", "ens", "discrepancy", "ratio")


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def rows(names: Any, n: int = 600) -> Any:
    """Errors over decades, of which a tenth is not known, what goes with them (a ratio also below 0), and steps."""
    draw = np.random.default_rng(0)
    error = 10.0 ** draw.uniform(-3, 1, n)
    columns = {name: error * draw.uniform(0.5, 1.5, n) for name in names}
    if "ratio" in columns:
        columns["ratio"][::7] *= -0.1
    error[::10] = np.nan
    return columns, error, np.arange(n) % 3


@pytest.mark.parametrize("names", [NAMES[:1], NAMES[:2], NAMES])
def test_a_diagnosis_is_drawn_panel_by_panel(figures: Any, tmp_path: Path, names: Any) -> None:
    columns, error, step = rows(names)
    diagnosis, finite = diagnose(columns, error, step), np.isfinite(error)
    plots.diagnosis_plot(tmp_path / "x.png", "my $_{$", diagnosis, columns, error)
    (figure,) = figures
    panels = [axes for axes in figure.axes if axes.axison]
    *scatters, steps = panels
    assert figure.get_suptitle() == "my $_{$" and len(panels) == len(names) + 1
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        *("rows", "the middle 80 % of each tenth", "the mean of each tenth", "least squares")
    ]
    for axes, (name, values) in zip(scatters, columns.items(), strict=True):
        r = diagnosis.uncertainties[name]
        correlations, line_of = axes.get_title().split("\n")
        assert correlations == f"{name}: Pearson {r.pearson:.2f}, Spearman {r.spearman:.2f}"
        assert line_of.startswith(f"error = {r.slope:.3g} u ") and f"{abs(r.intercept):.2g}" in line_of
        assert ("- " in line_of) == (r.intercept < 0)
        dots, means, line = axes.get_lines()
        assert dots.get_xdata().tolist() == values[finite].tolist()
        assert dots.get_ydata().tolist() == error[finite].tolist()
        x = line.get_xdata()
        assert (x[0], x[-1]) == (values[finite].min(), values[finite].max())
        assert line.get_ydata() == pytest.approx(r.intercept + r.slope * x)
        assert means.get_xydata().tolist() == [[b.uncertainty, b.error] for b in r.calibration]
        band = {tuple(point) for point in axes.collections[0].get_paths()[0].vertices}
        assert band >= {(b.uncertainty, edge) for b in r.calibration for edge in (b.error_p10, b.error_p90)}
        assert axes.get_xscale() == ("symlog" if name == "ratio" else "log")
        assert (axes.get_yscale(), axes.get_ylim()) == ("log", scatters[0].get_ylim())
        assert axes.get_ylim() == pytest.approx(np.quantile(error[finite], (0.005, 0.995)))
    for line, figure_of in zip(steps.get_lines(), ("mean", "median", "p90"), strict=True):
        assert line.get_xdata().tolist() == [1, 2, 3]
        assert line.get_ydata().tolist() == [getattr(s, figure_of) for s in diagnosis.steps]
    assert steps.get_yscale() == "linear" and steps.get_ylim()[0] == 0


def test_errors_of_one_size_have_an_axis_from_zero(figures: Any, tmp_path: Path) -> None:
    error = np.random.default_rng(0).uniform(1, 2, 500)
    plots.diagnosis_plot(tmp_path / "x.png", "t", diagnose({"a": error}, error, error * 0), {"a": error}, error)
    axes = figures[0].axes[0]
    assert axes.get_yscale() == axes.get_xscale() == "linear"
    assert axes.get_ylim() == pytest.approx((0, 1.05 * np.quantile(error, 0.995)))


@pytest.mark.parametrize(("names", "columns"), [("a", 2), ("abc", 2), ("abcd", 3), ("abcdef", 4)])
def test_a_diagnosis_of_columns_that_do_not_vary_is_a_png_with_ink(tmp_path: Path, names: Any, columns: Any) -> None:
    zero = np.zeros(5)
    diagnosis = diagnose(dict.fromkeys(names, zero), zero, zero)
    plots.diagnosis_plot(tmp_path / "x.png", "t", diagnosis, dict.fromkeys(names, zero), zero)
    image = imread(tmp_path / "x.png")
    assert image.shape[1] == round(4.9 * columns * DOTS_PER_INCH)
    assert 0.005 < (image[..., :3] < 0.9).any(axis=2).mean() < 0.5


def mapped(names: Any = NAMES, maps: tuple[str, ...] = ("pca",)) -> Any:
    """A cloud of data, and rollouts that stand to its right."""
    draw = np.random.default_rng(0)
    data, points = draw.normal(size=(4000, 2)), draw.normal((1, 0), 1, size=(600, 2))
    columns, _, step = rows(names)
    distance = np.linalg.norm(points, axis=1)
    result = departure(distance, np.linalg.norm(data, axis=1), columns, step)
    drawn = [Map(name, (f"{name} 1", f"{name} 2"), density_map(data), points) for name in maps]
    return result, drawn, columns


@pytest.mark.parametrize("maps", [("pca",), ("pca", "umap")])
def test_a_map_per_projection_and_uncertainty_and_two_summaries(
    figures: Any, tmp_path: Path, maps: tuple[str, ...]
) -> None:
    result, drawn, columns = mapped(maps=maps)
    plots.departure_plot(tmp_path / "x.png", "my $_{$", result, drawn, columns)
    (figure,) = figures
    figure.canvas.draw()
    assert figure.get_suptitle() == "my $_{$"
    *placed, outside, ranks = [axes for axes in figure.axes if axes.axison and axes.get_title()]
    assert len(placed) == len(NAMES) * len(maps)
    for axes, (one, name) in zip(placed, [(one, name) for name in NAMES for one in drawn], strict=True):
        assert axes.get_title() == f"{name}: Spearman {result.spearman[name]:.2f} with the distance"
        assert (axes.get_xlabel(), axes.get_ylabel()) == one.axes
        dots = axes.collections[-1]
        assert np.asarray(dots.get_offsets()).tolist() == one.points.tolist()
        assert np.asarray(dots.get_array()).tolist() == columns[name].tolist()
        (image,) = axes.images
        share = one.density.share
        assert np.asarray(image.get_array()) == pytest.approx(np.sqrt(share.T)) and image.origin == "lower"
        assert image.get_extent() == [one.density.x[0], one.density.x[-1], one.density.y[0], one.density.y[-1]]
        # The outline goes through the cells where the density takes the level of 99 %.
        outline = np.concatenate([path.vertices for path in axes.collections[0].get_paths()])
        assert one.density.at(outline) == pytest.approx(one.density.level, rel=1.5)
        assert np.linalg.norm(outline, axis=1).mean() == pytest.approx(np.sqrt(-2 * np.log(0.01)), rel=0.1)
        low, high = axes.get_xlim()
        assert low < outline[:, 0].min() and high > np.quantile(one.points[:, 0], 0.995)
    rollouts, data = outside.get_lines()
    assert rollouts.get_xydata().tolist() == [[s.step, 100 * s.outside] for s in result.steps]
    assert set(data.get_ydata()) == {1}
    assert [line.get_label() for line in ranks.get_lines()] == list(NAMES)
    for line in ranks.get_lines():
        assert line.get_ydata().tolist() == [100 * r.rank[line.get_label()] for r in result.regions]
    labels = [label.get_text() for label in ranks.get_xticklabels()]
    assert labels[0] == "10 %" and labels[-3:] == ["90 %", "99 %", "beyond"]


@pytest.mark.parametrize("names", ["a", "ab"])
def test_rollouts_that_do_not_vary_are_a_png_with_ink(tmp_path: Path, names: Any) -> None:
    same, columns = np.zeros((5, 2)), dict.fromkeys(names, np.zeros(5))
    result = departure(np.zeros(5), np.zeros(3), columns, np.zeros(5))
    drawn = [Map("pca", ("1", "2"), density_map(same), same)]
    plots.departure_plot(tmp_path / "x.png", "t", result, drawn, columns)
    image = imread(tmp_path / "x.png")
    assert 0.005 < (image[..., :3] < 0.9).any(axis=2).mean() < 0.6


def test_the_same_rollouts_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        plots.departure_plot(tmp_path / name, "t", *(mapped(("a",))[i] for i in (0, 1, 2)))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
