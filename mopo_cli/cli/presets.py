"""``mopo presets ls``, ``mopo presets methods``, ``... tables``, ``... settings`` and ``... show NAME``"""

from typing import Annotated, Any

import typer
from pydantic.fields import FieldInfo

from mopo_cli.cli.options import Call, command
from mopo_cli.config.fields import written
from mopo_cli.config.learners import settings_of_all
from mopo_cli.config.paper_tables import load_table
from mopo_cli.config.presets import load_method, load_preset, names_of, preset_names, preset_text, summary, text_of
from mopo_cli.config.resolve import resolve
from mopo_cli.config.schema import STAGES, PolicyTraining
from mopo_cli.report.tables import columns
from mopo_cli.store.documents import as_key

Row = dict[str, Any]

_METHOD_FREE = ("fetch-data", "ablate")  # stages that do not depend on a method

app = typer.Typer(help="Show the settings that come with mopo, for data sets and methods.", no_args_is_help=False)


@app.command("ls", epilog="Example: mopo presets ls")
@command(execution=("json",))
def list_presets(call: Call) -> None:
    """List the presets."""
    _list("presets", {name: summary(preset_text(name)) for name in preset_names()}, call)


@app.command("methods", epilog="Example: mopo presets methods")
@command(execution=("json",))
def list_methods(call: Call) -> None:
    """List the methods of the papers, for --method."""
    _list("methods", {name: summary(text_of("method", name)) for name in names_of("method")}, call)


@app.command("tables", epilog="Example: mopo presets tables")
@command(execution=("json",))
def list_tables(call: Call) -> None:
    """List the tables of the papers, for mopo ablate --table."""
    _list("tables", {name: summary(text_of("table", name)) for name in names_of("table")}, call)


def _list(title: str, summaries: dict[str, str], call: Call) -> None:
    call.report.result({title: summaries}, "\n".join(columns(list(summaries.items()))))


@app.command("settings", epilog="Examples: mopo presets settings; mopo presets settings mopo")
@command(execution=("json",))
def list_settings(
    call: Call,
    method: Annotated[
        str | None,
        typer.Argument(metavar="[METHOD]", help="a name from mopo presets methods", show_default=False),
    ] = None,
) -> None:
    """List every setting with its default and source; with METHOD also its value in that method."""
    rows = _method_rows(method) if method else _setting_rows()
    names = ("setting", *(("value", "from") if method else ()), "default", "source")
    call.report.result({"method": method, "settings": rows}, _setting_text(rows, names))


@app.command("show", epilog="Example: mopo presets show quickstart > mine.yaml")
@command(execution=("json",))
def show_preset(
    call: Call,
    name: Annotated[str, typer.Argument(metavar="NAME", help="a name from mopo presets ls, methods or tables")],
) -> None:
    """Print the YAML of a preset, method or table; edit it and use it with --config."""
    settings: dict[str, Any]
    if name in names_of("method"):
        text, settings = text_of("method", name), load_method(name)
    elif name in names_of("table"):
        text, settings = text_of("table", name), load_table(name).model_dump(mode="json")
    else:
        text, settings = preset_text(name), load_preset(name)
    call.report.result({"name": name, "settings": settings}, text.rstrip())


def _method_rows(method: str) -> list[Row]:
    """A row per setting of a method, by stage. UsageError, listing the known ones, for an unknown method."""
    rows = []
    for stage, kind in STAGES.items():
        if stage not in _METHOD_FREE:
            resolved = resolve(kind, method=method)
            fields, values = type(resolved.settings).model_fields, resolved.settings.model_dump()
            rows += [_row(stage, name, fields[name], values[name], resolved.origins[name]) for name in fields]
    return rows


def _setting_rows() -> list[Row]:
    """A row per setting, by stage; then those of single algorithms."""
    rows = []
    for stage, kind in STAGES.items():
        inherited = PolicyTraining.model_fields if stage == "ablate" else {}
        rows += [_row(stage, name, field) for name, field in kind.model_fields.items() if name not in inherited]
    for name, by_algorithm in settings_of_all().items():
        rows += [_row(f"train-policy, {algorithm}", name, field) for algorithm, (_, field) in by_algorithm.items()]
    return rows


def _setting_text(rows: list[Row], names: tuple[str, ...]) -> str:
    """The cells ``names`` of the rows as text, a block per stage."""
    lines: list[str] = []
    for stage in dict.fromkeys(row["stage"] for row in rows):
        cells = [[row[name] for name in names] for row in rows if row["stage"] == stage]
        lines += ["", stage, *columns([names, *cells], indent="  ")]
    return "\n".join(lines[1:])


def _row(stage: str, name: str, field: FieldInfo, value: Any = None, origin: str = "default") -> Row:
    default = "required" if field.is_required() else written(field.default)
    extra = field.json_schema_extra
    return {
        "stage": stage,
        "setting": as_key(name),
        "value": default if origin == "default" else written(value),
        "from": origin,
        "default": default,
        "source": extra.get("source", "") if isinstance(extra, dict) else "",
    }
