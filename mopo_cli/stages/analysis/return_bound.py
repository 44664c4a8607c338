"""evaluate --bound: play a policy in the real environment and in the model, and tell whether MOPO's bound held."""

from collections.abc import Mapping
from contextlib import ExitStack
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from mopo_cli.config.learners import recorded_training
from mopo_cli.config.schema import Evaluate, TrainPolicy
from mopo_cli.data.environment_history import with_history
from mopo_cli.dynamics.episodes import ModelReturns
from mopo_cli.dynamics.penalties import ORACLE, penalty_weights
from mopo_cli.evaluation.bound import MODEL, PENALISED, REAL, WHERE, summary
from mopo_cli.evaluation.play import EpisodeResults, evaluate_returns, open_environments
from mopo_cli.report.console import Report, format_value
from mopo_cli.report.tables import format_number, write_csv
from mopo_cli.stages.analysis.model_returns import STARTS, draw_starts, greedy_returns, longest_episode
from mopo_cli.stages.common.device import open_device
from mopo_cli.stages.common.inputs import check_made_from, dataset_path
from mopo_cli.stages.common.open_world import OpenWorld, for_published, open_world
from mopo_cli.stages.common.options import Options
from mopo_cli.stages.common.policies import greedy_policy
from mopo_cli.stages.common.trained_policies import open_run_policy, policies_to_evaluate, policy_inputs_of
from mopo_cli.stages.common.user_units import for_stored
from mopo_cli.stages.runner import Stage, stage_envelope
from mopo_cli.store.atomic import write_json
from mopo_cli.store.run import RunFolder

_COLUMNS = ("seed", "where", "episode", "discounted", "undiscounted", "length")


def run_bound(run: RunFolder, settings: Evaluate, options: Options, report: Report) -> dict[str, Any]:
    """Write evaluations/<policy>-bound.json and .csv; returns the result object.

    The model's episodes begin where the data's do, the real ones where the environment resets to. Where the
    dataset names no environment, there are only the model's two returns. InputError where the policy was
    trained in another model than the run's.
    """
    device = open_device(options)
    name, record, policies = policies_to_evaluate(run, settings.policy)
    training = recorded_training(record.settings)
    world = {"dataset": dataset_path(run), "model": run.model, "elites": run.elites}
    inputs = world | policy_inputs_of(policies)
    recorded = settings.model_dump() | {"starts": STARTS}
    with stage_envelope(run, f"evaluate/{name}/bound", recorded, inputs, options, report) as stage:
        if stage.up_to_date:
            return stage.result()
        with open_world(stage, for_published(training), world, device, [training.penalty]) as opened:
            horizon, least = longest_episode(opened.data), min(0.0, opened.world.least_reward)
            played, ends = _play_all(stage, settings, training, policies, opened, horizon)
        result = {
            "policy": name,
            "dataset": opened.data.info.dataset_id,
            "environment": opened.data.info.env_id,
            "penalty": training.penalty,
            "lam": training.lam,
            "gamma": training.gamma,
            "starts": STARTS,
            "horizon": horizon,
            "reward_after_guard": least,
            **summary(played),
            "rollouts": ends,
        }
        _show(result, report)
        json, csv = (run.evaluation(f"{name}-bound").with_suffix(suffix) for suffix in (".json", ".csv"))
        write_json(stage.out.stage(json), result)
        write_csv(stage.out.stage(csv), _COLUMNS, _rows(played))
        return stage.finish({"bound": json, "episodes": csv}, result)


def _play_all(
    stage: Stage,
    settings: Evaluate,
    training: TrainPolicy,
    policies: dict[str, Path],
    opened: OpenWorld,
    horizon: int,
) -> tuple[dict[str, dict[str, EpisodeResults]], dict[str, dict[str, float]]]:
    """By seed, what was played by place, and the shares of the model's rollouts that ended in one way or another."""
    data, info = opened.data, opened.data.info
    start = draw_starts(data, settings.seed)
    weights = penalty_weights(training.penalty, training.lam, opened.world.options.uncertainties)
    played, ends = {}, {}
    with ExitStack() as context:
        environments = []
        if info.env_id is not None:
            opened_here = open_environments(info.env_id, settings.episodes, info.env_kwargs, info.obs_entries)
            environments = with_history(context.enter_context(opened_here), info)
        count = context.enter_context(stage.progress("bound", len(policies)))
        for seed, path in policies.items():
            actor, meta = open_run_policy(path, stage, data.transitions, info, start.device)
            if model := meta["inputs"].get("model"):
                hint = "mopo train-policy --force, or measure it in the present one: --allow-mismatch"
                check_made_from(stage, "model", model, f"The policy {path} was trained in another model", hint)
            returns = greedy_returns(opened, for_stored(actor, info), int(seed), start, horizon, training.gamma)
            played[seed] = _in_model(returns, weights)
            if environments:
                act = greedy_policy(actor, meta["action_low"], meta["action_high"])
                exact = bool(actor.offset)
                played[seed][REAL] = evaluate_returns(act, environments, settings.seed, training.gamma, exact)
            ends[seed] = {which: getattr(returns, which) for which in ("terminated", "guarded", "dropped", "unknown")}
            count(1)
    return played, ends


