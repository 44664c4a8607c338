"""``mopo presets ls`` and ``mopo presets show NAME``"""

from typing import Annotated

import typer

from mopo_cli.config.presets import load_preset, preset_names, preset_summary, preset_text
from mopo_cli.report import Report

app = typer.Typer(help="The settings that ship with mopo, a preset per data set.", no_args_is_help=False)

Json = Annotated[bool, typer.Option("--json", help="print one JSON object on stdout", show_default=False)]


@app.command("ls", epilog="Example: mopo presets ls")
def list_presets(json: Json = False) -> None:
    """List the presets: name and what it is for."""
    summaries = {name: preset_summary(name) for name in preset_names()}
    width = max(map(len, summaries))
    text = "\n".join(f"{name:{width}}  {summary}" for name, summary in summaries.items())
    Report("json" if json else "human").result({"presets": summaries}, text)


@app.command("show", epilog="Example: mopo presets show quickstart > mine.yaml")
def show_preset(
    name: Annotated[str, typer.Argument(metavar="NAME", help="a name from mopo presets ls")],
    json: Json = False,
) -> None:
    """Print a preset's YAML, fit to be edited and given to --config."""
    text = preset_text(name)
    Report("json" if json else "human").result({"name": name, "settings": load_preset(name)}, text.rstrip())
