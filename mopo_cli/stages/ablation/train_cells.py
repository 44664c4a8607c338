"""Many policies on one dataset: cells that can share a stack train side by side, and each is published when done."""

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mopo_cli.config.schema import TrainPolicy
from mopo_cli.dynamics.penalties import ORACLE
from mopo_cli.engine.members import Member
from mopo_cli.stages.common.inputs import dataset_path
from mopo_cli.stages.common.memory import check_policies
from mopo_cli.stages.common.memory_estimates import policy_bytes
from mopo_cli.stages.common.open_world import OpenWorld, open_world, policy_inputs, policy_roles
from mopo_cli.stages.common.policy_stack import train_stack
from mopo_cli.stages.common.published_policies import returns_of, stage_member
from mopo_cli.stages.common.reuse import (
    FILES,
    StoredPolicy,
    files_of,
    has_files,
    of_cell,
    read_cell,
    stored_policies,
)
from mopo_cli.stages.common.same_settings import other_training, same_policies, what_trains
from mopo_cli.stages.jobs.finished import Finished
from mopo_cli.stages.runner import Stage
from mopo_cli.store.atomic import sha256_file, write_json
from mopo_cli.store.documents import CELL, EPOCH, read_document, read_lines
from mopo_cli.store.machine import total_memory
from mopo_cli.store.publication import Publication


@dataclass(frozen=True)
class Cell:
    """The settings of one policy, and the folder of its seeds and its description, cell.json."""

    settings: TrainPolicy
    folder: Path

    @property
    def name(self) -> str:
        """The name its policy would have elsewhere."""
        return self.settings.policy_name()

    @property
    def description(self) -> Path:
        """What became of it: see `train_cells`."""
        return self.folder / "cell.json"


Elsewhere = Callable[[dict[Cell, tuple[int, ...]]], dict[Cell, str]]
"""Has these seeds of cells trained by jobs; returns why each cell is not there yet."""


def train_cells(
    cells: list[Cell],
    stage: Stage,
    device: torch.device,
    elsewhere: Elsewhere | None = None,
    finished: Finished | None = None,
) -> list[dict[str, Any]]:
    """Train every cell that is not there yet, here or `elsewhere`; returns a record per cell, in their order.

    Seeds that the run holds already, from `train-policy` or another ablation, are taken over but with --force, as is
    what jobs have `finished`; of several cells with equal settings one is trained. A record has the cell's name and
    settings, per seed the last and last-10 returns while it trained and the policy's sha256, the seeds that diverged,
    and under "failed" why it is not there.
    """
    missing = missing_cells(cells, stage)
    if len(missing) < len(cells):
        stage.report.say(f"{len(cells) - len(missing)} of {len(cells)} cells are up to date")
    distinct, twins = _twins(missing)
    finished = finished or Finished([])
    stored = [*([] if stage.options.force else stored_policies(stage.run)), *finished.policies]
    staged = stage.run.state(stage.key) / "staged"
    out = {cell: Publication(staged / f"cell-{place}") for place, cell in enumerate(missing)}
    with ExitStack() as context:
        for publication in out.values():
            context.callback(publication.discard)
        left: dict[Cell, tuple[int, ...]] = {}
        for cell in distinct:
            seeds = _take_over(cell, stage, out[cell], stored, finished.diverged(cell.settings))
            if reused := len(cell.settings.all_seeds()) - len(seeds):
                stage.report.say(
                    f"{cell.name}: {reused} of {reused + len(seeds)} seeds are in the run already and are reused"
                )
            if seeds:
                left[cell] = seeds
        failed: dict[Cell, str] = {}
        if elsewhere is None:
            _train_here(left, stage, out, device)
        elif left:
            failed = elsewhere(left)
        for cell, other in twins.items():
            if other in failed:
                failed[cell] = failed[other]
                continue
            for one in of_cell(other.description):
                one.take_over(out[cell], cell.folder / f"seed-{one.seed}")
            _publish(cell, stage, out[cell], read_document(other.description, CELL)["diverged"])
    return [_failed(cell, failed[cell]) if cell in failed else _record(cell) for cell in cells]


