import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from mopo_cli.data.statistics import dataset_statistics
from mopo_cli.data.transitions import DatasetInfo, Transitions
from mopo_cli.report import plots
from mopo_cli.report.canvas import DOTS_PER_INCH

EPOCHS = [1, 2, 3]
RETURNS = [[0.0, 10.0, 5.0], [20.0, 40.0, 60.0], [100.0, np.nan, 300.0]]


def lines_of(axes: Any) -> Any:
    return {line.get_label(): line for line in axes.get_lines()}


def legend_of(axes: Any) -> Any:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_a_learning_curve_shows_mean_band_and_references(figures: Any, tmp_path: Path) -> None:
    curves = {"λ = 1": (EPOCHS, RETURNS), "none": ([1], [[7.0]])}
    plots.learning_curve(tmp_path / "x.png", "hopper", curves, {"data mean": 31.0, "data best": 312.0})
    (axes,) = figures[0].axes
    lines = lines_of(axes)

    assert lines["λ = 1"].get_xdata().tolist() == EPOCHS
    assert lines["λ = 1"].get_ydata().tolist() == [5.0, 40.0, 200.0]
    assert lines["none"].get_ydata().tolist() == [7.0]
    band = axes.collections[0].get_paths()[0].vertices
    assert {tuple(point) for point in band} == {(1, 0), (1, 10), (2, 20), (2, 60), (3, 100), (3, 300)}
    for label, value in [("data mean", 31.0), ("data best", 312.0)]:
        assert set(lines[label].get_ydata()) == {value}
        assert lines[label].get_linestyle() == "--"
    assert legend_of(axes) == ["λ = 1", "none", "data mean", "data best"]
    assert (axes.get_title(), axes.get_xlabel(), axes.get_ylabel()) == ("hopper", "epoch", "return")


def test_an_epoch_without_any_finite_return_is_a_gap(figures: Any, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plots.learning_curve(tmp_path / "x.png", "t", {"a": ([1, 2], [[np.nan], [3.0]])}, {})
    drawn = lines_of(figures[0].axes[0])["a"].get_ydata()
    assert np.isnan(drawn[0]) and drawn[1] == 3.0


def test_an_ablation_shows_every_seed_and_mean_with_std(figures: Any, tmp_path: Path) -> None:
    cells = {"max-var λ=1": [1.0, 3.0], "none": [10.0, np.nan], "diverged": [np.nan, np.nan]}
    plots.ablation_plot(tmp_path / "x.png", "t", cells, {"data mean": 2.5})
    (axes,) = figures[0].axes

    assert [label.get_text() for label in axes.get_yticklabels()] == list(cells)
    bottom, top = axes.get_ylim()
    assert bottom > top, "cells run from top to bottom"
    dots = [line for line in axes.get_lines() if line.get_marker() == "o"]
    assert [dot.get_xdata().tolist() for dot in dots] == [[1.0, 3.0], [10.0], []]
    assert [set(dot.get_ydata()) for dot in dots] == [{0.0}, {1.0}, set()]
    means = [line for line in axes.get_lines() if line.get_marker() == "D"]
    assert [(mean.get_xdata()[0], mean.get_ydata()[0]) for mean in means] == [(2.0, 0), (10.0, 1)]
    bars = [bar.get_segments()[0].tolist() for bar in axes.collections]
    assert bars == [[[1.0, 0.0], [3.0, 0.0]], [[10.0, 1.0], [10.0, 1.0]]]
    assert legend_of(axes) == ["data mean"]


@pytest.mark.parametrize("draw", ["learning_curve", "ablation_plot"])
def test_a_png_with_ink_replaces_the_old_file(tmp_path: Path, draw: Any) -> None:
    path = tmp_path / "plots" / "figure.png"
    path.parent.mkdir()
    path.write_bytes(b"old")
    data = {"my $_{$": (EPOCHS, RETURNS) if draw == "learning_curve" else [1.0, 2.0]}
    getattr(plots, draw)(path, "./$_{$.h5", data, {"best $_{$": 5.0})
    image = imread(path)
    assert image.shape[1] == 8 * DOTS_PER_INCH
    assert 0.01 < (image[..., :3] < 0.9).any(axis=2).mean() < 0.5
    assert [file.name for file in path.parent.iterdir()] == ["figure.png"]


def test_the_same_data_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        plots.learning_curve(tmp_path / name, "t", {"a": (EPOCHS, RETURNS)}, {})
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_failed_plot_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "figure.png"
    path.write_bytes(b"old")
    with pytest.raises(ValueError):
        plots.learning_curve(path, "t", {"a": ([1, 2], RETURNS)}, {})
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["figure.png"]


def test_importing_is_cheap_and_drawing_needs_no_pyplot(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from mopo_cli.report import plots, plots_rollouts, tables
assert not {"matplotlib", "torch"} & set(sys.modules)
plots.ablation_plot(Path(sys.argv[1]), "t", {"a": [1.0]}, {})
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "x.png")], check=True, timeout=60)
    assert (tmp_path / "x.png").stat().st_size > 0


