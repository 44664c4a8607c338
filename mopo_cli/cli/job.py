"""``mopo job``"""

from pathlib import Path
from typing import Annotated

import typer

from mopo_cli.cli.options import Call, command
from mopo_cli.store.run import named_run, never_current

EXAMPLES = (
    "mopo job runs/quickstart/jobs/0c6f1d2a9b7e.json",
    "mopo job 0c6f1d2a9b7e.json --run /scratch/job",
)

File = Annotated[Path, typer.Argument(help="job file, as mopo ablate --plan writes it", metavar="FILE.json")]


@command(execution=("run", "log", "force", "json"))
def job(call: Call, file: File) -> None:
    """Carry out one job of a study (see ablate --plan), in any folder; takes up what was interrupted there."""
    from mopo_cli.placing.engine import job_folder
    from mopo_cli.stages.common.published_policies import raise_if_diverged
    from mopo_cli.stages.jobs.carry_out import run_job
    from mopo_cli.stages.jobs.job import read_job

    description = read_job(file)
    run = named_run(call.run or job_folder(file))
    with never_current(run):
        result = run_job(description, run, call.options, call.report)
    call.report.result(result)
    raise_if_diverged(result)
