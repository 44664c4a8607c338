"""The envelope every stage runs in: lock, input hashes, "up to date", signals, resume state, lineage."""

import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mopo_cli.errors import CorruptError, InputError, SettingsError, Stopped
from mopo_cli.nets import libraries
from mopo_cli.report.console import Report
from mopo_cli.stages.common.same_settings import changed_settings, listed, setting_defaults
from mopo_cli.stages.common.signals import catch_signals, stopped_by_signals
from mopo_cli.store.atomic import discard_leftovers, plain
from mopo_cli.store.documents import Files, checked
from mopo_cli.store.headers import CheckpointHeader
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
from mopo_cli.store.publication import Publication
from mopo_cli.store.run import RunFolder, refuse_links, remember_run

if TYPE_CHECKING:
    from torch import Tensor

AFRESH = "--force starts again from the beginning"
"""What helps where a checkpoint cannot be used."""

_MADE_BY = {
    "dataset": "mopo fetch-data --dataset NAME",
    "model": "mopo train-model",
    "elites": "mopo select-elites",
    "rollouts": "mopo rollout",
    "policy": "mopo train-policy",
}


@dataclass(frozen=True)
class Options:
    """How to execute a stage; none of it is part of what the stage computes.

    ``log`` names the sinks that get the metrics besides metrics.jsonl (`report.metrics.SINKS`).
    ``origins`` says where each setting's value came from (default, preset NAME, a file, flag), for run.json.
    ``save_seconds`` is the time between checkpoints of policies in training; None: as usual.
    """

    device: str = "auto"
    threads: int | None = None
    engine: str = "auto"
    products: str = "auto"
    log: tuple[str, ...] = ()
    force: bool = False
    allow_mismatch: bool = False
    origins: dict[str, str] = field(default_factory=dict)
    save_seconds: float | None = None


@dataclass
class Stage:
    """One stage at work, from `stage_envelope`. ``inputs`` holds path and sha256 by role.

    ``part`` names the piece of the stage that this process does, where several may be at work on it.
    """

    run: RunFolder
    key: str
    settings: dict[str, Any]
    inputs: Files
    options: Options
    report: Report
    up_to_date: bool = False
    signal: int = 0
    part: str = ""
    out: Publication = field(init=False)
    """What the stage makes: write each file to ``out.stage(path)``; `finish` publishes them as one."""
    _started: float = field(default_factory=time.monotonic)
    _announced: bool = False
    _resumed: bool = False

    def __post_init__(self) -> None:
        self.out = Publication(self.state_folder / "staged")

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

    def save_state(self, tensors: "dict[str, Tensor]", meta: dict[str, Any]) -> None:
        """Publish the resume checkpoint; ``meta`` is JSON."""
        from mopo_cli.store.checkpoint import save_tensors

        envelope = {
            "settings": plain(self.settings),
            "inputs": self.inputs,
            "wall_seconds": time.monotonic() - self._started,
            "products": libraries.in_use(),
            "meta": meta,
        }
        save_tensors(self.state_file, tensors, envelope)

    def load_state(self, device: str = "cpu") -> "tuple[dict[str, Tensor], dict[str, Any]] | None":
        """The tensors and meta of an interrupted attempt, or None; --force discards them.

        SettingsError or InputError when it was started with other settings or inputs, CorruptError when it is
        damaged.
        """
        # A stage of several parts loads it for each; from the second on this process may have written it.
        first, self._resumed = not self._resumed, True
        if self.options.force:
            self._remove_state()
        if not self.state_file.exists():
            return None
        from mopo_cli.store.checkpoint import load_tensors

        try:
            tensors, saved = load_tensors(self.state_file, device)
        except CorruptError as error:
            raise CorruptError(error.message, hint=AFRESH) from error
        saved = checked(self.state_file, CheckpointHeader, saved, hint=AFRESH)
        self._check_same(saved)
        if first:
            self._started -= saved["wall_seconds"]
        return tensors, saved["meta"]

    @property
    def begun_file(self) -> Path:
        """What the stage goes on from, if it is there."""
        return self.state_file

    def resume_products(self) -> None:
        """Multiply by the libraries of what the stage goes on from (see `common.chosen_products`)."""
        if self.options.force or not self.begun_file.is_file():
            return
        from mopo_cli.stages.common.chosen_products import resume_products
        from mopo_cli.store.checkpoint import read_meta

        meta = read_meta(self.begun_file)
        if meta is not None:  # else `load_state` says what is wrong
            resume_products(meta.get("products"), self.options.products, self.key, self.report)

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
            self._remove_state()
        remember_run(self.run)
        return self.result()

    def alone(self) -> AbstractContextManager[None]:
        """Within it no other process changes the run: `stage_envelope` sees to it all the time."""
        return nullcontext()

    def joined(self, record: StageRecord) -> StageRecord:
        """The record to write, with what the one before it has that stays: nothing."""
        return record

    @property
    def state_folder(self) -> Path:
        """The folder of what this process keeps while it works."""
        return self.run.state("/".join(filter(None, (self.key, self.part))))

    @property
    def state_file(self) -> Path:
        """The resume checkpoint."""
        return self.state_folder / "checkpoint.safetensors"

    @property
    def live(self) -> Path:
        """The folder of what grows while the stage runs; it stays as long as the checkpoint does."""
        return self.state_folder / "live"

    def _check_same(self, saved: dict[str, Any]) -> None:
        changed = changed_settings(self.key, saved["settings"], self.settings)
        if changed:
            raise SettingsError(
                f"The unfinished {self.key} in {self.run.root} was started with other settings: {listed(changed)}.",
                hint="use the old settings to continue it, or --force to start again",
            )
        for role in sorted({*saved["inputs"], *self.inputs}):
            old, new = (files[role]["sha256"] if role in files else None for files in (saved["inputs"], self.inputs))
            if old != new:
                raise InputError(f"The {role} changed after {self.key} was interrupted: sha256 {old} -> {new}.", AFRESH)

    def discard(self) -> None:
        """Drop what was staged and not published; a checkpoint stays, and what is live beside it."""
        self.out.discard()
        if not self.state_file.exists():
            self._remove_state()

    def _remove_state(self) -> None:
        folder = self.state_folder
        for path in folder.glob("*"):
            if not path.is_dir():
                path.unlink(missing_ok=True)
            elif not any(path.rglob(self.state_file.name)):  # what goes on from there is a stage of its own
                shutil.rmtree(path, ignore_errors=True)
        with suppress(OSError):  # other stages' states keep the folders above
            for place in filter(Path.exists, takewhile(self.run.root.__ne__, (folder, *folder.parents))):
                place.rmdir()


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
            stage._remove_state()  # a process that was killed right after it wrote the record left it
            report.say(f"{key} is up to date")
            remember_run(run)
        else:
            stage.resume_products()
        with stopped_by_signals(stage):
            yield stage


def check_present(inputs: dict[str, Path]) -> None:
    """InputError for an input that is not there, by role, with the command that makes it."""
    for role, path in inputs.items():
        if not path.is_file():
            kind = role.split("/")[0]
            raise InputError(f"The {kind} {path} does not exist.", hint=_MADE_BY.get(kind, ""))
