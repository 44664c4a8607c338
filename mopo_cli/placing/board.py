"""One table for a whole study: which jobs wait, run (where, at which epoch), are done or have failed, and why."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from mopo_cli.report.console import Report

State = Literal["waiting", "running", "done", "failed"]
_STATES: tuple[State, ...] = ("failed", "running", "waiting", "done")
_COLUMNS = ("job", "state", "where", "epoch", "return", "why")
_HEARTBEAT_SECONDS = 30.0
_MOST_ROWS = 30  # a screen's


@dataclass
class Line:
    """One job; ``epoch`` and ``value`` are of its latest report, ``why`` is the reason of its latest failure."""

    what: str
    state: State = "waiting"
    where: str = ""
    epoch: int | None = None
    value: float | None = None
    why: str = ""


class Board:
    """The states of a study's jobs by name; ``what`` says what each job trains.

    On a terminal they are a table while `shown`, elsewhere each change is a line.
    """

    def __init__(self, what: Mapping[str, str], report: Report) -> None:
        self.lines = {name: Line(text) for name, text in what.items()}
        self._report = report
        self._last_said = time.monotonic()
        self._is_table = False

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the table within the block, where there is a terminal."""
        with self._report.view(_COLUMNS, self.rows) as self._is_table:
            yield

    def rows(self) -> list[tuple[Any, ...]]:
        """The table: what failed, what runs, then what waits and is done, as far as a screen has room; and sums."""
        lines = sorted(self.lines.values(), key=lambda line: _STATES.index(line.state))[:_MOST_ROWS]
        rows = [(line.what, line.state, line.where, line.epoch, line.value, line.why) for line in lines]
        return [*rows, (self.summary(), "", "", None, None, "")]

    def change(
        self,
        name: str,
        state: State,
        where: str = "",
        epoch: int | None = None,
        value: float | None = None,
        why: str = "",
    ) -> None:
        """Note what became of a job. A change of state is told at once, progress every half minute."""
        line = self.lines[name]
        before, line.state = line.state, state
        line.where = where or line.where
        line.epoch = line.epoch if epoch is None else epoch
        line.value = line.value if value is None else value
        line.why = why or line.why
        if state != before or why:
            self._tell(name)
        elif time.monotonic() - self._last_said > _HEARTBEAT_SECONDS:
            self.tell_progress()

    def note(self, text: str) -> None:
        """Say something about the study as a whole; beside a table it stands above it."""
        self._report.say(text)

    def tell_progress(self) -> None:
        """Say how many jobs are in which state, and how far those are that run."""
        self._last_said = time.monotonic()
        for name, line in self.lines.items():
            if line.state == "running":
                self._tell(name)
        if not self._is_table:
            self._report.say(self.summary())

    def count(self, state: State) -> int:
        """How many jobs are in this state."""
        return sum(line.state == state for line in self.lines.values())

    def summary(self) -> str:
        """All states in a line: ``3 done, 2 running, 1 waiting``."""
        return ", ".join(f"{count} {state}" for state in reversed(_STATES) if (count := self.count(state)))

    def failures(self) -> dict[str, str]:
        """Why jobs failed, by their names."""
        return {name: line.why for name, line in self.lines.items() if line.state == "failed"}

    def _tell(self, name: str) -> None:
        if self._is_table:
            return
        line = self.lines[name]
        where = f" on {line.where}" if line.where else ""
        epoch = f", epoch {line.epoch}" if line.epoch is not None and line.state == "running" else ""
        value = f", return {line.value:.1f}" if line.value is not None and epoch else ""
        why = f": {line.why}" if line.why and line.state in ("waiting", "failed") else ""
        self._report.event(
            {"job": name, "what": line.what, "state": line.state, "where": line.where, "epoch": line.epoch}
            | {"return": line.value, "why": line.why},
            f"{line.state:8} {line.what}{where}{epoch}{value}{why}",
        )
