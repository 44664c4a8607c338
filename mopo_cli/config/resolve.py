"""Where each setting's value comes from: default < preset < method < file < flag.

What a preset or a file says of one method counts after what it says of all.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from reprlib import repr as short_repr
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from mopo_cli.config.fields import Settings
from mopo_cli.config.learners import fitting, of_algorithms, with_own
from mopo_cli.config.presets import (
    Sections,
    find_preset,
    load_method,
    load_preset,
    load_preset_method,
    method_names,
    parse_file,
)
from mopo_cli.config.schema import STAGES, Ablate, FetchData, SelectElites, TrainModel, TrainPolicy
from mopo_cli.errors import InputError, SettingsError, UsageError

S = TypeVar("S", bound=Settings)

# An ablation takes over what was set for training, but not these: they are what it is about.
INHERITED = "train-policy"
_NOT_INHERITED = ("method", "penalty", "name")
# What a settings file must not change under a method's name; a flag may, as it is in sight.
_MAKES_A_METHOD = ("algorithm", "penalty", "real_ratio", "spectral_norm", "networks", "n")

_TOLD = 30  # of the faults of a file

_WHICH_SEEDS = ("seeds", "seed_list")  # two ways to say one thing


@dataclass(frozen=True)
class Resolved(Generic[S]):
    """A stage's settings and, for each, where its value comes from.

    An origin is ``default``, ``run`` (the data set of the run), ``preset NAME``, ``method NAME``, ``preset NAME,
    method NAME`` (what the preset says of that method), a file's path, ``PATH, method NAME``, for an ablation ``PATH,
    train-policy``, or ``flag``.
    """

    settings: S
    origins: dict[str, str]


def resolve(
    stage: type[S],
    *,
    dataset: str | None = None,
    preset_name: str | None = None,
    config_file: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    method: str | None = None,
) -> Resolved[S]:
    """The settings of ``stage`` (a model of ``schema``), with their origins.

    ``preset_name`` names the preset, else the one for ``dataset`` applies, if any; ``method`` the method, unless
    the flags do; without either the file may. ``flags`` holds the values given on the command line by field name,
    as text or typed.
    Raises SettingsError listing all faults of the preset and the file, UsageError those of the flags,
    InputError when a file or preset is missing.
    """
    flags = flags or {}
    file, of_methods = _read_config(config_file) if config_file else ({}, {})
    if stage is FetchData:
        dataset = flags.get("dataset") or file.get("fetch-data", {}).get("dataset") or dataset
    found = None if preset_name else find_preset(dataset) if dataset else None
    layers: list[tuple[str, dict[str, Any]]] = []
    if stage is FetchData and dataset:
        layers.append(("run", {"dataset": dataset}))
    if name := preset_name or found:
        values = _values(checked(load_preset(name), f"preset {name}"), stage)
        if found:
            values.pop("dataset", None)  # the user's own word for it may name a version
        layers.append((f"preset {name}", values))
    if (method := _method(stage, flags, file, method)) is not None:
        layers += _method_layers(stage, method, name)
        refuse_contradiction(stage, method, _values(file, stage), str(config_file))
    if config_file and stage is Ablate:
        layers.append((f"{config_file}, {INHERITED}", _values({INHERITED: file.get(INHERITED, {})}, stage)))
        layers.append((str(config_file), file.get("ablate", {})))
    elif config_file:
        layers.append((str(config_file), _values(file, stage)))
    if method in of_methods:
        layers.append((f"{config_file}, method {method}", _values(of_methods[method], stage)))
    check_flags(stage, flags)
    layers.append(("flag", dict(flags)))

    merged, origins = _merged(layers)
    stage = with_own(stage, str(merged.get("algorithm", "sac")))
    return Resolved(
        settings=build(stage, merged, flags, origins),
        origins={field: origins.get(field, "default") for field in stage.model_fields},
    )


def _merged(layers: list[tuple[str, dict[str, Any]]]) -> tuple[dict[str, Any], dict[str, str]]:
    """The values that count, and the layers they come from: each counts before those above it."""
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for label, values in layers:
        if any(field in values for field in _WHICH_SEEDS):
            if all(values.get(field) not in (None, "none") for field in _WHICH_SEEDS):
                told = "The command line" if label == "flag" else label
                raise (UsageError if label == "flag" else SettingsError)(
                    f"{told} has seeds and seed-list, which both say which seeds.", hint="leave one of them out"
                )
            for field in _WHICH_SEEDS:
                merged.pop(field, None)
                origins.pop(field, None)
        merged |= values
        origins |= dict.fromkeys(values, label)
    return merged, origins


def _method(stage: type[Settings], flags: Mapping[str, Any], file: Sections, named: str | None) -> str | None:
    """The one method that a stage's settings are for: the command line's, else the file's."""
    if stage is Ablate:
        return None
    method = flags.get("method") or named or file.get("train-policy", {}).get("method")
    return None if method in (None, "none") else str(method)


