"""``mopo job``: carries out a job in a folder of its own, which becomes a small run with the results in it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mopo_cli.config.schema import SelectElites, TrainModel, TrainPolicy
from mopo_cli.errors import InputError
from mopo_cli.report.console import Report
from mopo_cli.stages.ablation.train_cells import Cell, missing_cells, train_cells
from mopo_cli.stages.common.device import open_device
from mopo_cli.stages.common.open_world import policy_inputs
from mopo_cli.stages.common.options import Options
from mopo_cli.stages.jobs.job import KEY, TABLE, Job, policy_settings
from mopo_cli.stages.runner import Stage, stage_envelope
from mopo_cli.stages.select_elites import run_select_elites
from mopo_cli.stages.train_model import run_train_model
from mopo_cli.store.atomic import publish, sha256_file
from mopo_cli.store.lineage import read_lineage, record_stage
from mopo_cli.store.lock import run_lock
from mopo_cli.store.run import RunFolder


def run_job(job: Job, run: RunFolder, options: Options, report: Report) -> dict[str, Any]:
    """Carry out a job in ``run``, taking up what was interrupted there; returns the result object.

    Raises InputError where an input is missing or is not what the job was made for, and what the stages raise. Seeds
    that diverged are named in the result: see `raise_if_diverged`.
    """
    options = replace(options, **job.execution)
    _bring(job, run)
    if job.stage == "train-model":
        model, elites = job.settings
        run_train_model(run, TrainModel(**model), options, report)
        return run_select_elites(run, SelectElites(**elites), options, report)
    return _train(run, [_localised(one, job) for one in job.settings], options, report)


def cells_in(run: RunFolder, cells: Sequence[TrainPolicy]) -> list[Cell]:
    """The cells of a job with their folders in its run."""
    return [Cell(cell, run.ablation_dir(TABLE) / "cells" / cell.policy_name()) for cell in cells]


def _train(run: RunFolder, settings: list[TrainPolicy], options: Options, report: Report) -> dict[str, Any]:
    inputs: dict[str, Path] = {}
    for one in settings:
        inputs |= policy_inputs(run, one)
    cells = cells_in(run, settings)

    def complete(stage: Stage) -> bool:
        return not missing_cells(cells, stage)

    recorded = {"cells": [one.model_dump(mode="json") for one in settings]}
    with stage_envelope(run, KEY, recorded, inputs, options, report, complete) as stage:
        if stage.up_to_date:
            return stage.result()
        records = train_cells(cells, stage, open_device(options))
        lost = [f"{record['cell']} seed {seed}" for record in records for seed in record["diverged"]]
        outputs = {f"cell/{cell.name}": cell.description for cell in cells}
        return stage.finish(outputs, {"cells": records, "diverged": lost})


def _localised(recorded: dict[str, Any], job: Job) -> TrainPolicy:
    """A cell's settings with the rollout file where it is on this machine."""
    settings = policy_settings(recorded)
    if "rollouts" not in job.inputs or settings.rollouts == "fresh":
        return settings
    return settings.model_copy(update={"rollouts": job.inputs["rollouts"]["path"]})


def _bring(job: Job, run: RunFolder) -> None:
    """Make the folder a run with the job's inputs: the model is copied into it, large files stay where they are."""
    for role, file in job.inputs.items():
        _check(role, Path(file["path"]), file["sha256"])
    with run_lock(run.root):
        dataset = {"dataset": job.inputs["dataset"]}
        fetched = replace(job.fetched, outputs=dataset)
        if read_lineage(run).get("fetch-data") != fetched:
            record_stage(run, "fetch-data", fetched)
        for role, place in (("model", run.model), ("elites", run.elites)):
            source = job.inputs.get(role)
            if source and not (place.is_file() and sha256_file(place) == source["sha256"]):
                with publish(place) as temporary:
                    temporary.write_bytes(Path(source["path"]).read_bytes())


def _check(role: str, path: Path, digest: str) -> None:
    if not path.is_file():
        raise InputError(f"The job needs the {role} {path}, which does not exist on this machine.")
    if (present := sha256_file(path)) != digest:
        raise InputError(
            f"The {role} {path} is not the one that the job was made for: sha256 {digest}, now {present}.",
            hint="plan the study again",
        )
