"""ablate: policies compared on one dataset, a cell per setting; cells share the model and train side by side."""

from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import torch

from mopo_cli.config.ablation import axis_values
from mopo_cli.config.schema import Ablate, TrainPolicy
from mopo_cli.data.transition_files import read_dataset
from mopo_cli.data.transitions import DatasetInfo, episode_returns
from mopo_cli.evaluation.stats import bootstrap_iqm, iqm, mean_std, normalised_score, normalised_std
from mopo_cli.report.console import Report
from mopo_cli.report.plots import ablation_plot
from mopo_cli.report.tables import decimals, format_mean_std, markdown_table, seeds_played, write_csv
from mopo_cli.stages.ablation.train_cells import Cell, Elsewhere, by_shared_settings, missing_cells, train_cells
from mopo_cli.stages.common.device import open_device
from mopo_cli.stages.common.inputs import dataset_path
from mopo_cli.stages.common.joining import with_seeds
from mopo_cli.stages.common.open_world import policy_inputs
from mopo_cli.stages.common.options import Options
from mopo_cli.stages.common.published_policies import nothing_made
from mopo_cli.stages.common.reuse import wall_seconds
from mopo_cli.stages.jobs.finished import discard_collected
from mopo_cli.stages.jobs.hand_out import PLANNED, HandOut
from mopo_cli.stages.runner import Stage, stage_envelope
from mopo_cli.store.atomic import write_json, write_text
from mopo_cli.store.documents import TableDocument, as_key, read_document
from mopo_cli.store.run import RunFolder

_SETTINGS = ("method", "penalty", "lam", "h")
_RESULTS = ("last", "last 10", "IQM (95 %)", "score", "s per seed", "not trained")


def run_ablate(
    run: RunFolder,
    settings: Ablate,
    cells: Sequence[TrainPolicy],
    options: Options,
    report: Report,
    parts: Sequence[Path] = (),
    hand_out: HandOut | None = None,
) -> dict[str, Any]:
    """Train every cell that is not there yet and write table.md, .csv, .json and .png; returns the result object.

    Seeds that diverged are named in it, and cells that could not be trained: see `raise_if_diverged`. With `hand_out`
    cells are trained elsewhere; where it only plans them, no table is made.
    `parts` are the table.json of ablations on other models of the same dataset, whose cells go into this table.
    """
    device = open_device(options) if hand_out is None else torch.device("cpu")
    name = settings.table_name()
    inputs = {"dataset": dataset_path(run)}
    for cell in cells:
        inputs |= policy_inputs(run, cell)
    inputs |= {f"part/{place}": path for place, path in enumerate(parts)}
    recorded = settings.model_dump() | {"cells": [cell.policy_name() for cell in cells]}
    folder = run.ablation_dir(name)
    here = [Cell(cell, folder / "cells" / cell.policy_name()) for cell in cells]

    def complete(stage: Stage) -> bool:
        return not missing_cells(here, stage)

    with stage_envelope(run, f"ablate/{name}", recorded, inputs, options, report, complete) as stage:
        if stage.up_to_date:
            return stage.result()
        records = _train(stage, here, device, hand_out)
        failed = {record["cell"]: record["failed"] for record in records if "failed" in record}
        if PLANNED in failed.values():
            return {"stage": stage.key, "run": str(run.root)}
        if failed and not parts and all("failed" in record for record in records):
            raise nothing_made(failed)
        made = [(r | {"grid": axis_values(settings, c.settings)}, c.folder) for r, c in zip(records, here, strict=True)]
        for part in parts:
            made += [
                (other, part.parent / "cells" / other["cell"]) for other in read_document(part, TableDocument)["cells"]
            ]
        if settings.method:
            made.sort(key=lambda cell: settings.method.index(cell[0]["method"]))
        result = _publish_table(stage, name, here, made)
        if hand_out is not None:
            discard_collected(
                run, [cell for cell, record in zip(cells, records, strict=True) if "failed" not in record]
            )
        return result


