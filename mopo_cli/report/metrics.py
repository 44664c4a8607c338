"""Metrics while training runs: stages log them here, and metrics.jsonl and every sink that was asked for get them.

To add a sink: one file with a class like `Sink`, as sink_tensorboard.py, and one line in `SINKS`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, redirect_stderr, redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from typing import Any

from mopo_cli.errors import UsageError
from mopo_cli.report.console import Report
from mopo_cli.report.json_lines import JsonLines
from mopo_cli.report.sink import Curves, Sink, scalars
from mopo_cli.report.sink_mlflow import Mlflow
from mopo_cli.report.sink_tensorboard import TensorBoard
from mopo_cli.report.sink_trackio import Trackio
from mopo_cli.report.sink_wandb import Wandb
from mopo_cli.store.atomic import cannot_write, move_into_place
from mopo_cli.store.packages import require_package
from mopo_cli.store.publication import Publication
from mopo_cli.store.run import RunFolder

Record = Mapping[str, Any]
"""An epoch of a member as checkpoints and metrics.jsonl hold it: values by name, and which "epoch" it is."""

SINKS: dict[str, type[Sink]] = {
    "tensorboard": TensorBoard,
    "trackio": Trackio,
    "wandb": Wandb,
    "mlflow": Mlflow,
}


def check_sinks(flag: str, names: Sequence[str]) -> None:
    """UsageError for a name that is not in `SINKS`, SettingsError for a sink whose library is not installed."""
    for name in names:
        if name not in SINKS:
            raise UsageError(f"{flag} must be one of {', '.join(SINKS)}, not {name!r}.")
        require_package(f"{flag} {name}", SINKS[name].library)


class Metrics:
    """metrics.jsonl and the sinks of one stage in training."""

    def __init__(self, lines: JsonLines, sinks: "Sequence[Guarded]") -> None:
        self._lines = lines
        self._sinks = sinks

    def log_records(self, member: str, records: Sequence[Record]) -> None:
        """Log records of a member, in their order."""
        epochs = by_epoch(records)
        for epoch, values in epochs.items():
            self._lines.log(member, epoch, values)
        for sink in self._sinks:
            sink.log(member, epochs)

    def stage_files(self, member: str, out: Publication, folder: Path) -> dict[str, Path]:
        """Move the member's file to ``out``, which will publish it in ``folder``; returns its place by stem.

        InputError where that fails.
        """
        file = self._lines.file(member)
        place = folder / file.name
        staged = out.stage(place)
        try:
            move_into_place(file, staged)
        except OSError as error:
            raise cannot_write(staged.parent, error) from error
        return {file.stem: place}


class Guarded:
    """A sink whose first failure is told and which gets nothing more after it. What it prints is not shown."""

    def __init__(self, make: Callable[[], Sink], fail: Callable[[Exception], None]) -> None:
        self._sink: Sink | None = None
        self._fail = fail
        with self._guard(), silent():
            self._sink = make()

    @property
    def where(self) -> str | None:
        """How the user sees the metrics; None after a failure."""
        return self._sink.where if self._sink is not None else None

    def log(self, member: str, epochs: Mapping[int, Mapping[str, Any]]) -> None:
        """Hand the numbers among the values to the sink."""
        if self._sink is not None and epochs:
            with self._guard(), silent():
                self._sink.log(member, {epoch: scalars(values) for epoch, values in epochs.items()})

    def close(self) -> None:
        """Close the sink."""
        if self._sink is not None:
            with self._guard(), silent():
                self._sink.close()

    @contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            broken, self._sink = self._sink, None
            self._fail(error)
            if broken is not None:
                with suppress(Exception), silent():
                    broken.close()


@contextmanager
def open_metrics(folder: Path, curves: Curves, report: Report, names: Sequence[str] = ()) -> Iterator[Metrics]:
    """metrics.jsonl in ``folder`` and the sinks of these names, empty, closed when the block ends.

    The user is shown where they write.
    """
    with ExitStack() as context:
        lines = JsonLines(folder, curves.members)
        sinks = [context.enter_context(closing(_open(name, curves, report))) for name in names]
        for where in (lines.where, *(sink.where for sink in sinks)):
            if where is not None:
                report.say(f"metrics of every epoch: {where}")
        yield Metrics(lines, sinks)


def _open(name: str, curves: Curves, report: Report) -> Guarded:
    folder = RunFolder(curves.root).logs(name)

    def fail(error: Exception) -> None:
        report.warn(
            f"{name} gets no more metrics, but training and metrics.jsonl go on ({reason(error)}). "
            f"Later: mopo export-logs {curves.root} --to {name}"
        )

    return Guarded(lambda: SINKS[name](folder, curves), fail)


def by_epoch(records: Sequence[Record]) -> dict[int, dict[str, Any]]:
    """The values of each record by its epoch."""
    return {record["epoch"]: {name: record[name] for name in record if name != "epoch"} for record in records}


def reason(error: Exception) -> str:
    """What an exception of a library says, in a line."""
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@contextmanager
def silent() -> Iterator[None]:
    """Nothing that Python code prints within it is shown: --json promises one object on stdout and no more."""
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        yield
