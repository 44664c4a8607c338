"""evaluate --ope: judge policies without a simulator, by episodes that neither they nor their model have seen."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mopo_cli.agents.actor import Actor
from mopo_cli.config.learners import recorded_training
from mopo_cli.config.schema import Evaluate, TrainModel, TrainPolicy
from mopo_cli.data.held_out import LEAST_TO_JUDGE, judge_rows
from mopo_cli.data.transitions import episode_ends, episode_lengths
from mopo_cli.dynamics.ensemble import Ensemble
from mopo_cli.dynamics.fit import fit_checkpoint, fitted, restore_fit, start_fit
from mopo_cli.dynamics.training import advance
from mopo_cli.errors import DivergedError, InputError, SettingsError
from mopo_cli.evaluation.clone import clone_of
from mopo_cli.evaluation.fitted_q import FqeSettings, advance_fqe, fqe_checkpoint, restore_fqe, start_fqe
from mopo_cli.evaluation.judgement import CLONE, Judge, judgement, sentence, target_policies
from mopo_cli.evaluation.model_values import JudgeModel, data_quantile
from mopo_cli.evaluation.verdict import MOST_MISSED, MOST_OUTSIDE
from mopo_cli.report.console import Report
from mopo_cli.report.judgement import show_judgement
from mopo_cli.stages.analysis.model_returns import longest_episode
from mopo_cli.stages.common.attempt import AFRESH
from mopo_cli.stages.common.device import open_device
from mopo_cli.stages.common.held_out import judge_share_of, kept, log_of
from mopo_cli.stages.common.inputs import Data, dataset_path, described, open_data
from mopo_cli.stages.common.open_world import data_rule, rollout_options
from mopo_cli.stages.common.options import Options
from mopo_cli.stages.common.rule_agreement import knows_ends
from mopo_cli.stages.common.saving import Saver
from mopo_cli.stages.common.trained_policies import (
    diverged_seeds,
    open_run_policy,
    policies_to_evaluate,
    policy_inputs_of,
)
from mopo_cli.stages.common.user_units import for_stored
from mopo_cli.stages.runner import Stage, stage_envelope
from mopo_cli.stages.train_model import fit_settings, learnable
from mopo_cli.store.atomic import write_json
from mopo_cli.store.lineage import read_lineage
from mopo_cli.store.run import RunFolder

FQE = FqeSettings()
_BLOCK = 50
_EVERYTHING_SHARE = 0.5  # of the episodes, where the policy has seen all of them


@dataclass(frozen=True)
class _Sides:
    """The data that the judge has, and the others."""

    judge: Data
    others: Data
    share: float
    unseen: bool


def run_judge(run: RunFolder, settings: Evaluate, options: Options, report: Report) -> dict[str, Any]:
    """Write evaluations/<policy>-ope.json: is the policy better than the logged behaviour? Returns the result object.

    The judge trains an ensemble, as the run's is trained, and critics of every policy on its episodes. SettingsError
    or InputError where the data have too few of them.
    """
    device = open_device(options)
    name, record, policies = policies_to_evaluate(run, settings.policy)
    training, model = recorded_training(record.settings), _model_settings(run)
    inputs = {"dataset": dataset_path(run), **policy_inputs_of(policies)}
    recorded = {"fqe": asdict(FQE), "model": model.model_dump(), "limits": [MOST_OUTSIDE, MOST_MISSED]}
    with stage_envelope(run, f"evaluate/{name}/ope", recorded, inputs, options, report) as stage:
        if stage.up_to_date:
            return stage.result()
        data = open_data(inputs["dataset"], device)
        actors = {seed: _actor(path, stage, data, device) for seed, path in policies.items()}
        sides = _sides(data, policies)
        _check_discount(sides.judge, training)
        judge = _prepare(stage, sides, actors, training, model)
        result = {
            "policy": name,
            "dataset": data.info.dataset_id,
            "environment": data.info.env_id,
            "judge_share": sides.share,
            "unseen": sides.unseen,
            **diverged_seeds(record, report),
            **judgement(judge, list(actors)),
        }
        result["sentence"] = sentence(result)
        show_judgement(result, report)
        path = run.evaluation(f"{name}-ope")
        write_json(stage.out.stage(path), result)
        return stage.finish({"ope": path}, result)


def _check_discount(data: Data, training: TrainPolicy) -> None:
    last = torch.from_numpy(episode_ends(data.transitions)).to(data.terminal.device)
    if training.gamma == 1 and not bool((data.terminal[last] > 0).all()):
        raise SettingsError(
            "gamma 1 gives no finite value to what follows records that end before the task.",
            hint="train the policy with a --gamma below 1",
        )


def _model_settings(run: RunFolder) -> TrainModel:
    """How the run's model is trained, or, without one, as by default."""
    record = read_lineage(run).get("train-model")
    settings = TrainModel.model_validate(record.settings) if record else TrainModel(target_scale="standardised")
    return settings.model_copy(update={"seeds": 1, "seed_list": None})


