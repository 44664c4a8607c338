"""What was looked at in data and what is wrong with it: raised as the first fault, or told all at once."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mopo_cli.errors import InputError


@dataclass(frozen=True)
class Check:
    """One thing that must hold of a column."""

    column: str
    what: str
    """What is looked at, in a few words: "finite", "episode ends"."""
    fault: str = ""
    """What is wrong and what mends it, a whole sentence; empty where nothing is."""
    row: int | None = None
    """The first row at fault."""
    hint: str = ""
    warning: str = ""
    """What deserves a look, whole sentences; the data can be used all the same."""


class UnusableData(InputError):
    """Reads as its first fault. ``checks`` are all that were made; ``data`` is what was read all the same, if any."""

    def __init__(self, checks: list[Check], data: Any = None) -> None:
        first = next(check for check in checks if check.fault)
        super().__init__(first.fault, first.hint)
        self.checks, self.data = checks, data


def require(checks: Iterable[Check]) -> None:
    """UnusableData if any of the checks failed."""
    looked_at = list(checks)
    if any(check.fault for check in looked_at):
        raise UnusableData(looked_at)
