"""Where each setting's value comes from: default < preset < method < file < flag.

What a preset or a file says of one method counts after what it says of all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from mopo_cli.config.checks import build, check_flags, checked, stage_name
from mopo_cli.config.fields import DATA_FILE, GENERATED, Settings
from mopo_cli.config.learners import with_algorithm
from mopo_cli.config.presets import (
    Sections,
    find_preset,
    load_method,
    load_preset,
    method_names,
    parse_file,
    suggestion,
)
from mopo_cli.config.schema import Ablate, SelectElites, TrainModel, TrainPolicy
from mopo_cli.config.schema_data import FetchData
from mopo_cli.errors import InputError, SettingsError, UsageError
from mopo_cli.store.documents import as_key

S = TypeVar("S", bound=Settings)

Layers = list[tuple[str, dict[str, Any]]]
"""Sources and the values they set, the weakest first."""

# An ablation inherits the settings of train-policy, but not these: they are what it compares.
INHERITED = "train-policy"
_NOT_INHERITED = ("method", "penalty", "name")
# What a settings file must not change under a method's name; a flag may, because it is visible in the command.
_MAKES_A_METHOD = ("algorithm", "penalty", "real_ratio", "spectral_norm", "networks", "n")

# Units of a user's own file may lie far apart; the papers' settings are for the data of theirs.
_OF_DATA_FILES = dict.fromkeys(("target_scale", "penalty_scale", "input_scale"), "standardised")

# The best last policies of three schedules where no paper has settings (presets/README.md, "Data of your own").
_SCHEDULE = {"actor_schedule": "cosine", "epochs": 80}
_ALGORITHM = "sac"  # whose schedule that is

_WHICH_SEEDS = ("seeds", "seed_list")  # two ways to say one thing


@dataclass(frozen=True)
class Resolved(Generic[S]):
    """A stage's settings and, for each, where its value comes from.

    An origin is ``default``, ``data file`` or ``generated data`` (the default for those), ``run`` (the data set of the
    run), ``preset NAME``, ``method NAME``, ``preset NAME, method NAME`` (what the preset says of that method), a file's
    path, ``PATH, method NAME``, for an ablation ``PATH, train-policy``, or ``flag``.
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
    data_file: bool = False,
) -> Resolved[S]:
    """The settings of ``stage`` (a model of ``schema``), with their origins.

    ``data_file``: the data are a file of the user's own, for which some defaults are others.

    ``preset_name`` names the preset, else the one for ``dataset`` applies, if any; ``method`` the method, unless
    the flags do; without either the file may. ``flags`` holds the values of the command line by field name,
    as text or typed.
    Raises SettingsError listing all faults of the preset and the file, UsageError those of the flags,
    InputError when a file or preset is missing.
    """
    flags = flags or {}
    file, of_methods = read_config(config_file) if config_file else ({}, {})
    if stage is FetchData:
        dataset = flags.get("dataset") or file.get("fetch-data", {}).get("dataset") or dataset
    automatic = None if preset_name else find_preset(dataset) if dataset else None
    layers: Layers = []
    if data_file:
        layers.append((DATA_FILE, {name: v for name, v in _OF_DATA_FILES.items() if name in stage.model_fields}))
    method = _method(stage, flags, file, method)
    if method is None and (preset_name or automatic) is None and stage in (TrainPolicy, Ablate):
        layers += _schedule(dataset, data_file, [flags, file.get(INHERITED, {}), file.get(stage_name(stage), {})])
    if stage is FetchData and dataset:
        layers.append(("run", {"dataset": dataset}))
    if name := preset_name or automatic:
        values = _values(checked(load_preset(name), f"preset {name}"), stage)
        if automatic:
            values.pop("dataset", None)  # the user's own word for it may name a version
        layers.append((f"preset {name}", values))
    if method is not None:
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
    stage = with_algorithm(stage, str(merged.get("algorithm", "sac")))
    return Resolved(
        settings=build(stage, merged, flags, origins),
        origins={field: origins.get(field, "default") for field in stage.model_fields},
    )


