"""train-model: fit the dynamics ensembles to the dataset and publish them with a report of what they predict badly."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from mopo_cli.config.schema import TrainModel
from mopo_cli.data.history import frame_width
from mopo_cli.data.transition_files import dataset_shape, read_dataset_info
from mopo_cli.data.transitions import DatasetInfo
from mopo_cli.dynamics.ensemble import Ensemble
from mopo_cli.dynamics.fit import FitSettings, FitState, fit_checkpoint, fitted, restore_fit, start_fit
from mopo_cli.dynamics.split import Examples
from mopo_cli.dynamics.training import EpochReport, advance, holdout_errors, steps_per_epoch
from mopo_cli.errors import DivergedError, InputError
from mopo_cli.evaluation.errors_by_input import ErrorsByInput, errors_by_input, uncertainty_and_error
from mopo_cli.report.alarms import model_alarm
from mopo_cli.report.console import Report, format_value
from mopo_cli.report.metrics import Metrics, open_metrics
from mopo_cli.report.sink import Curves
from mopo_cli.stages.common.alarms import rescale_hint
from mopo_cli.stages.common.attempt import AFRESH
from mopo_cli.stages.common.device import check_precision, open_device, open_recorder, tell_doubt
from mopo_cli.stages.common.held_out import share_of, without_judge
from mopo_cli.stages.common.inputs import Data, dataset_path, described, open_data
from mopo_cli.stages.common.learner import values_for
from mopo_cli.stages.common.memory import check_memory
from mopo_cli.stages.common.memory_estimates import model_bytes
from mopo_cli.stages.common.options import Options
from mopo_cli.stages.common.saving import Saver
from mopo_cli.stages.common.user_units import data_header, names_of, newest_inputs
from mopo_cli.stages.runner import Stage, stage_envelope
from mopo_cli.store.atomic import write_json
from mopo_cli.store.checkpoint import save_tensors
from mopo_cli.store.documents import checked
from mopo_cli.store.headers import FitProgress
from mopo_cli.store.run import RunFolder

_MEMBER = "model"  # all seeds are one in the metrics
_BLOCK = 50  # gradient steps between two looks at the signals


def run_train_model(run: RunFolder, settings: TrainModel, options: Options, report: Report) -> dict[str, Any]:
    """Train one ensemble per seed as one stack, resuming what was interrupted; returns the result object."""
    device = open_device(options)
    check_precision("--update-precision", settings.update_precision, device)
    path = dataset_path(run)
    with stage_envelope(run, "train-model", settings.model_dump(), {"dataset": path}, options, report) as stage:
        if stage.up_to_date:
            return stage.result()
        rows, obs_dim, act_dim = dataset_shape(path)
        frame = frame_width(obs_dim, act_dim, read_dataset_info(path).history)
        check_memory(settings, lambda some: model_bytes(some, rows, obs_dim + act_dim, frame + 1, device), device)
        data = open_data(path, device)
        if settings.target_scale == "standardised":
            report.say("Targets are learned, and errors shown, in standard deviations (--target-scale standardised).")
        recorder = open_recorder(options, device)
        share = share_of(data, settings.judge_share)
        data = without_judge(data, share, report)
        fit = start_fit(learnable(data, report), fit_settings(settings), settings.all_seeds(), recorder)
        history = _resume(stage, fit)
        curves = Curves(run.root, stage.key, [_MEMBER])
        with open_metrics(stage.live, curves, report, options.log) as metrics:
            metrics.log_records(_MEMBER, history)
            _train(stage, fit, history, metrics)
        return _publish(stage, fit, data, share, metrics)


def learnable(data: Data, report: Report) -> Examples:
    """All rows, to train on and to hold out, but those whose next state the log does not hold."""
    if data.info.terminal_next_known:
        return Examples.of(data.observation, data.action, data.reward, data.next_observation, frame=data.frame)
    kept = data.terminal == 0
    rows = int(kept.sum())
    if rows < 2:
        raise InputError(f"{data.info.dataset_id}: the next state is known in {rows} rows, 2 are needed.")
    report.say(f"{len(kept) - rows:,} terminal rows are left out: the log does not hold the state after them")
    columns = data.observation, data.action, data.reward, data.next_observation
    return Examples.of(*(column[kept] for column in columns), frame=data.frame)


def fit_settings(settings: TrainModel) -> FitSettings:
    """How the ensemble is built and trained."""
    return FitSettings(**values_for(FitSettings, settings))


def _resume(stage: Stage, fit: FitState) -> list[dict[str, Any]]:
    """Continue from the stage's checkpoint, if there is one; returns a record per epoch that is done."""
    saved = stage.load_state(str(fit.flat.device))
    if saved is None:
        return []
    tensors, meta = saved
    with described(stage.state_file, AFRESH):
        progress = checked(stage.state_file, FitProgress, meta, AFRESH)
        restore_fit(fit, tensors, progress["fit"])
    stage.report.say(f"train-model goes on at epoch {fit.epoch}, step {fit.step} of {steps_per_epoch(fit)}")
    history: list[dict[str, Any]] = progress["history"]
    return history


