"""The options that hand a study out to other machines: `--on`, `--plan`, `--collect` and what a job gets."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from mopo_cli.cli.options import plain_option
from mopo_cli.errors import UsageError
from mopo_cli.report import Report

if TYPE_CHECKING:
    from mopo_cli.placing.engine import Engine, Resources
    from mopo_cli.stages.jobs.hand_out import HandOut

_PANEL = "Other machines"
_ENGINES = ("local", "slurm", "ray", "ray://HOST:PORT")

On = Annotated[str | None, plain_option("--on", f"who trains: {', '.join(_ENGINES)}", "ENGINE", _PANEL)]
PlanFile = Annotated[Path | None, plain_option("--plan", "only write a list of commands, one per job", "FILE", _PANEL)]
Collect = Annotated[bool, plain_option("--collect", "only take over what jobs have finished", "", _PANEL)]
CpusPerJob = Annotated[int | None, plain_option("--cpus-per-job", "CPUs of a job (default 1)", "INT", _PANEL, True)]
GpusPerJob = Annotated[
    float | None, plain_option("--gpus-per-job", "GPUs of a job, or a share of one (default 0)", "NUMBER", _PANEL, True)
]
CellsPerJob = Annotated[
    int | None,
    plain_option(
        "--cells-per-job",
        "cells, or seeds of one policy, in a job (default: a seed per CPU; on a GPU what fits)",
        "INT",
        _PANEL,
        True,
    ),
]
Slurm = Annotated[
    list[str] | None,
    plain_option("--slurm", "an option of sbatch, e.g. partition=gpu; may be repeated", "KEY=VALUE", _PANEL, True),
]


def open_hand_out(
    on: str | None,
    cpus: int | None,
    gpus: float | None,
    cells: int | None,
    slurm: list[str] | None,
    plan: Path | None = None,
    collect: bool = False,
) -> "HandOut | None":
    """Where the command line sends jobs; None: all is trained in this process.

    UsageError for options that exclude each other, SettingsError where an engine's package is not installed.
    """
    ways = [flag for flag, given in (("--on", on), ("--plan", plan), ("--collect", collect)) if given]
    if len(ways) > 1:
        raise UsageError(f"Use either {ways[0]} or {ways[1]}.", hint="mopo ablate --help")
    of_jobs = {"--cpus-per-job": cpus, "--gpus-per-job": gpus, "--cells-per-job": cells}
    stray = [flag for flag, value in of_jobs.items() if value is not None]
    if stray and not (on or plan):
        raise UsageError(f"{stray[0]} needs --on ENGINE or --plan FILE.", hint="mopo ablate --help")
    for flag, value in of_jobs.items():
        if value is not None and (value < 0 or (value == 0 and flag != "--gpus-per-job")):
            raise UsageError(f"{flag} must be more than 0, not {value:g}.")
    if slurm and on != "slurm":
        raise UsageError("--slurm needs --on slurm.", hint="mopo ablate --help")
    if not ways:
        return None
    from mopo_cli.placing.engine import Resources
    from mopo_cli.stages.jobs.hand_out import HandOut

    resources = Resources(cpus or 1, gpus or 0.0)
    engine = _engine(on, resources, slurm or []) if on else None
    return HandOut(engine, plan, cells, resources)


def _engine(on: str, resources: "Resources", slurm: list[str]) -> "Engine":
    parameters = _parameters(slurm)
    if on in ("local", "slurm"):
        from mopo_cli.placing.by_submitit import Submitit

        return Submitit("slurm" if on == "slurm" else "local", resources, parameters)
    if on == "ray" or on.startswith("ray://"):
        from mopo_cli.placing.by_ray import Ray

        return Ray(None if on == "ray" else on, resources)
    raise UsageError(f"--on must be one of {', '.join(_ENGINES)}, not {on!r}.", hint="mopo ablate --help")


def _parameters(texts: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    for name, sign, value in pairs:
        if not (name and sign and value):
            raise UsageError(f"--slurm takes KEY=VALUE, not {name + sign + value!r}.", hint="--slurm partition=gpu")
    return {name.strip().removeprefix("--").replace("-", "_"): value for name, _, value in pairs}


def tell_plan(report: Report, hand_out: "HandOut") -> None:
    """Write the plan and say how to go on."""
    result = hand_out.write_plan()
    report.result(result, result["plan"])
    report.hint(
        f"xargs -P2 -I{{}} sh -c {{}} < {result['plan']}, then the same command with --collect instead of --plan"
    )
