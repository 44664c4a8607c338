"""What is common to tables that pyarrow reads: a file opened, columns by name, and their cells as numbers."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mopo_cli.data.checks import Check, require
from mopo_cli.data.files.arrow_times import times_of
from mopo_cli.data.files.arrow_values import BadCell, codes, numbers_of, words_of
from mopo_cli.data.files.layout import Columns, Wanted
from mopo_cli.errors import InputError, MopoError
from mopo_cli.store.files import check_file

_MOST_COLUMNS = 10_000

Convert = Callable[[str, Any], Any]
"""The name of a column, and the column as arrow holds it -> its numbers; raises BadCell."""


def refuse_many(path: Path, columns: int) -> None:
    """InputError for a table of so many columns as no log has."""
    if columns > _MOST_COLUMNS:
        raise InputError(f"{path.name} has {columns:,} columns; at most {_MOST_COLUMNS:,} are supported.")


def once_each(path: Path, heading: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """Each of the names -> as the file writes it; InputError where the file has it twice or not at all."""
    as_written = {}
    for name in names:
        written = [other for other in heading if other.strip() == name]
        if len(written) != 1:
            problem = f"has two columns {name!r}: rename one of them" if written else f"has no column {name!r}"
            raise InputError(f"{path.name} {problem}.")
        as_written[name] = written[0]
    return as_written


def values_of(path: Path, columns: Mapping[str, Any], wanted: Wanted, convert: Convert | None = None) -> Columns:
    """Columns of arrow as they are wanted, numbers and times as ``convert`` makes them.

    UnusableData with the first bad cell of every column that has one.
    """
    values: dict[str, NDArray[Any]] = {}
    checks = []
    for name, column in columns.items():
        try:
            values[name] = _typed(name, column, wanted, convert)
        except BadCell as bad:
            what = bad.kind or ("labels" if name in wanted.labels else "numbers")
            checks.append(Check(name, what, f"{path.name}: column {name}{bad}.", bad.row))
    require(checks)
    return values


def _typed(name: str, column: Any, wanted: Wanted, convert: Convert | None) -> NDArray[Any]:
    if name in wanted.labels:
        return codes(column)
    if name in wanted.words:
        return words_of(column)
    if convert is not None:
        return np.asarray(convert(name, column))
    return times_of(column) if name in wanted.times else numbers_of(column, wanted.missing)


def text_column(words: NDArray[np.str_]) -> Any:
    """Text `[N]` as a column of arrow."""
    import pyarrow as pa

    return pa.chunked_array([pa.array(words.tolist(), pa.string())])


@contextmanager
def opened(path: Path, kind: str, error_class: type[MopoError]) -> Iterator[Any]:
    """The file; whatever pyarrow finds wrong with it inside the block is an ``error_class``."""
    import pyarrow as pa

    check_file(path)
    # Not a file of Python's: the thread that reads ahead may outlive the block, and must not end in Python when the
    # process does.
    with arrow_errors(path, kind, error_class), pa.OSFile(os.fsencode(path)) as file:
        yield file


@contextmanager
def arrow_errors(path: Path, kind: str, error_class: type[MopoError]) -> Iterator[None]:
    """Whatever pyarrow finds wrong inside the block is an ``error_class`` about the file."""
    try:
        yield
    except (MopoError, MemoryError):
        raise
    except Exception as error:  # pyarrow raises its own errors, Python's ValueError, OSError and more
        message = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise error_class(f"{path.name} cannot be read as {kind}: {message[:200]}.") from error
