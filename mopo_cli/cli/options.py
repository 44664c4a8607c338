"""Options made from the schema: one per setting, and the few that say how to execute."""

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from mopo_cli.config.fields import Settings
from mopo_cli.config.resolve import check_flags, stage_name
from mopo_cli.errors import UsageError
from mopo_cli.report import Report
from mopo_cli.store.documents import RENAMED

_MOST_THREADS = 4096  # more than any machine has CPUs for
_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")
_METAVARS = {int: "INT", float: "FLOAT", str: "TEXT", tuple: "A,B,...", dict: "NAME=A,B,..."}


@dataclass(frozen=True)
class Call:
    """One parsed command line: ``flags`` are the settings given, as text or texts; the rest says how to execute."""

    report: Report
    flags: dict[str, Any] = field(default_factory=dict)
    run: Path | None = None
    dataset: str | None = None
    preset: str | None = None
    method: str | None = None
    config: Path | None = None
    device: str = "auto"
    threads: int | None = None
    engine: str = "auto"
    force: bool = False
    allow_mismatch: bool = False


def _flag(name: str, annotation: Any, help: str, metavar: str | None = None, default: Any = None) -> Any:
    option = typer.Option(
        "--" + name.replace("_", "-"),
        help=help,
        metavar=metavar or "",
        show_default=False,
        rich_help_panel="How to execute",
    )
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[annotation, option]
    )


ENGINES = ("auto", "eager", "cudagraph")
_ENGINE_HELP = "how gradient steps are taken; cudagraph, which auto is on a GPU, records and replays them"
_RUN_HELP = "the run folder (default: runs/DATA-SET, else $MOPO_RUN, else the run named last)"

EXECUTION: dict[str, inspect.Parameter] = {
    parameter.name: parameter
    for parameter in (
        _flag("run", Path | None, _RUN_HELP, "PATH"),
        _flag("dataset", str | None, "the data set whose run is meant", "NAME"),
        _flag("preset", str | None, "settings to start from (default: the data set's own preset)", "NAME"),
        _flag("method", str | None, "method of a paper to take settings from (mopo presets methods)", "NAME"),
        _flag("config", Path | None, "YAML file of settings: beats the preset, flags beat it", "FILE"),
        _flag("device", str, "auto, cpu, cuda, cuda:1, ... (default auto)", "DEVICE", "auto"),
        _flag("threads", int | None, "CPU threads (default: left to torch)", "INT"),
        _flag("engine", str, _ENGINE_HELP, "|".join(ENGINES), "auto"),
        _flag("force", bool, "redo the stage even if it is up to date", default=False),
        _flag("allow_mismatch", bool, "use inputs made from other data, with a warning", default=False),
        _flag("json", bool, "print one JSON object on stdout and nothing else there", default=False),
    )
}


def setting_help(stage: type[Settings], name: str) -> str:
    """A setting's help text: what it is, its default and its source."""
    info = stage.model_fields[name]
    default = "required" if info.is_required() else f"default {show(info.default)}"
    extra = info.json_schema_extra
    source = extra.get("source") if isinstance(extra, dict) else ""
    return f"{info.description} ({'; '.join(part for part in (default, str(source or '')) if part)})"


def show(value: Any) -> str:
    """A setting's value as one writes it on the command line."""
    if isinstance(value, dict):
        value = [f"{name.replace('_', '-')}={show(values)}" for name, values in value.items()]
    if isinstance(value, tuple | list):
        return ",".join(show(item) for item in value) or "none"
    return f"{value:g}" if isinstance(value, float) else "none" if value is None else str(value)