def _actor(path: Path, stage: Stage, data: Data, device: torch.device) -> Actor:
    actor, _ = open_run_policy(path, stage, data.transitions, data.info, device)
    return for_stored(actor, data.info)


def _sides(data: Data, policies: Mapping[str, Path]) -> _Sides:
    shares = {judge_share_of(path) for path in policies.values()}
    if len(shares) != 1:
        raise InputError(
            "The seeds of the policy were trained with different --judge-share.", "mopo train-policy --force"
        )
    share, episodes = shares.pop(), len(episode_lengths(data.transitions))
    if episodes < LEAST_TO_JUDGE:
        some = f"{episodes} episode{'' if episodes == 1 else 's'}"
        raise InputError(
            f"{data.info.dataset_id} has {some}, a judge needs {LEAST_TO_JUDGE}.",
            hint="if the log has more, name what tells them apart: mopo fetch-data --columns ...,episode=COLUMN",
        )
    held = judge_rows(data.transitions, share or _EVERYTHING_SHARE)
    return _Sides(kept(data, held), kept(data, ~held), share or _EVERYTHING_SHARE, unseen=share > 0)


def _prepare(
    stage: Stage, sides: _Sides, actors: Mapping[str, Actor], training: TrainPolicy, model: TrainModel
) -> Judge:
    """Train what the judge needs, going on from the checkpoint if there is one."""
    log, others = log_of(sides.judge), log_of(sides.others)
    stage.report.say(f"a clone of the logged behaviour learns from {len(others.reward):,} transitions")
    clone = clone_of(others)
    policies: dict[str, Callable[[Tensor], Tensor]] = {f"seed {seed}": actor.greedy for seed, actor in actors.items()}
    policies[CLONE] = clone.greedy
    fit = start_fit(learnable(sides.judge, stage.report), fit_settings(model), (0,))
    fqe = start_fqe(log, target_policies(log, policies, training.gamma), FQE, training.gamma)
    saved = stage.load_state(str(log.reward.device))
    if saved is not None:
        tensors, meta = saved
        with described(stage.state_file, AFRESH):
            restore_fit(fit, _part(tensors, "fit/"), meta["fit"])
            restore_fqe(fqe, _part(tensors, "fqe/"), meta["fqe"])
        stage.report.say("the judge's training goes on")

    def save() -> None:
        (fit_tensors, fit_numbers), (fqe_tensors, fqe_numbers) = fit_checkpoint(fit), fqe_checkpoint(fqe)
        tensors = {f"fit/{key}": tensor for key, tensor in fit_tensors.items()}
        tensors |= {f"fqe/{key}": tensor for key, tensor in fqe_tensors.items()}
        stage.save_state(tensors, {"fit": fit_numbers, "fqe": fqe_numbers})

    saver = Saver(stage, save)
    episodes = f"{len(log.first):,} episode{'' if len(log.first) == 1 else 's'}"
    stage.report.say(f"the judge's ensemble learns from {len(log.reward):,} transitions of {episodes}")
    with stage.report.progress("judge's ensemble", None, fit.step) as progress:
        while not fit.done:
            advance(fit, _BLOCK)
            progress.update(_BLOCK, epoch=fit.epoch)
            saver.look()
    with stage.report.progress("critics", FQE.all_steps, fqe.step) as progress:
        while not fqe.done:
            advance_fqe(fqe, _BLOCK)
            progress.update(_BLOCK)
            saver.look()
    if not bool(fit.best_mse.isfinite().all()):
        raise DivergedError(
            "The judge's ensemble has networks whose hold-out error was never finite.",
            hint="mopo train-model with a lower --learning-rate: the judge's is trained as the run's",
        )
    ensemble = fitted(fit, 0)
    return Judge(
        log,
        others,
        fqe,
        policies,
        _judge_model(ensemble, sides.judge, training),
        longest_episode(sides.judge),
        knows_ends(sides.judge.transitions, sides.judge.info, data_rule(sides.judge, training)),
    )


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _judge_model(ensemble: Ensemble, data: Data, training: TrainPolicy) -> JudgeModel:
    options = rollout_options(training, data)
    limit = data_quantile(ensemble, data.observation, data.action, options)
    return JudgeModel(ensemble, data_rule(data, training), options, limit, training.gamma)
