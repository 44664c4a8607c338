"""What a method asks of the model, and the variants of a run that have another one."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mopo_cli.cli.context import Context, execution
from mopo_cli.config.ablation import method_demands
from mopo_cli.config.schema import Ablate, SelectElites, TrainModel, TrainPolicy
from mopo_cli.errors import InputError
from mopo_cli.report import Report
from mopo_cli.stages.runner import Options
from mopo_cli.store.lineage import read_lineage, record_stage
from mopo_cli.store.lock import run_lock
from mopo_cli.store.run import RunFolder

Demands = dict[str, dict[str, Any]]


def unmet_demands(context: Context, settings: TrainPolicy) -> Demands:
    """What the method of ``settings`` asks of the model that the run's is not, by stage; empty where all is met."""
    if settings.method is None or not settings.needs_model:
        return {}
    lineage = read_lineage(context.run)
    unmet = {}
    for stage, values in method_demands(settings.method, context.preset, context.dataset, context.call.config).items():
        had = lineage[stage].settings if stage in lineage else {}
        if other := {name: value for name, value in values.items() if name in had and had[name] != value}:
            unmet[stage] = other
    return unmet


def refuse_other_model(context: Context, settings: TrainPolicy) -> None:
    """Raises InputError, naming the command to run, where the run's model is not what the method asks for."""
    for stage, values in unmet_demands(context, settings).items():
        wanted = ", ".join(f"{name.replace('_', '-')} {value}" for name, value in values.items())
        raise InputError(
            f"The method {settings.method} wants {wanted}, and the {stage} of {context.run.root} was made otherwise.",
            hint=f"mopo {stage} --method {settings.method}",
        )


def variant(context: Context, demands: Demands, report: Report) -> RunFolder:
    """The run, inside this one, of the same data with a model that meets the demands; made where it is not there."""
    from mopo_cli.stages.select_elites import run_select_elites
    from mopo_cli.stages.train_model import run_train_model

    words = [f"{name}-{value}" for values in demands.values() for name, value in values.items()]
    run = context.run.variant(re.sub(r"[^A-Za-z0-9.+-]+", "-", "_".join(words)))
    report.say(f"Model of {run.root}: {', '.join(words)}")
    _share_data(context.run, run)
    model = TrainModel(**{**_recorded(context, "train-model"), **demands.get("train-model", {})})
    run_train_model(run, model, _options(context), report)
    asked = demands.get("select-elites", {})
    by_hand = {"networks": None} if asked else {}  # elites named by hand are those of the run's own model
    elites = SelectElites(**{**_recorded(context, "select-elites"), **by_hand, **asked})
    run_select_elites(run, elites, _options(context), report)
    return run


def _share_data(run: RunFolder, other: RunFolder) -> None:
    """Let ``other`` work on the very file that ``run`` does, whatever has become of what it was made from."""
    record = read_lineage(run)["fetch-data"]
    paths = {role: str((run.root / file["path"]).resolve()) for role, file in record.outputs.items()}
    shared = replace(record, outputs={role: {**file, "path": paths[role]} for role, file in record.outputs.items()})
    if read_lineage(other).get("fetch-data") != shared:
        with run_lock(other.root):
            record_stage(other, "fetch-data", shared)


def _recorded(context: Context, stage: str) -> dict[str, Any]:
    record = read_lineage(context.run).get(stage)
    return dict(record.settings) if record else {}


def _options(context: Context) -> Options:
    return replace(execution(context.call, {}), force=False)


def ablate_by_model(
    context: Context, settings: Ablate, cells: Sequence[TrainPolicy], options: Options, report: Report
) -> dict[str, Any]:
    """Train every cell with the model that it asks for, in this run or a variant of it; the result of their one table.

    Raises what ``run_ablate`` raises, and what training a model does.
    """
    from mopo_cli.stages.ablate import run_ablate

    quiet = Report(report.mode, hints=False)
    here: list[TrainPolicy] = []
    elsewhere: dict[str, tuple[RunFolder, list[TrainPolicy]]] = {}
    for cell in cells:
        demands = unmet_demands(context, cell)
        if not demands:
            here.append(cell)
        elif (key := repr(demands)) in elsewhere:
            elsewhere[key][1].append(cell)
        else:
            elsewhere[key] = variant(context, demands, quiet), [cell]
    parts: list[Path] = []
    for run, theirs in elsewhere.values():
        run_ablate(run, settings, theirs, options, quiet)
        parts.append(run.ablation_dir(settings.table_name()) / "table.json")
    return run_ablate(context.run, settings, here, options, report, parts)
