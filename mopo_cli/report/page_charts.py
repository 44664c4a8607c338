"""Small charts of a page as inline SVG: legible in light and dark and on a phone, each with a text that says it all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from mopo_cli.report.tables import format_number

_WIDTH, _HEIGHT = 360, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 10, 42
_ROW = 34
_TICKS = 4
_COLOURS = "ab"


@dataclass(frozen=True)
class _Frame:
    """Numbers of both axes, from their least to their greatest, on a drawing; those across may all be whole."""

    x: tuple[float, float]
    y: tuple[float, float]
    height: int = _HEIGHT
    left: int = _LEFT
    whole: bool = False

    def across(self, value: float) -> float:
        low, high = self.x
        return self.left + (value - low) / (high - low) * (_WIDTH - self.left - _RIGHT)

    def down(self, value: float) -> float:
        low, high = self.y
        return self.height - _BOTTOM - (value - low) / (high - low) * (self.height - _TOP - _BOTTOM)

    def path(self, points: Sequence[tuple[float, float]]) -> str:
        return "M" + "L".join(f"{self.across(x):.1f} {self.down(y):.1f}" for x, y in points)


def histogram(title: str, edges: Sequence[float], series: Mapping[str, Sequence[float]], x: str, y: str) -> str:
    """Bars between `edges` `[B + 1]` for the first of the `series` `[B]` each, and an outline for the second."""
    if edges[0] == edges[-1]:
        edges = [edges[0] - 0.5, edges[-1] + 0.5]
    frame = _Frame((edges[0], edges[-1]), _range([0.0, *(height for each in series.values() for height in each)]))
    marks = []
    for colour, heights in zip(_COLOURS, series.values(), strict=False):
        steps = [(edges[0], 0.0)]
        for place, height in enumerate(heights):
            steps += [(edges[place], height), (edges[place + 1], height)]
        drawn = frame.path([*steps, (edges[-1], 0.0)])
        marks.append(f'<path class="{"area" if colour == "a" else "line"} {colour}" d="{drawn}"/>')
    return _figure(title, frame, marks, (x, y), list(series) if len(series) > 1 else [])


def band(
    title: str,
    points: Sequence[tuple[float, float, float, float]],
    x: str,
    y: str,
    names: tuple[str, str],
    references: Mapping[str, float] | None = None,
) -> str:
    """A line with a band: `points` are (x, middle, low, high); `names` say what line and band are.

    The `references` are dashed lines, whose values the caption says. ValueError where there is no point.
    """
    references = references or {}
    numbers = [number for point in points for number in point[1:]]
    places = [point[0] for point in points]
    whole = all(float(place).is_integer() for place in places)
    frame = _Frame(_range(places), _range([*numbers, *references.values()]), whole=whole)
    around = [(at, high) for at, _, _, high in points] + [(at, low) for at, _, low, _ in reversed(points)]
    marks = [f'<path class="area a" d="{frame.path(around)}Z"/>']
    marks.append(f'<path class="line a" d="{frame.path([(at, middle) for at, middle, _, _ in points])}"/>')
    if len(points) == 1:
        marks.append(
            f'<circle class="dot a" cx="{frame.across(points[0][0]):.1f}" cy="{frame.down(points[0][1]):.1f}" r="3"/>'
        )
    for value in references.values():
        marks.append(f'<path class="rule" d="{frame.path([(frame.x[0], value), (frame.x[1], value)])}"/>')
    dashed = "; ".join(f"{name} {format_number(value)}" for name, value in references.items())
    return _figure(title, frame, marks, (x, y), [names[0]], band_name=names[1], dashed=dashed)


def intervals(title: str, rows: Sequence[tuple[str, float, float, float]], x: str) -> str:
    """A line per row (name, value, low, high), from top to bottom: its name, a dot and the interval.

    ValueError where there is no row.
    """
    height = _TOP + _BOTTOM + _ROW * len(rows)
    spread = _range([number for row in rows for number in row[1:]])
    frame = _Frame(spread, (0.0, float(len(rows))), height, left=_RIGHT)
    marks = []
    for place, (name, value, low, high) in enumerate(rows):
        y = _TOP + _ROW * place + 24
        marks += [
            f'<text x="{_RIGHT}" y="{y - 9}">{escape(_short(name))}</text>',
            f'<path class="line a" d="M{frame.across(low):.1f} {y}H{frame.across(high):.1f}"/>',
            f'<circle class="dot a" cx="{frame.across(value):.1f}" cy="{y}" r="4"/>',
        ]
    said = "; ".join(f"{name} {format_number(value)}" for name, value, _, _ in rows[:20])
    return _figure(f"{title}: {said}", frame, marks, (x, ""), [], caption=title)


def _figure(
    label: str,
    frame: _Frame,
    marks: Sequence[str],
    axes: tuple[str, str],
    names: Sequence[str],
    *,
    band_name: str = "",
    dashed: str = "",
    caption: str | None = None,
) -> str:
    x, y = axes
    bottom = frame.height - _BOTTOM
    drawn = [f'<path class="axis" d="M{frame.left} {bottom}H{_WIDTH - _RIGHT}"/>']
    for tick in ticks(*frame.x, least=1.0 if frame.whole else 0.0):
        at = frame.across(tick)
        drawn.append(f'<path class="grid" d="M{at:.1f} {_TOP}V{bottom}"/>')
        drawn.append(f'<text x="{at:.1f}" y="{bottom + 15}" text-anchor="middle">{_tick(tick)}</text>')
    if y:
        for tick in ticks(*frame.y):
            at = frame.down(tick)
            drawn.append(f'<path class="grid" d="M{frame.left} {at:.1f}H{_WIDTH - _RIGHT}"/>')
            drawn.append(f'<text x="{frame.left - 6}" y="{at + 4:.1f}" text-anchor="end">{_tick(tick)}</text>')
    middle = (frame.left + _WIDTH - _RIGHT) / 2
    drawn.append(f'<text x="{middle:.0f}" y="{frame.height - 8}" text-anchor="middle">{escape(x)}</text>')
    beside = f"{label}. Across: {x}" + (f"; upwards: {y}." if y else ".")
    keys = [f'<span class="key {colour}"></span>{escape(name)}' for colour, name in zip(_COLOURS, names, strict=False)]
    keys += [f'<span class="key a pale"></span>{escape(band_name)}'] if band_name else []
    keys += [f"<br>dashed: {escape(dashed)}"] if dashed else []
    named = caption or label
    title = escape(named) + (f" <small>({escape(y)})</small>" if y.lower() not in named.lower() else "")
    return (
        f"<figure><figcaption><b>{title}</b>{'<br>' if keys else ''}{' '.join(keys)}</figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {frame.height}" role="img" aria-label="{escape(beside)}">'
        f"{''.join([*drawn, *marks])}</svg></figure>"
    )


def ticks(low: float, high: float, least: float = 0.0) -> list[float]:
    """Round numbers from `low` to `high`, about four: multiples of 1, 2 or 5 times a power of ten.

    They are at least `least` apart, itself such a number.
    """
    step = max((high - low) / _TICKS, least)
    power = 10.0 ** math.floor(math.log10(step))
    step = next(digit * power for digit in (1, 2, 5, 10) if digit * power >= step * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(place * step, 12) + 0.0 if step > 1e-9 else place * step for place in range(first, last + 1)]


def _range(numbers: Sequence[float]) -> tuple[float, float]:
    """From the least to the greatest, a little wider; an interval that can be seen where all are the same."""
    low, high = min(numbers), max(numbers)
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        half = 0.1 * abs(low) or 0.5
        return low - half, high + half
    room = 0.04 * (high - low)
    return (low if low == 0 else low - room), high + room


def _tick(value: float) -> str:
    return f"{value:,.0f}" if 1e3 <= abs(value) < 1e6 else f"{value:.4g}"


def _short(name: str) -> str:
    return name if len(name) <= 52 else f"{name[:51]}…"
