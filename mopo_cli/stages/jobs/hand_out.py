"""Hands a study out: writes its jobs, has an engine carry them out, or lists their commands for any other means.

A stage writes the jobs of what it lacks and ends. Then they are carried out, all at once, while no run is held. When
the stage is called again it takes over what they made, and may write jobs that need that.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from shlex import quote
from typing import Any, TypeVar

import torch

from mopo_cli.config.schema import SelectElites, TrainModel, TrainPolicy
from mopo_cli.errors import Stopped
from mopo_cli.placing.board import Board
from mopo_cli.placing.engine import Engine, Resources
from mopo_cli.report.console import Report
from mopo_cli.stages.common.inputs import dataset_path
from mopo_cli.stages.common.memory import cells_that_fit
from mopo_cli.stages.common.open_world import policy_roles
from mopo_cli.stages.common.options import Options
from mopo_cli.stages.common.published_policies import NOT_YET
from mopo_cli.stages.common.same_settings import what_trains
from mopo_cli.stages.common.signals import catch_signals
from mopo_cli.stages.jobs.finished import Finished, discard_jobs, finished_by_jobs, is_finished
from mopo_cli.stages.jobs.job import Job, absolute, read_job, write_job
from mopo_cli.stages.jobs.needs import model_memory, policies_memory
from mopo_cli.stages.runner import Stage
from mopo_cli.store.atomic import plain, write_text
from mopo_cli.store.lineage import read_lineage

PLANNED = "planned"
"""Why a cell is not there whose job has just been written."""

UNFIT = "its job ended, but its results are missing or were changed"
"""Why a cell is not there whose job was carried out."""

_LEAST_GPU = 16e9

Result = TypeVar("Result")


@dataclass
class HandOut:
    """Where jobs go: to an ``engine``, as lines of commands into the file ``plan``, or nowhere: what is there counts.

    ``together`` is how many cells, or seeds of a single policy, make one job; None: a seed per CPU, or what
    `stack_size` says. ``jobs`` are those that were written and not yet carried out, with what each makes; ``failures``
    say why something was not made, by run and its settings.
    """

    engine: Engine | None = None
    plan: Path | None = None
    together: int | None = None
    resources: Resources = field(default_factory=Resources)
    jobs: dict[Path, tuple[str, list[tuple[Path, str]]]] = field(default_factory=dict)
    failures: dict[tuple[Path, str], str] = field(default_factory=dict)
    signal: int = 0
    _carried_out: set[Path] = field(default_factory=set)

    def make(self, work: Callable[[], Result], report: Report) -> Result | None:
        """Call ``work``, some stages, until it lacks nothing that a job can make; None where jobs are only planned.

        Stopped after a signal: what was finished until then is taken up by the next start.
        """
        while True:
            result = work()
            if not self.jobs:
                return result
            if self.plan:
                return None
            self._carry_out(report)

    @property
    def by_seed(self) -> bool:
        """Whether the seeds of a cell are jobs of their own, one for each CPU of a job; else a job has whole cells."""
        return self.together is None and not self.resources.gpus

    def stack_size(self, settings: TrainPolicy, dataset: Path) -> int:
        """How many whole cells like this one make a job: on a GPU as many as half of its memory holds."""
        if self.together:
            return self.together
        return cells_that_fit(settings, dataset, self.resources.gpus * _gpu_bytes() / 2)

    def finished(self, stage: Stage) -> Finished:
        """What jobs of the stage's run have made; with --force those of this hand-out alone."""
        return finished_by_jobs(stage.run, self._carried_out if stage.options.force else None)

    def train(self, stage: Stage, stacks: Sequence[Sequence[TrainPolicy]]) -> list[str]:
        """Have policies trained, in stacks that share data and model; returns for each stack why it is not there."""
        reasons = []
        for stack in stacks:
            makes = [(stage.run.root, what_trains(one)) for one in stack]
            failed = [self.failures[key] for key in makes if key in self.failures]
            reasons += failed[:1] or [
                self._write(_of_policies(stage, stack, self.resources), stage, _named(stack), makes)
            ]
        return reasons

    def train_model(self, stage: Stage, elites: SelectElites) -> str:
        """Have the model of the stage trained and its elites selected; returns why it is not there."""
        makes = stage.run.root, stage.key
        if makes in self.failures:
            return self.failures[makes]
        return self._write(_of_model(stage, elites, self.resources), stage, "model", [makes])

    def _carry_out(self, report: Report) -> None:
        assert self.engine is not None
        files, jobs = list(self.jobs), self.jobs
        self.jobs = {}
        self._carried_out.update(files)
        board = Board(_descriptions({file: jobs[file][0] for file in files}), report)
        with catch_signals(self), board.shown():
            self.engine.place(files, board, lambda: bool(self.signal))
        for name, why in board.failures().items():
            file = next(file for file in files if file.stem == name)
            # A job of which seeds diverged has failed, and yet all of it is there: the table tells the seeds.
            if not is_finished(file, read_job(file)):
                self.failures |= dict.fromkeys(jobs[file][1], why)
        if self.signal:
            raise Stopped(self.signal, self.engine.jobs_go_on)

    def write_plan(self) -> dict[str, Any]:
        """Write the commands of all jobs to the file of the plan, one per line; returns the result object."""
        assert self.plan is not None
        write_text(self.plan, "".join(f"mopo job {quote(str(file))}\n" for file in self.jobs))
        return {"plan": str(self.plan), "jobs": len(self.jobs)}

    def _write(self, job: Job, stage: Stage, what: str, makes: list[tuple[Path, str]]) -> str:
        if self.engine is None and self.plan is None:
            return NOT_YET
        if self.engine is not None:  # a job sees the GPUs alone that an engine gives it, which it counts from 0
            job = replace(job, execution=job.execution | {"device": stage.options.device.partition(":")[0]})
        file = write_job(job, stage.run)
        if file in self._carried_out:
            return UNFIT
        if stage.options.force:
            discard_jobs(stage.run, [job.name])
            write_job(job, stage.run)
        self.jobs[file] = what, makes
        return PLANNED