def _train(stage: Stage, fit: FitState, history: list[dict[str, Any]], metrics: Metrics) -> None:
    def save() -> None:
        tensors, numbers = fit_checkpoint(fit)
        stage.save_state(tensors, {"fit": numbers, "history": history})

    saver, epoch_start = Saver(stage, save), time.monotonic()
    columns = ("epoch", "training", "NLL", "hold-out MSE per network", "best MSE", "transitions/s")
    with stage.report.live_table(columns) as table:
        first_step = fit.step
        while not fit.done:
            finished = advance(fit, _BLOCK)
            tell_doubt(fit.engine, stage.report)
            if finished is not None:
                history.append(_epoch_record(fit, finished))
                metrics.log_records(_MEMBER, history[-1:])
                rate = (steps_per_epoch(fit) - first_step) * fit.settings.batch_size
                _show(table.row, fit, finished, rate / (time.monotonic() - epoch_start))
                epoch_start, first_step = time.monotonic(), 0
            saver.look()


def _epoch_record(fit: FitState, finished: EpochReport) -> dict[str, Any]:
    seeds = [fit.seeds[s] for s in finished.active]
    return {
        "epoch": finished.epoch,
        "nll": dict(zip(map(str, seeds), finished.nll.tolist(), strict=True)),
        "holdout_mse": dict(zip(map(str, seeds), finished.mse.tolist(), strict=True)),
    }


def _show(row: Any, fit: FitState, finished: EpochReport, rate: float) -> None:
    names = [f"seed {fit.seeds[s]}: " if len(fit.seeds) > 1 else "" for s in finished.active]
    networks = "; ".join(name + format_value(mse) for name, mse in zip(names, finished.mse, strict=True))
    seeds = f"{len(finished.active)} x {fit.settings.networks}"
    row(finished.epoch, seeds, float(finished.nll.mean()), networks, float(fit.best_mse.mean()), int(rate))


def _publish(stage: Stage, fit: FitState, data: Data, share: float, metrics: Metrics) -> dict[str, Any]:
    _refuse_diverged(fit, data)
    ensembles = [fitted(fit, s) for s in range(len(fit.seeds))]
    errors, likelihoods = zip(*(holdout_errors(fit, each.flat, s) for s, each in enumerate(ensembles)), strict=True)
    scores = {
        "seeds": list(fit.seeds),
        "holdout_mse": {str(seed): of.mean(dim=1).tolist() for seed, of in zip(fit.seeds, errors, strict=True)},
        "holdout_nll": {str(seed): of.tolist() for seed, of in zip(fit.seeds, likelihoods, strict=True)},
    }
    header = _header(stage, fit, data, share) | scores
    dimensions = _dimension_report(fit, ensembles, errors, names_of("obs", fit.data.frame, data.info))
    outputs = {"model": stage.run.model, "description": stage.run.model_dir / "model.json"}
    save_tensors(stage.out.stage(outputs["model"]), _weights(fit.seeds, ensembles), header)
    errors_of_inputs = asdict(_errors_by_input(fit, ensembles, data.info))
    shown = {"dimensions": dimensions, "errors_by_input": errors_of_inputs}
    write_json(stage.out.stage(outputs["description"]), header | shown)
    outputs |= metrics.stage_files(_MEMBER, stage.out, stage.run.model_dir)
    _show_dimensions(dimensions, fit.settings.target_scale, stage.report)
    stage.report.hint("mopo select-elites")
    return stage.finish(outputs, {"epochs": fit.epoch, **scores})


