"""ablate: a grid over penalty, lambda and horizon on one dataset; cells share the model and train side by side."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mopo_cli.config.schema import Ablate, TrainPolicy
from mopo_cli.data.transitions import DatasetInfo, episode_returns
from mopo_cli.engine.members import Member
from mopo_cli.evaluation.stats import mean_std, normalised_score, normalised_std
from mopo_cli.report.console import Report
from mopo_cli.report.plots import ablation_plot
from mopo_cli.report.tables import format_mean_std, markdown_table, write_csv
from mopo_cli.stages.inputs import open_device
from mopo_cli.stages.policy_stack import publish_member, raise_if_diverged, train_stack
from mopo_cli.stages.runner import Options, Stage, stage_envelope
from mopo_cli.stages.world import OpenWorld, open_world, policy_inputs
from mopo_cli.store.atomic import publish, read_json, sha256_file, write_json
from mopo_cli.store.lineage import fingerprint
from mopo_cli.store.run import RunFolder

_COLUMNS = ("penalty", "lam", "h", "seeds", "return (last)", "return (last 10)", "score (last)")


@dataclass(frozen=True)
class Cell:
    """One setting of the grid, the folder of its policies, and the members that train it."""

    settings: TrainPolicy
    folder: Path
    members: tuple[Member, ...]

    @property
    def name(self) -> str:
        """The name its policy would have outside the grid."""
        return self.settings.policy_name()


def run_ablate(run: RunFolder, settings: Ablate, options: Options, report: Report) -> dict[str, Any]:
    """Train every cell that is not there yet and write table.md, .csv, .json and .png; returns the result object."""
    device = open_device(options)
    name = settings.table_name()
    folder = run.ablation_dir(name)
    inputs = policy_inputs(run, settings.rollouts)
    with stage_envelope(run, f"ablate/{name}", settings.model_dump(), inputs, options, report) as stage:
        if stage.up_to_date:
            result = stage.result()
        else:
            opened = open_world(stage, inputs, device)
            cells = _cells(settings, folder, opened)
            for group in _groups(_missing(cells, stage, report), settings, opened):
                _train_group(group, stage, opened, settings, report)
            result = _publish_table(stage, name, cells, opened, settings, report)
        raise_if_diverged(result)
        return result


def _cells(settings: Ablate, folder: Path, opened: OpenWorld) -> list[Cell]:
    cells = []
    for cell in settings.cells():
        members = tuple(
            Member(seed, cell.penalty, cell.lam, cell.h, opened.model_of(seed)) for seed in settings.all_seeds()
        )
        cells.append(Cell(cell, folder / "cells" / cell.policy_name(), members))
    return cells


def _missing(cells: list[Cell], stage: Stage, report: Report) -> list[Cell]:
    missing = [cell for cell in cells if stage.options.force or not _is_done(cell, stage)]
    if len(missing) < len(cells):
        report.say(f"{len(cells) - len(missing)} of {len(cells)} cells are up to date")
    return missing


def _is_done(cell: Cell, stage: Stage) -> bool:
    description = cell.folder / "cell.json"
    if not description.is_file():
        return False
    recorded = read_json(description)
    return recorded["fingerprint"] == _fingerprint(cell, stage) and all(
        (cell.folder / path).is_file() and sha256_file(cell.folder / path) == digest
        for path, digest in recorded["files"].items()
    )


def _fingerprint(cell: Cell, stage: Stage) -> str:
    return fingerprint("train-policy", cell.settings.model_dump(), stage.inputs)


def _groups(cells: list[Cell], settings: Ablate, opened: OpenWorld) -> Iterator[list[Cell]]:
    """Whole cells whose pools fit into half of the memory together; at least one at a time.

    Of all memory, not of what is free now: a stack that was interrupted must be grouped alike to be taken up again.
    """
    group: list[Cell] = []
    for cell in cells:
        if group and _pool_bytes([*group, cell], settings, opened) > _memory_bytes(opened) / 2:
            yield group
            group = []
        group.append(cell)
    if group:
        yield group


def _pool_bytes(cells: list[Cell], settings: Ablate, opened: OpenWorld) -> int:
    members = sum(len(cell.members) for cell in cells)
    longest = max(cell.settings.h for cell in cells)
    return 4 * opened.world.rows.width * settings.rollout_batch * settings.pool_epochs * longest * members


def _memory_bytes(opened: OpenWorld) -> int:
    if opened.world.real.is_cuda:
        return int(torch.cuda.mem_get_info(opened.world.real.device)[1])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _train_group(group: list[Cell], stage: Stage, opened: OpenWorld, settings: Ablate, report: Report) -> None:
    members = tuple(member for cell in group for member in cell.members)
    report.say(f"Training {len(group)} cells x {len(group[0].members)} seeds as one stack")
    trained = train_stack(stage, opened, members, settings, report)
    first = 0
    for cell in group:
        files: dict[str, str] = {}
        returns = {}
        for m, member in enumerate(cell.members, start=first):
            if trained.diverged[m]:
                continue
            folder = cell.folder / f"seed-{member.seed}"
            outputs = publish_member(folder, trained, m, opened, settings, stage)
            files |= {str(path.relative_to(cell.folder)): sha256_file(path) for path in outputs.values()}
            returns[str(member.seed)] = trained.returns(m)
        lost = [member.seed for m, member in enumerate(cell.members, start=first) if trained.diverged[m]]
        content = {"fingerprint": _fingerprint(cell, stage), "files": files, "returns": returns, "diverged": lost}
        write_json(cell.folder / "cell.json", content)
        first += len(cell.members)


def _publish_table(
    stage: Stage, name: str, cells: list[Cell], opened: OpenWorld, settings: Ablate, report: Report
) -> dict[str, Any]:
    folder = stage.run.ablation_dir(name)
    info = opened.data.info
    records = [_record(cell, info) for cell in cells]
    behaviour = episode_returns(opened.data.transitions)
    references = {"data, mean episode": float(behaviour.mean()), "data, best episode": float(behaviour.max())}
    rows = [_row(record) for record in records]
    report.table(f"{info.dataset_id}: {settings.epochs} epochs, data mean {behaviour.mean():.1f}", _COLUMNS, rows)
    paths = {kind: folder / f"table.{kind}" for kind in ("md", "csv", "json", "png")}
    with publish(paths["md"]) as temporary:
        temporary.write_text(_markdown(info, settings, references, rows), encoding="utf-8")
    per_seed = [
        (r["penalty"], r["lam"], r["h"], int(seed), value.get("last"), value.get("last_10"))
        for r in records
        for seed, value in r["returns"].items()
    ]
    write_csv(paths["csv"], ("penalty", "lam", "h", "seed", "return_last", "return_last_10"), per_seed)
    write_json(paths["json"], {"dataset": info.dataset_id, "references": references, "cells": records})
    returns = {r["cell"]: [v["last"] for v in r["returns"].values() if "last" in v] for r in records}
    ablation_plot(paths["png"], f"{info.dataset_id}, {settings.epochs} epochs", returns, references)
    lost = [f"{record['cell']} seed {seed}" for record in records for seed in record["diverged"]]
    outputs = paths | {f"cell/{cell.name}": cell.folder / "cell.json" for cell in cells}
    return stage.finish(outputs, {"table": name, "cells": records, "diverged": lost})


def _record(cell: Cell, info: DatasetInfo) -> dict[str, Any]:
    recorded = read_json(cell.folder / "cell.json")
    record = {
        "cell": cell.name,
        "penalty": cell.settings.penalty,
        "lam": cell.settings.lam if cell.settings.penalty != "none" else None,
        "h": cell.settings.h,
        "returns": recorded["returns"],
        "diverged": recorded["diverged"],
    }
    for which in ("last", "last_10"):
        values = [value[which] for value in recorded["returns"].values() if which in value]
        record[which] = list(mean_std(values)) if values else None
    if record["last"] and info.reference_min is not None and info.reference_max is not None:
        span = info.reference_min, info.reference_max
        mean, std = record["last"]
        record["score"] = [normalised_score(mean, *span), normalised_std(std, *span)]
    return record


def _row(record: dict[str, Any]) -> tuple[Any, ...]:
    cells = [format_mean_std(*record[key]) if record.get(key) else None for key in ("last", "last_10", "score")]
    return (record["penalty"], record["lam"], record["h"], len(record["returns"]), *cells)


def _markdown(info: DatasetInfo, settings: Ablate, references: dict[str, float], rows: list[tuple[Any, ...]]) -> str:
    data = ", ".join(f"{label} {value:.1f}" for label, value in references.items())
    heading = f"# {info.dataset_id}\n\n{settings.epochs} epochs of {settings.steps_per_epoch} steps; {data}. "
    spread = "Mean ± population standard deviation over seeds.\n\n"
    return heading + spread + markdown_table(_COLUMNS, rows)
