"""A dataset's statistics as text for people, at most 120 columns wide."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

from mopo_cli.report.console import format_value

if TYPE_CHECKING:
    from mopo_cli.data.statistics import Column, DatasetStatistics, Histogram

WIDTH = 120
_BAR = 40
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_MOST_ROWS, _NOTABLE = 24, 4
_MOST_NAMES = 12
# Beyond that many times the range of the middle 98 %, a column's ends are far from its rest.
_FAR = 10
_RELATIONS = {"equal": "equals", "negated": "is the negative of", "correlated": "is linear in"}


def with_names(statistics: DatasetStatistics, names: Mapping[str, Sequence[str]]) -> DatasetStatistics:
    """The statistics with the columns' names of the data in place of ``obs[0]`` …, see `data.ranges.column_names`."""
    by_place = {
        f"{short}[{d}]": name
        for short, kind in (("obs", "observation"), ("action", "action"))
        for d, name in enumerate(names.get(kind, ()))
    }

    def renamed(value: Any) -> Any:
        if isinstance(value, str):
            return by_place.get(value, value)
        if isinstance(value, list):
            return [renamed(each) for each in value]
        if is_dataclass(value) and not isinstance(value, type):
            return replace(value, **{each.name: renamed(getattr(value, each.name)) for each in fields(value)})
        return value

    shown: DatasetStatistics = renamed(statistics)
    return shown


def statistics_text(statistics: DatasetStatistics) -> str:
    """The statistics in lines: what is long is abbreviated, with a count of what was left out."""
    lines = [*_return_lines(statistics), *_episode_lines(statistics), "", *_dimension_lines(statistics)]
    return "\n".join([*lines, "", *_idle_lines(statistics), *_coverage_lines(statistics)])


def statistics_lines(statistics: DatasetStatistics) -> list[str]:
    """What `statistics_text` says in sentences, without its tables and bars."""
    lines = [*_return_lines(statistics), *_episode_lines(statistics), *_idle_lines(statistics)]
    lines += _coverage_lines(statistics)
    return [" ".join(line.split()) for line in lines if line and not line.startswith("  ")]


def recipe_text(recipe: dict[str, Any]) -> str:
    """How the behaviour of a generated set was made: by what, how long, what was medium, where its curve ended."""
    parts = [f"{name} {format_value(value)}" for name, value in recipe.items() if not isinstance(value, list | dict)]
    if isinstance(medium := recipe.get("medium"), dict):
        parts.append(f"medium ({format_value(medium)})")
    curve = recipe.get("curve")
    if isinstance(curve, list) and curve and isinstance(curve[-1], list) and len(curve[-1]) == 2:
        steps, mean = curve[-1]
        parts.append(f"{len(curve)} evaluations, the last {format_value(mean)} after {format_value(steps)} steps")
    return wrap("  recipe: " + "; ".join(parts))


def wrap(text: str) -> str:
    """``text`` folded at blanks to the width, what follows indented."""
    return textwrap.fill(text, WIDTH, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)


def _return_lines(statistics: DatasetStatistics) -> list[str]:
    s = statistics.summary
    return [
        f"{s.transitions:,} transitions in {s.episodes:,} episodes, {len(statistics.observations)} observation and "
        f"{len(statistics.actions)} action dimensions",
        "",
        f"returns: mean {_number(s.return_mean)}, std {_number(s.return_std)}, "
        f"90 % at most {_number(s.return_p90)}, best {_number(s.return_max)}",
        *_bars(statistics.returns),
    ]


def _episode_lines(statistics: DatasetStatistics) -> list[str]:
    low, tenth, median, most, high = (_number(value) for value in statistics.length_quantiles.values())
    ends = statistics.endings
    return [
        f"episode lengths: {low} to {high} steps, 10 % at most {tenth}, median {median}, 90 % at most {most}",
        *_bars(statistics.lengths),
        f"episodes end by: terminal {percent(ends['terminal'])}, timeout {percent(ends['timeout'])}, "
        f"neither (cut off) {percent(ends['neither'])}",
        f"terminals: {percent(statistics.terminal_share)} of rows",
    ]


def _dimension_lines(statistics: DatasetStatistics) -> list[str]:
    shown = _notable(statistics.observations, set(statistics.constant))
    columns = [statistics.rewards, *statistics.actions[:_MOST_ROWS], *shown]
    sides = {s.name: f"at low {percent(s.at_low)}, at high {percent(s.at_high)}" for s in statistics.saturation}
    heading = ("", "min", "1 %", "median", "99 %", "max", "std", "")
    rows = [heading, *(_row(column, sides.get(column.name, "")) for column in columns)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(heading) - 1)]
    lines = []
    for row in rows:
        cells = [
            row[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(row[1:7], widths[1:], strict=True)),
        ]
        lines.append("  ".join([*cells, row[7]]).rstrip())
    hidden = len(statistics.observations) + len(statistics.actions) + 1 - len(columns)
    if hidden:
        lines.append(f"... and {hidden} more dimensions that are constant or less notable (all of them: --json)")
    lines.append(
        f"saturation: {percent(statistics.saturated_share)} of action entries within 1 % of the range of a bound"
    )
    return lines


