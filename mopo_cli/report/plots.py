"""Plots of returns and of datasets as PNG files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from mopo_cli.report.canvas import few, finish, grey, new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mopo_cli.data.statistics import Column, DatasetStatistics, Histogram

Curve = tuple[ArrayLike, ArrayLike]
"""Epochs `[E]` and the return of every seed at each of them `[E, S]`."""


def learning_curve(path: Path, title: str, curves: Mapping[str, Curve], reference_lines: Mapping[str, float]) -> None:
    """Publish a plot of return over epochs: per label the mean over seeds and the band from worst to best.

    `reference_lines` (such as the dataset's mean and best return) are dashed. A NaN return leaves its seed
    out of that epoch. The figure replaces `path` whole or not at all.
    """
    figure = new_figure(height=5.0)
    axes = figure.add_subplot()
    for i, (label, (epochs, returns)) in enumerate(curves.items()):
        seeds = np.ma.masked_invalid(np.asarray(returns, dtype=np.float64))
        line = seeds.mean(axis=1).filled(np.nan)
        low, high = seeds.min(axis=1).filled(np.nan), seeds.max(axis=1).filled(np.nan)
        axes.plot(epochs, line, color=f"C{i}", label=label, marker="." if len(line) < 30 else "")
        axes.fill_between(epochs, low, high, color=f"C{i}", alpha=0.2, linewidth=0)
    for i, (label, value) in enumerate(reference_lines.items()):
        axes.axhline(value, color=grey(i), linestyle="--", linewidth=1, label=label)
    finish(axes, title, "epoch", "return")
    save(figure, path)


def ablation_plot(
    path: Path,
    title: str,
    cells: Mapping[str, ArrayLike],
    reference_lines: Mapping[str, float],
    published: Mapping[str, tuple[float, float | None]] | None = None,
    unit: str = "return",
) -> None:
    """Publish a plot with one line per cell: the return of every seed `[S]`, and their mean ± std.

    Cells run from top to bottom in the order given; the standard deviation is the population's, as in
    `evaluation.stats.mean_std`. A NaN return is left out. `published` has mean and std of some of the cells.
    """
    published = published or {}
    figure = new_figure(height=1.6 + 0.4 * len(cells))
    axes = figure.add_subplot()
    for row, (name, values) in enumerate(cells.items()):
        array = np.asarray(values, dtype=np.float64).ravel()
        seeds = array[np.isfinite(array)]
        axes.plot(seeds, np.full(len(seeds), row), "o", color="C0", alpha=0.35, markeredgewidth=0)
        if len(seeds):
            axes.errorbar(seeds.mean(), row, xerr=seeds.std(), fmt="D", color="C0", capsize=4)
        if name in published:
            mean, std = published[name]
            axes.errorbar(mean, row + 0.25, xerr=std or 0.0, fmt="s", color="C1", mfc="none", capsize=4)
    if published:
        axes.plot([], [], "s", color="C1", mfc="none", label="published")
    for i, (label, value) in enumerate(reference_lines.items()):
        axes.axvline(value, color=grey(i), linestyle="--", linewidth=1, label=label)
    axes.set_yticks(range(len(cells)), list(cells), parse_math=False)
    axes.set_ylim(max(len(cells), 1) - 0.5, -0.5)
    finish(axes, title, unit, "")
    save(figure, path)


def dataset_plot(path: Path, title: str, statistics: DatasetStatistics) -> None:
    """Publish a picture of a dataset: returns, episode lengths, distances to the nearest neighbour, and per
    dimension the actions between their bounds, how many lie at these, and the ranges of the observations.
    """
    figure = new_figure(height=10.5, width=13.0)
    figure.suptitle(title, parse_math=False)
    top, middle, bottom = figure.subfigures(3, 1, squeeze=False)[:, 0]
    returns, lengths, near = top.subplots(1, 3)
    _histogram(returns, "Episode returns", statistics.returns, "return", "episodes")
    _histogram(lengths, "Episode lengths", statistics.lengths, "steps", "episodes")
    _neighbours(near, statistics)
    actions, bounds = middle.subplots(1, 2, width_ratios=(2, 1))
    _action_map(actions, statistics)
    _bounds(bounds, statistics)
    _ranges(bottom.subplots(), statistics.observations)
    save(figure, path)


def _histogram(axes: Axes, title: str, histogram: Histogram, unit: str, counted: str) -> None:
    axes.stairs(histogram.counts, _wide(histogram.edges), fill=True)
    axes.ticklabel_format(axis="x", useOffset=False)
    finish(axes, title, unit, counted)


def _wide(edges: list[float]) -> list[float]:
    """Edges of a bin that can be seen, where all values are the same."""
    return edges if edges[0] < edges[-1] else [edges[0] - 0.5, edges[0] + 0.5]


def _neighbours(axes: Axes, statistics: DatasetStatistics) -> None:
    title = "Distance to the nearest row elsewhere"
    if statistics.neighbours is None:
        axes.set_title(title)
        axes.text(0.5, 0.5, "one stretch: nothing to compare", ha="center", va="center")
        axes.set_axis_off()
    else:
        unit = f"standard deviations ({statistics.neighbours.dimensions} dimensions)"
        _histogram(axes, title, statistics.neighbours.histogram, unit, "rows")


def _action_map(axes: Axes, statistics: DatasetStatistics) -> None:
    axes.set_title("Actions between their bounds")
    shares = np.array([dim.counts for dim in statistics.saturation]) / statistics.summary.transitions
    image = axes.imshow(shares, aspect="auto", extent=(0, 1, len(shares) - 0.5, -0.5), vmin=0, cmap="viridis")
    axes.figure.colorbar(image, ax=axes, label="share of rows per bin")
    axes.set_yticks(*few(range(len(shares))))
    axes.set_ylabel("action dimension")
    axes.set_xticks([0, 0.5, 1], ["low", "middle", "high"])


def _bounds(axes: Axes, statistics: DatasetStatistics) -> None:
    places = np.arange(len(statistics.saturation))
    axes.barh(places, [-100 * dim.at_low for dim in statistics.saturation], color="C0")
    axes.barh(places, [100 * dim.at_high for dim in statistics.saturation], color="C1")
    axes.axvline(0, color="0.1", linewidth=1)
    axes.set_yticks(*few(places.tolist()))
    axes.set_ylim(len(places) - 0.5, -0.5)
    axes.xaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    finish(axes, "Actions within 1 % of their bounds", "lower bound | % of rows | upper bound", "")


def _ranges(axes: Axes, columns: list[Column]) -> None:
    places = np.arange(len(columns))
    axes.vlines(places, [c.min for c in columns], [c.max for c in columns], color="C0", linewidth=1)
    axes.vlines(places, [c.p1 for c in columns], [c.p99 for c in columns], color="C0", linewidth=4, alpha=0.5)
    axes.plot(places, [c.median for c in columns], "o", color="0.1", markersize=3)
    # Positions, velocities and forces share one axis: linear near 0, logarithmic beyond 1.
    axes.set_yscale("symlog", linthresh=1)
    axes.set_xticks(*few(places.tolist()))
    finish(axes, "Observations: all rows, the middle 98 % and the median", "observation dimension", "value")
