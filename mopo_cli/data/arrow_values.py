"""From the cells of an arrow column to numbers, or to the first cell that is none."""

from bisect import bisect
from typing import Any

import numpy as np
from numpy.typing import NDArray


class BadCell(Exception):
    """The first cell of a column that will not do: ``problem`` is what is wrong with it."""

    def __init__(self, row: int, problem: str) -> None:
        super().__init__(row, problem)
        self.row, self.problem = row, problem


def numbers_of(column: Any, missing: bool = False) -> NDArray[Any]:
    """A column of numbers, or of text that is numbers, as int64, float64 or bool `[N]`.

    ``true`` and ``false`` among them are 1 and 0. With ``missing`` an empty cell is NaN, and the column float64.
    BadCell for the first cell that is empty or no number.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if is_text(kind):
        return _parse(pc.utf8_trim_whitespace(column.cast(pa.string())), missing)
    if pa.types.is_decimal(kind) or pa.types.is_null(kind) or (missing and column.null_count):
        column = column.cast(pa.float64())
    if not missing:
        _refuse_empty(column.is_null())
    values: NDArray[Any] = column.to_numpy()
    return values


def words_of(column: Any) -> NDArray[np.str_]:
    """A column as text `[N]`, without the space around it; empty where a cell is."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return np.array(pc.fill_null(pc.utf8_trim_whitespace(column.cast(pa.string())), "").to_pylist(), np.str_)


def times_of(column: Any) -> NDArray[np.float64]:
    """A column of numbers, or of points of time in seconds since 1970, as float64 `[N]`; BadCell for any other cell."""
    import pyarrow as pa
    import pyarrow.compute as pc

    text = pc.utf8_trim_whitespace(column.cast(pa.string())) if is_text(column.type) else column
    moment = text if pa.types.is_temporal(text.type) else None
    if is_text(text.type) and _cast(_words_as_numbers(text), pa.float64()) is None:
        moment = _moments(text)
    if moment is None:
        return numbers_of(column).astype(np.float64)
    _refuse_empty(moment.is_null())
    exact = moment.cast(pa.timestamp("us"), safe=False).to_numpy().astype("datetime64[us]")
    return np.asarray(exact.astype(np.float64) / 1e6)


def _moments(text: Any) -> Any | None:
    """Text as points of time, None where a cell is none: as in 2024-03-01 06:00:00, or as in 01.03.2024 06:00."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if (moments := _cast(text, pa.timestamp("us"))) is not None:
        return moments
    for format_ in ("%d.%m.%Y %H:%M:%S", "%d.%m.%Y %H:%M", "%d.%m.%Y"):
        moments = pc.strptime(text, format=format_, unit="us", error_is_null=True)
        if moments.null_count == text.null_count:
            return moments
    return None


def _parse(column: Any, missing: bool) -> NDArray[Any]:
    """Text as int64 where every cell is a whole number, else as float64."""
    import pyarrow as pa
    import pyarrow.compute as pc

    empty = pc.or_kleene(column.is_null(), pc.equal(column, ""))
    if missing:
        column = pc.if_else(pc.fill_null(empty, True), "nan", column)
    else:
        _refuse_empty(empty)
    for text in (column, _words_as_numbers(column)):
        for kind in (pa.int64(), pa.float64()):
            if (numbers := _cast(text, kind)) is not None:
                return np.asarray(numbers.to_numpy())
    text = _words_as_numbers(column)
    # A cast fails as a whole: the first bad row follows the longest part that can be cast.
    row = bisect(range(1, len(text)), False, key=lambda rows: _cast(text.slice(0, rows), pa.float64()) is None)
    raise BadCell(row, f"{column[row].as_py()!r} is not a number")


def _words_as_numbers(column: Any) -> Any:
    import pyarrow.compute as pc

    plain = pc.utf8_lower(column)
    for word, number in (("true", "1"), ("false", "0")):
        plain = pc.if_else(pc.equal(plain, word), number, plain)
    return plain


def _cast(column: Any, kind: Any) -> Any:
    """The column as another type, None where a cell cannot be."""
    import pyarrow as pa

    try:
        return column.cast(kind)
    except pa.ArrowInvalid:
        return None


def codes(column: Any) -> NDArray[np.int64]:
    """A number for each value of a column, equal where the values are, int64 `[N]`; BadCell for an empty cell."""
    import pyarrow as pa
    import pyarrow.compute as pc

    empty = column.is_null(nan_is_null=True)
    if is_text(column.type):
        empty = pc.or_kleene(empty, pc.equal(pc.utf8_trim_whitespace(column.cast(pa.string())), ""))
    _refuse_empty(empty)
    encoded = column.dictionary_encode().unify_dictionaries()
    parts = [np.asarray(part.indices) for part in encoded.chunks]
    return np.concatenate([np.empty(0, np.int64), *parts]).astype(np.int64)


def _refuse_empty(empty: Any) -> None:
    rows = np.flatnonzero(np.asarray(empty))
    if len(rows):
        raise BadCell(int(rows[0]), f"the cell is empty ({len(rows)} in this column)")


def is_text(kind: Any) -> bool:
    """Whether an arrow type is text."""
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