def _method_layers(stage: type[Settings], method: str, preset: str | None) -> list[tuple[str, dict[str, Any]]]:
    label = f"method {method}"
    own = _values(checked(load_method(method), label), stage)
    if stage is TrainPolicy:
        own["method"] = method
    layers = [(label, own)]
    if preset:
        label = f"preset {preset}, {label}"
        layers.append((label, _values(checked(load_preset_method(preset, method), label), stage)))
    return layers


def refuse_contradiction(stage: type[Settings], method: str, values: Mapping[str, Any], where: str) -> None:
    """Raises SettingsError where ``values`` say otherwise what makes the method what its name says."""
    for name, own in _values(load_method(method), stage).items():
        if name in _MAKES_A_METHOD and name in values:
            theirs, ours = (getattr(stage(**{name: value}), name) for value in (values[name], own))
            # A share between data and model is a choice; the one or the other alone is what the method is.
            if theirs != ours and not (name == "real_ratio" and 0 < ours < 1):
                key = name.replace("_", "-")
                raise SettingsError(
                    f"{where} has {key} {theirs}, but the method {method} is {key} {ours}.",
                    hint=f"leave {key} out there, or leave out the method",
                )


def check_flags(stage: type[Settings], flags: Mapping[str, Any], sign: str = "--") -> None:
    """Raises UsageError listing all flags whose value is not allowed; ``sign`` is what their names come after."""
    if faults := _faults(fitting(stage, flags), flags):
        sentence = _sentence("", [f"{sign}{fault}" for fault in faults])
        raise UsageError(sentence, hint=f"mopo {stage_name(stage)} --help")


def read_config(path: Path) -> Sections:
    """The sections of a user's YAML file, every key and value checked; what it says of methods is left out.

    Raises InputError when it cannot be read, SettingsError listing all its faults.
    """
    return _read_config(path)[0]


def read_method(path: Path, method: str) -> Sections:
    """The sections that a user's YAML file has for one method, empty where none. Raises as `read_config` does."""
    return _read_config(path)[1].get(method, {})


def _read_config(path: Path) -> tuple[Sections, dict[str, Sections]]:
    """The sections of a user's YAML file, and what it says of single methods by their names."""
    from mopo_cli.store.yaml_text import read_yaml_text

    try:
        text = read_yaml_text(path, "The settings file ")
    except InputError as error:
        raise InputError(error.message, hint="mopo presets ls") from error
    sections, of_methods = parse_file(text, str(path))
    for method, own in of_methods.items():
        _check_method(method, own, path)
    return checked(sections, str(path)), of_methods


def _check_method(method: str, own: Sections, path: Path) -> None:
    where = f"{path}, method {method}"
    if method not in method_names():
        close = suggestion(method, method_names())
        raise SettingsError(f"{path}: there is no method {method!r}{close}.", hint="mopo presets methods")
    checked(own, where)
    if idle := [section for section in own if section in ("fetch-data", "ablate")]:
        raise SettingsError(
            f"{where}: {idle[0]} does not depend on the method.", hint=f"a section {idle[0]} of its own"
        )
    if "method" in own.get(INHERITED, {}):
        raise SettingsError(f"{where}: a method cannot name another one.", hint="leave method out there")
    for stage in (TrainModel, SelectElites, TrainPolicy):
        refuse_contradiction(stage, method, _values(own, stage), where)


