"""train-policy: Algorithm 2 for a stack of seeds, evaluated in the real environment where there is one."""

from pathlib import Path
from typing import Any

from mopo_cli.config.schema import TrainPolicy
from mopo_cli.engine.members import Member
from mopo_cli.report.console import Report
from mopo_cli.stages.common.inputs import open_device
from mopo_cli.stages.common.memory import check_policies
from mopo_cli.stages.common.open_world import OpenWorld, open_world, policy_inputs
from mopo_cli.stages.common.policy_stack import Trained, returns_of, stage_member, train_stack
from mopo_cli.stages.runner import Options, Stage, stage_envelope
from mopo_cli.store.run import RunFolder


def run_train_policy(run: RunFolder, settings: TrainPolicy, options: Options, report: Report) -> dict[str, Any]:
    """Train one policy per seed as one stack, resuming what was interrupted; returns the result object.

    Seeds that diverged are named in it: see `raise_if_diverged`.
    """
    device = open_device(options)
    name = settings.policy_name()
    inputs = policy_inputs(run, settings)
    with stage_envelope(run, f"train-policy/{name}", settings.model_dump(), inputs, options, report) as stage:
        if stage.up_to_date:
            result = stage.result()
        else:
            check_policies(settings, inputs["dataset"], options, device)
            with open_world(stage, settings, inputs, device, [settings.penalty]) as opened:
                seeds, kind = settings.all_seeds(), (settings.penalty, settings.lam, settings.h)
                members = tuple(Member(seed, *kind, opened.model_of(seed)) for seed in seeds)
                trained = train_stack(stage, opened, members, [f"seed-{seed}" for seed in seeds], settings)
                result = _publish(stage, name, trained, opened, settings)
        _show(result, report)
        return result


def _publish(stage: Stage, name: str, trained: Trained, opened: OpenWorld, settings: TrainPolicy) -> dict[str, Any]:
    outputs: dict[str, Path] = {}
    returns: dict[str, dict[str, Any]] = {}
    diverged: list[str] = []
    for m, member in enumerate(trained.loop.members):
        if trained.diverged[m]:
            diverged.append(f"seed {member.seed}")
        else:
            folder = stage.run.policy(name, member.seed).parent
            outputs |= stage_member(stage.out, folder, trained, m, opened, settings, stage)
            returns[str(member.seed)] = returns_of(trained.histories[m])
    model_seeds = {str(member.seed): opened.model_seed(member) for member in trained.loop.members}
    extra = {"policy": name, "returns": returns, "diverged": diverged, "model_seeds": model_seeds}
    return stage.finish(outputs, extra)


def _show(result: dict[str, Any], report: Report) -> None:
    rows = [
        (int(seed), value.get("last"), value.get("last_10"), result["outputs"][f"policy/seed-{seed}"])
        for seed, value in result["returns"].items()
    ]
    if rows:
        report.table("Trained policies", ("seed", "return (last)", "return (last 10)", "file"), rows)
        report.hint("mopo evaluate --episodes 10")
