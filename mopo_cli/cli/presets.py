"""``mopo presets ls``, ``mopo presets methods``, ``... tables``, ``... settings`` and ``... show NAME``"""

from typing import Annotated, Any

import typer

from mopo_cli.cli.columns import columns
from mopo_cli.cli.options import Json
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

app = typer.Typer(help="Show the settings that come with mopo, for data sets and methods.", no_args_is_help=False)


@app.command("ls", epilog="Example: mopo presets ls")
def list_presets(json: Json = False) -> None:
    """List the presets."""
    _list("presets", {name: preset_summary(name) for name in preset_names()}, json)


@app.command("methods", epilog="Example: mopo presets methods")
def list_methods(json: Json = False) -> None:
    """List the methods of the papers, for --method."""
    _list("methods", {name: summary(method_text(name)) for name in method_names()}, json)


@app.command("tables", epilog="Example: mopo presets tables")
def list_tables(json: Json = False) -> None:
    """List the tables of the papers, for mopo ablate --table."""
    _list("tables", {name: summary(table_text(name)) for name in table_names()}, json)


def _list(title: str, summaries: dict[str, str], json: bool) -> None:
    Report("json" if json else "human").result({title: summaries}, "\n".join(columns(list(summaries.items()))))


@app.command("settings", epilog="Examples: mopo presets settings; mopo presets settings mopo")
def list_settings(
    method: Annotated[
        str | None,
        typer.Argument(metavar="[METHOD]", help="a name from mopo presets methods", show_default=False),
    ] = None,
    json: Json = False,
) -> None:
    """List every setting with its default and source; with METHOD also its value in that method."""
    from mopo_cli.cli.setting_table import method_rows, setting_rows, setting_text

    rows = method_rows(method) if method else setting_rows()
    names = ("setting", *(("value", "from") if method else ()), "default", "source")
    Report("json" if json else "human").result({"method": method, "settings": rows}, setting_text(rows, names))


@app.command("show", epilog="Example: mopo presets show quickstart > mine.yaml")
def show_preset(
    name: Annotated[str, typer.Argument(metavar="NAME", help="a name from mopo presets ls, methods or tables")],
    json: Json = False,
) -> None:
    """Print the YAML of a preset, method or table; edit it and use it with --config."""
    settings: dict[str, Any]
    if name in method_names():
        text, settings = method_text(name), load_method(name)
    elif name in table_names():
        text, settings = table_text(name), load_table(name).model_dump(mode="json")
    else:
        text, settings = preset_text(name), load_preset(name)
    Report("json" if json else "human").result({"name": name, "settings": settings}, text.rstrip())
