"""What is published of trained members, and what is said of their returns and of those that diverged."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from mopo_cli.config.schema import PolicyTraining
from mopo_cli.data.ranges import column_names
from mopo_cli.data.transition_files import OFFSET
from mopo_cli.errors import DivergedError, FailedError, InputError, MopoError
from mopo_cli.stages.common.open_world import OpenWorld, policy_roles
from mopo_cli.stages.common.policies import save_policy
from mopo_cli.stages.common.policy_stack import Trained
from mopo_cli.stages.common.reuse import TIMING, keep_only
from mopo_cli.stages.common.trained_policies import AFTER_DIVERGING
from mopo_cli.stages.common.user_units import data_header
from mopo_cli.stages.runner import Stage
from mopo_cli.store.atomic import sha256_file, write_json
from mopo_cli.store.checkpoint import save_tensors
from mopo_cli.store.publication import Publication

NOT_YET = "not trained yet"
"""Why a cell is not there that no job has finished."""


def returns_of(history: list[dict[str, Any]]) -> dict[str, Any]:
    """Last and last-10 mean return in the real environment, and those ten; empty if never evaluated."""
    last = [record["return"] for record in history if "return" in record][-10:]
    return {"last": last[-1], "last_10": sum(last) / len(last), "evaluations": last} if last else {}


def raise_if_diverged(result: dict[str, Any], seeds: Collection[int] | None = None) -> None:
    """DivergedError when the stage's result names members whose weights are not finite, of these ``seeds`` if set."""
    mine = None if seeds is None else {f"seed {seed}" for seed in seeds}
    if lost := [name for name in result.get("diverged", []) if mine is None or name in mine]:
        raise DivergedError(
            f"Training diverged (not finite) for {', '.join(lost)}; only the others were published.",
            hint=AFTER_DIVERGING,
        )


def nothing_made(failed: Mapping[str, str]) -> MopoError:
    """What to say where none of the cells could be trained elsewhere; by cell, why."""
    name, why = next(iter(failed.items()))
    if set(failed.values()) == {NOT_YET}:
        return InputError("None of the jobs has finished yet.", hint="carry them out first: mopo job FILE.json")
    return FailedError(f"None of the {len(failed)} cells could be trained; {name}: {why}")


def raise_if_failed(result: Mapping[str, Any]) -> None:
    """FailedError when the stage's result names cells that could not be trained elsewhere."""
    failed = {name: why for name, why in result.get("failed", {}).items() if why != NOT_YET}
    if failed:
        name, why = next(iter(failed.items()))
        cells = f"{len(failed)} cells" if len(failed) > 1 else "A cell"
        raise FailedError(
            f"{cells} could not be trained; {name}: {why}", hint="the same command tries what is missing again"
        )


def stage_member(
    out: Publication,
    folder: Path,
    trained: Trained,
    m: int,
    opened: OpenWorld,
    settings: PolicyTraining,
    stage: Stage,
) -> dict[str, Path]:
    """Stage policy.safetensors, the metrics and the algorithm's further files of one member; returns them by role.

    timing.json, the member's share of the stack's wall time, is published too but not returned: it depends on the
    machine, so no two trainings agree in it.
    """
    member, info = trained.loop.members[m], opened.data.info
    origin: dict[str, Any] = {
        "obs_dim": opened.world.row_layout.obs_dim,
        "act_dim": opened.world.row_layout.act_dim,
        "env_id": info.env_id,
        "seed": member.seed,
        "model_seed": opened.model_seed(member),
        "inputs": {role: stage.inputs[role]["sha256"] for role in policy_roles(settings)},
    }
    unusual = data_header(info, opened.judge_share)
    meta = origin | {
        "hidden": settings.hidden,
        "layers": settings.layers,
        "action_low": info.action_low.tolist(),
        "action_high": info.action_high.tolist(),
        "activation": "relu",
        "observation_range": opened.observation_range,
        "penalty": member.penalty,
        "lam": member.lam,
        "h": member.h,
        "epochs": settings.epochs,
        **unusual,
    }
    meta |= {"columns": columns} if (columns := column_names(opened.data.transitions, info)) else {}
    meta |= {choice.setting: choice.value for choice in trained.loop.algorithm.choices(trained.loop.agent)}
    policy = folder / "policy.safetensors"
    save_policy(out.stage(policy), trained.actor(m), meta)
    files = {"policy": policy} | trained.metrics.stage_files(trained.names[m], out, folder)
    # The algorithm's files are of observations as they are stored, whatever their offset.
    origin |= {name: value for name, value in unusual.items() if name != OFFSET}
    for name, tensors in trained.loop.algorithm.files(trained.loop.agent, m).items():
        files[name] = folder / f"{name}.safetensors"
        digest = sha256_file(out.at_present(policy))
        save_tensors(out.stage(files[name]), tensors, {"kind": name, **origin, "policy_sha256": digest})
    keep_only(out, folder, [path.name for path in files.values()])
    write_json(out.stage(folder / TIMING), {"wall_seconds": round(trained.seconds / len(trained.loop.members), 3)})
    return {f"{name}/seed-{member.seed}": path for name, path in files.items()}
