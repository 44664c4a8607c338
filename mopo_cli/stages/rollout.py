"""rollout: branch in the model from states of the dataset and stream the imagined transitions to a file."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mopo_cli.agents.dice import Ratio
from mopo_cli.config.schema import Imagination, Rollout
from mopo_cli.data.transition_files import written_rollouts
from mopo_cli.data.transitions import DatasetInfo, denormalise_actions
from mopo_cli.dynamics.branched_rollouts import ENDS, Policy, RolloutOptions, RolloutStep, branch, uniform_policy
from mopo_cli.dynamics.ensemble import Ensemble
from mopo_cli.dynamics.penalties import RATIO, UNCERTAINTIES
from mopo_cli.engine.rows import RowLayout
from mopo_cli.engine.streams import stream
from mopo_cli.errors import DivergedError, InputError
from mopo_cli.report.alarms import branches_alarm, guard_remark
from mopo_cli.report.console import Report
from mopo_cli.stages.common.device import open_device
from mopo_cli.stages.common.held_out import judge_share_of, without_judge
from mopo_cli.stages.common.inputs import Data, check_dimensions, dataset_path, described, open_data, open_ensemble
from mopo_cli.stages.common.memory import check_memory
from mopo_cli.stages.common.memory_estimates import rollout_bytes
from mopo_cli.stages.common.open_world import data_rule, rollout_options, steps_taken
from mopo_cli.stages.common.options import Options
from mopo_cli.stages.common.policies import open_policy, open_ratio
from mopo_cli.stages.common.user_units import data_header, for_stored
from mopo_cli.stages.runner import Stage, stage_envelope
from mopo_cli.store.run import RunFolder

_PART = 10_000  # start states branched at once, so that memory does not grow with --batch
_QUANTILES = (0.05, 0.5, 0.95)
_QUANTILE_ROWS = 100_000  # rows of a step that its quantiles are taken from


def run_rollout(run: RunFolder, settings: Rollout, options: Options, report: Report) -> dict[str, Any]:
    """Write rollouts/<name>.h5; returns the result object with the quantiles of every uncertainty."""
    device = open_device(options)
    name = settings.file_name()
    inputs = {"dataset": dataset_path(run), "model": run.model, "elites": run.elites}
    if settings.actions != "uniform":
        inputs["policy"] = Path(settings.actions)
        beside = inputs["policy"].with_name("ratio.safetensors")
        inputs |= {"ratio": beside} if beside.is_file() else {}
    with stage_envelope(run, f"rollout/{name}", settings.model_dump(), inputs, options, report) as stage:
        if stage.up_to_date:
            return stage.result()
        check_memory(settings, rollout_bytes, device, "The rollout")
        data = without_judge(open_data(inputs["dataset"], device), judge_share_of(inputs["model"]), report)
        model_seed, ensemble = open_ensemble(stage, data, device, settings.seed)
        policy = _policy(inputs.get("policy"), data, device)
        rolled = replace(rollout_options(settings, data), uncertainties=tuple(UNCERTAINTIES))
        if "ratio" in inputs:
            ratio = _ratio(inputs["ratio"], stage, settings, data, model_seed, ensemble)
            rolled = replace(rolled, uncertainties=(*rolled.uncertainties, RATIO), ratio=ratio)
        tally = _write(stage, settings, data, ensemble, policy, rolled, stage.out.stage(run.rollouts(name)))
        tally.show(report)
        if tally.ended["guarded"]:
            report.say(
                "They are stored as timeouts, with the model's own reward. For train-policy --rollouts: "
                + guard_remark(float(data.reward.amin()))
            )
        if (alarm := branches_alarm(tally.ended_first_step)) is not None:
            report.warn(alarm)
        report.hint(f"mopo train-policy --rollouts {run.rollouts(name)}")
        return stage.finish({"rollouts": run.rollouts(name)}, tally.result())


def _policy(path: Path | None, data: Data, device: torch.device) -> Policy:
    if path is None:
        return uniform_policy(data.action.shape[1])
    actor, meta = open_policy(path, device)
    check_dimensions(f"the policy {path}", meta, data.transitions, data.info, "give --actions a policy of this run")
    return for_stored(actor, data.info).sample


def _ratio(path: Path, stage: Stage, settings: Rollout, data: Data, model_seed: int, ensemble: Ensemble) -> Ratio:
    """The density ratios of the policy in use, one per network of the ensemble in use; else InputError."""
    ratio, meta = open_ratio(path, data.observation.device)
    hint = "give --actions a policy that was trained with this run's model, or move the ratio file away"
    check_dimensions(f"the ratio file {path}", meta, data.transitions, data.info, hint)
    with described(path):
        made = {"model": meta["inputs"]["model"], "policy": meta["policy_sha256"]}
        seed = int(meta["model_seed"])
    for role, digest in made.items():
        now = stage.inputs[role]["sha256"]
        if digest != now:
            raise InputError(f"The ratio file {path} was made with another {role}: sha256 {digest}, now {now}.", hint)
    if model_seed != seed:
        raise InputError(
            f"The ratio file {path} is of the ensemble with seed {seed}, but --seed {settings.seed} uses that with "
            f"seed {model_seed}.",
            hint=f"--seed {seed}",
        )
    missing = sorted({*ensemble.elites} - {*ratio.elite_index.tolist()})
    if missing:
        raise InputError(f"The ratio file {path} was made with other elites: network {missing[0]} is not in it.", hint)
    return ratio


class _Tally:
    """What the rollouts were like: uncertainties, of these names, by step, and how rows ended."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.uncertainty: dict[int, list[np.ndarray[Any, Any]]] = {}
        self.step_rows: dict[int, int] = {}
        self.ended = dict.fromkeys(ENDS, 0)
        self._branches, self._first = 0, dict(self.ended)

    @property
    def rows(self) -> int:
        return sum(self.step_rows.values())

    @property
    def ended_first_step(self) -> dict[str, float]:
        """The shares of the branches that ended in their first step, by the cause."""
        return {name: count / max(self._branches, 1) for name, count in self._first.items()}

    def add(self, imagined: RolloutStep, uncertainty: np.ndarray[Any, Any]) -> None:
        parts = self.uncertainty.setdefault(imagined.step, [])
        # Parts come in random order, so the first rows of a step speak for all, and memory stays bounded.
        if sum(map(len, parts)) < _QUANTILE_ROWS:
            parts.append(uncertainty)
        self.step_rows[imagined.step] = self.step_rows.get(imagined.step, 0) + len(imagined.rows)
        first = imagined.step == 0
        self._branches += len(imagined.rows) + imagined.dropped if first else 0
        for name, count in imagined.ends().items():
            self.ended[name] += count
            self._first[name] += count if first else 0

    def quantiles(self) -> list[dict[str, Any]]:
        out = []
        for step, parts in sorted(self.uncertainty.items()):
            values = np.concatenate(parts)
            for u, name in enumerate(self.names):
                q = np.quantile(values[:, u], _QUANTILES).tolist() if len(values) else [None] * len(_QUANTILES)
                row = dict(zip((f"q{100 * p:.0f}" for p in _QUANTILES), q, strict=True))
                out.append({"step": step, "uncertainty": name, "rows": self.step_rows[step], **row})
        return out

    def result(self) -> dict[str, Any]:
        total = max(self.rows + self.ended["dropped"], 1)
        return {
            "rows": self.rows,
            **{f"{name}_share": self.ended[name] / total for name in ("terminated", "guarded", "dropped")},
            "ended_at_once": self.ended_first_step,
            "quantiles": self.quantiles(),
        }

    def show(self, report: Report) -> None:
        columns = ("step", "uncertainty", "rows", *(f"{100 * p:.0f} %" for p in _QUANTILES))
        rows = [(q["step"] + 1, *list(q.values())[1:]) for q in self.quantiles()]
        report.table("Uncertainty by step of the rollout", columns, rows)
        result = self.result()
        report.say(
            f"{self.rows:,} transitions: {result['terminated_share']:.2%} terminated by the task's rule, "
            f"{result['guarded_share']:.2%} ended by the guard, {result['dropped_share']:.2%} dropped as not finite"
        )


