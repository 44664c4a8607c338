"""``mopo export``: a policy as one file that needs nothing of mopo"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from mopo_cli.cli.context import open_context
from mopo_cli.cli.options import Call, command, plain_option
from mopo_cli.errors import UsageError
from mopo_cli.store.files import expand

EXAMPLES = (
    "mopo export --to onnx",
    "mopo export mopo_max-var_lam1_h5 --to onnx --ensemble -o controller.onnx",
    "mopo export runs/quickstart/policies/mopo_max-var_lam1_h5/seed-0/policy.safetensors --to numpy -o controller.npz",
)

_ENDINGS = {"onnx": ".onnx", "numpy": ".npz"}

Policy = Annotated[
    str | None,
    typer.Argument(
        metavar="POLICY",
        show_default=False,
        help="a policy.safetensors, or a name (default: the policy trained last)",
    ),
]
To = Annotated[Literal["onnx", "numpy"], typer.Option("--to", help="kind of file", metavar="onnx|numpy")]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", help="where to (default: exports/POLICY/ in the run)", metavar="FILE", show_default=False
    ),
]
Ensemble = Annotated[bool, plain_option("--ensemble", "one file for all seeds: their mean action")]
Force = Annotated[bool, plain_option("--force", "write over a file that is there")]


@command(execution=("run", "dataset", "json"))
def export(
    call: Call,
    policy: Policy = None,
    *,
    to: To,
    output: Output = None,
    ensemble: Ensemble = False,
    force: Force = False,
) -> None:
    """Write a policy as one ONNX or NumPy file that needs nothing of mopo; a file per seed."""
    if output is not None and output.suffix.lower() != _ENDINGS[to]:
        raise UsageError(f"-o {output} must end in {_ENDINGS[to]} for --to {to}.")
    if policy is not None and policy.endswith(".safetensors"):
        policy = str(expand(policy))
        if call.run is None and call.dataset is None:
            call = replace(call, run=_run_of(Path(policy)))
    run = open_context(call).run
    from mopo_cli.stages.analysis.export import run_export

    result = run_export(run, policy, to, output, ensemble=ensemble, force=force)
    call.report.result(result, "\n".join(f"Written: {path}" for path in result["outputs"].values()))


def _run_of(path: Path) -> Path | None:
    """The run folder that a file is in, if any."""
    return next((folder for folder in path.absolute().parents if (folder / "run.json").is_file()), None)
