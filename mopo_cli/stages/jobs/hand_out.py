"""Hands a study out: writes its jobs, has an engine carry them out, or a list of commands for any other means."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Any

from mopo_cli.config.schema import TrainPolicy
from mopo_cli.errors import Stopped
from mopo_cli.placing.board import Board
from mopo_cli.placing.engine import Engine, Resources
from mopo_cli.stages.common.open_world import policy_roles
from mopo_cli.stages.common.published_policies import NOT_YET
from mopo_cli.stages.jobs.finished import discard_jobs, is_finished
from mopo_cli.stages.jobs.job import Job, absolute, write_job
from mopo_cli.stages.runner import Options, Stage
from mopo_cli.store.atomic import write_text
from mopo_cli.store.lineage import read_lineage

PLANNED = "planned"


@dataclass
class HandOut:
    """Where jobs go: to an ``engine``, as lines of commands into the file ``plan``, or nowhere: what is there counts.

    ``together`` is how many policy settings make one job. ``lines`` are those of the plan so far.
    """

    engine: Engine | None = None
    plan: Path | None = None
    together: int = 1
    resources: Resources = field(default_factory=Resources)
    lines: list[str] = field(default_factory=list)

    def train(self, stage: Stage, stacks: Sequence[Sequence[TrainPolicy]]) -> list[str]:
        """Have policies trained, in stacks that share data and model; returns for each stack "" or why it failed.

        Stopped after a signal: what was finished is taken up by the next start.
        """
        if self.engine is None and self.plan is None:
            return [NOT_YET] * len(stacks)
        jobs = [_policies(stage, stack, self.resources) for stack in stacks]
        what = [", ".join(one.policy_name() for one in stack) for stack in stacks]
        return self._carry_out(stage, jobs, what)

    def _carry_out(self, stage: Stage, jobs: Sequence[Job], what: Sequence[str]) -> list[str]:
        if stage.options.force:
            discard_jobs(stage.run, [job.name for job in jobs])
        files = [write_job(job, stage.run) for job in jobs]
        if self.engine is None:
            self.lines += [_command(file) for file in files]
            return [PLANNED] * len(jobs)
        board = Board({file.stem: text for file, text in zip(files, what, strict=True)}, stage.report)
        self.engine.place(files, board, stage.should_stop)
        if stage.signal:
            raise Stopped(stage.signal, self.engine.jobs_go_on)
        # A job of which seeds diverged has failed, and yet all of it is there: the table tells the seeds.
        failures = board.failures()
        return [
            "" if is_finished(file, job) else failures.get(file.stem, "") for file, job in zip(files, jobs, strict=True)
        ]

    def write_plan(self) -> dict[str, Any]:
        """Write the commands of all jobs to the file of the plan, one per line; returns the result object."""
        assert self.plan is not None
        write_text(self.plan, "".join(f"{line}\n" for line in self.lines))
        return {"plan": str(self.plan), "jobs": len(self.lines)}


def _command(file: Path) -> str:
    return f"mopo job {quote(str(file))}"


def _policies(stage: Stage, stack: Sequence[TrainPolicy], resources: Resources) -> Job:
    roles = dict.fromkeys(role for one in stack for role in policy_roles(one))
    settings = [one.model_dump(mode="json") for one in stack]
    fetched = read_lineage(stage.run)["fetch-data"]
    inputs = absolute(stage.inputs, stage.run, list(roles))
    return Job("train-policy", settings, inputs, fetched, _execution(stage.options, resources))


def _execution(options: Options, resources: Resources) -> dict[str, Any]:
    threads = options.threads or resources.cpus
    return {"device": options.device, "threads": threads, "engine": options.engine, "products": options.products}
