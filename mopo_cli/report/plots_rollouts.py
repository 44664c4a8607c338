"""Plots of what is in a rollout file: a panel per uncertainty, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mopo_cli.report.canvas import Scale, few, finish, new_figure, save, scale_for

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mopo_cli.evaluation.density import Density, Departure, Map, Region, Step
    from mopo_cli.evaluation.diagnosis import Diagnosis, Relation, StepError

_DOTS = 4000  # of a scatter: more would only be a stain


def diagnosis_plot(
    path: Path, title: str, diagnosis: Diagnosis, uncertainties: Mapping[str, ArrayLike], error: ArrayLike
) -> None:
    """Publish a plot of the model's true error `[n]`: against every uncertainty `[n]`, and by step of the rollout.

    A panel per uncertainty has the first rows as dots (they stand for all where the rows come in random order),
    the regression line, and the mean and the middle 80 % of each tenth of the rows. All have one axis of error;
    axes end where all but 0.5 % of the rows do. Rows without a finite error are left out, as in ``diagnosis``.
    """
    figure, panels = _small_multiples(title, len(uncertainties) + 1)
    errors = np.asarray(error, dtype=np.float64)
    finite = np.isfinite(errors)
    scale = scale_for(errors[finite])
    if scale.kind == "linear":
        scale = Scale("linear", 0.0, 1.05 * scale.high if scale.high > 0 else 1.0)
    for axes, (name, values) in zip(panels, uncertainties.items(), strict=False):
        uncertainty = np.asarray(values, dtype=np.float64)[finite]
        _error_against(axes, name, uncertainty, errors[finite], diagnosis.uncertainties[name])
        scale.on(axes, "y")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    _error_by_step(panels[-1], diagnosis.steps)
    save(figure, path)


def departure_plot(
    path: Path, title: str, departure: Departure, maps: Sequence[Map], uncertainties: Mapping[str, ArrayLike]
) -> None:
    """Publish maps of the data's density with rollouts' rows coloured by each uncertainty `[n]`, and two summaries.

    A map shows the data in grey, the outline of the region that holds 99 % of them, and the first rows of the
    rollouts (they stand for all where the rows come in random order), as far as all but 0.5 % of them at each
    side lie. The summaries: the share of rows outside
    the data by step, and the mean rank of every uncertainty by how thin the data are.
    """
    figure, panels = _small_multiples(title, len(maps) * len(uncertainties) + 2, (3, 4) if len(maps) == 1 else (4,))
    wanted = [(name, drawn) for name in uncertainties for drawn in maps]  # one's maps side by side
    for axes, (name, drawn) in zip(panels, wanted, strict=False):
        _map(axes, name, drawn, np.asarray(uncertainties[name], dtype=np.float64))
        title = f"{name}: Spearman {departure.spearman[name]:z.2f} with the distance"
        finish(axes, title, *drawn.axes, legend=False)
    _outside_by_step(panels[-2], departure.steps)
    _rank_by_region(panels[-1], departure.regions)
    save(figure, path)


def _small_multiples(title: str, count: int, widths: Sequence[int] = (3, 4)) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels, as many of ``widths`` of them side by side as leaves the least room empty."""
    columns = 2 if count in (2, 4) else min(widths, key=lambda width: -count % width)
    lines = -(-count // columns)
    figure = new_figure(0.9 + 3.7 * lines, 4.9 * columns)
    figure.suptitle(title, parse_math=False)
    panels = figure.subplots(lines, columns, squeeze=False).ravel().tolist()
    for axes in panels[count:]:
        axes.set_axis_off()
    return figure, panels[:count]


def _error_against(
    axes: Axes, name: str, uncertainty: NDArray[np.float64], error: NDArray[np.float64], relation: Relation
) -> None:
    axes.plot(
        uncertainty[:_DOTS], error[:_DOTS], ".", color="0.6", markersize=2, zorder=0, rasterized=True, label="rows"
    )
    scale = scale_for(uncertainty)
    scale.on(axes, "x")
    bins = relation.calibration
    middle, mean = [b.uncertainty for b in bins], [b.error for b in bins]
    low, high = [b.error_p10 for b in bins], [b.error_p90 for b in bins]
    axes.fill_between(middle, low, high, color="C0", alpha=0.2, linewidth=0, label="the middle 80 % of each tenth")
    axes.plot(middle, mean, "o-", color="C0", markersize=4, label="the mean of each tenth")
    line = "error = -"
    if np.isfinite(relation.slope):
        # Points enough for a line that is bent by the scale.
        x = np.quantile(uncertainty, np.linspace(0, 1, 200))
        axes.plot(x, relation.slope * x + relation.intercept, color="C1", label="least squares")
        sign = "-" if relation.intercept < 0 else "+"
        line = f"error = {relation.slope:.3g} u {sign} {abs(relation.intercept):.2g}"
    title = f"{name}: Pearson {relation.pearson:z.2f}, Spearman {relation.spearman:z.2f}\n{line}"
    finish(axes, title, f"u = {name}", "true error", legend=False)


def _error_by_step(axes: Axes, steps: Sequence[StepError]) -> None:
    places = [s.step for s in steps]
    axes.plot(places, [s.mean for s in steps], "o-", color="C0", label="mean")
    axes.plot(places, [s.median for s in steps], "o-", color="C2", label="median")
    axes.plot(places, [s.p90 for s in steps], "o--", color="0.5", label="90 % of the rows lie below")
    axes.set_xticks(*few(places))
    axes.set_ylim(0, 1.4 * max([s.p90 for s in steps], default=0) or 1)  # the legend has the upper part
    finish(axes, "Error by step", "step of the rollout", "true error")


def _map(axes: Axes, name: str, drawn: Map, values: NDArray[np.float64]) -> None:
    density, (x, y) = drawn.density, drawn.points[:_DOTS].T
    extent = (density.x[0], density.x[-1], density.y[0], density.y[-1])
    # The square root shows thin data that would be as white as none.
    axes.imshow(
        np.sqrt(density.share.T),
        extent=extent,
        origin="lower",
        aspect="auto",
        cmap="Greys",
        vmax=1.3 * np.sqrt(density.share.max()),
    )
    centres = [(edges[:-1] + edges[1:]) / 2 for edges in (density.x, density.y)]
    axes.contour(*centres, density.share.T, levels=[density.level], colors="0.2", linewidths=1, linestyles="--")
    dots = axes.scatter(x, y, c=values[:_DOTS], s=3, cmap="plasma_r", linewidths=0, rasterized=True)
    scale_for(values).colour(dots, axes, f"u = {name}")
    low, high = _window(density, drawn.points)
    axes.set_xlim(low[0], high[0])
    axes.set_ylim(low[1], high[1])


def _window(density: Density, points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What to show of the plane: all but the farthest 0.5 % of the rows on each side, and the data's region."""
    held = density.share >= density.level
    x, y = (np.flatnonzero(held.any(axis=axis)) for axis in (1, 0))
    low, high = np.quantile(points, (0.005, 0.995), axis=0)
    low = np.minimum(low, [density.x[x[0]], density.y[y[0]]])
    high = np.maximum(high, [density.x[x[-1] + 1], density.y[y[-1] + 1]])
    return low - 0.02 * (high - low), high + 0.02 * (high - low)


def _outside_by_step(axes: Axes, steps: Sequence[Step]) -> None:
    places = [s.step for s in steps]
    axes.plot(places, [100 * s.outside for s in steps], "o-", color="C0", label="rollouts")
    axes.axhline(1, color="0.1", linestyle="--", linewidth=1, label="the data themselves")
    axes.set_xticks(*few(places))
    axes.set_ylim(0, 1.4 * max(1.0, *(100 * s.outside for s in steps)))
    finish(axes, "Outside the region that holds 99 % of the data", "step of the rollout", "% of the rows")


def _rank_by_region(axes: Axes, regions: Sequence[Region]) -> None:
    places = list(range(len(regions)))
    for name in regions[0].rank:
        axes.plot(places, [100 * r.rank[name] for r in regions], "o-", markersize=4, label=name)
    axes.set_xticks(places, [f"{100 * r.high:g} %" for r in regions[:-1]] + ["beyond"], rotation=45)
    axes.set_ylim(0, 100)
    across, up = "density of the data, from dense to thin", "mean rank of u among all rows, %"
    finish(axes, "Does the uncertainty grow where data are thin?", across, up)
