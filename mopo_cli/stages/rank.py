"""ablate --rank: order the cells of a finished ablation without the simulator, and see how well that goes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mopo_cli.agents.actor import Actor
from mopo_cli.config.schema import Ablate, Imagination
from mopo_cli.dynamics.penalties import penalty_weights
from mopo_cli.engine.streams import stream
from mopo_cli.errors import Stopped
from mopo_cli.evaluation.ranking import LEAST, RANKINGS, Evidence, best_first, rank_correlation, regret
from mopo_cli.report.console import Report
from mopo_cli.report.tables import markdown_table, write_csv
from mopo_cli.stages.inputs import Data, dataset_path, open_device
from mopo_cli.stages.model_returns import STARTS, draw_starts, greedy_returns, longest_episode
from mopo_cli.stages.policies import open_policy
from mopo_cli.stages.runner import Options, Stage, stage_envelope
from mopo_cli.stages.world import OpenWorld, open_world
from mopo_cli.store.atomic import plain, publish, read_json, read_jsonl, write_json
from mopo_cli.store.lineage import read_lineage
from mopo_cli.store.run import RunFolder

PENALTY = "max-var"
_SEED = 0  # of the start states and of the rows that actions are compared in
_ROWS = 10_000  # rows of the data in which actions are compared


@dataclass(frozen=True)
class Entry:
    """A cell of the ablation: what its table says of it, its folder, and whether it was trained in this run's model."""

    record: dict[str, Any]
    folder: Path
    own: bool

    @property
    def name(self) -> str:
        """The cell's name."""
        return str(self.record["cell"])

    @property
    def true_return(self) -> float | None:
        """Its mean last return in the real environment, None where there is none."""
        return self.record["last"][0] if self.record.get("last") else None

    def files(self) -> dict[str, Path]:
        """The files of its seeds, by role: those that diverged have none."""
        folders = {seed: self.folder / f"seed-{seed}" for seed in self.record["returns"]}
        policies = {f"policy/{self.name}/{seed}": folder / "policy.safetensors" for seed, folder in folders.items()}
        return policies | {f"metrics/{self.name}/{seed}": folder / "metrics.jsonl" for seed, folder in folders.items()}


def common_lam(settings: Ablate) -> float:
    """The lambda that all cells are judged with: the ablation's where it has but one, else 1."""
    return settings.lam[0] if len(settings.lam) == 1 else 1.0


def run_rank(run: RunFolder, settings: Ablate, ranking: str, options: Options, report: Report) -> dict[str, Any]:
    """Write ranking.json, .csv and .md beside the table of the finished ablation; returns the result object.

    All cells are judged in this run's model, those that were trained in another one as well, and with one penalty
    (max-var) and one lambda, see `common_lam`.
    """
    device = open_device(options)
    name = settings.table_name()
    table = run.ablation_dir(name) / "table.json"
    entries = _entries(run, name, table)
    world = {"dataset": dataset_path(run), "model": run.model, "elites": run.elites}
    inputs = world | {"table": table} | {role: path for entry in entries for role, path in entry.files().items()}
    asked = {field: getattr(settings, field) for field in (*Imagination.model_fields, "gamma")}
    asked |= {"rank": ranking, "penalty": PENALTY, "lam": common_lam(settings), "starts": STARTS, "seed": _SEED}
    with stage_envelope(run, f"ablate/{name}/rank", asked, inputs, options, report) as stage:
        if stage.up_to_date:
            return stage.result()
        with open_world(stage, settings, world, device) as opened:
            horizon = longest_episode(opened.data)
            scores = _score_all(stage, settings, ranking, entries, opened, horizon, report)
        about = {"table": name, "dataset": opened.data.info.dataset_id, "horizon": horizon}
        result = {**about, **asked, **judge(ranking, entries, scores)}
        _show(result, report)
        paths = {kind: table.with_name(f"ranking.{kind}") for kind in ("json", "csv", "md")}
        write_json(paths["json"], result)
        write_csv(paths["csv"], ("cell", "seed", "return_last", *RANKINGS[ranking]), _per_seed(result, entries))
        with publish(paths["md"]) as temporary:
            temporary.write_text(_markdown(result), encoding="utf-8")
        return stage.finish(paths, result)


def _entries(run: RunFolder, name: str, table: Path) -> list[Entry]:
    made_from = read_lineage(run)[f"ablate/{name}"].inputs
    parts = [run.root / file["path"] for role, file in made_from.items() if role.startswith("part/")]
    elsewhere = {cell["cell"]: part.parent for part in parts for cell in read_json(part)["cells"]}
    return [
        Entry(cell, elsewhere.get(cell["cell"], table.parent) / "cells" / cell["cell"], cell["cell"] not in elsewhere)
        for cell in read_json(table)["cells"]
    ]


Scores = dict[str, dict[str, float | None]]
"""By seed, the value of each criterion."""


