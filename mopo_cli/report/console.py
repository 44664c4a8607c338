"""The only place that prints. Progress, tables and hints go to stderr; results go to stdout.

Three modes: ``human`` shows everything, ``json`` prints one JSON object as the result and is otherwise
silent, ``quiet`` prints no result either. Warnings and errors reach stderr in every mode. NO_COLOR,
TERM=dumb and COLUMNS are honoured.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Real
from typing import Any, Literal, NoReturn, TextIO, cast

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mopo_cli.errors import InputError, MopoError
from mopo_cli.report.progress import Heartbeat, Progress, bar
from mopo_cli.store.atomic import plain

Mode = Literal["human", "json", "quiet"]
PIPED_WIDTH = 120
CELL_WIDTH = 8


class Report:
    """What a command prints for its user; stages print through it and never themselves."""

    def __init__(self, mode: Mode = "human", *, hints: bool = True) -> None:
        self.mode = mode
        self._hints = hints
        self._screen = _Screen(file=cast(TextIO, _Stderr()), highlight=False, markup=False, emoji=False)
        if not self._screen.is_terminal and "COLUMNS" not in os.environ:
            self._screen.width = PIPED_WIDTH

    @property
    def is_human(self) -> bool:
        """Whether progress, tables and hints are shown."""
        return self.mode == "human"

    def say(self, text: str) -> None:
        """Tells what is going on, in a sentence."""
        if self.is_human:
            self._line(Text(text))

    def event(self, event: Mapping[str, Any], text: str) -> None:
        """Tells of a change in a long study on stderr: people get ``text``, in json mode it is a line of JSON."""
        if self.mode == "json":
            self._line(Text(json.dumps(plain(dict(event)), allow_nan=False)))
        else:
            self.say(text)

    def hint(self, text: str) -> None:
        """Names the command to try next; nothing where the report was made without hints."""
        if self.is_human and self._hints:
            self._line(Text.assemble(("Next: ", "cyan"), text))

    def warn(self, text: str) -> None:
        """Tells of something that deserves a look, in every mode."""
        self._line(Text.assemble(("Warning: ", "yellow"), text))

    def error(self, error: MopoError) -> None:
        """Prints an error's sentence and the command to try next, in every mode."""
        stopped = error.exit_code > 128
        self._line(Text.assemble(("" if stopped else "Error: ", "bold red"), error.message))
        if error.hint:
            self._line(Text.assemble(("Try: ", "cyan"), error.hint))

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Prints a table; columns that hold only numbers are aligned to the right."""
        if not self.is_human:
            return
        self._line(Text(title, style="bold"))  # a Table's own title would be folded to the table's width
        self._screen.print(_drawn(columns, rows))

    @contextmanager
    def view(self, columns: Sequence[str], rows: Callable[[], Sequence[Sequence[Any]]]) -> Iterator[bool]:
        """Shows a table that is drawn again twice a second within the block, on a terminal; gives whether it is."""
        shown = self.is_human and self._screen.is_terminal and not self._screen.is_dumb_terminal
        if not shown:
            yield False
            return
        with Live(console=self._screen, get_renderable=lambda: _drawn(columns, rows()), refresh_per_second=2):
            yield True

    def without_hints(self) -> "Report":
        """For a stage that another one needs first: its hint on what to run next would mislead."""
        return Report(self.mode, hints=False)

    @contextmanager
    def live_table(self, columns: Sequence[str]) -> Iterator["LiveTable"]:
        """Gives a table that grows by a printed row at a time, e.g. one per epoch."""
        yield LiveTable(self._line if self.is_human else None, columns)

    @contextmanager
    def progress(
        self, description: str, total: float | None, done: int = 0, in_bytes: bool = False
    ) -> Iterator[Progress]:
        """Gives a bar on a terminal, a heartbeat line where piped, and nothing in json and quiet mode.

        ``total`` is the number of steps, None where it is not known; ``done`` of them were done by an earlier attempt.
        Steps that are bytes are shown with their speed.
        """
        if not self.is_human:
            yield Progress()
        elif self._screen.is_terminal and not self._screen.is_dumb_terminal:
            with bar(self._screen, description, total, done, in_bytes) as progress:
                yield progress
        else:
            yield Heartbeat(lambda line: self._line(Text(line)), description, total, done, in_bytes)

    def result(self, result: Mapping[str, Any], text: str | None = None) -> None:
        """Prints a command's result on stdout: one JSON object, or for people ``text``.

        Where there is no text, people get ``name: value`` lines of what is not nested. Values that JSON has
        no word for (NaN, infinity) become null. InputError where stdout cannot be written.
        """
        content = plain(dict(result))
        if self.mode == "json":
            _write_stdout(json.dumps(content, allow_nan=False))
        elif self.mode == "human":
            short = (f"{name}: {format_value(value)}" for name, value in content.items() if _is_short(value))
            _write_stdout("\n".join(short) if text is None else text)

    def _line(self, text: Text) -> None:
        self._screen.print(text, soft_wrap=True)


def _drawn(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    table = Table()
    for index, column in enumerate(columns):
        numeric = all(row[index] is None or isinstance(row[index], Real) for row in rows)
        table.add_column(Text(column), justify="right" if numeric and rows else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(format_value(value)) for value in row))
    return table


class _Screen(Console):
    def on_broken_pipe(self) -> None:
        reader_has_gone(sys.stderr)


class _Stderr:
    """What stderr is at the time; where it cannot be written, on a full disk, all goes on without a message."""

    def write(self, text: str) -> int:
        with _ignoring_errors():
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with _ignoring_errors():
            sys.stderr.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


@contextmanager
def _ignoring_errors() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError:
        silence_stream(sys.stderr)


class LiveTable:
    """A table printed row by row; the heading comes with the first row, which also settles the widths."""

    def __init__(self, write: Any, columns: Sequence[str]) -> None:
        self._write = write
        self._columns = columns
        self._widths: list[int] | None = None

    def row(self, *values: Any) -> None:
        """Prints one row, a value per column."""
        if self._write is None:
            return
        cells = [format_value(value) for value in values]
        if self._widths is None:
            pairs = zip(self._columns, cells, strict=True)
            self._widths = [max(len(column), len(cell), CELL_WIDTH) for column, cell in pairs]
            self._write(Text(self._join(self._columns), style="bold"))
        self._write(Text(self._join(cells)))

    def _join(self, cells: Sequence[str]) -> str:
        widths = self._widths or []
        return "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))


def format_value(value: Any) -> str:
    """A value as people read it: four significant digits, thousands marked, ``-`` for None and for nothing."""
    if value is None:
        return "-"
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.1f}" if 1000 <= abs(value) < 1e7 else f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {format_value(item)}" for name, item in value.items())
    if isinstance(value, Sequence):
        return " ".join(format_value(item) for item in value) or "-"
    return str(value)


def _is_short(value: Any) -> bool:
    """Whether a result's value fits on its line: a scalar or a list of scalars."""
    if isinstance(value, list):
        return not any(isinstance(item, dict | list) for item in value)
    return not isinstance(value, dict)


def _write_stdout(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:
        reader_has_gone(sys.stdout)
    except OSError as error:
        raise stdout_fault(error) from error


def stdout_fault(error: OSError) -> InputError:
    """The error where stdout cannot be written; what was still to be written there is dropped."""
    silence_stream(sys.stdout)
    return InputError(f"The result cannot be written to the standard output: {error.strerror}.")


def reader_has_gone(stream: TextIO) -> NoReturn:
    """Ends as a program should whose reader has (``mopo ... | head``): at once and without a message."""
    silence_stream(stream)
    raise SystemExit(128 + 13)


def silence_stream(stream: TextIO) -> None:
    """Lets what is written to a stream go nowhere, also what the interpreter flushes as it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
