"""train-policy: Algorithm 2 for a stack of seeds, evaluated in the real environment where there is one."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mopo_cli.config.schema import TrainPolicy
from mopo_cli.engine.members import Member
from mopo_cli.report.console import Report
from mopo_cli.stages.common.device import open_device
from mopo_cli.stages.common.finished import Earlier, load_states, stage_states
from mopo_cli.stages.common.joining import with_seeds
from mopo_cli.stages.common.memory import check_policies
from mopo_cli.stages.common.open_world import OpenWorld, open_world, policy_inputs
from mopo_cli.stages.common.options import Options
from mopo_cli.stages.common.policy_stack import Trained, save_training, train_stack
from mopo_cli.stages.common.policy_training import Training, training_envelope
from mopo_cli.stages.common.published_policies import returns_of, stage_member
from mopo_cli.stages.jobs.hand_out import HandOut
from mopo_cli.stages.jobs.seeds import train_by_jobs
from mopo_cli.store.run import RunFolder


def run_train_policy(
    run: RunFolder, settings: TrainPolicy, options: Options, report: Report, hand_out: HandOut | None = None
) -> dict[str, Any]:
    """Train the policies that are missing, one per seed, resuming what was interrupted; returns the result object.

    With `hand_out` jobs train them.

    Those of the run with the same settings and inputs are kept, and trained for longer where ``epochs`` says so.
    Seeds that diverged are named in the result: see `raise_if_diverged`.
    """
    if hand_out is not None:
        with training_envelope(run, settings, policy_inputs(run, settings), options, report) as stage:
            result = stage.result() if stage.up_to_date else train_by_jobs(stage, hand_out)
            if "returns" in result:
                _show(result, report)
            return result
    device = open_device(options)
    trained: dict[str, Any] | None = None
    while trained is None:
        trained = _train(run, settings, device, options, report)
    return trained


def _train(
    run: RunFolder, settings: TrainPolicy, device: torch.device, options: Options, report: Report
) -> dict[str, Any] | None:
    """Train what is to be trained together; None where other seeds are left."""
    inputs = policy_inputs(run, settings)
    with training_envelope(run, settings, inputs, options, report) as stage:
        if stage.up_to_date:
            result = stage.result()
        else:
            now = with_seeds(stage.wanted, stage.plan.train)
            check_policies(now, inputs["dataset"], options, device)
            with open_world(stage, now, inputs, device, [settings.penalty]) as opened:
                kind = settings.penalty, settings.lam, settings.h
                members = tuple(Member(seed, *kind, opened.model_of(seed)) for seed in stage.plan.train)
                names = [f"seed-{member.seed}" for member in members]
                trained = train_stack(stage, opened, members, names, now, _earlier(stage))
                # What is trained is not lost if it cannot be published now.
                save_training(stage, trained, now)
                result = _publish(stage, trained, opened)
        if stage.plan.later:
            return None
        _show(result, report)
        return result


def _earlier(stage: Training) -> Callable[[str], Earlier] | None:
    plan = stage.plan
    return partial(load_states, stage, plan.train, stage.wanted, plan.epoch) if plan.epoch else None


def _publish(stage: Training, trained: Trained, opened: OpenWorld) -> dict[str, Any]:
    name, settings = stage.wanted.policy_name(), stage.wanted
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
    stage_states(stage, trained.loop, trained.histories, trained.diverged)
    model_seeds = {str(member.seed): opened.model_seed(member) for member in trained.loop.members}
    extra = {"policy": name, "returns": returns, "diverged": diverged, "model_seeds": model_seeds}
    return stage.finish(outputs, extra)


def _show(result: dict[str, Any], report: Report) -> None:
    rows = [
        (int(seed), value.get("last"), value.get("last_10"), result["outputs"][f"policy/seed-{seed}"])
        for seed, value in sorted(result["returns"].items(), key=lambda item: int(item[0]))
    ]
    if rows:
        report.table("Trained policies", ("seed", "return (last)", "return (last 10)", "file"), rows)
        report.hint("mopo evaluate")
