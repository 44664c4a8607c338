"""Metrics while training runs: stages log them here, and every sink gets them.

To add a sink: one file with a class like `Sink`, as json_lines.py, and one line in `SINKS`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Protocol

from mopo_cli.report.console import Report
from mopo_cli.report.json_lines import JsonLines
from mopo_cli.store.atomic import cannot_write, move_into_place
from mopo_cli.store.publication import Publication


class Sink(Protocol):
    """Somewhere metrics go, made from a folder for its files and the names of the members that train.

    It starts empty: when training resumes, the epochs that the checkpoint holds are logged again. Names of members
    are relative paths, such as "seed-0".
    """

    where: str
    """How the user sees the metrics while training runs, e.g. a command."""

    def log(self, stage: str, member: str, step: int, values: Mapping[str, Any]) -> None:
        """Take the values of one member at one step; ``stage`` is as in run.json, a step is an epoch."""

    def files(self, member: str) -> list[Path]:
        """The files to publish beside what the member learned; whole after `close`."""

    def close(self) -> None:
        """No more will be logged."""


SINKS: tuple[Callable[[Path, Sequence[str]], Sink], ...] = (JsonLines,)


class Metrics:
    """All sinks of one stage in training."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = sinks

    def log_records(self, stage: str, member: str, records: Sequence[Mapping[str, Any]]) -> None:
        """Hand records of a member to every sink, as checkpoints hold them: the step is their "epoch"."""
        for record in records:
            values = {name: record[name] for name in record if name != "epoch"}
            for sink in self._sinks:
                sink.log(stage, member, record["epoch"], values)

    def stage_files(self, member: str, out: Publication, folder: Path) -> dict[str, Path]:
        """Move the member's files to ``out``, which will publish them in ``folder``; returns their places by stem.

        InputError where that fails.
        """
        places = {}
        for file in [file for sink in self._sinks for file in sink.files(member)]:
            places[file.stem] = folder / file.name
            staged = out.stage(places[file.stem])
            try:
                move_into_place(file, staged)
            except OSError as error:
                raise cannot_write(staged.parent, error) from error
        return places


@contextmanager
def open_metrics(folder: Path, members: Sequence[str], report: Report) -> Iterator[Metrics]:
    """The sinks, empty, for so many members, closed when the block ends; the user is shown where they write."""
    with ExitStack() as context:
        sinks = [context.enter_context(closing(make(folder, members))) for make in SINKS]
        for sink in sinks:
            report.say(f"metrics of every epoch: {sink.where}")
        yield Metrics(sinks)
