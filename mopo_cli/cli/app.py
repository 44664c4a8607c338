"""The ``mopo`` command and all its subcommands."""

from typing import Annotated

import typer

from mopo_cli import __version__
from mopo_cli.cli import ablate, bench, fetch_data, presets, run, show, stages
from mopo_cli.cli.stage_command import StageCommand

app = typer.Typer(
    name="mopo",
    add_completion=False,
    help="Learn a policy from recorded data alone: model-based offline policy optimisation (MOPO).",
    epilog="Start with: mopo run quickstart",
    pretty_exceptions_enable=False,
)


def _examples(lines: tuple[str, ...]) -> str:
    return "\n".join(("Examples:", *(f"  {line}" for line in lines)))


STAGES = "The seven stages"
WHOLE = "Runs, results and settings"

app.command("run", epilog=_examples(run.EXAMPLES), rich_help_panel=WHOLE)(run.run)
app.command("show", epilog=_examples(show.EXAMPLES), rich_help_panel=WHOLE)(show.show)
app.command("bench", epilog=_examples(bench.EXAMPLES), rich_help_panel=WHOLE)(bench.bench)
app.add_typer(presets.app, name="presets", rich_help_panel=WHOLE)
examples = {"fetch-data": fetch_data.EXAMPLES, **stages.EXAMPLES, "ablate": ablate.EXAMPLES}
for function in (
    fetch_data.fetch_data,
    *(stages.train_model, stages.select_elites, stages.rollout, stages.train_policy, stages.evaluate),
    ablate.ablate,
):
    name = function.__name__.replace("_", "-")
    app.command(name, cls=StageCommand, epilog=_examples(examples[name]), rich_help_panel=STAGES)(function)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"mopo {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def mopo(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", metavar="", help="print the version", is_eager=True, callback=_print_version),
    ] = False,
) -> None:
    """Learn a policy from recorded data alone: model-based offline policy optimisation (MOPO)."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
