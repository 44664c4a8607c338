"""What a file of logs is once it is opened: columns of rows, one row per step, whatever its layout.

A new layout is one file with a `Layout` in it and one line in `layouts.LAYOUTS`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

Columns = dict[str, NDArray[Any]]
"""Numbers `[N]` or `[N, width]` as they are stored, labels as int64 codes `[N]`, words as text `[N]`, by name."""


@dataclass(frozen=True)
class Wanted:
    """The columns to read.

    `numbers` of any numeric type; `labels` as codes, equal where the values are; `words` as text, empty where a cell
    is; `times` as numbers, points of time in seconds. Where `missing` is true, an empty cell of numbers is NaN. The
    numbers that are `flags` or `rewards` belong to single steps, and not to whole episodes.
    """

    numbers: Sequence[str] = ()
    labels: Sequence[str] = ()
    words: Sequence[str] = ()
    times: Sequence[str] = ()
    missing: bool = False
    flags: Sequence[str] = ()
    rewards: Sequence[str] = ()

    @property
    def names(self) -> list[str]:
        """All of them."""
        return [*self.numbers, *self.text]

    @property
    def text(self) -> list[str]:
        """Those that may be text."""
        return [*self.labels, *self.words, *self.times]


@dataclass(frozen=True)
class Log:
    """Columns of N rows, each a step, in the order they were logged.

    - `names` are those of all columns, `lacking` names those that only a part of the log has, and a part that has not;
    - `read(wanted)` returns some columns: raises UnusableData (an InputError) with
      the first bad cell of every column that has one, InputError for what else cannot be read, CorruptError for a
      damaged file;
    - `layout` is the name of the layout it is in;
    - `is_table`: columns are single numbers under a heading; otherwise they are arrays, and names may be paths;
    - `episode` is a column of labels that the layout itself makes, one label per episode, `part` one with a label per
      piece of the record, and `file` one with the number of each row's file: no episode goes on in the next piece or
      file, but each may hold several;
    - `following` has, for columns that are one row longer than the others, the name of the column of their next rows,
      which is read by that name but is none of `names`;
    - `note` says what was understood, for people; empty where the layout is the plain one. `remarks` say how the cells
      were understood that `read` read last; it fills them.
    """

    names: list[str]
    read: Callable[[Wanted], Columns]
    lacking: dict[str, str] = field(default_factory=dict)
    layout: str = ""
    is_table: bool = False
    episode: str | None = None
    part: str | None = None
    file: str | None = None
    following: dict[str, str] = field(default_factory=dict)
    note: str = ""
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Layout:
    """How rows lie in a file. `open` returns None for a file that is laid out otherwise; `about` is for people.

    `looks_so` tells layouts apart that the same file could have; it is not asked where the user names the layout.
    """

    about: str
    open: Callable[[Path], Log | None]
    looks_so: Callable[[Path], bool] = lambda path: True
