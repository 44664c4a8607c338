"""From the cells of an arrow column to numbers, or to the first cell that is none."""

import re
from bisect import bisect
from typing import Any

import numpy as np
from numpy.typing import NDArray

SHOWN = 60  # characters of a cell in a message
_MINUS = "\u2212"
TEXT = "no text"
"""What is looked at where no cell of a column is a number."""
NUMBER = r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?"
TIME = r"(\d{1,4}[-./]\d{1,2}[-./]\d{1,4}([ T].*)?|\d{1,2}:\d{2}(:.*)?)"
_WITH_UNIT = rf"[$€£]\s*{NUMBER}|{NUMBER}\s*[%‰°$€£]\S*|{NUMBER}\s+\S+"
_LIST = r"[\[(]\s*[+-]?[\d.]+(e[+-]?\d+)?[\s,]"
REPAIR = "Remove or repair this episode"
EMPTY = "Remove or repair this episode, or say with --missing what to do with rows that lack a value"
NOTHING = ("", "nan", "na", "n/a", "#n/a", "null", "none")
_NO_UNITS = "Delete this row if it holds units, else repair its episode"
NO_COMMAS = "Write numbers with a decimal point and without thousands separators"
NO_TIMES = "give a number, or leave the column out"


class BadCell(Exception):
    """The first cell of a column that will not do; its text goes on after the column's name.

    Either ``problem`` is what is wrong with this cell and ``mend`` what to do, or ``holds`` says what all of the column
    is, and ``kind`` is TEXT where it is that.
    """

    def __init__(self, row: int, problem: str = "", mend: str = REPAIR, holds: str = "", kind: str = "") -> None:
        super().__init__(f" holds {holds}" if holds else f", row {row}: {problem}. {mend}")
        self.row, self.problem, self.mend, self.kind = row, problem, mend, kind


def numbers_of(column: Any, missing: bool = False) -> NDArray[Any]:
    """A column of numbers, or of text that is numbers, as int64, float64 or bool `[N]`; of lists as `[N, width]`.

    ``true`` and ``false`` among them are 1 and 0. With ``missing`` an empty cell is NaN, and the column float64;
    ``NA``, ``N/A``, ``#N/A``, ``NULL`` and ``None`` are empty as well.
    BadCell for the first cell that is empty or no number, or a list of another length than the first.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if is_list(kind):
        return _matrix(column, missing)
    if is_text(kind):
        return _parse(pc.utf8_trim_whitespace(column.cast(pa.string())), missing)
    if pa.types.is_decimal(kind) or pa.types.is_null(kind) or (missing and column.null_count):
        column = column.cast(pa.float64())
    if not missing:
        refuse_empty(column.is_null(), EMPTY)
    values: NDArray[Any] = column.to_numpy()
    return values


def words_of(column: Any) -> NDArray[np.str_]:
    """A column as text `[N]`, without the space around it; empty where a cell is."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_duration(column.type):  # it has no cast to text
        column = column.cast(pa.int64())
    return np.array(pc.fill_null(pc.utf8_trim_whitespace(column.cast(pa.string())), "").to_pylist(), np.str_)


