"""The envelope of train-policy: like every stage's, but several processes may train seeds of a run at the same time.

The run's lock is held only to begin and to publish. In between a process holds its seeds, by a lock file beside its
state: `.state/train-policy/NAME/seeds-0-1.lock`, and `.json`, which says what it trains.
"""

import hashlib
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mopo_cli.config.schema import TrainPolicy
from mopo_cli.errors import CorruptError, InputError, LockedError, SettingsError, Stopped
from mopo_cli.report.console import Report
from mopo_cli.stages.common.attempt import AFRESH
from mopo_cli.stages.common.finished import discard_states, state_path
from mopo_cli.stages.common.joining import REPLACE, Plan, joined, named, plan_training, recorded_seeds, with_seeds
from mopo_cli.stages.common.options import Options
from mopo_cli.stages.common.same_settings import listed, other_training
from mopo_cli.stages.common.signals import catch_signals, stopped_by_signals
from mopo_cli.stages.runner import Stage, check_present
from mopo_cli.store.atomic import discard_leftovers, write_json
from mopo_cli.store.checkpoint import read_meta
from mopo_cli.store.documents import read_document
from mopo_cli.store.headers import StartedDocument
from mopo_cli.store.lineage import StageRecord, check_recorded, describe_files, hashes, read_lineage
from mopo_cli.store.lock import run_lock, take_lock
from mopo_cli.store.publication import Publication
from mopo_cli.store.run import RunFolder, refuse_links, remember_run

_BEGIN_SECONDS, _PUBLISH_SECONDS = 60.0, 600.0
_LONGEST_PART = 60
_LEAVE = "wait until it ends or stop it, or train another policy: --name OTHER"


@dataclass
class Training(Stage):
    """Seeds of one policy in training, from `training_envelope`; the plan says which. ``wanted`` are all settings."""

    wanted: TrainPolicy = field(kw_only=True)
    paths: dict[str, Path] = field(kw_only=True)
    plan: Plan = field(default_factory=lambda: Plan(()))

    def begin(self, plan: Plan) -> None:
        """Turn to the seeds of a plan."""
        self.plan, self.settings = plan, with_seeds(self.wanted, plan.train).model_dump()
        self.part = _part(plan.train)
        self.out = Publication(self.state_folder / "staged")

    @property
    def begun_file(self) -> Path:
        """The checkpoint, or else the state of the finished policy that is trained for longer."""
        if self.state_file.is_file() or not self.plan.epoch:
            return self.state_file
        return state_path(self.run, self.key, self.plan.train[0], self.plan.epoch)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the run while the policies are published; others are waited for."""
        with waiting_for_run(self, _PUBLISH_SECONDS):
            yield

    def joined(self, record: StageRecord) -> StageRecord:
        """The record with the seeds that the run has besides, if those are of the same training.

        InputError where an input changed meanwhile, SettingsError where another process trained otherwise.
        """
        now = describe_files(self.run, self.paths)
        for role, digest in hashes(self.inputs).items():
            if now[role]["sha256"] != digest:
                raise InputError(
                    f"The {role} changed while {self.key} was trained: sha256 {digest} -> {now[role]['sha256']}.",
                    hint=AFRESH,
                )
        if (old := read_lineage(self.run).get(self.key)) is not None:
            record = self._with(old, record)
        seeds = recorded_seeds(record)
        discard_states(self.run, self.key, seeds, self.wanted.epochs, self.out)
        return replace(record, settings=with_seeds(self.wanted, seeds).model_dump())

    def _with(self, old: StageRecord, record: StageRecord) -> StageRecord:
        changed = other_training(old.settings, self.settings)
        if self.plan.epoch and changed.keys() <= {"epochs"} and recorded_seeds(old) <= {*self.wanted.all_seeds()}:
            return joined(old, record)
        if hashes(old.inputs) != hashes(self.inputs) or (changed and self.options.force):
            return record
        if changed:
            raise SettingsError(
                f"Meanwhile {self.key} in {self.run.root} was trained with other settings: {listed(changed)}.", REPLACE
            )
        again = recorded_seeds(old) <= {*self.plan.train}
        return record if again else joined(old, record)


@contextmanager
def training_envelope(
    run: RunFolder, settings: TrainPolicy, inputs: dict[str, Path], options: Options, report: Report
) -> Iterator[Training]:
    """Train what is missing of a policy's seeds, see `runner.stage_envelope`; ``stage.plan`` says which those are.

    Besides, it raises what `plan_training` does, LockedError where another process trains one of the seeds, and
    SettingsError where one is unfinished, together with others or with other settings.
    """
    check_present(inputs)
    key = f"train-policy/{settings.policy_name()}"
    stage = Training(run, key, settings.model_dump(), {}, options, report, wanted=settings, paths=inputs)
    refuse_links(run)
    with catch_signals(stage), ExitStack() as context:
        with waiting_for_run(stage, _BEGIN_SECONDS):
            discard_leftovers(run.root, but=run.of_others)
            stage.inputs = describe_files(run, inputs)
            check_recorded(run, stage.inputs)
            plan = plan_training(run, key, settings, stage.inputs, options.force)
            stage.up_to_date = not plan.train
            if stage.up_to_date:
                _clear(stage, settings.all_seeds())
                report.say(f"{key} is up to date")
                remember_run(run)
            else:
                stage.begin(plan)
                _adopt(stage)
                _hold_seeds(stage, context)
                stage.resume_products()
                report.say(plan.remark) if plan.remark else None
        with stopped_by_signals(stage):
            yield stage


@contextmanager
def waiting_for_run(stage: Stage, seconds: float) -> Iterator[None]:
    """Hold the run, for at most so long after other processes. LockedError after that, Stopped after a signal."""
    end, announced = time.monotonic() + seconds, False
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(run_lock(stage.run.root))
                break
            except LockedError:
                if time.monotonic() >= end:
                    raise
            if not announced:
                stage.report.say(f"another mopo process is working in {stage.run.root}: waiting {seconds:g} s for it")
                announced = True
            if stage.should_stop():
                raise Stopped(stage.signal)
        yield


def _adopt(stage: Training) -> None:
    """Put an unfinished training of an older version, which had the folder of the policy to itself, where it would be.

    What cannot be read is left to `load_state`, which says so.
    """
    old = stage.run.state(stage.key) / stage.state_file.name
    if not old.is_file():
        return
    settings = (read_meta(old) or {}).get("settings", {})
    seeds = settings.get("seed_list") or range(settings.get("seeds") or 1)
    folder = stage.run.state(f"{stage.key}/{_part(sorted(seeds))}") if settings else stage.state_folder
    folder.mkdir(exist_ok=True)
    old.rename(folder / old.name)
    write_json(_beside(folder, ".json"), {"settings": settings, "seeds": sorted(seeds)})
    _beside(folder, ".lock").touch()


def _hold_seeds(stage: Training, context: ExitStack) -> None:
    """Take the seeds' lock until the context ends, and note what is trained; what a killed process left is removed."""
    others = {path.with_suffix("") for path in _begun(stage)} - {stage.state_folder}
    for folder in sorted(others):
        _check_other_training(stage, folder)
    lock_file, started = _beside(stage.state_folder, ".lock"), _beside(stage.state_folder, ".json")
    lock = take_lock(lock_file)
    if lock is None:
        raise _locked(stage, f"is training {named(stage.plan.train)} of {stage.key}", lock_file)
    context.callback(_release, stage, lock)
    stage.out.discard()
    discard_leftovers(stage.state_folder)
    if stage.options.force or not (started.is_file() and stage.state_file.is_file()):
        write_json(started, {"settings": stage.settings, "seeds": stage.plan.train})


