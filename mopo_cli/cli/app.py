"""The ``mopo`` command and all its subcommands, with the help of stages and the options of single algorithms.

To add a command: a file here with EXAMPLES and a function under `cli.options.command` that calls what does the work in
`stages`, and a line below.
"""

import inspect
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperOption

from mopo_cli import __version__
from mopo_cli.cli import ablate, bench, export, export_logs, fetch_data, job, presets, report, run, show, stages
from mopo_cli.cli.options import ALGORITHMS, metavar, setting_parameter
from mopo_cli.config.fields import written
from mopo_cli.store.documents import as_key


class StageCommand(TyperCommand):
    """``--help`` shows the settings that people set and imports no algorithm, ``--help-all`` shows every setting."""

    def parse_args(self, context: Any, args: list[str]) -> list[str]:
        """Parses as any command does; a request for help makes all other arguments irrelevant."""
        show_all = "--help-all" in args
        if self.name == "train-policy" and (show_all or "--help" not in args):
            self._add_algorithm_options()
        if show_all:
            for parameter in self.params:
                if isinstance(parameter, TyperOption):
                    parameter.hidden = False
        return super().parse_args(context, ["--help"] if show_all or "--help" in args else args)

    def _add_algorithm_options(self) -> None:
        names = {parameter.name for parameter in self.params}
        self.params += [parameter for parameter in _algorithm_parameters() if parameter.name not in names]
        function = inspect.unwrap(self.callback)  # type: ignore[arg-type]
        # Typer's wrapper passes on only the parameters that it was made with.
        self.callback = typer.main.get_callback(callback=function, params=self.params, pretty_exceptions_short=False)


def _algorithm_parameters() -> list[Any]:
    def nothing(**values: Any) -> None:
        pass

    options = _algorithm_options()
    nothing.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    nothing.__annotations__ = {parameter.name: parameter.annotation for parameter in options}
    app = typer.Typer(add_completion=False)
    app.command()(nothing)
    return list(typer.main.get_command(app).params)


def _algorithm_options() -> list[inspect.Parameter]:
    from mopo_cli.config.learners import settings_of_all

    options = []
    for name, by_algorithm in settings_of_all().items():
        kind, field = next(iter(by_algorithm.values()))
        defaults = "; ".join(_default_and_source(field, algorithm) for algorithm, (_, field) in by_algorithm.items())
        options.append(setting_parameter(name, f"{field.description} ({defaults})", metavar(kind), ALGORITHMS))
    return options


def _default_and_source(field: Any, algorithm: str) -> str:
    source = field.json_schema_extra["source"]
    return f"{algorithm}: default {written(field.default)}{f', {source}' if source else ''}"


app = typer.Typer(
    name="mopo",
    add_completion=False,
    help="Learn a policy from recorded data alone: model-based offline policy optimisation (MOPO).",
    epilog="Start with: mopo run quickstart",
    pretty_exceptions_enable=False,
)


def _examples(lines: tuple[str, ...]) -> str:
    return "\n".join(("Examples:", *(f"  {line}" for line in lines)))


_STAGES_PANEL = "The seven stages"
_RUNS_PANEL = "Runs, results and settings"

app.command("run", epilog=_examples(run.EXAMPLES), rich_help_panel=_RUNS_PANEL)(run.run)
app.command("show", epilog=_examples(show.EXAMPLES), rich_help_panel=_RUNS_PANEL)(show.show)
app.command("report", epilog=_examples(report.EXAMPLES), rich_help_panel=_RUNS_PANEL)(report.report)
app.command("export", epilog=_examples(export.EXAMPLES), rich_help_panel=_RUNS_PANEL)(export.export)
app.command("export-logs", epilog=_examples(export_logs.EXAMPLES), rich_help_panel=_RUNS_PANEL)(export_logs.export_logs)
app.command("job", epilog=_examples(job.EXAMPLES), rich_help_panel=_RUNS_PANEL)(job.job)
app.command("bench", epilog=_examples(bench.EXAMPLES), rich_help_panel=_RUNS_PANEL)(bench.bench)
app.add_typer(presets.app, name="presets", rich_help_panel=_RUNS_PANEL)


def _add_stages() -> None:
    examples = {"fetch-data": fetch_data.EXAMPLES, **stages.EXAMPLES, "ablate": ablate.EXAMPLES}
    for function in (
        fetch_data.fetch_data,
        *(stages.train_model, stages.select_elites, stages.rollout, stages.train_policy, stages.evaluate),
        ablate.ablate,
    ):
        name = as_key(function.__name__)
        app.command(name, cls=StageCommand, epilog=_examples(examples[name]), rich_help_panel=_STAGES_PANEL)(function)


_add_stages()


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
