"""What a method requires of the model, and the variants of a run that have another model."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mopo_cli.cli.context import Context
from mopo_cli.config.ablation import method_demands
from mopo_cli.config.schema import Ablate, SelectElites, TrainModel, TrainPolicy
from mopo_cli.errors import InputError
from mopo_cli.report import Report
from mopo_cli.store.documents import as_key
from mopo_cli.store.lineage import read_lineage, record_stage
from mopo_cli.store.run import RunFolder

if TYPE_CHECKING:
    from mopo_cli.stages.common.options import Options
    from mopo_cli.stages.jobs.hand_out import HandOut

Demands = dict[str, dict[str, Any]]


def unmet_demands(context: Context, settings: TrainPolicy) -> Demands:
    """The settings that the method requires and the run's model does not have, by stage."""
    if settings.method is None or not settings.needs_model:
        return {}
    lineage = read_lineage(context.run)
    unmet = {}
    for stage, values in method_demands(settings.method, context.preset, context.dataset, context.call.config).items():
        recorded = lineage[stage].settings if stage in lineage else {}
        if differing := {name: value for name, value in values.items() if recorded.get(name, value) != value}:
            unmet[stage] = differing
    return unmet


def refuse_other_model(context: Context, settings: TrainPolicy) -> None:
    """Raises InputError, naming the command to run, if the run's model is not as the method requires."""
    for stage, values in unmet_demands(context, settings).items():
        required = ", ".join(f"{as_key(name)} {value}" for name, value in values.items())
        raise InputError(
            f"The method {settings.method} needs {required}, but the {stage} of {context.run.root} has other settings.",
            hint=f"mopo {stage} --method {settings.method}",
        )


def variant(
    context: Context, demands: Demands, report: Report, hand_out: "HandOut | None" = None
) -> tuple[RunFolder, bool]:
    """A run inside this one, with the same data and a model that meets the demands; made if it does not exist.

    Also whether the model is there: a job may yet have to train it.
    """
    from mopo_cli.stages.jobs.model import make_model

    words = [f"{name}-{value}" for values in demands.values() for name, value in values.items()]
    run = context.run.variant(re.sub(r"[^A-Za-z0-9.+-]+", "-", "_".join(words)))
    report.say(f"Model of {run.root}: {', '.join(words)}")
    _share_data(context.run, run)
    options = replace(context.call.options, force=False)
    model = TrainModel(**{**_recorded(context, "train-model"), **demands.get("train-model", {})})
    asked = demands.get("select-elites", {})
    by_hand = {"networks": None} if asked else {}  # elites named by hand are those of the run's own model
    elites = SelectElites(**{**_recorded(context, "select-elites"), **by_hand, **asked})
    return run, make_model(run, model, elites, options, report, hand_out)


def _share_data(run: RunFolder, other: RunFolder) -> None:
    """Let ``other`` use the very same data file as ``run``, even if the source of the data has changed since."""
    from mopo_cli.store.lock import run_lock

    record = read_lineage(run)["fetch-data"]
    paths = {role: str((run.root / file["path"]).resolve()) for role, file in record.outputs.items()}
    shared = replace(record, outputs={role: {**file, "path": paths[role]} for role, file in record.outputs.items()})
    if read_lineage(other).get("fetch-data") != shared:
        with run_lock(other.root):
            record_stage(other, "fetch-data", shared)


def _recorded(context: Context, stage: str) -> dict[str, Any]:
    record = read_lineage(context.run).get(stage)
    return dict(record.settings) if record else {}


def ablate_by_model(
    context: Context,
    settings: Ablate,
    cells: Sequence[TrainPolicy],
    options: "Options",
    report: Report,
    hand_out: "HandOut | None" = None,
) -> dict[str, Any]:
    """Train every cell with the model that it needs, in this run or a variant of it; returns one table's result.

    Raises what ``run_ablate`` and training a model raise.
    """
    from mopo_cli.stages.ablate import run_ablate

    quiet = report.without_hints()
    in_this_run: list[TrainPolicy] = []
    in_variants: dict[str, tuple[RunFolder, bool, list[TrainPolicy]]] = {}
    for cell in cells:
        demands = unmet_demands(context, cell)
        if not demands:
            in_this_run.append(cell)
        elif (key := repr(demands)) in in_variants:
            in_variants[key][-1].append(cell)
        else:
            in_variants[key] = *variant(context, demands, quiet, hand_out), [cell]
    parts: list[Path] = []
    for run, has_model, run_cells in in_variants.values():
        if not has_model:
            continue
        run_ablate(run, settings, run_cells, options, quiet, hand_out=hand_out)
        parts.append(run.ablation_dir(settings.table_name()) / "table.json")
    if hand_out is not None and hand_out.jobs:
        if in_this_run:  # its jobs are written too
            run_ablate(context.run, settings, in_this_run, options, quiet, hand_out=hand_out)
        return {}
    return run_ablate(context.run, settings, in_this_run, options, report, parts, hand_out)
