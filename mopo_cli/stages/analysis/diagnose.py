"""rollout --diagnose: where a simulator knows the truth, compare the model's error with every uncertainty stored."""

from dataclasses import asdict, astuple
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mopo_cli.config.schema import Rollout
from mopo_cli.data.restated import in_user_units
from mopo_cli.data.transition_files import read_dataset_info
from mopo_cli.data.transitions import DatasetInfo, normalise_actions
from mopo_cli.dynamics.branched_rollouts import Oracle
from mopo_cli.dynamics.ensemble import Ensemble
from mopo_cli.engine.streams import stream
from mopo_cli.errors import InputError
from mopo_cli.evaluation.diagnosis import Diagnosis, diagnose
from mopo_cli.report.console import Report
from mopo_cli.report.plots_rollouts import diagnosis_plot
from mopo_cli.stages.common.device import cpu_threads, open_device
from mopo_cli.stages.common.inputs import dataset_path, open_data, open_ensemble
from mopo_cli.stages.common.options import Options
from mopo_cli.stages.common.rollout_rows import Columns, draw_rows, uncertainties_of
from mopo_cli.stages.runner import Stage, stage_envelope
from mopo_cli.store.atomic import write_json
from mopo_cli.store.run import RunFolder
from mopo_cli.tasks.oracle import check_oracle, open_oracle

_ROWS = 100_000  # rows compared at most, drawn from all
_PART = 5_000  # rows between two looks at the signals

_UNKNOWN = "a velocity lies at the bound of the observations, or the simulator finds the motion unstable"


def check_diagnosis(run: RunFolder) -> None:
    """InputError where no simulator knows the true dynamics of the run's data."""
    check_oracle(read_dataset_info(dataset_path(run)).env_id)


def run_diagnose(run: RunFolder, settings: Rollout, options: Options, report: Report) -> dict[str, Any]:
    """Write rollouts/<name>-diagnosis.json and .png of the rollout file with these settings; returns the result object.

    The prediction that is compared is the mean of the network that drew the row: the file holds its sample, whose
    noise is no error of the model's. InputError where there is no simulator, or it knows none of the rows.
    """
    device = open_device(options)
    name = settings.file_name()
    path = run.rollouts(name)
    inputs = {"dataset": dataset_path(run), "model": run.model, "elites": run.elites, "rollouts": path}
    recorded = {**settings.model_dump(), "rows": _ROWS}
    with stage_envelope(run, f"rollout/{name}/diagnosis", recorded, inputs, options, report) as stage:
        if stage.up_to_date:
            return stage.result()
        data = open_data(inputs["dataset"], device)
        _, ensemble = open_ensemble(stage, data, device, settings.seed)
        columns, _, stored = draw_rows(path, _ROWS, stream(settings.seed, "diagnose/rows"))
        uncertainties = uncertainties_of(columns)
        error = _errors(stage, ensemble, columns, data.info, device)
        diagnosis = diagnose(uncertainties, error, columns["step"])
        if not diagnosis.rows:
            raise InputError(
                f"The true next state is known of none of the {diagnosis.unknown:,} rows of {path}: {_UNKNOWN}."
            )
        result = {"environment": data.info.env_id, "stored": stored, **asdict(diagnosis)}
        _show(diagnosis, report)
        json, picture = (path.with_name(f"{name}-diagnosis.{kind}") for kind in ("json", "png"))
        origin = {"dataset": data.info.dataset_id, "rollouts_sha256": stage.inputs["rollouts"]["sha256"]}
        write_json(stage.out.stage(json), result | origin)
        diagnosis_plot(stage.out.stage(picture), f"{name}: {data.info.dataset_id}", diagnosis, uncertainties, error)
        finished = stage.finish({"diagnosis": json, "picture": picture}, result)
        report.say(f"Drawn: {picture}")
        return finished


def _errors(
    stage: Stage, ensemble: Ensemble, columns: Columns, info: DatasetInfo, device: torch.device
) -> NDArray[np.float32]:
    """The true error `[n]` of the drawn network's mean next state; NaN where the simulator does not know it."""
    threads = cpu_threads(stage.options)
    parts, rows = [], len(columns["rewards"])
    with (
        open_oracle(info.env_id, info.env_kwargs, info.action_low, info.action_high, threads) as oracle,
        stage.progress("diagnosis", rows) as count,
    ):
        for start in range(0, rows, _PART):
            part = {name: values[start : start + _PART] for name, values in columns.items()}
            parts.append(_error(ensemble, in_user_units(oracle, info), part, info, device))
            count(len(parts[-1]))
    return np.concatenate(parts)


def _error(
    ensemble: Ensemble, oracle: Oracle, columns: Columns, info: DatasetInfo, device: torch.device
) -> NDArray[np.float32]:
    observation = torch.from_numpy(columns["observations"]).to(device)
    action = torch.from_numpy(normalise_actions(columns["actions"], info)).to(device)
    network = torch.from_numpy(columns["network"]).long().to(device)
    mean, _ = ensemble.predict(observation, action)
    drawn = mean[network, torch.arange(len(network), device=device), :-1]
    error: NDArray[np.float32] = (
        oracle(observation, action, ensemble.next_observation(observation, action, drawn)).cpu().numpy()
    )
    return error


def _show(diagnosis: Diagnosis, report: Report) -> None:
    report.table(
        f"True error of the model against its uncertainties, {diagnosis.rows:,} rows",
        ("uncertainty u", "slope", "intercept", "Pearson", "Spearman", "error, lowest tenth of u", "highest tenth"),
        [
            (name, r.slope, r.intercept, r.pearson, r.spearman, r.calibration[0].error, r.calibration[-1].error)
            for name, r in diagnosis.uncertainties.items()
        ],
    )
    columns = ("step", "rows", "mean", "median", "90 %")
    report.table("True error by step of the rollout", columns, [astuple(step) for step in diagnosis.steps])
    if diagnosis.unknown:
        report.say(f"{diagnosis.unknown:,} rows more are left out: {_UNKNOWN}.")