def _score_all(
    stage: Stage, settings: Ablate, ranking: str, entries: list[Entry], opened: OpenWorld, horizon: int, report: Report
) -> dict[str, Scores]:
    """By cell, its scores."""
    start = draw_starts(opened.data, _SEED)
    scores: dict[str, Scores] = {}
    with report.progress("rank", sum(len(entry.record["returns"]) for entry in entries)) as progress:
        for entry in entries:
            scores[entry.name] = {}
            for seed in entry.record["returns"]:
                known = _evidence(entry.folder / f"seed-{seed}", int(seed), settings, opened, start, horizon)
                values = {name: criterion.value(known) for name, criterion in RANKINGS[ranking].items()}
                scores[entry.name][seed] = plain(values)
                progress.update(1)
                if stage.should_stop():
                    raise Stopped(stage.signal)
    return scores


def _evidence(
    folder: Path, seed: int, settings: Ablate, opened: OpenWorld, start: torch.Tensor, horizon: int
) -> Evidence:
    actor, _ = open_policy(folder / "policy.safetensors", start.device)
    came = greedy_returns(opened, actor, seed, start, horizon, settings.gamma)
    names = opened.world.how.uncertainties
    return Evidence(
        float(came.discounted.penalised(penalty_weights(PENALTY, common_lam(settings), names)).mean()),
        float(came.discounted.reward.mean()),
        float(came.total.uncertainty[:, names.index(PENALTY)].sum()) / max(int(came.length.sum()), 1),
        _action_distance(actor, opened.data),
        read_jsonl(folder / "metrics.jsonl")[-1],
    )


def _action_distance(actor: Actor, data: Data) -> float:
    device = data.observation.device
    drawn = torch.randint(len(data.observation), (_ROWS,), generator=stream(_SEED, "rank/rows")).to(device)
    return float((actor.greedy(data.observation[drawn]) - data.action[drawn]).double().square().mean())


def judge(ranking: str, entries: Sequence[Entry], scores: dict[str, Scores]) -> dict[str, Any]:
    """The cells from the best to the worst by the ranking's first criterion, and what each criterion is worth.

    A cell's value is the mean over its seeds; None where a seed has none, or all diverged.
    """
    criteria, truth = RANKINGS[ranking], [entry.true_return for entry in entries]
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
    cells = [
        {
            "cell": entries[place].name,
            "rank": rank,
            "return": truth[place],
            "values": {name: means[name][place] for name in criteria},
            "per_seed": scores[entries[place].name],
            "diverged": entries[place].record["diverged"],
            "trained_in_this_model": entries[place].own,
        }
        for rank, place in enumerate(best_first(criteria[first], means[first]), start=1)
    ]
    return {"criteria": worth, "compared": sum(value is not None for value in truth), "cells": cells}


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _per_seed(result: dict[str, Any], entries: list[Entry]) -> list[tuple[Any, ...]]:
    """The rows of the CSV: one per cell and seed, the best cell first."""
    returns = {entry.name: entry.record["returns"] for entry in entries}
    return [
        (cell["cell"], int(seed), returns[cell["cell"]][seed].get("last"), *values.values())
        for cell in result["cells"]
        for seed, values in cell["per_seed"].items()
    ]


def _tables(result: dict[str, Any]) -> list[tuple[tuple[str, ...], list[tuple[Any, ...]]]]:
    """The cells in their order, and what each criterion is worth."""
    cells = [
        (cell["rank"], f"{cell['cell']}{_mark(cell)}", *cell["values"].values(), cell["return"])
        for cell in result["cells"]
    ]
    criteria = [
        (name, worth["best"], worth["spearman"], worth["chooses"], worth["regret"], worth["meaning"])
        for name, worth in result["criteria"].items()
    ]
    return [
        (("rank", "cell", *result["criteria"], "true return"), cells),
        (("criterion", "best is", "Spearman", "chooses", "regret", "what it is"), criteria),
    ]


def _mark(cell: dict[str, Any]) -> str:
    return "" if cell["trained_in_this_model"] else " *"


def _notes(result: dict[str, Any]) -> list[str]:
    model = f"All are judged in this run's model, with u = {result['penalty']} and lam = {result['lam']:g}: "
    model += f"{result['starts']} episodes per seed of at most {result['horizon']:,} steps, gamma {result['gamma']:g}."
    notes = [model]
    if not all(cell["trained_in_this_model"] for cell in result["cells"]):
        notes.append("* trained in another model, whose errors it may have learned to exploit; this one has its own.")
    if lost := [cell["cell"] for cell in result["cells"] if cell["diverged"]]:
        notes.append(f"Judged without the seeds that diverged: {', '.join(lost)}.")
    if result["compared"] < LEAST:
        notes.append(f"True returns are known of {result['compared']} cells: too few for a rank correlation.")
    else:
        notes.append(
            f"Spearman: rank correlation with the true returns (last, mean over seeds) of {result['compared']} cells, "
            "less those without a value. Regret: by how much the chosen cell's true return falls short of the best."
        )
    return notes


def _show(result: dict[str, Any], report: Report) -> None:
    cells, criteria = _tables(result)
    report.table(f"{result['table']}: cells by what data and model say of them, the best first", *cells)
    report.table("What each criterion is worth", *criteria)
    for note in _notes(result):
        report.say(note)


def _markdown(result: dict[str, Any]) -> str:
    tables = (markdown_table(*table) for table in _tables(result))
    notes = "\n".join(_notes(result)) + "\n"
    return "\n".join([f"# {result['dataset']}: {result['table']}\n", *tables, notes])
