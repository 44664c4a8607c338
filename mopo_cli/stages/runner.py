"""The envelope every stage runs in: lock, input hashes, "up to date", signals, lineage."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mopo_cli.errors import InputError, Stopped
from mopo_cli.report.console import Report
from mopo_cli.stages.common.attempt import Attempt
from mopo_cli.stages.common.options import Options
from mopo_cli.stages.common.same_settings import setting_defaults
from mopo_cli.stages.common.signals import catch_signals, stopped_by_signals
from mopo_cli.store.atomic import discard_leftovers
from mopo_cli.store.files import check_file
from mopo_cli.store.lineage import (
    StageRecord,
    check_recorded,
    describe_files,
    is_up_to_date,
    read_lineage,
    record_stage,
    tool_versions,
)
from mopo_cli.store.lock import run_lock
from mopo_cli.store.run import RunFolder, refuse_links, remember_run

_MADE_BY = {
    "dataset": "mopo fetch-data --dataset NAME",
    "model": "mopo train-model",
    "elites": "mopo select-elites",
    "rollouts": "mopo rollout",
    "policy": "mopo train-policy",
}


@dataclass
class Stage(Attempt):
    """One stage at work, from `stage_envelope`."""

    up_to_date: bool = False
    signal: int = 0
    _announced: bool = False

    def result(self) -> dict[str, Any]:
        """The result object of the finished stage, as --json prints it."""
        record = read_lineage(self.run)[self.key]
        return {
            **record.extra,
            "stage": self.key,
            "run": str(self.run.root),
            "up_to_date": self.up_to_date,
            "outputs": {role: str(self.run.root / file["path"]) for role, file in record.outputs.items()},
            "wall_seconds": record.wall_seconds,
        }

    def should_stop(self) -> bool:
        """True after one of `STOP_SIGNALS`: save the state, then ``raise Stopped(stage.signal)``."""
        if self.signal and not self._announced:
            self._announced = True
            self.report.say(f"{signal.Signals(self.signal).name}: saving, then stopping (again: quit at once)")
        return self.signal != 0

    @contextmanager
    def progress(
        self, what: str, total: float | None, done: int = 0, in_bytes: bool = False
    ) -> Iterator[Callable[[int], None]]:
        """`Report.progress` as a function to call with the number of further steps done; Stopped after a signal."""
        with self.report.progress(what, total, done, in_bytes) as progress:

            def count(n: int) -> None:
                progress.update(n)
                if self.should_stop():
                    raise Stopped(self.signal)

            yield count

    def finish(self, outputs: dict[str, Path], extra: dict[str, Any]) -> dict[str, Any]:
        """Publish what was staged and the stage's record as one, drop the resume state and return `result`.

        The record has the hashes of ``outputs``. InputError, and the run as it was, where that fails.
        """
        record = StageRecord(
            settings=self.settings,
            inputs=self.inputs,
            outputs=describe_files(self.run, outputs, self.out.at_present),
            versions=tool_versions(),
            wall_seconds=round(time.monotonic() - self._started, 3),
            finished=datetime.now(UTC).isoformat(timespec="milliseconds"),
            extra={**extra, "origins": self.options.origins},
        )
        with self.alone():
            record_stage(self.run, self.key, self.joined(record), self.out.stage(self.run.lineage))
            self.out.commit()
            self.remove_state()
        remember_run(self.run)
        return self.result()

    def alone(self) -> AbstractContextManager[None]:
        """Within it no other process changes the run: `stage_envelope` sees to it all the time."""
        return nullcontext()

    def joined(self, record: StageRecord) -> StageRecord:
        """The record to write, with what the one before it has that stays: nothing."""
        return record


@contextmanager
def stage_envelope(
    run: RunFolder,
    key: str,
    settings: dict[str, Any],
    inputs: dict[str, Path],
    options: Options,
    report: Report,
    complete: Callable[[Stage], bool] = lambda stage: True,
) -> Iterator[Stage]:
    """Run a stage's body alone in its run folder; ``key`` is as in run.json, "train-policy/NAME".

    Use as ``with stage_envelope(…) as stage``: return ``stage.result()`` when ``stage.up_to_date``, else
    compute and return ``stage.finish(…)``. The first of `STOP_SIGNALS` only makes ``should_stop()`` true, the
    second exits at once. Raises InputError for a missing input, LockedError, and Stopped when a signal came.
    A failed body leaves no record, and of a new run no folder. ``complete`` checks what the stage made besides the
    files in run.json; it is called where those are up to date.
    """
    check_present(inputs)
    stage = Stage(run, key, settings, {}, options, report)
    refuse_links(run)
    with catch_signals(stage), run_lock(run.root), ExitStack() as context:
        discard_leftovers(run.root, but=run.of_others)
        stage.discard()
        context.callback(stage.discard)
        stage.inputs = describe_files(run, inputs)
        check_recorded(run, stage.inputs)
        stage.up_to_date = (
            not options.force
            and is_up_to_date(run, key, settings, stage.inputs, setting_defaults(key, settings))
            and complete(stage)
        )
        if stage.up_to_date:
            stage.remove_state()  # a process that was killed right after it wrote the record left it
            report.say(f"{key} is up to date")
            remember_run(run)
        else:
            stage.resume_products()
        with stopped_by_signals(stage):
            yield stage


def check_present(inputs: dict[str, Path]) -> None:
    """InputError for an input that is not there, by role, with the command that makes it."""
    for role, path in inputs.items():
        kind = role.split("/")[0]
        if not path.exists():
            raise InputError(f"The {kind} {path} does not exist.", hint=_MADE_BY.get(kind, ""))
        check_file(path, f"The {kind} ")
