"""What is to be seen of trained policies without a simulator: in the run's model, in the data's states, by the log."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mopo_cli.config.schema import Ablate, Imagination
from mopo_cli.data.held_out import judge_rows
from mopo_cli.dynamics.penalties import penalty_weights
from mopo_cli.engine.streams import stream
from mopo_cli.evaluation.fitted_q import (
    FqeSettings,
    FqeState,
    Log,
    TargetPolicy,
    advance_fqe,
    fqe_values,
    start_fqe,
    start_values,
)
from mopo_cli.evaluation.judgement import some_starts
from mopo_cli.evaluation.model_values import JudgeModel, Tail, data_quantile, values_by_network
from mopo_cli.evaluation.ranking import Evidence
from mopo_cli.evaluation.support import support_of
from mopo_cli.stages.analysis.model_returns import STARTS, draw_starts, greedy_returns, longest_episode
from mopo_cli.stages.common.held_out import kept, log_of
from mopo_cli.stages.common.inputs import dataset_path, open_data
from mopo_cli.stages.common.open_world import OpenWorld
from mopo_cli.stages.common.policies import open_policy
from mopo_cli.stages.runner import Stage
from mopo_cli.store.documents import EPOCH, read_lines

PENALTY = "max-var"
FQE = FqeSettings()
_BLOCK = 50  # gradient steps of critics between two looks at the signals
_SEED = 0  # of the start states and of the rows that actions are compared in
_ROWS = 10_000  # rows of the data in which actions are compared

Gather = Callable[[Path, int], Evidence]
"""Gives the evidence on the policy of a seed whose files lie in a folder."""


def common_lam(settings: Ablate) -> float:
    """The lambda that all cells are compared with: the ablation's if it has only one, else 1."""
    return settings.lam[0] if len(settings.lam) == 1 else 1.0


def recorded_settings(settings: Ablate, by_log: bool) -> dict[str, Any]:
    """What all policies are compared with: penalty and lambda, starts, how the model imagines, and the critics."""
    shared = {field: getattr(settings, field) for field in (*Imagination.model_fields, "gamma")}
    shared |= {"penalty": PENALTY, "lam": common_lam(settings), "starts": STARTS, "seed": _SEED}
    return shared | {"fqe": asdict(FQE)} if by_log else shared


def by_model(opened: OpenWorld, settings: Ablate) -> Gather:
    """Evidence from an open world, in which all policies act from the same start states."""
    data, names = opened.data, opened.world.options.uncertainties
    start, weights = draw_starts(data, _SEED), penalty_weights(PENALTY, common_lam(settings), names)
    support, horizon = support_of(log_of(data)), longest_episode(data)
    drawn = torch.randint(len(data.observation), (_ROWS,), generator=stream(_SEED, "rank/rows")).to(start.device)

    def evidence(folder: Path, seed: int) -> Evidence:
        actor, _ = open_policy(folder / "policy.safetensors", start.device)
        returns = greedy_returns(opened, actor, seed, start, horizon, settings.gamma)
        distance = actor.greedy(data.observation[drawn]) - data.action[drawn]
        return Evidence(
            read_lines(folder / "metrics.jsonl", EPOCH)[-1],
            float(returns.discounted.penalised(weights).mean()),
            float(returns.discounted.reward.mean()),
            float(returns.total.uncertainty[:, names.index(PENALTY)].sum()) / max(int(returns.length.sum()), 1),
            float(distance.double().square().mean()),
            support.outside(actor.greedy),
        )

    return evidence


def by_model_and_log(stage: Stage, opened: OpenWorld, settings: Ablate, folders: Sequence[Path]) -> Gather:
    """Evidence also from critics of the policies in these folders, trained for all at once, and from model and critics.

    The critics' log are the episodes that neither model nor policies have seen, where some were kept for this.
    """
    gather, log = by_model(opened, settings), _log(stage, opened)
    acts = [open_policy(folder / "policy.safetensors", log.reward.device)[0].greedy for folder in folders]
    everywhere = torch.ones_like(log.terminal, dtype=torch.bool)
    names = ["/".join(folder.parts[-2:]) for folder in folders]
    asked = [TargetPolicy(name, act(log.next_observation), everywhere) for name, act in zip(names, acts, strict=True)]
    fqe = start_fqe(log, asked, FQE, settings.gamma)
    with stage.progress("critics", FQE.all_steps) as count:
        while not fqe.done:
            before = fqe.step
            advance_fqe(fqe, _BLOCK)
            count(fqe.step - before)
    some, models, horizon = some_starts(log), _models(opened, settings.gamma), longest_episode(opened.data)

    def evidence(folder: Path, seed: int) -> Evidence:
        p = folders.index(folder)
        critics = start_values(fqe, acts[p], p)
        model = models[opened.model_of(seed)]
        imagined = values_by_network(model, some, acts[p], partial(_tail, fqe, p), horizon)
        return replace(
            gather(folder, seed),
            fqe=float(critics.mean()),
            fqe_deviation=float(critics.std()),
            model_fqe=float(torch.stack([each.value for each in imagined]).mean()),
        )

    return evidence


def _log(stage: Stage, opened: OpenWorld) -> Log:
    if not opened.judge_share:
        return log_of(opened.data)
    data = open_data(dataset_path(stage.run), opened.data.reward.device)
    return log_of(kept(data, judge_rows(data.transitions, opened.judge_share)))


def _models(opened: OpenWorld, gamma: float) -> list[JudgeModel]:
    """This run's ensembles, each with the uncertainty beyond which it has left the data that it was trained on."""
    data, world = opened.data, opened.world
    limits = [data_quantile(each, data.observation, data.action, world.options) for each in world.ensembles]
    return [
        JudgeModel(each, world.rule, world.options, limit, gamma)
        for each, limit in zip(world.ensembles, limits, strict=True)
    ]


def _tail(fqe: FqeState, policy: int, network: int) -> Tail:
    """What a critic of a policy, by position, says: for each network another one."""
    return lambda observation, action: fqe_values(fqe, policy, observation, action)[network % fqe.settings.critics]