def _train(stage: Stage, cells: list[Cell], device: torch.device, hand_out: HandOut | None) -> list[dict[str, Any]]:
    if hand_out is None:
        return train_cells(cells, stage, device)
    return train_cells(cells, stage, device, _elsewhere(stage, hand_out), hand_out.finished(stage))


def _elsewhere(stage: Stage, hand_out: HandOut) -> Elsewhere:
    def train(left: dict[Cell, tuple[int, ...]]) -> dict[Cell, str]:
        jobs = [job for cells in by_shared_settings(list(left)) for job in _jobs({cell: left[cell] for cell in cells})]
        settings = [[with_seeds(cell.settings, seeds) for cell, seeds in job] for job in jobs]
        reasons = hand_out.train(stage, settings)
        return {cell: why for job, why in zip(jobs, reasons, strict=True) if why for cell, _ in job}

    def _jobs(cells: dict[Cell, tuple[int, ...]]) -> list[list[tuple[Cell, tuple[int, ...]]]]:
        if hand_out.by_seed:
            size = hand_out.resources.cpus
            return [[(cell, seeds[i : i + size])] for cell, seeds in cells.items() for i in range(0, len(seeds), size)]
        longest = max((cell.settings for cell in cells), key=lambda settings: settings.h)
        size, pairs = hand_out.stack_size(longest, dataset_path(stage.run)), list(cells.items())
        return [pairs[i : i + size] for i in range(0, len(pairs), size)]

    return train


def _publish_table(
    stage: Stage, name: str, cells: list[Cell], made: list[tuple[dict[str, Any], Path]]
) -> dict[str, Any]:
    """Publish what was made, here or in a variant: a record and the folder of each cell."""
    folder = stage.run.ablation_dir(name)
    transitions, info = read_dataset(dataset_path(stage.run))
    behaviour = episode_returns(transitions)
    references = {"data, mean episode": float(behaviour.mean()), "data, best episode": float(behaviour.max())}
    records = [record | statistics(record["returns"], info) for record, _ in made]
    axes = list(dict.fromkeys(axis for record in records for axis in record.get("grid", {})))
    # The wall time is shown, but not in table.json: that has the same bytes wherever and however it was made.
    timed = [
        record | {"wall_seconds": {seed: wall_seconds(at / f"seed-{seed}") for seed in record["returns"]}}
        for record, (_, at) in zip(records, made, strict=True)
    ]
    names = (*_SETTINGS, *(as_key(axis) for axis in axes), "epochs", "seeds", *_RESULTS)
    columns, rows = without_empty(names, [row(record, axes) for record in timed])
    data = f"data mean {behaviour.mean():.1f}, best {behaviour.max():.1f}"
    stage.report.table(f"{info.dataset_id}: returns, mean ± standard deviation over seeds; {data}", columns, rows)
    paths = {kind: folder / f"table.{kind}" for kind in ("md", "csv", "json", "png")}
    write_text(stage.out.stage(paths["md"]), _markdown(info, references, columns, rows))
    write_csv(stage.out.stage(paths["csv"]), *per_seed(timed, axes))
    write_json(stage.out.stage(paths["json"]), {"dataset": info.dataset_id, "references": references, "cells": records})
    returns = {r["cell"]: [v["last"] for v in r["returns"].values() if "last" in v] for r in records}
    ablation_plot(stage.out.stage(paths["png"]), info.dataset_id, returns, references)
    lost = [f"{record['cell']} seed {seed}" for record in records for seed in record["diverged"]]
    failed = {record["cell"]: record["failed"] for record in records if "failed" in record}
    outputs = paths | {f"cell/{cell.name}": cell.description for cell in cells if cell.name not in failed}
    return stage.finish(outputs, {"table": name, "cells": timed, "diverged": lost, "failed": failed})


