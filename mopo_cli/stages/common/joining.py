"""The seeds of one policy, trained in several goes: which are there, which to train now, and the record of all."""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any

from mopo_cli.config.schema import TrainPolicy
from mopo_cli.errors import InputError, SettingsError
from mopo_cli.stages.common.finished import state_path
from mopo_cli.stages.common.same_settings import listed, other_training
from mopo_cli.store.atomic import sha256_file
from mopo_cli.store.documents import FileEntry, Files
from mopo_cli.store.lineage import StageRecord, hashes, read_lineage
from mopo_cli.store.run import RunFolder

REPLACE = "--name OTHER trains another policy, --force replaces this one"
"""What helps where a policy is not as it should become."""

_ROLE = re.compile(r"[^/]+/seed-(\d{1,19})")
_DIVERGED = re.compile(r"seed (\d{1,19})")


@dataclass(frozen=True)
class Plan:
    """The seeds to train now, together, and the finished epoch from which they go on.

    `later`: others are to be trained after them. `remark` is what the user should know of it.
    """

    train: tuple[int, ...]
    epoch: int = 0
    later: bool = False
    remark: str = ""


def with_seeds(settings: TrainPolicy, seeds: Collection[int]) -> TrainPolicy:
    """The settings, with these seeds."""
    if set(seeds) == set(settings.all_seeds()):
        return settings
    return settings.model_copy(update={"seeds": 1, "seed_list": tuple(sorted(seeds))})


def plan_training(run: RunFolder, key: str, settings: TrainPolicy, inputs: Files, force: bool) -> Plan:
    """What is to be done where the run may hold seeds of the policy already; ``inputs`` are as they are now.

    SettingsError where a policy that is there would be lost, InputError where it cannot be trained for longer.
    """
    wanted, record = tuple(sorted(settings.all_seeds())), read_lineage(run).get(key)
    if record is None:
        return Plan(wanted)
    changed = other_training(record.settings, settings.model_dump())
    if force:
        return Plan(
            wanted, remark=_of_force(key, record, wanted, bool(changed) or hashes(record.inputs) != hashes(inputs))
        )
    before, now = changed.get("epochs", (settings.epochs, settings.epochs))
    if changed.keys() - {"epochs"} or not isinstance(before, int):
        raise SettingsError(f"{key} in {run.root} was trained with other settings: {listed(changed)}.", hint=REPLACE)
    if now < before:
        raise SettingsError(
            f"{key} in {run.root} has {before} epochs, more than the {now} of this command.", hint=REPLACE
        )
    if roles := [role for role in inputs if hashes(record.inputs).get(role) != inputs[role]["sha256"]]:
        return Plan(wanted, remark=f"the {' and the '.join(roles)} changed: {key} is trained again")
    if now > before:
        return _longer(run, key, settings, record, before)
    missing = tuple(seed for seed in wanted if not _is_whole(run, record, seed))
    return Plan(missing, remark=_of_joining(key, record, missing))


def _longer(run: RunFolder, key: str, settings: TrainPolicy, record: StageRecord, epoch: int) -> Plan:
    wanted, recorded = sorted(settings.all_seeds()), recorded_seeds(record)
    if settings.actor_schedule != "constant":
        raise SettingsError(
            f"{key} cannot go on from epoch {epoch}: with actor-schedule {settings.actor_schedule} the earlier epochs, "
            f"too, depend on the number of all epochs.",
            hint=REPLACE,
        )
    if left_out := recorded - set(wanted):
        everyone = ",".join(map(str, sorted(recorded | set(wanted))))
        raise SettingsError(
            f"All seeds of a policy have the same number of epochs, and {key} also has {named(left_out)}.",
            hint=f"--seed-list {everyone}, or --name OTHER",
        )
    train = tuple(sorted(recorded - _diverged(record)))
    lost = [seed for seed in train if not state_path(run, key, seed, epoch).is_file()]
    if lost or not train:
        why = f"the training state of {named(lost)} is not kept any more" if lost else "all its seeds diverged"
        raise InputError(f"{key} cannot go on from epoch {epoch}: {why}.", hint=REPLACE)
    return Plan(train, epoch, later=bool(set(wanted) - recorded))


def joined(old: StageRecord, new: StageRecord) -> StageRecord:
    """The record ``new``, with the seeds that only ``old`` has: outputs, results, seeds and wall time of both."""
    kept = recorded_seeds(old) - recorded_seeds(new)
    lost = sorted({*(kept & _diverged(old)), *_diverged(new)})
    extra: dict[str, Any] = {**new.extra, "diverged": [f"seed {seed}" for seed in lost]}
    for name in ("returns", "model_seeds"):
        before, of_kept = old.extra.get(name), set(map(str, kept))
        before = before if isinstance(before, dict) else {}
        extra[name] = {seed: value for seed, value in before.items() if seed in of_kept} | new.extra[name]
    outputs = {role: file for role, file in old.outputs.items() if _seed(role) in kept} | new.outputs
    wall_seconds = round(old.wall_seconds + new.wall_seconds, 3)
    return replace(new, outputs=outputs, extra=extra, wall_seconds=wall_seconds)


def recorded_seeds(record: StageRecord) -> set[int]:
    """All seeds that a record of train-policy tells of, those that diverged among them."""
    return {seed for role in record.outputs if (seed := _seed(role)) is not None} | _diverged(record)


def named(seeds: Iterable[int]) -> str:
    """``seed 3``, ``seeds 0, 1, 4``."""
    numbers = sorted(seeds)
    return f"seed{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"


def _seed(role: str) -> int | None:
    match = _ROLE.fullmatch(role)
    return int(match[1]) if match else None


def _diverged(record: StageRecord) -> set[int]:
    matches = map(_DIVERGED.fullmatch, record.extra.get("diverged", []))
    return {int(match[1]) for match in matches if match}


def _is_whole(run: RunFolder, record: StageRecord, seed: int) -> bool:
    """Whether all that was made of a seed is there unchanged. What diverged would diverge again."""
    files: list[FileEntry] = [file for role, file in record.outputs.items() if _seed(role) == seed]
    there = all((path := run.root / file["path"]).is_file() and sha256_file(path) == file["sha256"] for file in files)
    return (there and bool(files)) or seed in _diverged(record)


def _of_joining(key: str, record: StageRecord, missing: Collection[int]) -> str:
    again, others = recorded_seeds(record) & set(missing), recorded_seeds(record) - set(missing)
    if not missing or not (again or others):
        return ""
    there = f"{key} has {named(others)}; " if others else f"{key}: "
    damaged = f" (files of {named(again)} are missing or were changed)" if again else ""
    return f"{there}now {named(missing)} {'are' if len(missing) > 1 else 'is'} trained{damaged}"


def _of_force(key: str, record: StageRecord, wanted: Collection[int], changed: bool) -> str:
    others = recorded_seeds(record) - set(wanted)
    if not others:
        return ""
    what = "will be dropped, as settings or inputs changed" if changed else "stay"
    return f"{key}: {named(wanted)} {'are' if len(wanted) > 1 else 'is'} trained again; {named(others)} {what}"
