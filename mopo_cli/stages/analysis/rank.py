"""ablate --rank: order the cells of a finished ablation without the simulator, and see how well that goes."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from mopo_cli.config.schema import Ablate, Imagination
from mopo_cli.data.held_out import judge_rows
from mopo_cli.dynamics.penalties import penalty_weights
from mopo_cli.engine.streams import stream
from mopo_cli.evaluation.fitted_q import FqeSettings, TargetPolicy, advance_fqe, start_fqe, start_values
from mopo_cli.evaluation.ranking import RANKINGS, Evidence, best_first, rank_correlation, regret
from mopo_cli.evaluation.support import support_of
from mopo_cli.report.console import Report
from mopo_cli.report.ranking_table import show_ranking, write_ranking
from mopo_cli.stages.analysis.model_returns import STARTS, draw_starts, greedy_returns, longest_episode
from mopo_cli.stages.common.device import open_device
from mopo_cli.stages.common.held_out import kept, log_of
from mopo_cli.stages.common.inputs import Data, dataset_path, open_data
from mopo_cli.stages.common.open_world import OpenWorld, for_published, open_world
from mopo_cli.stages.common.options import Options
from mopo_cli.stages.common.policies import open_policy
from mopo_cli.stages.runner import Stage, stage_envelope
from mopo_cli.store.atomic import plain, write_json
from mopo_cli.store.documents import EPOCH, TableDocument, read_document, read_lines
from mopo_cli.store.lineage import read_lineage
from mopo_cli.store.run import RunFolder

PENALTY = "max-var"
FQE = FqeSettings()
_BLOCK = 50  # gradient steps of critics between two looks at the signals
_SEED = 0  # of the start states and of the rows that actions are compared in
_ROWS = 10_000  # rows of the data in which actions are compared


@dataclass(frozen=True)
class Entry:
    """A cell of the ablation: what its table says of it, its folder, and whether it was trained in this run's model."""

    record: dict[str, Any]
    folder: Path
    in_this_model: bool

    @property
    def name(self) -> str:
        """The cell's name."""
        return str(self.record["cell"])

    @property
    def true_return(self) -> float | None:
        """Its mean last return in the real environment, None where there is none."""
        return self.record["last"][0] if self.record.get("last") else None

    def settings(self) -> dict[str, Any]:
        """What tells it from other cells: its method, or its algorithm and penalty, its lam, h and the grid's axes."""
        of_method = ("method",) if self.record.get("method") else ("algorithm", "penalty")
        settings = {name: self.record.get(name) for name in (*of_method, "lam", "h")} | self.record.get("grid", {})
        return {name: value for name, value in settings.items() if value is not None}

    def files(self) -> dict[str, Path]:
        """The files of its seeds, by role: those that diverged have none."""
        folders = {seed: self.folder / f"seed-{seed}" for seed in self.record["returns"]}
        policies = {f"policy/{self.name}/{seed}": folder / "policy.safetensors" for seed, folder in folders.items()}
        return policies | {f"metrics/{self.name}/{seed}": folder / "metrics.jsonl" for seed, folder in folders.items()}


