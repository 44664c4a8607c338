"""Plots of results as PNG files, drawn without a display and without pyplot's global state."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from mopo_cli.store.atomic import publish

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curve = tuple[ArrayLike, ArrayLike]
"""Epochs `[E]` and the return of every seed at each of them `[E, S]`."""

DOTS_PER_INCH = 120


def learning_curve(path: Path, title: str, curves: Mapping[str, Curve], reference_lines: Mapping[str, float]) -> None:
    """Publish a plot of return over epochs: per label the mean over seeds and the band from worst to best.

    `reference_lines` (such as the dataset's mean and best return) are dashed. A NaN return leaves its seed
    out of that epoch. The figure replaces `path` whole or not at all.
    """
    figure = _new_figure(height=5.0)
    axes = figure.add_subplot()
    for i, (label, (epochs, returns)) in enumerate(curves.items()):
        seeds = np.ma.masked_invalid(np.asarray(returns, dtype=np.float64))
        line = seeds.mean(axis=1).filled(np.nan)
        low, high = seeds.min(axis=1).filled(np.nan), seeds.max(axis=1).filled(np.nan)
        axes.plot(epochs, line, color=f"C{i}", label=label, marker="." if len(line) < 30 else "")
        axes.fill_between(epochs, low, high, color=f"C{i}", alpha=0.2, linewidth=0)
    for i, (label, value) in enumerate(reference_lines.items()):
        axes.axhline(value, color=_grey(i), linestyle="--", linewidth=1, label=label)
    axes.set_xlabel("epoch")
    axes.set_ylabel("return")
    _finish(axes, title)
    _save(figure, path)


def ablation_plot(path: Path, title: str, cells: Mapping[str, ArrayLike], reference_lines: Mapping[str, float]) -> None:
    """Publish a plot with one line per cell: the return of every seed `[S]`, and their mean ± std.

    Cells run from top to bottom in the order given; the standard deviation is the population's, as in
    `evaluation.stats.mean_std`. A NaN return is left out.
    """
    figure = _new_figure(height=1.6 + 0.4 * len(cells))
    axes = figure.add_subplot()
    for row, values in enumerate(cells.values()):
        array = np.asarray(values, dtype=np.float64).ravel()
        seeds = array[np.isfinite(array)]
        axes.plot(seeds, np.full(len(seeds), row), "o", color="C0", alpha=0.35, markeredgewidth=0)
        if len(seeds):
            axes.errorbar(seeds.mean(), row, xerr=seeds.std(), fmt="D", color="C0", capsize=4)
    for i, (label, value) in enumerate(reference_lines.items()):
        axes.axvline(value, color=_grey(i), linestyle="--", linewidth=1, label=label)
    axes.set_yticks(range(len(cells)), list(cells), parse_math=False)
    axes.set_ylim(len(cells) - 0.5, -0.5)
    axes.set_xlabel("return")
    _finish(axes, title)
    _save(figure, path)


def _new_figure(height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _grey(index: int) -> str:
    return ("0.1", "0.5", "0.75")[index % 3]


def _finish(axes: Axes, title: str) -> None:
    # File and dataset names may hold a "$", which is no formula.
    axes.set_title(title, parse_math=False)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        for text in axes.legend(frameon=False).get_texts():
            text.set_parse_math(False)


def _save(figure: Figure, path: Path) -> None:
    with publish(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DOTS_PER_INCH)
