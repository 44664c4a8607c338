"""From the cells of an arrow column to points of time, or to the first cell that is none."""

import re
from bisect import bisect
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mopo_cli.data.files.arrow_values import (
    SHOWN,
    TIME,
    BadCell,
    cast_or_none,
    is_text,
    numbers_of,
    refuse_empty,
    words_as_numbers,
)

_TIMES = "2024-03-01 06:00 or 01.03.2024 06:00"
_DATES = ("%d.%m.%Y", "%Y/%m/%d")
_SLASHED = ("%m/%d/%Y", "%d/%m/%Y")  # as written in America, and elsewhere
_FULL_YEAR = r"^(\d{4}[/.]\d{1,2}[/.]\d{1,2}|\d{1,2}[/.]\d{1,2}[/.]\d{4})( |$)"
_CLOCKS = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")


def times_of(column: Any) -> NDArray[np.float64]:
    """A column of numbers, of durations in seconds, or of points of time in seconds since 1970, as float64 `[N]`.

    BadCell for any other cell, and for dates such as 03/04/2024 where no cell says which number is the month.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    text = pc.utf8_trim_whitespace(column.cast(pa.string())) if is_text(column.type) else column
    if pa.types.is_time(text.type):
        raise BadCell(0, holds=f"times of day ({text[0]} in row 0): write the date as well, as in {_TIMES}")
    if pa.types.is_duration(text.type):
        text = text.cast(pa.duration("us"), safe=False).cast(pa.int64()).cast(pa.timestamp("us"))
    moments = text if pa.types.is_temporal(text.type) else None
    if is_text(text.type) and cast_or_none(words_as_numbers(text), pa.float64()) is None:
        moments = _moments(text)
        _refuse_two_meanings(text)
    if moments is None and is_text(text.type) and len(text) and re.fullmatch(TIME, text[0].as_py() or ""):
        row = bisect(range(1, len(text)), False, key=lambda rows: _moments(text.slice(0, rows)) is None)
        refuse_empty(pc.equal(text, ""))
        raise BadCell(row, f"{text[row].as_py()[:SHOWN]!r} is not a time such as {_TIMES}")
    if moments is None:
        # No remedy of --missing tells where a row without a step belongs.
        refuse_empty(pc.or_kleene(text.is_null(), pc.equal(text, "")) if is_text(text.type) else text.is_null())
        return numbers_of(column).astype(np.float64)
    refuse_empty(moments.is_null())
    return _seconds(moments)


def _moments(text: Any) -> Any | None:
    """Text as points of time, None where a cell is none: in one of the forms of ISO 8601, or of those above."""
    import pyarrow as pa

    # "us" alone is of text without a zone; with a zone, points of time are those of UTC.
    for kind in (pa.timestamp("us"), pa.timestamp("us", "UTC"), pa.timestamp("ns")):
        if (moments := cast_or_none(text, kind)) is not None:
            return moments
    return next((moments for date in (*_DATES, *_SLASHED) if (moments := _dated(text, date)) is not None), None)


def _dated(text: Any, date: str) -> Any | None:
    """Text as points of time, None where a cell is not a date in this form and a time of day."""
    import pyarrow.compute as pc

    # %Y also takes two digits: 31/01/24 would be the 24th of January of the year 31.
    if not pc.all(pc.match_substring_regex(text, _FULL_YEAR)).as_py():
        return None
    for clock in _CLOCKS:
        moments = pc.strptime(text, format=date + clock, unit="us", error_is_null=True)
        if moments.null_count == text.null_count:
            return moments
    return None


def _refuse_two_meanings(text: Any) -> None:
    """BadCell where month and day could be exchanged in all cells, and other times would pass between them."""
    meanings = [_seconds(moments.drop_null()) for date in _SLASHED if (moments := _dated(text, date)) is not None]
    if len(meanings) == 2 and (np.diff(meanings[0]) != np.diff(meanings[1])).any():
        problem = f"{text[0].as_py()[:SHOWN]!r} could be month/day/year or day/month/year"
        raise BadCell(0, problem, f"Write times as in {_TIMES}")


def _seconds(moments: Any) -> NDArray[np.float64]:
    import pyarrow as pa

    exact = moments.cast(pa.timestamp("us"), safe=False).to_numpy().astype("datetime64[us]")
    return np.asarray(exact.astype(np.float64) / 1e6)