def command(
    stage: type[Settings] | None = None, *, only: tuple[str, ...] = (), without: tuple[str, ...] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a function of a ``Call`` the signature Typer reads: an option per setting of ``stage``.

    ``only`` names the settings to offer, empty for all; ``without`` the execution options to leave out. The
    function's own parameters but the first (its ``Call``) come before them.
    """
    fields = {name: info for name, info in _fields(stage).items() if not only or name in only}
    settings = [
        option(name, setting_help(stage, name), metavar(info.annotation)) for name, info in fields.items() if stage
    ]
    renamed = {old: name for old, name in RENAMED.get(stage_name(stage), {}).items() if name in fields} if stage else {}
    settings += [option(old, "", "", hidden=True) for old in renamed]
    execution = [option for name, option in EXECUTION.items() if name not in {*without, *fields}]

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(function).parameters.values())[1:]

        def invoke(**given: Any) -> None:
            arguments = {parameter.name: given.pop(parameter.name) for parameter in own}
            call = _call(given, {*given} - {*EXECUTION} | {*fields})
            _rename(call, renamed)
            if stage:
                check_flags(stage, call.flags)
            function(call, **arguments)

        parameters = [*own, *settings, *execution]
        signature = inspect.Signature(
            [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
        )
        invoke.__doc__ = function.__doc__
        invoke.__name__ = function.__name__
        invoke.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        invoke.__signature__ = signature  # type: ignore[attr-defined]
        return invoke

    return decorate


def _fields(stage: type[Settings] | None) -> dict[str, FieldInfo]:
    """The settings of a stage, its own before the inherited ones."""
    if stage is None:
        return {}
    own = [name for name in stage.model_fields if name in stage.__annotations__]
    return {name: stage.model_fields[name] for name in [*own, *stage.model_fields]}


def _rename(call: Call, renamed: dict[str, str]) -> None:
    """Let flags that are given by the names they had before count as those of now, and say so."""
    for old, name in renamed.items():
        if old in call.flags:
            before, now = (f"--{each.replace('_', '-')}" for each in (old, name))
            if name in call.flags:
                raise UsageError(f"{before} and {now} are the same setting.", hint=f"leave {before} out")
            call.flags[name] = call.flags.pop(old)
            call.report.say(f"{before} is called {now} now.")


def option(name: str, help: str, metavar: str, panel: str = "Settings", hidden: bool = False) -> inspect.Parameter:
    """A setting as a parameter. Its value arrives as text: the schema, not Typer, parses and checks it.

    One of named values may be given several times.
    """
    flag = typer.Option("--" + name.replace("_", "-"), help=help, metavar=metavar, rich_help_panel=panel, hidden=hidden)
    kind: Any = list[str] | None if metavar == _METAVARS[dict] else str | None
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, flag])


def metavar(annotation: Any) -> str:
    """What stands for a setting's value in the help."""
    origin = get_origin(annotation)
    if origin is Literal:
        return "|".join(map(str, get_args(annotation)))
    if origin in (Union, UnionType):
        return metavar(next(part for part in get_args(annotation) if part is not type(None)))
    if origin is Annotated:
        return metavar(get_args(annotation)[0])
    return _METAVARS[origin or annotation]


def _call(given: dict[str, Any], settings: set[str]) -> Call:
    flags = {name: value for name, value in given.items() if name in settings and value not in (None, [])}
    execution = {name: value for name, value in given.items() if name in EXECUTION and name not in {"json", *settings}}
    device, threads = execution.get("device", "auto"), execution.get("threads")
    if not _DEVICE.fullmatch(device):
        raise UsageError(f"--device must be auto, cpu, cuda or cuda:NUMBER, not {device!r}.")
    if execution.get("engine", "auto") not in ENGINES:
        raise UsageError(f"--engine must be {', '.join(ENGINES[:-1])} or {ENGINES[-1]}, not {execution['engine']!r}.")
    if threads is not None and threads < 1:
        raise UsageError(f"--threads must be at least 1, not {threads}.")
    if threads is not None and threads > _MOST_THREADS:
        raise UsageError(f"--threads must be at most {_MOST_THREADS}, not {threads}.")
    report = Report("json" if given.get("json") else "human")
    return Call(report=report, flags=flags, **execution)
