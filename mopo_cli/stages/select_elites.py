"""select-elites: choose the networks that generate, and say how all of them rank."""

from typing import Any

import torch

from mopo_cli.config.schema import SelectElites
from mopo_cli.dynamics.elites import rank
from mopo_cli.errors import SettingsError
from mopo_cli.report.console import Report
from mopo_cli.stages.common.inputs import open_tensors
from mopo_cli.stages.common.options import Options
from mopo_cli.stages.runner import stage_envelope
from mopo_cli.store.atomic import write_json
from mopo_cli.store.run import RunFolder


def run_select_elites(run: RunFolder, settings: SelectElites, options: Options, report: Report) -> dict[str, Any]:
    """Write elites.json for every ensemble of the model; returns the result object."""
    with stage_envelope(run, "select-elites", settings.model_dump(), {"model": run.model}, options, report) as stage:
        if stage.up_to_date:
            return stage.result()
        _, meta = open_tensors(run.model, "model", torch.device("cpu"))
        errors: dict[str, list[float]] = meta[f"holdout_{settings.metric}"]
        elites = {seed: _choose(settings, values) for seed, values in errors.items()}
        for seed, values in errors.items():
            rows = [
                (place + 1, k, meta["holdout_mse"][seed][k], meta["holdout_nll"][seed][k], k in elites[seed])
                for place, k in enumerate(rank(values))
            ]
            report.table(
                f"Networks of seed {seed} by hold-out {settings.metric}",
                ("place", "network", "hold-out MSE", "hold-out NLL", "elite"),
                rows,
            )
        content = {"elites": elites, "metric": settings.metric, "model_sha256": stage.inputs["model"]["sha256"]}
        write_json(stage.out.stage(run.elites), content)
        report.hint("mopo train-policy --penalty max-var --lam 1 --h 5, or mopo rollout")
        return stage.finish({"elites": run.elites}, {"elites": elites})


def _choose(settings: SelectElites, errors: list[float]) -> list[int]:
    networks = len(errors)
    if settings.networks is not None:
        unknown = [k for k in settings.networks if k >= networks]
        if unknown:
            raise SettingsError(
                f"--networks names network {unknown[0]}, but the model has networks 0 to {networks - 1}."
            )
        return list(settings.networks)
    if settings.n > networks:
        raise SettingsError(
            f"--n {settings.n} asks for more elites than the model's {networks} networks.",
            hint=f"mopo select-elites --n {networks}",
        )
    return rank(errors)[: settings.n]
