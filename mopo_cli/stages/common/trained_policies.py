"""The trained policies of a run, as the stages that evaluate them take them up."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mopo_cli.agents.actor import Actor
from mopo_cli.data.transitions import DatasetInfo, Transitions
from mopo_cli.errors import InputError
from mopo_cli.report.console import Report
from mopo_cli.stages.common.inputs import check_dimensions, check_lineage
from mopo_cli.stages.common.policies import open_policy
from mopo_cli.stages.runner import Stage
from mopo_cli.store.lineage import StageRecord, read_lineage
from mopo_cli.store.run import RunFolder

AFTER_DIVERGING = "a lower --critic-lr, or where the model is used a larger --lam or a smaller --h"
"""What may keep a training from diverging again."""

_PREFIX = "train-policy/"


def policies_to_evaluate(run: RunFolder, name: str | None) -> tuple[str, StageRecord, dict[str, Path]]:
    """A finished policy by name, or the one that was finished last: its name, its record, and its files by seed.

    InputError where there is none, or all its seeds diverged.
    """
    name, record = _trained_policy(run, name)
    policies = files_by_seed(run, record, "policy")
    if not policies:
        raise InputError(
            f"The policy {name} has nothing to evaluate: all its seeds diverged in training.",
            hint=f"mopo train-policy with {AFTER_DIVERGING}",
        )
    return name, record, policies


def diverged_seeds(record: StageRecord, report: Report) -> dict[str, list[str]]:
    """What a result says of the seeds that diverged, of which there is no policy, and which are told."""
    lost = list(record.extra.get("diverged", []))
    if lost:
        report.warn(f"Not in these numbers, as they diverged in training: {', '.join(lost)}.")
    return {"diverged_seeds": lost} if lost else {}


def files_by_seed(run: RunFolder, record: StageRecord, role: str) -> dict[str, Path]:
    """The files of one role, "policy" or "metrics", that train-policy made, by seed in their order."""
    files = {
        match[1]: run.root / file["path"]
        for key, file in record.outputs.items()
        if (match := re.fullmatch(rf"{role}/seed-(\d{{1,19}})", key))
    }
    return dict(sorted(files.items(), key=lambda item: int(item[0])))


def policy_inputs_of(policies: Mapping[str, Path] | Mapping[int, Path]) -> dict[str, Path]:
    """Policies by seed, as inputs of a stage."""
    return {f"policy/{seed}": path for seed, path in policies.items()}


def open_run_policy(
    path: Path, stage: Stage, transitions: Transitions, info: DatasetInfo, device: torch.device
) -> tuple[Actor, dict[str, Any]]:
    """Read a policy of the run, see `open_policy`; InputError where it was made from or for other data."""
    actor, meta = open_policy(path, device)
    check_lineage(stage, f"the policy {path}", meta["inputs"]["dataset"])
    check_dimensions(f"the policy {path}", meta, transitions, info, "mopo train-policy")
    return actor, meta


def _trained_policy(run: RunFolder, name: str | None) -> tuple[str, StageRecord]:
    records = {
        key.removeprefix(_PREFIX): record for key, record in read_lineage(run).items() if key.startswith(_PREFIX)
    }
    if not records:
        raise InputError(f"The run {run.root} has no trained policy yet.", hint="mopo train-policy")
    if name is None:
        name = max(records, key=lambda key: records[key].finished)
    if name not in records:
        raise InputError(
            f"The run {run.root} has no policy {name}; it has {', '.join(sorted(records))}.",
            hint=f"mopo evaluate --policy {min(records)}",
        )
    return name, records[name]
