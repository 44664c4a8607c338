"""Checks of settings: every fault of the flags or of a file in one error, each with the closest known name."""

from collections.abc import Mapping
from reprlib import repr as short_repr
from typing import Any, TypeVar

from pydantic import ValidationError

from mopo_cli.config.fields import Settings
from mopo_cli.config.learners import algorithms_with, fitting
from mopo_cli.config.presets import Sections, suggestion
from mopo_cli.config.schema import STAGES
from mopo_cli.errors import SettingsError, UsageError
from mopo_cli.store.documents import as_flag, as_key

S = TypeVar("S", bound=Settings)

_MOST_LISTED = 30  # faults of one file


def stage_name(stage: type[Settings]) -> str:
    """The command a settings model belongs to: ``TrainModel`` -> ``train-model``."""
    return next(name for name, model in STAGES.items() if issubclass(stage, model))


def check_flags(stage: type[Settings], flags: Mapping[str, Any], prefix: str = "--") -> None:
    """Raises UsageError listing all flags whose value is not allowed; ``prefix`` is written before their names."""
    if faults := _faults(fitting(stage, flags), flags):
        sentence = _sentence("", [f"{prefix}{fault}" for fault in faults])
        raise UsageError(sentence, hint=f"mopo {stage_name(stage)} --help-all")


def checked(sections: Sections, label: str) -> Sections:
    """The same sections. Raises SettingsError, naming ``label`` and each key, if any is unknown or bad."""
    faults: list[str] = []
    for section, values in sections.items():
        if stage := STAGES.get(section):
            faults += [f"{section}: {fault}" for fault in _faults(fitting(stage, values), values)]
        else:
            faults.append(f"unknown section {section!r}{suggestion(section, list(STAGES))}")
    if faults:
        raise SettingsError(_sentence(label, faults), hint="mopo STAGE --help-all lists all settings of a stage")
    return sections


def build(
    stage: type[S], values: dict[str, Any], flags: Mapping[str, Any], origins: Mapping[str, str] | None = None
) -> S:
    """The settings of values that were checked one by one: only combinations of several can still be wrong.

    Raises UsageError, or SettingsError if none of them are ``flags``; ``origins`` says where a value comes from.
    """
    if unknown := [name for name in values if name not in stage.model_fields]:
        name, hint = unknown[0], "mopo presets methods lists the methods; --method NAME takes one"
        others, algorithm = " and ".join(algorithms_with(name)), values.get("algorithm", "sac")
        fault = f"a setting of {others}, not of the algorithm {algorithm}."
        if name in flags:
            raise UsageError(f"{as_flag(name)} is {fault}", hint=hint)
        raise SettingsError(f"{(origins or {}).get(name, 'A file')} sets {as_key(name)}, {fault}", hint=hint)
    try:
        return stage(**values)
    except ValidationError as error:
        missing = [str(fault["loc"][0]) for fault in error.errors() if fault["type"] == "missing"]
        if missing:
            raise UsageError(
                f"{as_flag(missing[0])} is missing.", hint=f"mopo {stage_name(stage)} --help-all"
            ) from None
        sentence = _sentence("", [_describe(stage, fault) for fault in error.errors()])
        raise (UsageError if flags else SettingsError)(sentence) from None


def _faults(model: type[Settings], values: Mapping[str, Any]) -> list[str]:
    """What is wrong with single keys and values; what is missing or conflicts with another is checked later."""
    try:
        model(**values)
    except ValidationError as error:
        return [_describe(model, fault) for fault in error.errors() if fault["loc"] and fault["type"] != "missing"]
    return []


def _describe(model: type[Settings], fault: Any) -> str:
    if not fault["loc"]:
        return str(fault["msg"]).removeprefix("Value error, ")
    key = as_key(str(fault["loc"][0]))
    if fault["type"] == "extra_forbidden":
        names = [as_key(field) for field in model.model_fields]
        return f"unknown key {key!r}{suggestion(key, names)}"
    value = short_repr(fault["input"])
    if fault["type"] == "value_error":
        return f"{key} {str(fault['msg']).removeprefix('Value error, ')} (got: {value})"
    if fault["type"] == "string_pattern_mismatch":
        return f"{key} must contain only letters, digits and . _ + = -, not {value}"
    rule = str(fault["msg"]).split(", unable to")[0]
    rule = rule.replace("Input should be", "must be").replace("String should", "must")
    return f"{key} {rule}, not {value}"


def _sentence(where: str, faults: list[str]) -> str:
    if len(faults) == 1:
        return f"{where}: {faults[0]}." if where else f"{faults[0]}."
    rest = [f"and {len(faults) - _MOST_LISTED} more"] if len(faults) > _MOST_LISTED else []
    lines = "".join(f"\n  {fault}" for fault in [*faults[:_MOST_LISTED], *rest])
    return f"{where or 'The command line'} has {len(faults)} errors:{lines}"