def _check_other_training(stage: Training, folder: Path) -> None:
    """Refuse another training that is in the way; a dead one, or by --force any that is in the way, is removed."""
    held = _is_held(folder)
    if not held and not (folder / stage.state_file.name).is_file():
        _remove(folder)
        return
    try:
        started = read_document(_beside(folder, ".json"), StartedDocument)
        shared = {*started["seeds"]} & {*stage.plan.train}
        changed = other_training(started["settings"], stage.settings)
    except (CorruptError, InputError) as error:
        if held or not stage.options.force:
            raise CorruptError(error.message, hint=AFRESH) from error
        shared, changed, started = set(stage.plan.train), {}, {"seeds": stage.plan.train}
    if not shared and not changed:
        return
    what = f"{named(started['seeds'])} of {stage.key}"
    with_other = f" with other settings ({listed(changed)})" if changed else ""
    if held:
        raise _locked(stage, f"is training {what}{with_other}", _beside(folder, ".lock"))
    if not stage.options.force:
        raise SettingsError(
            f"The training of {what} in {stage.run.root} was begun{with_other} and is not finished.",
            hint=f"finish it first (--seed-list {','.join(map(str, started['seeds']))}), or --force to drop it",
        )
    _remove(folder)


def _clear(stage: Training, seeds: Sequence[int]) -> None:
    """Remove the states of trainings of these seeds that nobody is at work on, where all of it is finished."""
    for folder in {path.with_suffix("") for path in _begun(stage)}:
        if _is_held(folder):
            continue
        if not (folder / stage.state_file.name).is_file():
            _remove(folder)
            continue
        with suppress(CorruptError, InputError):
            started = read_document(_beside(folder, ".json"), StartedDocument)
            changed = other_training(started["settings"], stage.settings)
            if not changed and {*started["seeds"]} <= {*seeds}:
                _remove(folder)


def _begun(stage: Training) -> list[Path]:
    return list(stage.run.state(stage.key).glob("seeds-*.lock"))


def _is_held(folder: Path) -> bool:
    lock = take_lock(_beside(folder, ".lock"))
    if lock is not None:
        lock.release()
    return lock is None


def _release(stage: Training, lock: Any) -> None:
    """Let go of the seeds. What is not needed to go on is removed; if the run is held, the next training does it."""
    stage.discard()
    if not stage.state_file.exists():
        with suppress(LockedError), run_lock(stage.run.root):
            _remove(stage.state_folder)
    lock.release()


def _remove(folder: Path) -> None:
    """A training's state and what lies beside it, and the folders above that are then empty; under the run's lock."""
    shutil.rmtree(folder, ignore_errors=True)
    for suffix in (".json", ".lock"):
        _beside(folder, suffix).unlink(missing_ok=True)
    with suppress(OSError):
        for place in list(folder.parents)[:3]:
            place.rmdir()


def _beside(folder: Path, suffix: str) -> Path:
    return folder.with_name(folder.name + suffix)


def _locked(stage: Stage, what: str, lock_file: Path) -> LockedError:
    return LockedError(f"Another mopo process {what} in {stage.run.root} (lock file {lock_file}).", _LEAVE)


def _part(seeds: Sequence[int]) -> str:
    """The name of the folder in which these seeds are trained: ``seeds-0-1-4``, of many a short one."""
    text = f"seeds-{'-'.join(map(str, seeds))}"
    return text if len(text) <= _LONGEST_PART else f"seeds-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
