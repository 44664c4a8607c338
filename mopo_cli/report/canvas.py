"""What all figures share: a canvas without a display or pyplot's global state, how it is saved, scales that fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from mopo_cli.store.atomic import publish

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

DOTS_PER_INCH = 120

_WIDE = 10.0  # how far the 99.5 % quantile lies above the median where a linear axis shows a corner and a void
_DECADES = 1e4  # of magnitudes that an axis through zero keeps apart


def new_figure(height: float, width: float = 8.0) -> Figure:
    """An empty figure of so many inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def grey(index: int) -> str:
    """The colour of the ``index``-th reference line."""
    return ("0.1", "0.5", "0.75")[index % 3]


def few(places: Sequence[int]) -> tuple[list[int], list[str]]:
    """Ticks and labels of at most 30 whole numbers."""
    shown = list(places[:: -(-len(places) // 30)])
    return shown, [str(place) for place in shown]


def finish(axes: Axes, title: str, x: str, y: str, legend: bool = True) -> None:
    """Title, what both axes show, grid and, where it is wanted and something has a label, the legend."""
    # File and dataset names may hold a "$", which is no formula.
    axes.set_title(title, parse_math=False)
    axes.set_xlabel(x, parse_math=False)
    axes.set_ylabel(y, parse_math=False)
    axes.grid(alpha=0.3)
    if legend and axes.get_legend_handles_labels()[0]:
        for text in axes.legend(frameon=False).get_texts():
            text.set_parse_math(False)


def save(figure: Figure, path: Path) -> None:
    """Publish the figure as a PNG file, whole or not at all."""
    with publish(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DOTS_PER_INCH)


@dataclass(frozen=True)
class Scale:
    """An axis or a range of colours on which values can be told apart; it ends where all but 0.5 % of them do.

    ``symlog`` is linear between -``linear`` and ``linear`` and logarithmic beyond, for values of both signs.
    """

    kind: Literal["linear", "log", "symlog"]
    low: float
    high: float
    linear: float = 1.0

    def on(self, axes: Axes, which: Literal["x", "y"]) -> None:
        """Put an axis of a plot on this scale."""
        more: dict[str, Any] = {"linthresh": self.linear} if self.kind == "symlog" else {}
        getattr(axes, f"set_{which}scale")(self.kind, **more)
        getattr(axes, f"set_{which}lim")(self.low, self.high)
        self._mark(axes.xaxis if which == "x" else axes.yaxis)

    def colour(self, dots: ScalarMappable, axes: Axes, label: str) -> None:
        """Put the colours of ``dots`` on this scale, with a bar of them beside the plot."""
        from matplotlib.colors import LogNorm, Normalize, SymLogNorm

        if self.kind == "symlog":
            dots.set_norm(SymLogNorm(self.linear, vmin=self.low, vmax=self.high))
        else:
            dots.set_norm((LogNorm if self.kind == "log" else Normalize)(self.low, self.high))
        bar = axes.figure.colorbar(dots, ax=axes, extend="both")
        bar.set_label(label, parse_math=False)
        self._mark(bar.ax.yaxis)

    def ticks(self) -> list[float]:
        """Where a logarithmic axis is marked: at powers of ten, and between them where there are few."""
        if self.kind == "log":
            return _round_numbers(self.low, self.high)
        down = [-tick for tick in _round_numbers(2 * self.linear, -self.low)]
        return [*down[::-1], 0.0, *_round_numbers(2 * self.linear, self.high)]

    def _mark(self, axis: Axis) -> None:
        if self.kind != "linear":
            ticks = self.ticks()
            axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
            axis.set_ticks([], minor=True)


def _round_numbers(low: float, high: float) -> list[float]:
    """Round numbers between two positive ones, about evenly on a logarithmic axis and few enough for labels."""
    if not low < high:
        return []
    decades = np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    digits = (1, 2, 5) if high < 300 * low else (1,)
    ticks = [float(f"{digit}e{decade:.0f}") for decade in decades[:: -(-len(decades) // 8)] for digit in digits]
    return [number for number in ticks if low <= number <= high]


def scale_for(values: ArrayLike) -> Scale:
    """The scale for finite ``values`` `[n]`: logarithmic where they are positive and span decades, linear where not.

    Values that span decades and are not all positive get the one that is both.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if not len(numbers):
        return Scale("linear", 0.0, 1.0)
    low, high = (float(q) for q in np.quantile(numbers, (0.005, 0.995)))
    if not low < high:
        return Scale("linear", low - 0.5, high + 0.5)
    sizes = np.abs(numbers[numbers != 0])
    small, middle, large = (float(q) for q in np.quantile(sizes, (0.05, 0.5, 0.995)))
    if large <= _WIDE * middle:
        return Scale("linear", low, high)
    return Scale("log", low, high) if low > 0 else Scale("symlog", low, high, max(small, large / _DECADES))
