"""ablate --rank: order the cells of a finished ablation without the simulator, and see how well that goes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mopo_cli.config.schema import Ablate
from mopo_cli.evaluation.ranking import RANKINGS, Evidence, best_first, mean_ranks, rank_correlation, regret
from mopo_cli.report.console import Report
from mopo_cli.report.ranking_table import show_ranking, write_ranking
from mopo_cli.stages.analysis.evidence import PENALTY, Gather, by_model, by_model_and_log, recorded_settings
from mopo_cli.stages.analysis.model_returns import longest_episode
from mopo_cli.stages.common.device import open_device
from mopo_cli.stages.common.inputs import dataset_path
from mopo_cli.stages.common.open_world import for_published, open_world
from mopo_cli.stages.common.options import Options
from mopo_cli.stages.runner import Stage, stage_envelope
from mopo_cli.store.atomic import plain, write_json
from mopo_cli.store.documents import EPOCH, TableDocument, read_document, read_lines
from mopo_cli.store.lineage import read_lineage
from mopo_cli.store.run import RunFolder


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
    recorded = {"rank": ranking} | (recorded_settings(settings, by_log=ranking == "ope") if acts else {})
    with stage_envelope(run, f"ablate/{name}/rank{suffix}", recorded, inputs, options, report) as stage:
        if stage.up_to_date:
            return stage.result()
        about: dict[str, Any] = {"table": name, "dataset": read_document(table, TableDocument)["dataset"]}
        if acts:
            with open_world(stage, for_published(settings), world, open_device(options), [PENALTY]) as opened:
                about["horizon"] = longest_episode(opened.data)
                folders = [entry.folder / f"seed-{seed}" for entry in entries for seed in entry.record["returns"]]
                if ranking == "ope" and folders:  # there are none if all seeds of all cells diverged
                    gather = by_model_and_log(stage, opened, settings, folders)
                else:
                    gather = by_model(opened, settings)
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


def _score_all(stage: Stage, ranking: str, entries: list[Entry], gather: Gather) -> dict[str, Scores]:
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
    ties: dict[str, list[float | None]] = {}
    for name, criterion in criteria.items():
        if columns := [means[other] for other in criterion.ranks_of]:
            means[name] = mean_ranks(columns)
            ties[name] = [_mean(list(values)) for values in zip(*columns, strict=True)]
    worth = {}
    for name, criterion in criteria.items():
        values = means[name]
        chosen = best_first(criterion, values, ties.get(name))[0]
        worth[name] = {
            "meaning": criterion.meaning,
            "best": "highest" if criterion.highest else "lowest",
            "chooses": entries[chosen].name if values[chosen] is not None else None,
            "spearman": rank_correlation(criterion, values, truth),
            "regret": regret(criterion, values, truth, ties.get(name)),
        }
    first = next(iter(criteria))
    order = best_first(criteria[first], means[first], ties.get(first))
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
