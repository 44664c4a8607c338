"""What jobs have made: policies to take over, wherever they were trained, and the seeds that diverged."""

import shutil
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mopo_cli.config.schema import TrainPolicy
from mopo_cli.errors import CorruptError
from mopo_cli.placing.engine import job_folder
from mopo_cli.stages.common.reuse import StoredPolicy, of_cell, read_cell
from mopo_cli.stages.common.same_settings import other_training
from mopo_cli.stages.jobs.job import KEY, TABLE, Job, jobs_of, policy_settings
from mopo_cli.store.lineage import read_lineage
from mopo_cli.store.run import RunFolder


@dataclass(frozen=True)
class Finished:
    """The cells that jobs finished: their settings, policies, and the seeds that diverged."""

    cells: list[tuple[dict[str, Any], list[StoredPolicy], list[int]]]

    @property
    def policies(self) -> list[StoredPolicy]:
        """The policies of all."""
        return [one for _, stored, _ in self.cells for one in stored]

    def diverged(self, settings: TrainPolicy) -> set[int]:
        """The seeds of a cell that diverged: they would again."""
        now = settings.model_dump()
        lost = {seed for then, _, seeds in self.cells for seed in seeds if not other_training(then, now)}
        return lost & set(settings.all_seeds())


def finished_by_jobs(run: RunFolder, only: Collection[Path] | None = None) -> Finished:
    """All that the jobs of a run, or ``only`` these files, finished.

    The settings are those of the job: a path may be another elsewhere.
    """
    cells: list[tuple[dict[str, Any], list[StoredPolicy], list[int]]] = []
    for path, job in jobs_of(run):
        wanted = job.stage == "train-policy" and (only is None or path.resolve() in only)
        if wanted and is_finished(path, job):
            folder = RunFolder(job_folder(path)).ablation_dir(TABLE) / "cells"
            for settings in job.settings:
                description = folder / policy_settings(settings).policy_name() / "cell.json"
                recorded = read_cell(description) if description.is_file() else None
                if recorded is not None:
                    stored = [replace(one, settings=settings) for one in of_cell(description)]
                    cells.append((settings, stored, recorded["diverged"]))
    return Finished(cells)


def is_finished(path: Path, job: Job) -> bool:
    """Whether the results of a job are in its folder; not where its record is damaged, which `mopo job` then says."""
    with suppress(CorruptError):
        return (KEY if job.stage == "train-policy" else "select-elites") in read_lineage(RunFolder(job_folder(path)))
    return False


def discard_collected(run: RunFolder, cells: Collection[TrainPolicy]) -> None:
    """Remove the finished jobs all of whose policies are among these cells, which have them now."""
    present = [cell.model_dump() for cell in cells]
    for path, job in list(jobs_of(run)):
        if job.stage == "train-policy" and is_finished(path, job):
            kept = (policy_settings(one).model_dump() for one in job.settings)
            if all(any(not other_training(one, cell) for cell in present) for one in kept):
                discard_jobs(run, [path.stem])


def discard_jobs(run: RunFolder, names: Collection[str]) -> None:
    """Remove jobs of a run, what they made and what they keep to go on from."""
    for name in names:
        shutil.rmtree(run.jobs / name, ignore_errors=True)
        (run.jobs / f"{name}.json").unlink(missing_ok=True)
    if run.jobs.is_dir() and not any(run.jobs.iterdir()):
        run.jobs.rmdir()