def _in_model(returns: ModelReturns, weights: list[float]) -> dict[str, EpisodeResults]:
    def array(tensor: torch.Tensor) -> NDArray[Any]:
        return tensor.cpu().numpy()

    length, total, discounted = array(returns.length), returns.total, returns.discounted
    return {
        MODEL: EpisodeResults(array(total.reward), length, array(discounted.reward)),
        PENALISED: EpisodeResults(array(total.penalised(weights)), length, array(discounted.penalised(weights))),
    }


def _rows(played: Mapping[str, Mapping[str, EpisodeResults]]) -> list[tuple[Any, ...]]:
    """The rows of the CSV: one per episode."""
    return [
        (int(seed), where, k, float(each.discounted[k]), float(each.returns[k]), int(each.lengths[k]))
        for seed, places in played.items()
        for where, each in places.items()
        for k in range(len(each.lengths))
    ]


def _show(result: dict[str, Any], report: Report) -> None:
    penalty = "no penalty" if result["penalty"] == "none" else f"{result['penalty']}, lam {result['lam']:g}"
    columns = ("seed", "real eta_M", "plain model", f"penalised eta_M~ ({penalty})")
    rows = [(seed, *_cells(each, "discounted"), *_verdict(each)) for seed, each in result["seeds"].items()]
    spread = [_spread(result, where, "discounted") for where in WHERE]
    verdict = f"held for {result['held']} of {result['compared']}" if result["compared"] else None
    report.table(
        f"{result['policy']}: returns discounted by {result['gamma']:g}, mean ± standard error",
        (*columns, "eta_M - eta_M~", "eta_M >= eta_M~"),
        [*rows, ("mean ± std over seeds", *spread, None, verdict)],
    )
    rows = [(seed, *_cells(each, "undiscounted")) for seed, each in result["seeds"].items()]
    spread = [_spread(result, where, "undiscounted") for where in WHERE]
    report.table("The same, undiscounted", columns, [*rows, ("mean ± std over seeds", *spread)])
    report.say(
        f"In the model: {result['starts']} episodes per seed of at most {result['horizon']:,} steps, from where the "
        f"data's begin; {_mean_share(result, 'terminated')} were ended by the task's rule, "
        f"{_mean_share(result, 'guarded')} by the guard, {_mean_share(result, 'dropped')} stopped at numbers that are "
        "not finite."
    )
    if any(each["guarded"] or each["dropped"] for each in result["rollouts"].values()):
        paid = format_number(result["reward_after_guard"])
        report.say(f"After these two, every step that is left counts as the data's least reward or 0: {paid}.")
    if result["penalty"] == "none":
        report.say("The policy has no penalty, so the penalised model is the plain one.")
    if result["penalty"] == ORACLE:
        report.say(f"Of {_mean_share(result, 'unknown')} of the steps the oracle knows nothing: max-var stands in.")
    if result["environment"] is None:
        report.say("The return in the real environment cannot be had: the dataset names none.")


def _cells(each: dict[str, Any], kind: str) -> list[str | None]:
    return [_plus_minus(each[where][kind]) if where in each else None for where in WHERE]


def _verdict(each: dict[str, Any]) -> tuple[str | None, str | None]:
    gap, held = each["gap"], each["held"]
    return (None if gap is None else _plus_minus(gap)), (None if held is None else format_value(held))


def _spread(result: dict[str, Any], where: str, kind: str) -> str | None:
    over_seeds = result["over_seeds"].get(where)
    if not over_seeds:
        return None
    mean, std = (format_number(over_seeds[kind][name]) for name in ("mean", "std"))
    return mean if len(result["seeds"]) == 1 else f"{mean} ± {std}"


def _plus_minus(estimate: dict[str, float]) -> str:
    mean, error = format_number(estimate["mean"]), estimate["standard_error"]
    return f"{mean} ± {format_number(error)}" if isfinite(error) else mean


def _mean_share(result: dict[str, Any], which: str) -> str:
    shares = [each[which] for each in result["rollouts"].values()]
    return f"{sum(shares) / len(shares):.1%}"