def checked(sections: Sections, label: str) -> Sections:
    """The same sections. Raises SettingsError, naming ``label`` and each key, if any is unknown or bad."""
    faults: list[str] = []
    for section, values in sections.items():
        if stage := STAGES.get(section):
            faults += [f"{section}: {fault}" for fault in _faults(fitting(stage, values), values)]
        else:
            faults.append(f"unknown section {section!r}{suggestion(section, list(STAGES))}")
    if faults:
        raise SettingsError(_sentence(label, faults), hint="mopo STAGE --help lists a stage's settings")
    return sections


def _values(sections: Sections, stage: type[Settings]) -> dict[str, Any]:
    own = dict(sections.get(stage_name(stage), {}))
    if stage is Ablate:
        training = sections.get(INHERITED, {})
        own = {key: value for key, value in training.items() if key not in _NOT_INHERITED} | own
    return own


def stage_name(stage: type[Settings]) -> str:
    """The command a settings model belongs to: ``TrainModel`` -> ``train-model``."""
    return next(name for name, model in STAGES.items() if issubclass(stage, model))


def build(
    stage: type[S], merged: dict[str, Any], flags: Mapping[str, Any], origins: Mapping[str, str] | None = None
) -> S:
    """The settings of these values, which were checked one by one: only what concerns several can be wrong by now.

    Raises UsageError, or SettingsError where none of them are ``flags``; that names where a value comes from.
    """
    if stray := [name for name in merged if name not in stage.model_fields]:
        name, hint = stray[0], "mopo presets methods lists the methods; --method NAME takes one"
        whose = (
            f"a setting of {' and '.join(of_algorithms(name))}, not of the algorithm {merged.get('algorithm', 'sac')}."
        )
        if name in flags:
            raise UsageError(f"{_flag(name)} is {whose}", hint=hint)
        raise SettingsError(f"{(origins or {}).get(name, 'A file')} has {name.replace('_', '-')}, {whose}", hint=hint)
    try:
        return stage(**merged)
    except ValidationError as error:
        missing = [str(fault["loc"][0]) for fault in error.errors() if fault["type"] == "missing"]
        if missing:
            raise UsageError(f"{_flag(missing[0])} is missing.", hint=f"mopo {stage_name(stage)} --help") from None
        sentence = _sentence("", [_describe(stage, fault) for fault in error.errors()])
        raise (UsageError if flags else SettingsError)(sentence) from None


def _faults(model: type[Settings], values: Mapping[str, Any]) -> list[str]:
    """What is wrong with single keys and values; what is missing or at odds with another comes later."""
    try:
        model(**values)
    except ValidationError as error:
        return [_describe(model, fault) for fault in error.errors() if fault["loc"] and fault["type"] != "missing"]
    return []


def _describe(model: type[Settings], fault: Any) -> str:
    if not fault["loc"]:
        return str(fault["msg"]).removeprefix("Value error, ")
    key = str(fault["loc"][0]).replace("_", "-")
    if fault["type"] == "extra_forbidden":
        known = [field.replace("_", "-") for field in model.model_fields]
        return f"unknown key {key!r}{suggestion(key, known)}"
    value = short_repr(fault["input"])
    if fault["type"] == "value_error":
        return f"{key} {str(fault['msg']).removeprefix('Value error, ')} (given: {value})"
    if fault["type"] == "string_pattern_mismatch":
        return f"{key} must be letters, digits and . _ + = - only, not {value}"
    demand = str(fault["msg"]).split(", unable to")[0]
    demand = demand.replace("Input should be", "must be").replace("String should", "must")
    return f"{key} {demand}, not {value}"


def suggestion(word: str, known: list[str]) -> str:
    """``" (did you mean 'beta'?)"``, or nothing where no known word is close."""
    close = get_close_matches(word, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _flag(field: str) -> str:
    return "--" + field.replace("_", "-")


def _sentence(where: str, faults: list[str]) -> str:
    if len(faults) == 1:
        return f"{where}: {faults[0]}." if where else f"{faults[0]}."
    rest = [f"and {len(faults) - _TOLD} more"] if len(faults) > _TOLD else []
    lines = "".join(f"\n  {fault}" for fault in [*faults[:_TOLD], *rest])
    return f"{where or 'The command line'} has {len(faults)} faults:{lines}"
