"""How long something will still take: a bar on a terminal, a heartbeat line where the output is piped."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console

HEARTBEAT_SECONDS = 30.0


class Progress:
    """Shows how many steps are done; this one, where nothing is to be seen, shows nothing."""

    def update(self, n: float = 1, **fields: Any) -> None:
        """``n`` more steps are done (not: n in all); ``fields`` are numbers to show beside the bar."""


@contextmanager
def bar(
    console: Console, description: str, total: float | None, done: int = 0, in_bytes: bool = False
) -> Iterator[Progress]:
    """Gives a bar with the time left, redrawn in place and gone when done; ``done`` steps were done before."""
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        *((DownloadColumn(), TransferSpeedColumn()) if in_bytes else (MofNCompleteColumn(),)),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[numbers]}", markup=False),
    )
    with RichProgress(*columns, console=console, transient=True, refresh_per_second=4) as rich_progress:
        task = rich_progress.add_task(description, total=total, completed=done, numbers="")

        class _Bar(Progress):
            def update(self, n: float = 1, **fields: Any) -> None:
                rich_progress.update(task, advance=n, numbers=_numbers(fields))

        yield _Bar()


class Heartbeat(Progress):
    """Writes a line at most every ``HEARTBEAT_SECONDS``; ``done`` steps were done before."""

    def __init__(
        self, write: Callable[[str], None], description: str, total: float | None, done: int, in_bytes: bool
    ) -> None:
        self._write = write
        self._in_bytes = in_bytes
        self._description = description
        self._total = total
        self._done: float = done
        self._done_before = done
        self._start = self._last = time.monotonic()

    def update(self, n: float = 1, **fields: Any) -> None:
        """Counts ``n`` more steps and writes a line if the last one is old enough."""
        self._done += n
        now = time.monotonic()
        if now - self._last < HEARTBEAT_SECONDS:
            return
        self._last = now
        self._write(self._line(now - self._start, fields))

    def _line(self, elapsed: float, fields: dict[str, Any]) -> str:
        scale, unit = (1e6, " MB") if self._in_bytes else (1, "")
        done, before = self._done / scale, self._done_before / scale
        parts = [self._description, f"{done:,.0f}{unit}", f"{_clock(elapsed)} passed"]
        if self._total and done > before:
            total = self._total / scale
            left = elapsed * max(total - done, 0) / (done - before)
            parts[1] = f"{done:,.0f}/{total:,.0f}{unit} ({done / total:.0%})"
            parts.append(f"{_clock(left)} left")
        if self._in_bytes and done > before:
            parts.append(f"{(done - before) / elapsed:,.2f} MB/s")
        return "  ".join([*parts, _numbers(fields)]).rstrip()


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:d}:{minutes:02d}:{seconds:02d}"


def _numbers(fields: dict[str, Any]) -> str:
    def show(value: Any) -> str:
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    return "  ".join(f"{name.replace('_', ' ')} {show(value)}" for name, value in fields.items())
