"""The seeds of a single policy, trained by jobs: `train-policy --on ENGINE`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mopo_cli.errors import SettingsError
from mopo_cli.stages.common.joining import REPLACE, with_seeds
from mopo_cli.stages.common.policy_training import Training
from mopo_cli.stages.common.published_policies import nothing_made, returns_of
from mopo_cli.stages.common.reuse import StoredPolicy, has_files
from mopo_cli.stages.common.same_settings import other_training
from mopo_cli.stages.jobs.finished import discard_collected
from mopo_cli.stages.jobs.hand_out import PLANNED, HandOut
from mopo_cli.store.checkpoint import read_meta
from mopo_cli.store.documents import EPOCH, read_lines
from mopo_cli.store.lineage import hashes


def train_by_jobs(stage: Training, hand_out: HandOut) -> dict[str, Any]:
    """Publish the seeds of the stage's plan that jobs have finished, and have the others trained; returns the result.

    It names seeds that diverged and seeds that could not be trained. FailedError or InputError where there is none.
    """
    if stage.plan.epoch:
        raise SettingsError(
            f"{stage.key} goes on from a state on this machine, which jobs elsewhere have not.",
            hint=f"leave --on out, or {REPLACE}",
        )
    finished = hand_out.finished(stage)
    lost = finished.diverged(stage.wanted) & set(stage.plan.train)
    stored = _by_seed(stage, finished.policies)
    left = [seed for seed in stage.plan.train if seed not in stored and seed not in lost]
    failed: dict[str, str] = {}
    if left:
        size = hand_out.together or hand_out.resources.cpus
        chunks = [left[i : i + size] for i in range(0, len(left), size)]
        reasons = hand_out.train(stage, [[with_seeds(stage.wanted, chunk)] for chunk in chunks])
        failed = {f"seed {seed}": why for chunk, why in zip(chunks, reasons, strict=True) for seed in chunk}
    if PLANNED in failed.values():
        return {"stage": stage.key, "run": str(stage.run.root)}
    if not stored and not lost:
        raise nothing_made(failed)
    result = _publish(stage, stored, sorted(lost), failed)
    discard_collected(stage.run, [stage.wanted])
    return result


def _by_seed(stage: Training, policies: Sequence[StoredPolicy]) -> dict[int, StoredPolicy]:
    now, inputs = stage.wanted.model_dump(), hashes(stage.inputs)
    fits = [one for one in policies if one.inputs == inputs and not other_training(one.settings, now)]
    return {one.seed: one for one in fits if one.seed in stage.plan.train and has_files(one.folder, one.files)}


def _publish(
    stage: Training, stored: dict[int, StoredPolicy], lost: list[int], failed: dict[str, str]
) -> dict[str, Any]:
    name = stage.wanted.policy_name()
    outputs: dict[str, Path] = {}
    returns, model_seeds = {}, {}
    for seed, one in sorted(stored.items()):
        folder = stage.run.policy(name, seed).parent
        one.take_over(stage.out, folder)
        outputs |= {f"{Path(file).stem}/seed-{seed}": folder / file for file in one.files}
        returns[str(seed)] = returns_of(read_lines(one.folder / "metrics.jsonl", EPOCH))
        model_seeds[str(seed)] = (read_meta(one.folder / "policy.safetensors") or {}).get("model_seed")
    about = {"policy": name, "returns": returns, "model_seeds": model_seeds}
    return stage.finish(outputs, about | {"diverged": [f"seed {seed}" for seed in lost], "failed": failed})
