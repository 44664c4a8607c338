"""``mopo export-logs``: the metrics of a run for a library that shows them"""

from pathlib import Path
from typing import Annotated

import typer

from mopo_cli.cli.options import Call, command
from mopo_cli.report.metrics import SINKS, check_sinks
from mopo_cli.store.files import check_folder, expand
from mopo_cli.store.run import check_run, named_run

EXAMPLES = (
    "mopo export-logs runs/quickstart --to tensorboard",
    "mopo export-logs runs/quickstart --to wandb -o exported",
)


@command(execution=("json",))
def export_logs(
    call: Call,
    run: Annotated[str, typer.Argument(metavar="RUN", help="a run folder")],
    to: Annotated[str, typer.Option("--to", help=f"the library: {', '.join(SINKS)}", metavar="NAME")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="folder for its files (default: RUN/logs/NAME)", metavar="FOLDER", show_default=False
        ),
    ] = None,
) -> None:
    """Send the metrics on disk, of the model and all policies, to TensorBoard, Trackio, W&B or MLflow."""
    from mopo_cli.report.export_metrics import export_metrics

    check_sinks("--to", [to])
    folder = named_run(expand(run))
    check_run(folder)
    if output is not None:
        check_folder(output, "The folder ")
    result = export_metrics(folder, to, output or folder.logs(to))
    curves = result["epochs"]
    counts = {"curve": len(curves), "epoch": sum(curves.values())}
    said = ", ".join(f"{count:,} {what}{'' if count == 1 else 's'}" for what, count in counts.items())
    call.report.result(result, f"{said} in all: {result['where']}")