def _train_here(
    left: dict[Cell, tuple[int, ...]], stage: Stage, out: dict[Cell, Publication], device: torch.device
) -> None:
    stacks = by_shared_settings(list(left))
    dataset = dataset_path(stage.run)
    for cells in stacks:
        longest = max((cell.settings for cell in cells), key=lambda settings: settings.h)
        check_policies(longest, dataset, stage.options, device)
    for cells in stacks:
        settings = cells[0].settings
        penalties = {cell.settings.penalty for cell in cells}
        with open_world(stage, settings, policy_inputs(stage.run, settings), device, penalties) as opened:
            for group in _groups(cells, opened):
                _train_group({cell: left[cell] for cell in group}, stage, out, opened)


def missing_cells(cells: list[Cell], stage: Stage) -> list[Cell]:
    """The cells that are not there, or were made with other settings or from other inputs."""
    return [cell for cell in cells if stage.options.force or not _is_done(cell, stage)]


def _is_done(cell: Cell, stage: Stage) -> bool:
    recorded = read_cell(cell.description) if cell.description.is_file() else None
    return (
        recorded is not None
        and same_policies(recorded["settings"], cell.settings.model_dump())
        and recorded["inputs"] == _inputs(cell, stage)
        and has_files(cell.folder, recorded["files"])
    )


def _inputs(cell: Cell, stage: Stage) -> dict[str, str]:
    """The sha256 of what the cell is made from, by role."""
    return {role: stage.inputs[role]["sha256"] for role in policy_roles(cell.settings)}


def _twins(cells: list[Cell]) -> tuple[list[Cell], dict[Cell, Cell]]:
    """The cells that differ, and each further one with the cell that has the same policies."""
    first: dict[str, Cell] = {}
    twins: dict[Cell, Cell] = {}
    for cell in cells:
        other = first.setdefault(what_trains(cell.settings), cell)
        if other is not cell:
            twins[cell] = other
    return list(first.values()), twins


def _take_over(
    cell: Cell, stage: Stage, out: Publication, stored: list[StoredPolicy], lost: Collection[int] = ()
) -> tuple[int, ...]:
    """Stage the cell's seeds that are stored; returns those that are left to train. Those `lost` have diverged."""
    now, inputs = cell.settings.model_dump(), _inputs(cell, stage)
    fits = [one for one in stored if one.inputs == inputs and not other_training(one.settings, now)]
    left = tuple(
        seed
        for seed in cell.settings.all_seeds()
        if seed not in lost
        and not any(one.seed == seed and one.take_over(out, cell.folder / f"seed-{seed}") for one in fits)
    )
    if not left:
        _publish(cell, stage, out, sorted(lost))
    return left