def _refuse_diverged(fit: FitState, data: Data) -> None:
    failed = [seed for seed, mse in zip(fit.seeds, fit.best_mse, strict=True) if not bool(mse.isfinite().all())]
    if failed:
        raise DivergedError(
            f"The ensembles of seeds {failed} have networks whose hold-out error was never finite.",
            hint=(rescale_hint(data) if fit.settings.target_scale == "raw" else None)
            or "mopo show DATASET, then a lower --learning-rate",
        )


def _weights(seeds: Sequence[int], ensembles: Sequence[Ensemble]) -> dict[str, torch.Tensor]:
    """The tensors of the model's file: weights and scalers, by seed."""
    tensors: dict[str, torch.Tensor] = {}
    for seed, ensemble in zip(seeds, ensembles, strict=True):
        scaler = {"input_mean": ensemble.input_mean, "input_std": ensemble.input_std}
        if ensemble.target_mean is not None and ensemble.target_std is not None:
            scaler |= {"target_mean": ensemble.target_mean, "target_std": ensemble.target_std}
        weights = ensemble.layout.views(ensemble.flat)
        tensors |= {f"seed-{seed}/{name}": tensor for name, tensor in (weights | scaler).items()}
    return tensors


def _header(stage: Stage, fit: FitState, data: Data, share: float) -> dict[str, Any]:
    """What the model's file says of the model and its data."""
    settings = fit.settings
    header = {
        "kind": "model",
        "obs_dim": fit.data.obs_dim,
        "act_dim": fit.data.inputs.shape[1] - fit.data.obs_dim,
        "hidden": settings.hidden,
        "layers": settings.layers,
        "networks": settings.networks,
        "spectral_norm": settings.spectral_norm,
        "dataset_id": data.info.dataset_id,
        "dataset_sha256": stage.inputs["dataset"]["sha256"],
        "action_low": data.info.action_low.tolist(),
        "action_high": data.info.action_high.tolist(),
        **data_header(data.info, share),
    }
    if settings.target_scale != "raw":
        header["target_scale"] = settings.target_scale
    return header


def _dimension_report(
    fit: FitState, ensembles: Sequence[Ensemble], errors: Sequence[torch.Tensor], observed: Sequence[str]
) -> list[dict[str, Any]]:
    """How well each target is predicted; the numbers that are ``observed`` have these names, `[frame]`."""
    squares = []
    for ensemble, of_networks in zip(ensembles, errors, strict=True):
        scale = 1.0 if ensemble.target_std is None else ensemble.target_std.square()
        squares.append(of_networks.mean(dim=0) * scale)
    mean = torch.stack(squares).mean(dim=0)
    held_out = [fit.data.targets[split.holdout].double() for split in fit.splits]
    variance = torch.stack([targets.var(dim=0, correction=0) for targets in held_out]).mean(dim=0)
    rows = zip([*(f"change of {name}" for name in observed), "reward"], mean.tolist(), variance.tolist(), strict=True)
    return [
        {"target": name, "rmse": error**0.5, "std": var**0.5, "explained_variance": 1 - error / var if var else 0.0}
        for name, error, var in rows
    ]


def _errors_by_input(fit: FitState, ensembles: Sequence[Ensemble], info: DatasetInfo) -> ErrorsByInput:
    """By the held-out rows of all seeds, each judged by its own ensemble."""
    held_out = [split.holdout for split in fit.splits]
    compared = [
        uncertainty_and_error(ensemble, fit.data, rows) for ensemble, rows in zip(ensembles, held_out, strict=True)
    ]
    uncertainty, error = (np.concatenate(columns) for columns in zip(*compared, strict=True))
    names, inputs = newest_inputs(fit.data.inputs[torch.cat(held_out)], info)
    return errors_by_input(names, inputs, uncertainty, error)


def _show_dimensions(dimensions: list[dict[str, Any]], target_scale: str, report: Report) -> None:
    report.table(
        "What the model predicts badly (hold-out, the worst first)",
        ("target", "RMSE", "std of target", "explained variance"),
        [tuple(d.values()) for d in sorted(dimensions, key=lambda d: d["explained_variance"])],
    )
    if (alarm := model_alarm(dimensions, target_scale)) is not None:
        report.warn(alarm)
