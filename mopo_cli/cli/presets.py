"""``mopo presets ls``, ``mopo presets methods``, ``mopo presets tables`` and ``mopo presets show NAME``"""

from typing import Annotated, Any

import typer

from mopo_cli.config.paper_tables import load_table, table_names, table_text
from mopo_cli.config.presets import (
    load_method,
    load_preset,
    method_names,
    method_text,
    preset_names,
    preset_summary,
    preset_text,
    summary,
)
from mopo_cli.report import Report

app = typer.Typer(help="The settings that ship with mopo, a preset per data set and per method.", no_args_is_help=False)

Json = Annotated[bool, typer.Option("--json", help="print one JSON object on stdout", show_default=False)]


@app.command("ls", epilog="Example: mopo presets ls")
def list_presets(json: Json = False) -> None:
    """List the presets: name and what it is for."""
    _list("presets", {name: preset_summary(name) for name in preset_names()}, json)


@app.command("methods", epilog="Example: mopo presets methods")
def list_methods(json: Json = False) -> None:
    """List the papers' methods, which --method takes: name and what it is."""
    _list("methods", {name: summary(method_text(name)) for name in method_names()}, json)


@app.command("tables", epilog="Example: mopo presets tables")
def list_tables(json: Json = False) -> None:
    """List the papers' tables, which mopo ablate --table takes: name and what it compares."""
    _list("tables", {name: summary(table_text(name)) for name in table_names()}, json)


def _list(title: str, summaries: dict[str, str], json: bool) -> None:
    width = max(map(len, summaries))
    text = "\n".join(f"{name:{width}}  {line}" for name, line in summaries.items())
    Report("json" if json else "human").result({title: summaries}, text)


@app.command("show", epilog="Example: mopo presets show quickstart > mine.yaml")
def show_preset(
    name: Annotated[str, typer.Argument(metavar="NAME", help="a name from mopo presets ls, methods or tables")],
    json: Json = False,
) -> None:
    """Print a preset's or a method's YAML, fit to be edited and given to --config; or what a table compares."""
    settings: dict[str, Any]
    if name in method_names():
        text, settings = method_text(name), load_method(name)
    elif name in table_names():
        text, settings = table_text(name), load_table(name).model_dump(mode="json")
    else:
        text, settings = preset_text(name), load_preset(name)
    Report("json" if json else "human").result({"name": name, "settings": settings}, text.rstrip())
