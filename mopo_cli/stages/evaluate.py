"""evaluate: the deterministic policies in the real environment, beside the data's returns and published numbers."""

from collections.abc import Sequence
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mopo_cli.config.schema import Evaluate
from mopo_cli.data.environment_history import with_history
from mopo_cli.data.held_out import LEAST_TO_JUDGE
from mopo_cli.data.transition_files import read_dataset
from mopo_cli.data.transitions import DatasetInfo, Transitions, episode_lengths, episode_returns
from mopo_cli.evaluation.play import evaluate_returns, open_environments
from mopo_cli.evaluation.published import published, published_factor
from mopo_cli.evaluation.stats import bootstrap_iqm, iqm, mean_std, normalised_score, normalised_std
from mopo_cli.report.console import Report
from mopo_cli.report.plots import learning_curve
from mopo_cli.report.tables import Rows, decimals, format_mean_std, write_csv
from mopo_cli.stages.common.device import open_device
from mopo_cli.stages.common.inputs import dataset_path
from mopo_cli.stages.common.memory import check_memory
from mopo_cli.stages.common.memory_estimates import environment_bytes
from mopo_cli.stages.common.options import Options
from mopo_cli.stages.common.policies import greedy_policy
from mopo_cli.stages.common.trained_policies import (
    diverged_seeds,
    files_by_seed,
    open_run_policy,
    policies_to_evaluate,
    policy_inputs_of,
)
from mopo_cli.stages.runner import Stage, stage_envelope
from mopo_cli.store.atomic import write_json
from mopo_cli.store.documents import EPOCH, read_lines
from mopo_cli.store.lineage import check_recorded, describe_files
from mopo_cli.store.run import RunFolder


def run_evaluate(run: RunFolder, settings: Evaluate, options: Options, report: Report) -> dict[str, Any]:
    """Write evaluations/<policy>.json, .csv and .png; returns the result object.

    Where the dataset names no environment, nothing is written, and the result says ``skipped`` and the ``reason``.
    """
    device = open_device(options)
    name, record, policies = policies_to_evaluate(run, settings.policy)
    inputs = {"dataset": dataset_path(run), **policy_inputs_of(policies)}
    with stage_envelope(run, f"evaluate/{name}", settings.model_dump(), inputs, options, report) as stage:
        if stage.up_to_date:
            return stage.result()
        transitions, info = read_dataset(inputs["dataset"])
        if info.env_id is None:
            return _skip(stage, name, info, len(episode_lengths(transitions)))
        env_id, per_seed = info.env_id, {}
        check_memory(settings, lambda some: environment_bytes(env_id, some.episodes), torch.device("cpu"), "Evaluation")
        with (
            open_environments(info.env_id, settings.episodes, info.env_kwargs, info.obs_entries) as opened,
            stage.progress("evaluate", len(policies)) as count,
        ):
            environments = with_history(opened, info)
            for seed, path in policies.items():
                actor, meta = open_run_policy(path, stage, transitions, info, device)
                act = greedy_policy(actor, meta["action_low"], meta["action_high"])
                exact = bool(actor.offset)
                per_seed[seed] = evaluate_returns(act, environments, settings.seed, exact=exact).returns
                count(1)
        result = {"policy": name, **diverged_seeds(record, report), **summarise(per_seed, transitions, info)}
        show_evaluation(result, report)
        columns = ("seed", "episode", "return")
        rows = [(int(seed), k, float(value)) for seed, values in per_seed.items() for k, value in enumerate(values)]
        metrics = files_by_seed(run, record, "metrics")
        outputs = write_evaluation(stage, run.evaluation(name), result, columns, rows, metrics)
        return stage.finish(outputs, result)


def _skip(stage: Stage, name: str, info: DatasetInfo, episodes: int) -> dict[str, Any]:
    few = (
        f" and has too few episodes to judge it by ({episodes} of {LEAST_TO_JUDGE})"
        if episodes < LEAST_TO_JUDGE
        else ""
    )
    reason = (
        f"{info.dataset_id} names no environment to play the policy in{few}; if there is one: "
        "mopo fetch-data --dataset FILE --env ENV-ID"
    )
    stage.report.say(reason)
    where = {"stage": stage.key, "run": str(stage.run.root), "up_to_date": False, "outputs": {}}
    return {**where, "policy": name, "skipped": True, "reason": reason, "dataset_episodes": episodes}