def _row(column: Column, side: str) -> tuple[str, ...]:
    numbers = (column.min, column.p1, column.median, column.p99, column.max, column.std)
    return (column.name, *(_number(value) for value in numbers), side or _note(column))


def _note(column: Column) -> str:
    if column.min == column.max:
        return "constant"
    middle = column.p99 - column.p1
    if middle and max(column.max - column.p99, column.p1 - column.min) > _FAR * middle:
        return "far outliers"
    piled = [end for end, is_so in (("min", column.min == column.p1), ("max", column.max == column.p99)) if is_so]
    return f"1 % or more at {' and '.join(piled)}" if piled else ""


def _notable(columns: Sequence[Column], constant: set[str]) -> list[Column]:
    """All columns when they are few; else the widest, the narrowest and those with the farthest outliers."""
    if len(columns) <= _MOST_ROWS:
        return list(columns)
    varying = [column for column in columns if column.name not in constant]
    by_std = sorted(varying, key=lambda column: column.std)
    by_reach = sorted(varying, key=lambda column: (column.max - column.min) / (column.p99 - column.p1 or column.std))
    names = {column.name for column in (*by_std[:_NOTABLE], *by_std[-_NOTABLE:], *by_reach[-_NOTABLE:])}
    return [column for column in columns if column.name in names]


def _idle_lines(statistics: DatasetStatistics) -> list[str]:
    copies = [f"{copy.name} {_RELATIONS[copy.relation]} {copy.of}" for copy in statistics.copies]
    unchanged = [name for name in statistics.unchanged if name not in statistics.constant]
    return [
        _listed("constant dimensions", statistics.constant),
        _listed("duplicated dimensions", copies),
        _listed("dimensions that vary but that no step changes", unchanged),
    ]


def _coverage_lines(statistics: DatasetStatistics) -> list[str]:
    from mopo_cli.data.coverage import STRETCH

    repeated = f"repeated rows: {percent(statistics.repeated_share)} have the state and action of an earlier row"
    near = statistics.neighbours
    if near is None:
        return [repeated, "coverage: nothing to compare, as all rows belong to one stretch of the record"]
    names = ("1 %", "10 %", "median", "90 %", "99 %")
    points = ", ".join(f"{name} {_number(value)}" for name, value in zip(names, near.quantiles.values(), strict=True))
    return [
        repeated,
        f"coverage: distance to the nearest row of another episode: {points}",
        *_bars(near.histogram),
        wrap(
            f"  in standard deviations over {near.dimensions} dimensions of state and action, {near.queries:,} rows "
            f"against {near.references:,}; an episode longer than {STRETCH:,} steps counts as several; two rows drawn "
            f"at random are about {_number((2 * near.dimensions) ** 0.5)} apart"
        ),
    ]


def _bars(histogram: Histogram) -> list[str]:
    """A line per bin, neighbouring bins taken together two by two."""
    edges, counts = histogram.edges, histogram.counts
    if len(counts) > 1:
        edges, counts = edges[::2], [sum(counts[i : i + 2]) for i in range(0, len(counts), 2)]
    names = _bin_names(edges)
    return [
        f"  {name}  {_bar(count / max(counts)).ljust(_BAR)}  {count:,}"
        for name, count in zip(names, counts, strict=True)
    ]


def _bin_names(edges: Sequence[float]) -> list[str]:
    if edges[0] == edges[-1]:
        return [_number(edges[0])]
    starts, ends = ([_number(edge) for edge in part] for part in (edges[:-1], edges[1:]))
    widths = [max(map(len, part)) for part in (starts, ends)]
    return [f"{low.rjust(widths[0])} .. {high.rjust(widths[1])}" for low, high in zip(starts, ends, strict=True)]


def _bar(share: float) -> str:
    if not _draws_blocks():
        return "#" * round(share * _BAR)
    whole, eighths = divmod(round(share * _BAR * 8), 8)
    return _EIGHTHS[8] * whole + (_EIGHTHS[eighths] if eighths else "")


def _draws_blocks() -> bool:
    try:
        _EIGHTHS.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _listed(title: str, items: Sequence[str]) -> str:
    more = f" and {len(items) - _MOST_NAMES} more" if len(items) > _MOST_NAMES else ""
    count = f"{title} ({len(items)})" if items else title
    return wrap(f"{count}: {', '.join(items[:_MOST_NAMES]) or 'none'}{more}")


def _number(value: float) -> str:
    whole = float(value).is_integer() and abs(value) < 1e7
    return format_value(int(value) if whole else float(value))


def percent(share: float) -> str:
    """A share in percent; what is not quite none or all never reads as if it were."""
    text = f"{100 * share:.1f}"
    if 0 < share < 0.0005:
        text = "< 0.1"
    elif 0.9995 <= share < 1:
        text = "> 99.9"
    return f"{text.removesuffix('.0')} %"
