"""Options made from the schema: one per setting, in the panels of the help, and the few that say how to execute."""

import inspect
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer

from mopo_cli.config.checks import check_flags, stage_name
from mopo_cli.config.fields import Settings, written
from mopo_cli.errors import UsageError
from mopo_cli.nets.libraries import LIBRARIES
from mopo_cli.report import Report
from mopo_cli.report.metrics import SINKS, check_sinks
from mopo_cli.stages.common.options import Options
from mopo_cli.store.documents import RENAMED, as_flag

_MOST_THREADS = 4096  # more than any machine has CPUs for
_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")
_METAVARS = {int: "INT", float: "FLOAT", str: "TEXT", tuple: "A,B,...", dict: "NAME=A,B", dict[str, Any]: "JSON"}
_OPTIONS = {field.name for field in fields(Options)}
_CHOICE = "CHOICE"
_WIDEST_METAVAR = 18  # wider ones leave too little room for the help text

_OTHER = "Settings"
_EXECUTION = "Execution"
ALGORITHMS = "Settings of single algorithms"

# Panel: the settings that --help shows, and those that only --help-all adds.
_PANELS = {
    _OTHER: ("method algorithm", ""),
    "What is learned from": (
        "real_ratio rollouts h batch actions",
        "rollout_actions rollout_batch rollout_every pool_epochs rollout_precision model_reward termination_rules"
        " judge_share",
    ),
    "The penalty": (
        "penalty lam",
        "penalty_networks penalty_scale penalty_reward oracle_prediction",
    ),
    "Schedule": (
        "epochs steps_per_epoch max_epochs patience learning_rate seeds seed_list",
        "batch_size min_gain holdout_fraction holdout_max weight_decay update_precision actor_lr actor_schedule"
        " critic_lr alpha_lr gamma tau target_entropy alpha_max log_std_min log_std_max",
    ),
    "Networks": ("networks hidden layers", "spectral_norm target_scale input_scale"),
    "Evaluation": ("eval_every eval_episodes episodes policy", ""),
}
_PLACES = {
    name: (title, hidden)
    for title, parts in _PANELS.items()
    for hidden, names in zip((False, True), parts, strict=True)
    for name in names.split()
}


@dataclass(frozen=True)
class Call:
    """One parsed command line: ``flags`` are the settings in it, as text or texts, ``options`` how to execute."""

    report: Report
    flags: dict[str, Any] = field(default_factory=dict)
    run: Path | None = None
    dataset: str | None = None
    preset: str | None = None
    method: str | None = None
    config: Path | None = None
    options: Options = field(default_factory=Options)
    more: dict[str, Any] = field(default_factory=dict)
    """The values of a command's `more` options."""


def plain_option(flag: str, help: str, metavar: str = "", panel: str | None = None, hidden: bool = False) -> Any:
    """An option that is no setting: whether, or with which value, a command does something else or more.

    A hidden one is shown by --help-all.
    """
    return typer.Option(flag, help=help, metavar=metavar, show_default=False, rich_help_panel=panel, hidden=hidden)