def summarise(per_seed: dict[str, NDArray[np.float64]], transitions: Transitions, info: DatasetInfo) -> dict[str, Any]:
    """Statistics of a policy's returns, `[episodes]` of every seed, beside those of the data and published ones."""
    returns = np.stack(list(per_seed.values()))  # [seeds, episodes]
    mean, std = mean_std(returns.mean(axis=1))
    low, high = bootstrap_iqm(returns)
    behaviour = episode_returns(transitions)
    summary: dict[str, Any] = {
        "dataset": info.dataset_id,
        "environment": info.env_id,
        "episodes": returns.shape[1],
        "seeds": list(map(int, per_seed)),
        "return_per_seed": {seed: float(values.mean()) for seed, values in per_seed.items()},
        "return_mean": mean,
        "return_std": std,
        "return_iqm": iqm(returns),
        "return_iqm_95": [low, high],
        "dataset_return_mean": float(behaviour.mean()),
        "dataset_return_max": float(behaviour.max()),
    }
    if info.reference_min is not None and info.reference_max is not None:
        span = info.reference_min, info.reference_max
        summary |= {"score_mean": normalised_score(mean, *span), "score_std": normalised_std(std, *span)}
        summary["dataset_score_mean"] = normalised_score(float(behaviour.mean()), *span)
    # Where there is a score, raw returns say no more.
    scored = [p for p in published(info.dataset_id) if p.unit.startswith("normalized_score")]
    summary["published"] = [
        {name: getattr(p, name) for name in ("paper", "method", "version", "mean", "std", "unit", "note")}
        for p in scored or published(info.dataset_id)
    ]
    summary["published_factor"] = published_factor(info.dataset_id, info.env_kwargs)
    return summary


def show_evaluation(result: dict[str, Any], report: Report) -> None:
    """Print what `summarise` gives, of the ``policy`` in it, and of which ``source`` it is if not of play here."""
    seeds = len(result["seeds"])
    counts = {"seed": seeds, "episode": result["episodes"]}
    played = " x ".join(f"{count} {what}{'s' if count > 1 else ''}" for what, count in counts.items())
    low, high = result["return_iqm_95"]
    largest = max(abs(result[key]) for key in ("dataset_return_mean", "dataset_return_max", "return_mean"))
    digits = decimals(largest) if 0 < largest < 1 else 1
    interval = "no interval" if isnan(low) else f"{low:.{digits}f} to {high:.{digits}f}"
    rows = [
        ("behaviour in the data, mean episode", f"{result['dataset_return_mean']:.{digits}f}"),
        ("behaviour in the data, best episode", f"{result['dataset_return_max']:.{digits}f}"),
        *((f"policy, seed {seed}", f"{value:.{digits}f}") for seed, value in result["return_per_seed"].items()),
        ("policy, mean over seeds", format_mean_std(result["return_mean"], result["return_std"], digits, seeds=seeds)),
        ("policy, IQM (95 % interval)", f"{result['return_iqm']:.{digits}f} ({interval})"),
    ]
    if "score_mean" in result:
        rows.append(("normalised score of the data", f"{result['dataset_score_mean']:.1f}"))
        score = format_mean_std(result["score_mean"], result["score_std"], seeds=seeds)
        rows.append(("normalised score of the policy", score))
    if (factor := result["published_factor"]) != 1:
        unit = f", x {factor:,.6g} (the published unit)"
        data = " to ".join(f"{factor * result[f'dataset_return_{which}']:.1f}" for which in ("mean", "max"))
        rows.append((f"behaviour in the data, mean to best{unit}", data))
        policy = format_mean_std(factor * result["return_mean"], factor * result["return_std"], seeds=seeds)
        rows.append((f"policy, mean over seeds{unit}", policy))
    where = f"as measured in {result['source']['file']}" if "source" in result else f"in {result['environment']}"
    report.table(f"{result['policy']} {where}, {played}", ("", "return"), rows)
    # Results on other versions of the data are not comparable; they are in the JSON only, unless there are no others.
    shown = [p for p in result["published"] if p["version"] == result["published"][0]["version"]]
    if shown:
        kind = "score" if shown[0]["unit"].startswith("normalized_score") else "return"
        report.table(
            f"Published {'normalised scores' if kind == 'score' else 'returns'}",
            ("paper", "data", "method", kind, "note"),
            [(p["paper"], p["version"], p["method"], format_mean_std(p["mean"], p["std"]), p["note"]) for p in shown],
        )


def write_evaluation(
    stage: Stage,
    path: Path,
    result: dict[str, Any],
    columns: Sequence[str],
    episodes: Rows,
    metrics: dict[str, Path],
) -> dict[str, Path]:
    """Stage the JSON of a result, the CSV of its episodes and the learning curve; returns the files by role."""
    write_json(stage.out.stage(path), result)
    write_csv(stage.out.stage(path.with_suffix(".csv")), columns, episodes)
    outputs = {"evaluation": path, "episodes": path.with_suffix(".csv")}
    check_recorded(stage.run, describe_files(stage.run, metrics))
    epochs, curves = _curves(metrics)
    if epochs:
        references = {
            "data, mean episode": result["dataset_return_mean"],
            "data, best episode": result["dataset_return_max"],
        }
        title = f"{result['policy']}: {result['dataset']}"
        learning_curve(stage.out.stage(path.with_suffix(".png")), title, {"policy": (epochs, curves)}, references)
        outputs["learning_curve"] = path.with_suffix(".png")
    else:
        stage.out.remove(path.with_suffix(".png"))
    return outputs


def _curves(metrics: dict[str, Path]) -> tuple[list[int], list[list[float]]]:
    """Epochs evaluated by every seed, and the returns `[E][S]` at each."""
    by_seed = []
    for path in metrics.values():
        records = read_lines(path, EPOCH)
        by_seed.append({r["epoch"]: r["return"] for r in records if r.get("return") is not None})
    epochs = sorted(set.intersection(*map(set, by_seed))) if by_seed else []
    return epochs, [[seed[epoch] for seed in by_seed] for epoch in epochs]
