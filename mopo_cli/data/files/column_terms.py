"""What a column map may write for a column: a name, a star, a sum of weighted columns, and endings such as :onehot."""

import re
from collections.abc import Sequence

_NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_TERM = re.compile(rf"(-?)\s*(?:({_NUMBER})\s*\*\s*)?(.+)", re.DOTALL)
KINDS = {"onehot": ("observations", "next_observations"), "quantity": ("actions",)}
"""The endings, and the columns of ours that may have them: categories, and whole numbers that are amounts."""


def reward_terms(text: str, here: Sequence[str]) -> dict[str, float]:
    """The weight of each column in a sum such as ``yield - 0.1*cost``; names that are `here` may hold signs."""
    terms: dict[str, float] = {}
    parts = re.split(r"(?=[+-])", text)
    while parts:
        # The longest piece that is a term, as names and numbers (1e-3) may hold signs.
        sizes = (n for n in range(len(parts), 0, -1) if _term("".join(parts[:n]), here)[1] in here)
        size = next(sizes, 1)
        weight, name = _term("".join(parts[:size]), here)
        if name:
            terms[name] = terms.get(name, 0.0) + weight
        parts = parts[size:]
    return terms


def _term(text: str, here: Sequence[str]) -> tuple[float, str]:
    """The weight and the name in ``-0.1*cost``, unless the whole is a name itself."""
    text = text.strip().removeprefix("+").strip()
    match = _TERM.fullmatch(text)
    if text in here or match is None:
        return 1.0, text
    sign, weight, name = match.groups()
    return (-1.0 if sign else 1.0) * float(weight or 1), name.strip()


def split_kind(pattern: str, here: Sequence[str]) -> tuple[str, str]:
    """A pattern without its ending, one of `KINDS`, and this ending; empty where it has none."""
    plain, _, kind = pattern.rpartition(":")
    return (pattern, "") if not plain or pattern in here or kind not in KINDS else (plain, kind)


def fits(name: str, pattern: str) -> bool:
    """Whether a name is the pattern with anything in place of each star; linear in its length."""
    first, *inner, last = pattern.split("*")
    if len(name) < len(first) + len(last) or not (name.startswith(first) and name.endswith(last)):
        return False
    place, end = len(first), len(name) - len(last)
    for part in inner:
        place = name.find(part, place, end)
        if place < 0:
            return False
        place += len(part)
    return True