def option_parameter(
    name: str,
    kind: Any,
    help: str,
    metavar: str = "",
    default: Any = None,
    panel: str | None = _EXECUTION,
    hidden: bool = False,
) -> inspect.Parameter:
    """A `plain_option` as a parameter."""
    annotation = Annotated[kind, plain_option(as_flag(name), help, metavar, panel, hidden)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


ENGINES = ("auto", "eager", "cudagraph", "compile")
PRODUCTS = ("auto", *LIBRARIES)
_RUN_HELP = "run folder (default: runs/DATA-SET, $MOPO_RUN or the last one used)"
_ENGINE_HELP = "auto, eager, cudagraph (GPU: record steps, replay them) or compile (also fuse their operations)"
_PRODUCTS_HELP = "CPU library for matrix products: auto (the faster one), mkl, onednn"
_LOG_HELP = f"also send the metrics of every epoch to {', '.join(SINKS)}"
_HELP_ALL = "show all settings; or mopo presets settings [METHOD]"

EXECUTION: dict[str, inspect.Parameter] = {
    parameter.name: parameter
    for parameter in (
        option_parameter("run", Path | None, _RUN_HELP, "PATH"),
        option_parameter("dataset", str | None, "data set whose run to use", "NAME"),
        option_parameter("preset", str | None, "preset of settings (default: the data set's)", "NAME"),
        option_parameter("method", str | None, "method of a paper (mopo presets methods)", "NAME"),
        option_parameter("config", Path | None, "YAML file of settings: overrides the preset", "FILE"),
        option_parameter("device", str, "auto, cpu, cuda, cuda:1, ... (default auto)", "DEVICE", "auto"),
        option_parameter("threads", int | None, "CPU threads (default: chosen by torch)", "INT"),
        option_parameter("engine", str, _ENGINE_HELP, "ENGINE", "auto"),
        option_parameter("products", str, _PRODUCTS_HELP, "LIBRARY", "auto"),
        option_parameter("log", list[str] | None, _LOG_HELP, "A,B,..."),
        option_parameter("force", bool, "redo the stage even if it is up to date", default=False),
        option_parameter("allow_mismatch", bool, "use inputs made from other data (warns)", default=False),
        option_parameter("json", bool, "print only one JSON object on stdout", default=False),
    )
}


def command(
    stage: type[Settings] | None = None,
    *,
    only: tuple[str, ...] = (),
    execution: tuple[str, ...] = tuple(EXECUTION),
    without: tuple[str, ...] = (),
    more: tuple[inspect.Parameter, ...] = (),
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a function of a ``Call`` the signature Typer reads: an option per setting of ``stage``.

    ``only`` names the settings to offer, empty for all; ``execution`` the execution options to offer, but for those in
    ``without``; ``more`` are options that several commands share, whose values are in `Call.more`. The function's
    parameters but the first (its ``Call``) come before them.
    """
    names = in_order(only or (stage.model_fields if stage else ()))
    settings = [_setting_option(stage, name) for name in names if stage]
    renamed = {old: name for old, name in RENAMED.get(stage_name(stage), {}).items() if name in names} if stage else {}
    settings += [setting_parameter(old, "", "", hidden=True) for old in renamed]
    help_all = [option_parameter("help_all", bool, _HELP_ALL, default=False, panel=None)]
    offered = [EXECUTION[name] for name in execution if name not in {*without, *names}]

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        extra = list(inspect.signature(function).parameters.values())[1:]

        def invoke(help_all: bool = False, **values: Any) -> None:
            arguments = {parameter.name: values.pop(parameter.name) for parameter in extra}
            shared = {parameter.name: values.pop(parameter.name) for parameter in more}
            call = replace(_call(values, {*values} - {*EXECUTION} | {*names}), more=shared)
            _rename(call, renamed)
            if stage:
                check_flags(stage, call.flags)
            function(call, **arguments)

        has_hidden = any(place(name)[1] for name in names)
        parameters = [*extra, *more, *(help_all if has_hidden else []), *settings, *offered]
        signature = inspect.Signature(
            [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
        )
        invoke.__doc__ = function.__doc__
        invoke.__name__ = function.__name__
        invoke.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        invoke.__signature__ = signature  # type: ignore[attr-defined]
        return invoke

    return decorate


def place(name: str) -> tuple[str, bool]:
    """A setting's panel, and whether only ``--help-all`` shows it; a setting of no panel is shown in `_OTHER`."""
    return _PLACES.get(name, (_OTHER, False))


def in_order(names: Iterable[str]) -> list[str]:
    """Settings panel by panel, in a panel as listed above; those of no panel stay in their order."""
    titles, listed = list(_PANELS), list(_PLACES)
    ranks = {name: listed.index(name) if name in listed else len(listed) for name in names}
    return sorted(ranks, key=lambda name: (titles.index(place(name)[0]), ranks[name]))


def _setting_option(stage: type[Settings], name: str) -> inspect.Parameter:
    """The option of a setting, whose help says what it is, its default and its source."""
    info = stage.model_fields[name]
    shown, extra = metavar(info.annotation), info.json_schema_extra
    others = [choice for choice in _choices(info.annotation) if choice != info.default] if shown == _CHOICE else []
    about = (
        "required" if info.is_required() else f"default {written(info.default)}",
        f"or {', '.join(others)}" if others else "",
        str(extra.get("source") or "") if isinstance(extra, dict) else "",
    )
    panel, hidden = place(name)
    return setting_parameter(name, f"{info.description} ({'; '.join(filter(None, about))})", shown, panel, hidden)


def _rename(call: Call, renamed: dict[str, str]) -> None:
    """Let flags that have an old name count under the new one, and say so."""
    for old, name in renamed.items():
        if old in call.flags:
            before, now = (as_flag(each) for each in (old, name))
            if name in call.flags:
                raise UsageError(f"{before} and {now} are the same setting.", hint=f"leave {before} out")
            call.flags[name] = call.flags.pop(old)
            call.report.say(f"{before} is called {now} now.")


def setting_parameter(
    name: str, help: str, metavar: str, panel: str = _OTHER, hidden: bool = False
) -> inspect.Parameter:
    """A setting as a parameter. Its value arrives as text: the schema, not Typer, parses and checks it.

    One of named values may be repeated.
    """
    flag = typer.Option(as_flag(name), help=help, metavar=metavar, rich_help_panel=panel, hidden=hidden)
    kind: Any = list[str] | None if metavar == _METAVARS[dict] else str | None
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, flag])


def metavar(annotation: Any) -> str:
    """What stands for a setting's value in the help."""
    if choices := _choices(annotation):
        return text if len(text := "|".join(choices)) <= _WIDEST_METAVAR else _CHOICE
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        return metavar(next(part for part in get_args(annotation) if part is not type(None)))
    if origin is Annotated:
        return metavar(get_args(annotation)[0])
    return _METAVARS.get(annotation) or _METAVARS[origin or annotation]


def _choices(annotation: Any) -> list[str]:
    return [str(choice) for choice in get_args(annotation)] if get_origin(annotation) is Literal else []


def _call(values: dict[str, Any], settings: set[str]) -> Call:
    flags = {name: value for name, value in values.items() if name in settings and value not in (None, [])}
    execution = {name: value for name, value in values.items() if name in EXECUTION and name not in {"json", *settings}}
    device, threads = execution.get("device", "auto"), execution.get("threads")
    if not _DEVICE.fullmatch(device):
        raise UsageError(f"--device must be auto, cpu, cuda or cuda:NUMBER, not {device!r}.")
    for name, choices in (("engine", ENGINES), ("products", PRODUCTS)):
        if (value := execution.get(name, "auto")) not in choices:
            raise UsageError(f"--{name} must be {', '.join(choices[:-1])} or {choices[-1]}, not {value!r}.")
    if threads is not None and threads < 1:
        raise UsageError(f"--threads must be at least 1, not {threads}.")
    if threads is not None and threads > _MOST_THREADS:
        raise UsageError(f"--threads must be at most {_MOST_THREADS}, not {threads}.")
    if log := execution.pop("log", None):
        execution["log"] = tuple(dict.fromkeys(",".join(log).split(",")))
        check_sinks("--log", execution["log"])
    report = Report("json" if values.get("json") else "human")
    options = Options(**{name: execution.pop(name) for name in _OPTIONS & {*execution}})
    return Call(report=report, flags=flags, options=options, **execution)