def _parse(column: Any, missing: bool) -> NDArray[Any]:
    """Text as int64 where every cell is a whole number, else as float64."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if missing:
        column = pc.if_else(pa.array(are_empty(column)), "nan", column)
    else:
        refuse_empty(pc.or_kleene(column.is_null(), pc.equal(column, "")), EMPTY)
    for text in (column, words_as_numbers(column)):
        for kind in (pa.int64(), pa.float64()):
            if (numbers := cast_or_none(text, kind)) is not None:
                return np.asarray(numbers.to_numpy())
    text = words_as_numbers(column)
    # A cast fails as a whole: the first bad row follows the longest part that can be cast.
    row = bisect(range(1, len(text)), False, key=lambda rows: cast_or_none(text.slice(0, rows), pa.float64()) is None)
    raise _no_number(column, row)


def _no_number(column: Any, row: int) -> BadCell:
    """What is said of text, not empty, that is no number in that row, and perhaps in none."""
    import pyarrow.compute as pc

    cell = column[row].as_py()
    shown = f"({cell[:SHOWN]!r} in row {row})"
    if re.fullmatch(TIME, cell):
        return BadCell(row, holds=f"time stamps {shown}: {NO_TIMES}")
    if re.match(_LIST, cell):
        return BadCell(
            row, holds=f"lists as text {shown}: write a column for each number, or save it as Parquet or JSON"
        )
    if _MINUS in cell and re.fullmatch(NUMBER, cell.replace(_MINUS, "-")):
        return BadCell(row, f"{cell!r} has the minus sign U+2212", "Write it as the hyphen -")
    if "," not in cell and not pc.any(pc.match_substring_regex(words_as_numbers(column), f"^{NUMBER}$")).as_py():
        if re.fullmatch(_WITH_UNIT, cell):
            return BadCell(row, holds=f"numbers with a unit {shown}: write the numbers alone")
        return BadCell(row, holds=f"text {shown}, not numbers", kind=TEXT)
    if cell.lower() in NOTHING:
        return BadCell(row, f"{cell!r} is not a number", EMPTY)
    grouped = re.fullmatch(r"[+-]?\d[\d.]*,[\d.,]+", cell) is not None
    mend = NO_COMMAS if grouped else _NO_UNITS if row == 0 else REPAIR
    return BadCell(row, f"{cell[:SHOWN]!r} is not a number", mend)


def words_as_numbers(column: Any) -> Any:
    """Text with ``true`` and ``false``, in any case, as 1 and 0."""
    import pyarrow.compute as pc

    plain = pc.utf8_lower(column)
    for word, number in (("true", "1"), ("false", "0")):
        plain = pc.if_else(pc.equal(plain, word), number, plain)
    return plain


def cast_or_none(column: Any, kind: Any) -> Any:
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
        column = pc.utf8_trim_whitespace(column.cast(pa.string()))
        empty = pc.or_kleene(empty, pc.is_in(pc.utf8_lower(column), value_set=pa.array(NOTHING)))
    refuse_empty(empty)
    encoded = column.dictionary_encode().unify_dictionaries()
    parts = [np.asarray(part.indices) for part in encoded.chunks]
    return np.concatenate([np.empty(0, np.int64), *parts]).astype(np.int64)


def are_empty(column: Any) -> NDArray[np.bool_]:
    """Which cells of text hold nothing, or a word for nothing, `[N]`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    words = pc.utf8_lower(pc.utf8_trim_whitespace(pc.fill_null(column, "")))
    return np.asarray(pc.is_in(words, value_set=pa.array(NOTHING)))


def refuse_empty(empty: Any, mend: str = REPAIR) -> None:
    """BadCell for the first cell `[N]` that is empty."""
    rows = np.flatnonzero(np.asarray(empty))
    if len(rows):
        raise BadCell(int(rows[0]), f"the cell is empty ({len(rows)} in this column)", mend)


def is_text(kind: Any) -> bool:
    """Whether an arrow type is text."""
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def is_list(kind: Any) -> bool:
    """Whether an arrow type is lists, of one length or of several."""
    import pyarrow as pa

    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def sequences_of(column: Any) -> list[NDArray[Any]]:
    """A column of lists as one array per cell, `[length]` of numbers or `[length, width]` of lists of one width.

    BadCell for the first cell that is missing, is empty, or holds what is no number or a list of another width.
    """
    lengths, cells = _unpacked(column)
    ends = np.cumsum(lengths)
    try:
        values = numbers_of(cells)
    except BadCell as bad:
        row = int(np.searchsorted(ends, bad.row, side="right"))
        raise BadCell(row, f"in step {bad.row - (ends - lengths)[row]}, {bad.problem}", bad.mend) from bad
    return np.split(values, ends[:-1])


def _matrix(column: Any, missing: bool) -> NDArray[Any]:
    """Lists of one length as `[N, width]`; with ``missing`` those that are not there are NaN."""
    if missing and column.null_count:
        there = np.flatnonzero(column.is_valid())
        try:
            values = _matrix(column.drop_null(), missing)
        except BadCell as bad:
            raise BadCell(int(there[bad.row]), bad.problem, bad.mend) from bad
        whole = np.full((len(column), values.shape[1]), np.nan)
        whole[there] = values
        return whole
    lengths, cells = _unpacked(column, EMPTY)
    others = np.flatnonzero(lengths != lengths[:1])
    if len(others):
        row = int(others[0])
        raise BadCell(row, f"the list has {lengths[row]} numbers, but the first has {lengths[0]}")
    width = int(lengths[0]) if len(lengths) else 1
    try:
        return numbers_of(cells, missing).reshape(len(lengths), width)
    except BadCell as bad:
        raise BadCell(bad.row // width, bad.problem, bad.mend) from bad


def _unpacked(column: Any, mend: str = REPAIR) -> tuple[NDArray[np.int64], Any]:
    """The lengths of a column's lists `[N]`, and the cells of all, one after another."""
    import pyarrow as pa
    import pyarrow.compute as pc

    refuse_empty(column.is_null(), mend)
    lengths = np.asarray(pc.list_value_length(column)).astype(np.int64)
    if len(empty := np.flatnonzero(lengths == 0)):
        raise BadCell(int(empty[0]), "the list is empty")
    return lengths, pa.chunked_array([part.flatten() for part in column.chunks], column.type.value_type)