def _descriptions(jobs: Mapping[Path, str]) -> dict[str, str]:
    """What each job trains, by its name; with the run that it belongs to where there are several, as in a table."""
    several = len({file.parents[1] for file in jobs}) > 1
    return {file.stem: f"{what} of {file.parents[1].name}" if several else what for file, what in jobs.items()}


def _gpu_bytes() -> float:
    """The memory of a GPU here; where there is none, what most of the nodes' have at least."""
    return torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else _LEAST_GPU


def _named(stack: Sequence[TrainPolicy]) -> str:
    seeds = stack[0].all_seeds()
    several = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {', '.join(map(str, seeds))}"
    return f"{', '.join(one.policy_name() for one in stack)} ({several})"


def _of_policies(stage: Stage, stack: Sequence[TrainPolicy], resources: Resources) -> Job:
    roles = dict.fromkeys(role for one in stack for role in policy_roles(one))
    settings = [one.model_dump(mode="json") for one in stack]
    fetched = read_lineage(stage.run)["fetch-data"]
    inputs = absolute(stage.inputs, stage.run, list(roles))
    execution = _execution(stage.options, resources)
    memory = 0 if resources.gpus else policies_memory(stack, dataset_path(stage.run), execution["threads"])
    return Job("train-policy", settings, inputs, fetched, execution, memory)


def _of_model(stage: Stage, elites: SelectElites, resources: Resources) -> Job:
    settings = [plain(stage.settings), elites.model_dump(mode="json")]
    fetched = read_lineage(stage.run)["fetch-data"]
    inputs = absolute(stage.inputs, stage.run, ["dataset"])
    memory = 0 if resources.gpus else model_memory(TrainModel(**settings[0]), dataset_path(stage.run))
    return Job("train-model", settings, inputs, fetched, _execution(stage.options, resources), memory)


def _execution(options: Options, resources: Resources) -> dict[str, Any]:
    threads = options.threads or resources.cpus
    return {"device": options.device, "threads": threads, "engine": options.engine, "products": options.products}
