"""Numbers with decimal commas (``1.234,5``) in tables whose separator is no comma.

``60,000`` alone may be sixty or sixty thousand, and ``1.234`` beside commas may be 1.234 or 1234. So the columns that
are read together are looked at together: what some cell proves holds for all, and what nothing proves is refused.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mopo_cli.data.files.arrow_values import EMPTY, NOTHING, NUMBER, REPAIR, BadCell, are_empty, is_text, refuse_empty

_EXPONENT = r"([eE][+-]?\d+)?"
_THOUSANDS_POINTS = r"\d{1,3}(\.\d{3})+"
COMMA_NUMBER = rf"[+-]?({_THOUSANDS_POINTS}|\d+|\d*,\d+|{_THOUSANDS_POINTS},\d+){_EXPONENT}"
"""A number as it is written where the comma is the decimal sign."""
_COMMA_PROOF = (
    rf"[+-]?(\d*,(\d{{1,2}}|\d{{4,}})|(0\d*|\d{{4,}})?,\d+|{_THOUSANDS_POINTS},\d+|\d*,\d+[eE][+-]?\d+){_EXPONENT}"
)
_POINT_PROOF = (
    rf"[+-]?(\d*\.(\d{{1,2}}|\d{{4,}})|(0\d*|\d{{4,}})?\.\d+|\d{{1,3}}(,\d{{3}})+\.\d*|\d*\.\d+[eE][+-]?\d+){_EXPONENT}"
)
_POINTS_PROOF = rf"[+-]?({_THOUSANDS_POINTS},\d+|\d{{1,3}}(\.\d{{3}}){{2,}})"
_GROUPED = r"[+-]?[1-9]\d{0,2}(\.\d{3})+"
_MEND = "Write numbers without thousands separators"


Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Signs:
    """Whether some cell can only be read with a decimal comma, and some only with a decimal point."""

    comma: bool
    point: bool


def signs_of(columns: Iterable[Any]) -> Signs:
    """What the text columns of a table prove together."""
    cells = [_trimmed(column) for column in columns if is_text(column.type)]
    return Signs(*(any(_fits(column, proof).any() for column in cells) for proof in (_COMMA_PROOF, _POINT_PROOF)))


def with_points(column: Any, signs: Signs, missing: bool = False) -> Any:
    """A column of text with decimal points and no thousands separators; the same object where nothing is to be done.

    With ``missing`` a cell may hold nothing.
    BadCell for the first cell that is written otherwise than the others, or of which nothing says how it is meant.
    """
    import pyarrow.compute as pc

    cells = _trimmed(column)
    commas = _holds(cells, ",")
    if not commas.any() and not _are_grouped(cells, signs):
        return column
    if commas.any() and not _fits(cells, COMMA_NUMBER)[commas].any():
        return column  # text, of which it is said elsewhere that it is no number
    _refuse_others(cells, commas, missing)
    _refuse_doubts(cells, commas, signs)
    return pc.replace_substring(pc.replace_substring(cells, ".", ""), ",", ".")


def in_words(rewritten: Mapping[str, Any]) -> list[str]:
    """What is said of the columns, by name, that `with_points` has rewritten."""
    commas = [name for name, column in rewritten.items() if _holds(column, ",").any()]
    points = [name for name in rewritten if name not in commas]
    signs = (("decimal commas", commas), ("points between thousands", points))
    return [f"{what} in columns {', '.join(names)}" for what, names in signs if names]


def _are_grouped(cells: Any, signs: Signs) -> bool:
    """Whether all points in a column without commas may be between thousands, and something speaks for it."""
    points = _holds(cells, ".")
    grouped = points.any() and _fits(cells, _GROUPED)[points].all()
    return bool(grouped and (signs.comma or _fits(cells, _POINTS_PROOF).any()))


def _refuse_others(cells: Any, commas: Bools, missing: bool) -> None:
    """BadCell for a number that is written otherwise than those with a decimal comma."""
    others = np.flatnonzero(~_fits(cells, COMMA_NUMBER) & ~(missing & are_empty(cells)))
    if len(others):
        row = int(others[0])
        cell = cells[row].as_py()
        if re.fullmatch(rf"{NUMBER}|[+-]?\d{{1,3}}(,\d{{3}})+(\.\d*)?", cell):
            like = int(np.flatnonzero(commas & _fits(cells, COMMA_NUMBER))[0])
            other = f"but {cells[like].as_py()!r} in row {like} has one"
            raise BadCell(row, f"{cell!r} has no decimal comma, {other}", "Write all numbers of a column in one way")
        if cell:
            raise BadCell(row, f"{cell[:60]!r} is not a number", EMPTY if cell.lower() in NOTHING else REPAIR)
        refuse_empty(_fits(cells, ""), EMPTY)


def _refuse_doubts(cells: Any, commas: Bools, signs: Signs) -> None:
    """BadCell for a number that may be a thousand times another."""
    points = _holds(cells, ".")
    single = np.flatnonzero(points & ~commas)
    if len(single) and not _fits(cells, _POINTS_PROOF).any():
        raise _doubt(cells, int(single[0]), ".", "as there are decimal commas in this table")
    if commas.any() and not _fits(cells, _COMMA_PROOF).any():
        if signs.point:
            raise _doubt(cells, int(np.flatnonzero(commas)[0]), ",", "as there are decimal points in this table")
        if not signs.comma and not commas.all():
            raise _doubt(cells, int(np.flatnonzero(commas)[0]), ",", "as other cells have no comma")


def _doubt(cells: Any, row: int, mark: str, why: str) -> BadCell:
    cell = cells[row].as_py()
    meant = f"{cell.replace(mark, '')} or {cell.replace(mark, '.')}"
    return BadCell(row, f"{cell!r} may be {meant}, {why}", _MEND)


def _trimmed(column: Any) -> Any:
    import pyarrow.compute as pc

    return pc.utf8_trim_whitespace(column)


def _fits(cells: Any, pattern: str) -> Bools:
    """Which cells are of that pattern as a whole, bool `[N]`."""
    import pyarrow.compute as pc

    return np.asarray(pc.match_substring_regex(cells, f"^({pattern})$"), dtype=np.bool_)


def _holds(cells: Any, mark: str) -> Bools:
    import pyarrow.compute as pc

    return np.asarray(pc.match_substring(cells, mark), dtype=np.bool_)