def _schedule(dataset: str | None, data_file: bool, settings: Sequence[Mapping[str, Any]]) -> Layers:
    """The schedule for data that no paper names, where none of these ``settings`` has methods or another algorithm."""
    chosen = {name: values[name] for values in settings for name in ("method", "algorithm") if name in values}
    if chosen.get("method") or chosen.get("algorithm", _ALGORITHM) != _ALGORITHM:
        return []
    if data_file:
        return [(DATA_FILE, _SCHEDULE)]
    return [(GENERATED, _SCHEDULE)] if dataset is not None and dataset.startswith("generate:") else []


def _merged(layers: Layers) -> tuple[dict[str, Any], dict[str, str]]:
    """The resulting values and the layer that each comes from: later layers override earlier ones."""
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for label, values in layers:
        if any(field in values for field in _WHICH_SEEDS):
            if all(values.get(field) not in (None, "none") for field in _WHICH_SEEDS):
                where, error = ("The command line", UsageError) if label == "flag" else (label, SettingsError)
                raise error(f"{where} sets both seeds and seed-list.", hint="use only one of them")
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


def _method_layers(stage: type[Settings], method: str, preset: str | None) -> Layers:
    label = f"method {method}"
    values = _values(checked(load_method(method), label), stage)
    if stage is TrainPolicy:
        values["method"] = method
    layers = [(label, values)]
    if preset:
        label = f"preset {preset}, {label}"
        layers.append((label, _values(checked(load_preset(preset, method), label), stage)))
    return layers


def refuse_contradiction(stage: type[Settings], method: str, values: Mapping[str, Any], where: str) -> None:
    """Raises SettingsError if ``values`` contradict a setting that defines the method."""
    for name, defining in _values(load_method(method), stage).items():
        if name in _MAKES_A_METHOD and name in values:
            new, old = (getattr(stage(**{name: value}), name) for value in (values[name], defining))
            # A share between data and model is a choice; the one or the other alone defines the method.
            if new != old and not (name == "real_ratio" and 0 < old < 1):
                key = as_key(name)
                raise SettingsError(
                    f"{where} has {key} {new}, but the method {method} is {key} {old}.",
                    hint=f"leave {key} out there, or leave out the method",
                )


def read_config(path: Path) -> tuple[Sections, dict[str, Sections]]:
    """The sections of a user's YAML file, and what it says of single methods by their names, all of it checked.

    Raises InputError when it cannot be read, SettingsError listing all its faults.
    """
    from mopo_cli.store.yaml_text import read_yaml_text

    try:
        text = read_yaml_text(path, "The settings file ")
    except InputError as error:
        raise InputError(error.message, hint="mopo presets ls") from error
    sections, of_methods = parse_file(text, str(path))
    for method, method_sections in of_methods.items():
        _check_method(method, method_sections, path)
    return checked(sections, str(path)), of_methods


def _check_method(method: str, sections: Sections, path: Path) -> None:
    where = f"{path}, method {method}"
    if method not in method_names():
        close = suggestion(method, method_names())
        raise SettingsError(f"{path}: there is no method {method!r}{close}.", hint="mopo presets methods")
    checked(sections, where)
    if misplaced := [section for section in sections if section in ("fetch-data", "ablate")]:
        raise SettingsError(
            f"{where}: {misplaced[0]} does not depend on the method.", hint=f"a section {misplaced[0]} of its own"
        )
    if "method" in sections.get(INHERITED, {}):
        raise SettingsError(f"{where}: a method cannot name another method.", hint="remove the key method there")
    for stage in (TrainModel, SelectElites, TrainPolicy):
        refuse_contradiction(stage, method, _values(sections, stage), where)


def _values(sections: Sections, stage: type[Settings]) -> dict[str, Any]:
    values = dict(sections.get(stage_name(stage), {}))
    if stage is Ablate:
        training = sections.get(INHERITED, {})
        values = {key: value for key, value in training.items() if key not in _NOT_INHERITED} | values
    return values