def statistics(returns: dict[str, dict[str, Any]], info: DatasetInfo) -> dict[str, Any]:
    """What a cell's returns per seed say together: mean and std of the last and last-10, IQM, and the score.

    The IQM and its interval are over the last ten evaluations of all seeds, see `evaluation.stats.bootstrap_iqm`.
    """
    evaluated = [value for value in returns.values() if value]
    if not evaluated:
        return {"last": None, "last_10": None}
    result: dict[str, Any] = {
        name: list(mean_std([value[name] for value in evaluated])) for name in ("last", "last_10")
    }
    evaluations = [value["evaluations"] for value in evaluated]
    result |= {"iqm": iqm(evaluations), "iqm_interval": list(bootstrap_iqm(evaluations))}
    if info.reference_min is not None and info.reference_max is not None:
        span = info.reference_min, info.reference_max
        mean, std = result["last"]
        result["score"] = [normalised_score(mean, *span), normalised_std(std, *span)]
    return result


def row(record: dict[str, Any], axes: Sequence[str]) -> tuple[Any, ...]:
    """A cell's row of the table on the terminal and in Markdown; ``axes`` are the settings of the grid."""
    last = last_10 = middle = None
    seeds = seeds_played(record["returns"])
    if record.get("last"):
        # A single return has no bounds: NaN, and None in what is read from a file.
        bounds = [bound for bound in record["iqm_interval"] if bound is not None and isfinite(bound)]
        digits = decimals(max(map(abs, (*bounds, record["last"][0]))))
        pairs = record["last"], record["last_10"]
        last, last_10 = (format_mean_std(mean, std, digits, seeds=seeds) for mean, std in pairs)
        interval = " to ".join(f"{bound:.{digits}f}" for bound in bounds) or "no interval"
        middle = f"{record['iqm']:.{digits}f} ({interval})"
    score = format_mean_std(*record["score"], seeds=seeds) if record.get("score") else None
    times = [seconds for seconds in record.get("wall_seconds", {}).values() if seconds is not None]
    results = (last, last_10, middle, score, sum(times) / len(times) if times else None, record.get("failed"))
    return (*_differing(record, axes), record["epochs"], len(record["returns"]), *results)


def without_empty(columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> tuple[list[str], list[tuple[Any, ...]]]:
    """A table less the columns that say nothing in any row."""
    kept = [place for place in range(len(columns)) if any(row[place] is not None for row in rows)]
    return [columns[place] for place in kept], [tuple(row[place] for place in kept) for row in rows]


def per_seed(records: Sequence[dict[str, Any]], axes: Sequence[str]) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    """The columns of the CSV, and its rows: one per cell and seed."""
    rows = [
        (
            *_differing(record, axes),
            record["epochs"],
            int(seed),
            value.get("last"),
            value.get("last_10"),
            times.get(seed),
        )
        for record in records
        for times in [record.get("wall_seconds", {})]
        for seed, value in record["returns"].items()
    ]
    return (*_SETTINGS, *axes, "epochs", "seed", "return_last", "return_last_10", "wall_seconds"), rows


def _differing(record: dict[str, Any], axes: Sequence[str]) -> tuple[Any, ...]:
    grid = record.get("grid", {})
    return (*(record[key] for key in _SETTINGS), *(grid.get(axis) for axis in axes))


def _markdown(
    info: DatasetInfo, references: dict[str, float], columns: Sequence[str], rows: list[tuple[Any, ...]]
) -> str:
    data = ", ".join(f"{label} {value:.1f}" for label, value in references.items())
    spread = (
        "Returns: mean ± population standard deviation over seeds; IQM of the last ten evaluations with a 95 % "
        "bootstrap interval over seeds. Seeds that trained as one stack share its wall time equally.\n\n"
    )
    return f"# {info.dataset_id}\n\n{data}. " + spread + markdown_table(columns, rows)