def by_shared_settings(cells: list[Cell]) -> list[list[Cell]]:
    """The cells by what all members of a stack share."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        shared = cell.settings.model_dump_json(include=cell.settings.shared())
        groups.setdefault(shared, []).append(cell)
    return list(groups.values())


def _groups(cells: list[Cell], opened: OpenWorld) -> Iterator[list[Cell]]:
    """Whole cells that fit into half of the memory together; at least one at a time.

    Of all memory, not of what is free now: an interrupted stack must be grouped the same way to be resumed.
    """
    group: list[Cell] = []
    world, half = opened.world, _memory_bytes(opened) / 2
    for cell in cells:
        longest, members = max(each.settings.h for each in [*group, cell]), (len(group) + 1) * cell.settings.seed_count
        # In one process, with however many threads: those must not change the groups either.
        needed = policy_bytes(cell.settings, world.row_layout, 0, world.real.device, 0, longest, members)
        if group and sum(needed.values()) > half:
            yield group
            group = []
        group.append(cell)
    if group:
        yield group


def _memory_bytes(opened: OpenWorld) -> int:
    if opened.world.real.is_cuda:
        return int(torch.cuda.mem_get_info(opened.world.real.device)[1])
    return total_memory()


def _train_group(
    group: dict[Cell, tuple[int, ...]],
    stage: Stage,
    out: dict[Cell, Publication],
    opened: OpenWorld,
) -> None:
    """Train these seeds of each cell as one stack, and publish the cells."""
    places = [(cell, seed) for cell, seeds in group.items() for seed in seeds]
    members = tuple(
        Member(seed, cell.settings.penalty, cell.settings.lam, cell.settings.h, opened.model_of(seed))
        for cell, seed in places
    )
    stage.report.say(f"Training {', '.join(cell.name for cell in group)}: {len(members)} policies as one stack")
    names = [f"{cell.name}/seed-{seed}" for cell, seed in places]
    trained = train_stack(stage, opened, members, names, next(iter(group)).settings)
    lost: dict[Cell, list[int]] = {cell: [] for cell in group}
    for m, (cell, seed) in enumerate(places):
        if trained.diverged[m]:
            lost[cell].append(seed)
        else:
            stage_member(out[cell], cell.folder / f"seed-{seed}", trained, m, opened, cell.settings, stage)
    for cell in group:
        _publish(cell, stage, out[cell], lost[cell])


def _publish(cell: Cell, stage: Stage, out: Publication, lost: list[int]) -> None:
    """Publish the cell with its description, once all its seeds but the lost ones are staged."""
    kept = [seed for seed in cell.settings.all_seeds() if seed not in lost]
    metrics = {str(seed): out.at_present(cell.folder / f"seed-{seed}" / "metrics.jsonl") for seed in kept}
    histories = {seed: read_lines(path, EPOCH) for seed, path in metrics.items()}
    files = [f"seed-{seed}/{name}" for seed in kept for name in files_of(out, cell.folder / f"seed-{seed}")]
    content: dict[str, Any] = {
        "settings": cell.settings.model_dump(mode="json"),
        "inputs": _inputs(cell, stage),
        "files": {file: sha256_file(out.at_present(cell.folder / file)) for file in files},
        "returns": {seed: returns_of(history) for seed, history in histories.items()},
        "diverged": lost,
    }
    if cell.settings.penalty == ORACLE:
        # The mean share of rows, over epochs and seeds, that the oracle knew nothing of.
        shares = [record["unknown"] for history in histories.values() for record in history if "unknown" in record]
        content["unknown"] = sum(shares) / len(shares) if shares else 0.0
    write_json(out.stage(cell.description), content)
    out.commit()


def _record(cell: Cell) -> dict[str, Any]:
    recorded = read_document(cell.description, CELL)
    return {
        "cell": cell.name,
        "algorithm": cell.settings.algorithm,
        **shown_settings(cell.settings),
        "returns": recorded["returns"],
        "policies": {seed: recorded["files"][f"seed-{seed}/{FILES[0]}"] for seed in recorded["returns"]},
        "diverged": recorded["diverged"],
        **({"unknown": recorded["unknown"]} if "unknown" in recorded else {}),
    }


def _failed(cell: Cell, why: str) -> dict[str, Any]:
    about = {"cell": cell.name, "algorithm": cell.settings.algorithm, **shown_settings(cell.settings)}
    return {**about, "returns": {}, "policies": {}, "diverged": [], "failed": why}


def shown_settings(settings: TrainPolicy) -> dict[str, Any]:
    """The settings of a cell in a table; lam and h are None where they mean nothing."""
    return {
        "method": settings.method,
        "penalty": settings.penalty,
        "lam": settings.lam if settings.penalty != "none" else None,
        "h": settings.h if settings.needs_model or settings.rollouts != "fresh" else None,
        "epochs": settings.epochs,
        "steps_per_epoch": settings.steps_per_epoch,
    }
