"""The options that hand a study out to other machines: `--on`, `--plan`, `--collect` and what a job gets."""

import math
from collections.abc import Callable
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from mopo_cli.cli.options import Call, option_parameter
from mopo_cli.errors import UsageError
from mopo_cli.report import Report

if TYPE_CHECKING:
    from mopo_cli.placing.engine import Engine, Resources
    from mopo_cli.stages.jobs.hand_out import HandOut

_PANEL = "Other machines"
_CELLS = "cells, or seeds of one policy, per job (default: a seed per CPU; on a GPU as many as fit)"
_CPUS = "CPUs of a job (default 1; on a GPU its share of this machine's)"
_SBATCH = "an option of sbatch, e.g. partition=gpu; may be repeated"
_HELP = "--help-all lists the options for other machines"
_ENGINES = ("local", "slurm", "ray", "ray://HOST:PORT")

OPTIONS = (
    option_parameter("on", str | None, f"where to train: {', '.join(_ENGINES)}", "ENGINE", panel=_PANEL),
    option_parameter("plan", Path | None, "only write a list of commands, one per job", "FILE", panel=_PANEL),
    option_parameter("collect", bool, "only collect the results of finished jobs", default=False, panel=_PANEL),
    option_parameter("cpus_per_job", int | None, _CPUS, "INT", panel=_PANEL, hidden=True),
    option_parameter(
        "gpus_per_job",
        float | None,
        "GPUs of a job, or a share of one (default: 1 if this machine has a GPU)",
        "NUMBER",
        panel=_PANEL,
        hidden=True,
    ),
    option_parameter("cells_per_job", int | None, _CELLS, "INT", panel=_PANEL, hidden=True),
    option_parameter("slurm", list[str] | None, _SBATCH, "KEY=VALUE", panel=_PANEL, hidden=True),
)


def open_hand_out(call: Call) -> "HandOut | None":
    """Where a command with `OPTIONS` sends jobs; None: all is trained in this process.

    UsageError for options that exclude each other, SettingsError where an engine's package is not installed.
    """
    on, plan, collect, slurm = (call.more[name] for name in ("on", "plan", "collect", "slurm"))
    ways = [name for name, given in (("--on", on), ("--plan", plan), ("--collect", collect)) if given]
    if len(ways) > 1:
        raise UsageError(f"Use either {ways[0]} or {ways[1]}.", hint=_HELP)
    cpus, gpus, cells = (call.more[f"{what}_per_job"] for what in ("cpus", "gpus", "cells"))
    of_jobs = {"--cpus-per-job": cpus, "--gpus-per-job": gpus, "--cells-per-job": cells}
    stray = [name for name, value in of_jobs.items() if value is not None]
    if stray and not (on or plan):
        raise UsageError(f"{stray[0]} needs --on ENGINE or --plan FILE.", hint=_HELP)
    for name, value in of_jobs.items():
        if value is not None and not (0 < value < math.inf or (value == 0 and name == "--gpus-per-job")):
            raise UsageError(f"{name} must be more than 0 and finite, not {value:g}.")
    if slurm and on != "slurm":
        raise UsageError("--slurm needs --on slurm.", hint=_HELP)
    if not ways:
        return None
    if call.options.log:
        raise UsageError(
            f"--log cannot be used with {ways[0]}.",
            hint=f"when they are done: mopo export-logs RUN --to {call.options.log[0]}",
        )
    from mopo_cli.placing.resources import usual_resources
    from mopo_cli.stages.jobs.hand_out import HandOut

    resources = usual_resources(cpus, gpus, call.options.device)
    engine = _engine(on, resources, slurm or []) if on else None
    return HandOut(engine, plan, cells, resources)


def make_or_plan(call: Call, hand_out: "HandOut | None", make: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
    """The result of ``make``, stages that may hand out jobs; None where these are only planned, which is told."""
    result = make() if hand_out is None else hand_out.make(make, call.report)
    if result is None and hand_out is not None:
        tell_plan(call.report, hand_out)
    return result


def _engine(on: str, resources: "Resources", slurm: list[str]) -> "Engine":
    parameters = _parameters(slurm)
    if on in ("local", "slurm"):
        from mopo_cli.placing.by_submitit import Submitit

        return Submitit("slurm" if on == "slurm" else "local", resources, parameters)
    if on == "ray" or on.startswith("ray://"):
        from mopo_cli.placing.by_ray import Ray

        return Ray(None if on == "ray" else on, resources)
    raise UsageError(f"--on must be one of {', '.join(_ENGINES)}, not {on!r}.", hint=_HELP)


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
    plan = quote(result["plan"])
    report.hint(
        f"tr '\\n' '\\0' < {plan} | xargs -0 -P2 -I{{}} sh -c {{}}, "
        "then the same command with --collect instead of --plan"
    )
