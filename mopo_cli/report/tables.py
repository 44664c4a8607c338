"""Tables of results as Markdown, CSV and plain text, and how numbers are written in them."""

import csv
import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from mopo_cli.store.atomic import publish

Rows = Sequence[Sequence[object]]


def format_number(value: float) -> str:
    """A number for the eye: one decimal from 10 upwards, three significant digits below or far above."""
    if isinstance(value, Integral):
        return str(int(value))
    number = float(value)
    return f"{number:.1f}" if 10 <= abs(number) < 1e7 else f"{number:.3g}"


def format_mean_std(mean: float, std: float | None, digits: int = 1, *, seeds: int | None = None) -> str:
    """``"53.1 ± 2.0"`` with `digits` decimals; the mean alone where there is no spread, as of one of `seeds`."""
    if std is None or math.isnan(std) or seeds == 1:
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} ± {std:.{digits}f}"


def seeds_played(returns: Mapping[str, Any]) -> int:
    """Of how many seeds a cell has returns; ``returns`` are by seed, and empty for those that were not played."""
    return sum(bool(each) for each in returns.values())


def decimals(size: float) -> int:
    """How many decimals leave three digits of numbers of this size; none from 100 upwards."""
    return min(max(2 - math.floor(math.log10(size)), 0), 6) if 0 < size < math.inf else 1


def format_range(low: float, high: float) -> str:
    """``"69.1 to 71.2"``: the ends to a hundredth or less of what is between; one number where they are the same."""
    size, width = max(abs(low), abs(high)), high - low
    if float(low).is_integer() and float(high).is_integer() and size < 1e15:
        form = "z,.0f"
    elif width >= 1e-3 and size < 1e15:
        form = f"z,.{decimals(width)}f"
    else:
        form = f".{min(3 + math.floor(math.log10(size / width)), 17) if width else 7}g"
    return " to ".join(format(end, form) for end in dict.fromkeys((low, high)))


def markdown_table(columns: Sequence[str], rows: Rows) -> str:
    """A GitHub-flavoured Markdown table that also reads well as plain text; ends with a newline.

    Numbers are written by `format_number`, None as nothing; columns of numbers are aligned to the right.

    Raises ValueError if a row is not as long as `columns`.
    """
    header = [_cell(column) for column in columns]
    body = [[_cell(value) for _, value in zip(columns, row, strict=True)] for row in rows]
    right = [all(_is_number(row[i]) or row[i] is None for row in rows) for i in range(len(columns))]
    widths = [max(3, *(len(line[i]) for line in [header, *body])) for i in range(len(columns))]
    rule = ["-" * (width - 1) + (":" if is_right else "-") for width, is_right in zip(widths, right, strict=True)]
    lines = [_line(header, widths, right), _line(rule, widths, right)]
    lines += [_line(row, widths, right) for row in body]
    return "\n".join(lines) + "\n"


def columns(rows: Sequence[Sequence[str]], indent: str = "") -> list[str]:
    """A line per row, its cells padded to the widest of their column; the last column is not padded."""
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)][:-1]
    return [
        (indent + "  ".join([*(f"{cell:{width}}" for cell, width in zip(row, widths, strict=False)), row[-1]])).rstrip()
        for row in rows
    ]


def write_csv(path: Path, columns: Sequence[str], rows: Rows) -> None:
    """Publish a CSV file (UTF-8, one header line) with numbers at full precision and None as nothing.

    Raises ValueError if a row is not as long as `columns`; then nothing on disk changes.
    """
    with publish(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([value for _, value in zip(columns, row, strict=True)] for row in rows)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Real):
        return format_number(float(value) if not isinstance(value, Integral) else int(value))
    return " ".join(str(value).splitlines()).replace("|", "\\|")


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    padded = [
        cell.rjust(width) if is_right else cell.ljust(width)
        for cell, width, is_right in zip(cells, widths, right, strict=True)
    ]
    return "| " + " | ".join(padded) + " |"