def _write(
    stage: Stage, settings: Rollout, data: Data, ensemble: Ensemble, policy: Policy, options: RolloutOptions, path: Path
) -> _Tally:
    device, names = data.observation.device, options.uncertainties
    tally, rows = _Tally(names), RowLayout(data.observation.shape[1], data.action.shape[1], len(names))
    rule = data_rule(data, settings)
    start_step = steps_taken(data, rule, options.reward)
    start = torch.randint(len(data.observation), (settings.batch,), generator=stream(settings.seed, "rollout/start"))
    with (
        written_rollouts(path, _attributes(stage, settings, data.info)) as append,
        stage.progress("rollout", settings.batch) as count,
    ):
        for i, part in enumerate(start.split(_PART)):
            observation = data.observation[part.to(device)]
            part_start_step = None if start_step is None else start_step[part.to(device)]
            generator = stream(settings.seed, "rollout/model", i, device)
            for imagined in branch(
                ensemble, rule, observation, policy, settings.h, generator, options, part_start_step
            ):
                columns = _columns(rows, names, imagined, data.info)
                tally.add(imagined, np.stack([columns[f"uncertainty/{u}"] for u in names], axis=1))
                append(columns)
            count(len(part))
        if not tally.rows:
            raise DivergedError(
                f"Every transition the model {stage.run.model} imagined is not finite.", hint="mopo train-model --force"
            )
    return tally


def _attributes(stage: Stage, settings: Rollout, info: DatasetInfo) -> dict[str, Any]:
    return {
        "dataset_id": info.dataset_id,
        "env_id": info.env_id,
        **{f"{role}_sha256": file["sha256"] for role, file in stage.inputs.items()},
        "termination": info.termination,
        "action_low": info.action_low,
        "action_high": info.action_high,
        "h": settings.h,
        "actions": settings.actions,
        "seed": settings.seed,
        **{name: getattr(settings, name) for name in Imagination.model_fields},
        **data_header(info),
    }


def _columns(rows: RowLayout, names: tuple[str, ...], imagined: RolloutStep, info: DatasetInfo) -> dict[str, Any]:
    transition = rows.split(imagined.rows.cpu())
    count, guarded_rows = len(imagined.rows), imagined.guarded_rows.cpu().numpy()
    columns = {
        "observations": transition.observation.numpy(),
        "actions": denormalise_actions(transition.action.numpy(), info),
        "rewards": transition.reward.numpy(),
        "next_observations": transition.next_observation.numpy(),
        # The guard ends the record and not the task.
        "terminals": (transition.terminal.numpy() > 0) & ~guarded_rows,
        "timeouts": guarded_rows,
        "step": np.full(count, imagined.step, dtype=np.int32),
        "network": imagined.network.cpu().numpy().astype(np.int32),
    }
    return columns | {f"uncertainty/{name}": transition.uncertainty[:, u].numpy() for u, name in enumerate(names)}