def run_rank(run: RunFolder, settings: Ablate, ranking: str, options: Options, report: Report) -> dict[str, Any]:
    """Write ranking.json, .csv and .md beside the table of the finished ablation; returns the result object.

    Where a ranking lets the policies act, all cells are judged in this run's model, those that were trained in
    another one as well, and with one penalty (max-var) and one lambda, see `common_lam`. Another
    ranking than offline writes ranking-NAME.json, .csv and .md.
    """
    name, suffix = settings.table_name(), "" if ranking == "offline" else f"-{ranking}"
    table = run.ablation_dir(name) / "table.json"
    entries = _entries(run, name, table)
    acts = RANKINGS[ranking].metric is None
    world = {"dataset": dataset_path(run), "model": run.model, "elites": run.elites} if acts else {}
    inputs = world | {"table": table} | {role: path for entry in entries for role, path in entry.files().items()}
    recorded = {"rank": ranking} | (model_settings(settings) if acts else {})
    if ranking == "ope":
        recorded["fqe"] = asdict(FQE)
    with stage_envelope(run, f"ablate/{name}/rank{suffix}", recorded, inputs, options, report) as stage:
        if stage.up_to_date:
            return stage.result()
        about: dict[str, Any] = {"table": name, "dataset": read_document(table, TableDocument)["dataset"]}
        if acts:
            with open_world(stage, for_published(settings), world, open_device(options), [PENALTY]) as opened:
                about["horizon"] = longest_episode(opened.data)
                gather = model_judge(opened, settings, about["horizon"])
                if ranking == "ope":
                    judged = _judged(opened, world["dataset"])
                    gather = _with_fitted_q(stage, judged, entries, settings.gamma, gather)
                scores = _score_all(stage, ranking, entries, gather)
        else:
            scores = _score_all(
                stage, ranking, entries, lambda folder, _: Evidence(read_lines(folder / "metrics.jsonl", EPOCH)[-1])
            )
        result = {**about, **recorded, **judge(ranking, entries, scores)}
        show_ranking(result, report)
        paths = {kind: table.with_name(f"ranking{suffix}.{kind}") for kind in ("json", "csv", "md")}
        write_json(stage.out.stage(paths["json"]), result)
        write_ranking(
            stage.out.stage(paths["md"]),
            stage.out.stage(paths["csv"]),
            result,
            {entry.name: entry.record["returns"] for entry in entries},
        )
        return stage.finish(paths, result)


def _entries(run: RunFolder, name: str, table: Path) -> list[Entry]:
    made_from = read_lineage(run)[f"ablate/{name}"].inputs
    parts = [run.root / file["path"] for role, file in made_from.items() if role.startswith("part/")]
    elsewhere = {cell["cell"]: part.parent for part in parts for cell in read_document(part, TableDocument)["cells"]}
    return [
        Entry(cell, elsewhere.get(cell["cell"], table.parent) / "cells" / cell["cell"], cell["cell"] not in elsewhere)
        for cell in read_document(table, TableDocument)["cells"]
    ]


Scores = dict[str, dict[str, float | None]]
"""By seed, the value of each criterion."""


def _score_all(stage: Stage, ranking: str, entries: list[Entry], gather: "Gather") -> dict[str, Scores]:
    """By cell, its scores; ``gather`` reads the evidence on one seed's policy from its folder."""
    scores: dict[str, Scores] = {}
    with stage.progress("rank", sum(len(entry.record["returns"]) for entry in entries)) as count:
        for entry in entries:
            scores[entry.name] = {}
            for seed in entry.record["returns"]:
                evidence = gather(entry.folder / f"seed-{seed}", int(seed))
                values = {name: criterion.value(evidence) for name, criterion in RANKINGS[ranking].criteria.items()}
                scores[entry.name][seed] = plain(values)
                count(1)
    return scores


