"""Text in columns, for the results that commands print."""

from collections.abc import Sequence


def columns(rows: Sequence[Sequence[str]], indent: str = "") -> list[str]:
    """A line per row, its cells padded to the widest of their column; the last column is not padded."""
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)][:-1]
    return [
        (indent + "  ".join([*(f"{cell:{width}}" for cell, width in zip(row, widths, strict=False)), row[-1]])).rstrip()
        for row in rows
    ]