def dataset(obs_dim: int = 4, episodes: int = 3) -> Any:
    """Episodes of 50 steps in which a third of the second action lies at its lower bound, 0."""
    draw = np.random.default_rng(0)
    n = 50 * episodes
    obs = draw.standard_normal((n, obs_dim)).astype(np.float32)
    actions = draw.uniform(0.1, 0.9, (n, 2)).astype(np.float32)
    actions[::3, 1] = 0
    ends = np.arange(n) % 50 == 49
    rewards = draw.uniform(0, 1, n).astype(np.float32)
    rows = Transitions(obs, actions, rewards, obs, np.zeros(n, np.bool_), ends)
    bounds = np.zeros(2, np.float32), np.ones(2, np.float32)
    return dataset_statistics(rows, DatasetInfo("d", None, "s", *bounds, "none", None, None, None))


def test_a_dataset_is_drawn_panel_by_panel(figures: Any, tmp_path: Path) -> None:
    drawn = dataset()
    plots.dataset_plot(tmp_path / "x.png", "./$_{$.h5", drawn)
    (figure,) = figures
    panels = {axes.get_title(): axes for axes in figure.axes}
    assert figure.get_suptitle() == "./$_{$.h5"

    for title, histogram in (
        ("Episode returns", drawn.returns),
        ("Distance to the nearest row elsewhere", drawn.neighbours.histogram),
    ):
        (steps,) = panels[title].patches
        assert steps.get_data().values.tolist() == histogram.counts
        assert steps.get_data().edges.tolist() == histogram.edges
    (lengths,) = panels["Episode lengths"].patches
    assert lengths.get_data().values.tolist() == [3]
    assert lengths.get_data().edges[0] < 50 < lengths.get_data().edges[1]

    (image,) = panels["Actions between their bounds"].images
    shares = np.asarray(image.get_array())
    assert shares.shape == (2, 20)
    assert shares.sum(axis=1) == pytest.approx([1, 1])
    assert shares[1, 0] == pytest.approx(1 / 3)
    widths = [bar.get_width() for bar in panels["Actions within 1 % of their bounds"].patches]
    assert widths == pytest.approx([0, -100 / 3, 0, 0])

    ranges = panels["Observations: all rows, the middle 98 % and the median"]
    whole, middle = (bars.get_segments() for bars in ranges.collections)
    for i, column in enumerate(drawn.observations):
        assert whole[i].tolist() == [[i, column.min], [i, column.max]]
        assert middle[i].tolist() == [[i, column.p1], [i, column.p99]]
    assert ranges.get_lines()[0].get_ydata().tolist() == [column.median for column in drawn.observations]


@pytest.mark.parametrize("episodes", [1, 3])
def test_a_picture_of_a_wide_dataset_is_a_png_with_ink(tmp_path: Path, episodes: int) -> None:
    path = tmp_path / "plots" / "wide.png"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plots.dataset_plot(path, "wide", dataset(obs_dim=111, episodes=episodes))
    image = imread(path)
    assert image.shape[1] == 13 * DOTS_PER_INCH
    assert 0.05 < (image[..., :3] < 0.9).any(axis=2).mean() < 0.7
    assert [file.name for file in path.parent.iterdir()] == ["wide.png"]
