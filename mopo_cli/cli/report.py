"""``mopo report``: one HTML page about a run"""

from pathlib import Path
from typing import Annotated

import typer

from mopo_cli.cli.options import Call, command, plain_option
from mopo_cli.errors import UsageError
from mopo_cli.store.files import expand
from mopo_cli.store.run import named_run

EXAMPLES = (
    "mopo report runs/quickstart",
    "mopo report runs/quickstart -o quickstart.html",
)


@command(execution=("json",))
def report(
    call: Call,
    run: Annotated[str, typer.Argument(metavar="RUN", help="a run folder")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="where to (default: RUN/report.html)", metavar="FILE.html", show_default=False
        ),
    ] = None,
    force: Annotated[bool, plain_option("--force", "write over a file that mopo report did not make")] = False,
) -> None:
    """Write one HTML page about a run: its data, model, training, policies and settings, to read or to send."""
    if output is not None and output.suffix.lower() != ".html":
        raise UsageError(f"-o {output} must end in .html.")
    folder = named_run(expand(run))
    from mopo_cli.stages.analysis.report_page import run_report

    result = run_report(folder, output, force=force)
    call.report.result(result, f"Written: {result['path']}")