def judge(ranking: str, entries: Sequence[Entry], scores: dict[str, Scores]) -> dict[str, Any]:
    """The cells from the best to the worst by the ranking's first criterion, and what each criterion is worth.

    A cell's value is the mean over its seeds; None where a seed has none, or all diverged. ``chosen`` is the first
    of them with its settings, None where it has no value.
    """
    criteria, truth = RANKINGS[ranking].criteria, [entry.true_return for entry in entries]
    means = {name: [_mean([s[name] for s in scores[entry.name].values()]) for entry in entries] for name in criteria}
    worth = {}
    for name, criterion in criteria.items():
        values = means[name]
        chosen = best_first(criterion, values)[0]
        worth[name] = {
            "meaning": criterion.meaning,
            "best": "highest" if criterion.highest else "lowest",
            "chooses": entries[chosen].name if values[chosen] is not None else None,
            "spearman": rank_correlation(criterion, values, truth),
            "regret": regret(criterion, values, truth),
        }
    first = next(iter(criteria))
    order = best_first(criteria[first], means[first])
    cells = [
        {
            "cell": entries[place].name,
            "rank": rank,
            "return": truth[place],
            "values": {name: means[name][place] for name in criteria},
            "per_seed": scores[entries[place].name],
            "diverged": entries[place].record["diverged"],
            "trained_in_this_model": entries[place].in_this_model,
        }
        for rank, place in enumerate(order, start=1)
    ]
    best = entries[order[0]] if means[first][order[0]] is not None else None
    return {
        "by": first,
        "criteria": worth,
        "compared": sum(value is not None for value in truth),
        "cells": cells,
        "chosen": {"cell": best.name, "settings": best.settings()} if best else None,
    }


def _mean(values: list[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return sum(numbers) / len(numbers) if numbers and len(numbers) == len(values) else None


def common_lam(settings: Ablate) -> float:
    """The lambda that all cells are compared with: the ablation's if it has only one, else 1."""
    return settings.lam[0] if len(settings.lam) == 1 else 1.0


def model_settings(settings: Ablate) -> dict[str, Any]:
    """The settings that all cells are compared with: penalty and lambda, number of starts, how the model imagines."""
    shared = {field: getattr(settings, field) for field in (*Imagination.model_fields, "gamma")}
    return shared | {"penalty": PENALTY, "lam": common_lam(settings), "starts": STARTS, "seed": _SEED}


Gather = Callable[[Path, int], Evidence]
"""Gives the evidence on the policy of a seed whose files lie in a folder."""


def _judged(opened: OpenWorld, dataset: Path) -> Data:
    """The episodes that neither model nor policies have seen, where some were kept for this; else all."""
    if not opened.judge_share:
        return opened.data
    data = open_data(dataset, opened.data.reward.device)
    return kept(data, judge_rows(data.transitions, opened.judge_share))


def _with_fitted_q(stage: Stage, data: Data, entries: list[Entry], gamma: float, gather: Gather) -> Gather:
    """As ``gather``, with what critics of the policies say, trained for all of them at once."""
    log, device = log_of(data), data.reward.device
    folders = [entry.folder / f"seed-{seed}" for entry in entries for seed in entry.record["returns"]]
    if not folders:  # all seeds of all cells diverged
        return gather
    acts = [open_policy(folder / "policy.safetensors", device)[0].greedy for folder in folders]
    everywhere = torch.ones_like(log.terminal, dtype=torch.bool)
    names = ["/".join(folder.parts[-2:]) for folder in folders]
    asked = [TargetPolicy(name, act(log.next_observation), everywhere) for name, act in zip(names, acts, strict=True)]
    fqe = start_fqe(log, asked, FQE, gamma)
    with stage.progress("critics", FQE.all_steps) as count:
        while not fqe.done:
            before = fqe.step
            advance_fqe(fqe, _BLOCK)
            count(fqe.step - before)
    values = {folder: start_values(fqe, act, p) for p, (folder, act) in enumerate(zip(folders, acts, strict=True))}

    def with_fqe(folder: Path, seed: int) -> Evidence:
        of_critics = values[folder]
        return replace(gather(folder, seed), fqe=float(of_critics.mean()), fqe_deviation=float(of_critics.std()))

    return with_fqe


def model_judge(opened: OpenWorld, settings: Ablate, horizon: int) -> Gather:
    """Gives the evidence on the policy of a seed whose files lie in a folder.

    All policies act in an open world from the same start states, for at most ``horizon`` steps.
    """
    data, names = opened.data, opened.world.how.uncertainties
    start, weights = draw_starts(data, _SEED), penalty_weights(PENALTY, common_lam(settings), names)
    support = support_of(log_of(data))
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
