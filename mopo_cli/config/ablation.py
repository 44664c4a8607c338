"""The cells of an ablation: the settings of every policy it compares."""

import re
from collections.abc import Callable, Iterable
from functools import cache
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from mopo_cli.agents.algorithms import NAMES, load
from mopo_cli.config.checks import build, check_flags
from mopo_cli.config.fields import DATA_FILE, GENERATED, mark, word
from mopo_cli.config.learners import algorithms_with, settings_of_all, with_algorithm
from mopo_cli.config.presets import find_preset, load_method, load_preset, suggestion
from mopo_cli.config.resolve import INHERITED, read_config, refuse_contradiction
from mopo_cli.config.schema import STAGES, Ablate, Imagination, PolicyTraining, TrainPolicy
from mopo_cli.errors import SettingsError, UsageError
from mopo_cli.store.documents import as_flag, as_key

MOST_CELLS = 10_000
"""More would train for years; each cell needs a folder and is compared with all others."""

Settle = Callable[[dict[str, object]], TrainPolicy]
"""Resolves flags of train-policy to its settings."""

Point = dict[str, Any]
"""One value of each axis of the grid that has an effect on a policy, by setting."""

_METHODS = "mopo presets methods lists the methods; --method A,B compares some"
_NOT_BY_USER = re.compile(rf"default|run|{DATA_FILE}|{GENERATED}|(preset|method) .*")

# Settings that cannot be an axis of --grid, and why.
_NO_AXIS = {
    "method": "methods are compared with --method A,B",
    "algorithm": "algorithms are compared by their methods, with --method A,B",
    "penalty": "penalties are compared with --penalty A,B",
    "lam": "its values are compared with --lam A,B",
    "h": "its values are compared with --h A,B",
    "seeds": "all cells use the same seeds: --seeds N",
    "seed_list": "all cells use the same seeds: --seed-list A,B",
    "name": "cells are named after the settings that differ",
    "eval_every": "it does not change what is learned",
    "eval_episodes": "it does not change what is learned",
}
_FOR_MODEL_ROWS = {
    *Imagination.model_fields,
    *("real_ratio", "rollouts", "rollout_actions", "rollout_batch", "rollout_every", "pool_epochs"),
    "oracle_prediction",
}


def set_by_user(origins: dict[str, str]) -> set[str]:
    """The settings that the user set, by flag or file."""
    return {name for name, origin in origins.items() if not _NOT_BY_USER.fullmatch(origin)}


def set_for_all(origins: dict[str, str]) -> set[str]:
    """Those that hold for every method: without what a file sets for train-policy, which methods may override."""
    return {name for name in set_by_user(origins) if not origins[name].endswith(f", {INHERITED}")}


def check_grid(settings: Ablate, origins: dict[str, str]) -> None:
    """Raises UsageError for an axis that --grid cannot have or a value that is not allowed.

    SettingsError if there are more cells than anybody could train.
    """
    for name, values in settings.grid.items():
        if name not in TrainPolicy.model_fields and not algorithms_with(name):
            names = {*TrainPolicy.model_fields, *settings_of_all()}
            close = suggestion(as_key(name), sorted(map(as_key, names)))
            raise UsageError(f"--grid: unknown setting {as_key(name)!r}{close}.", hint="mopo train-policy --help-all")
        if name in _NO_AXIS:
            raise UsageError(f"--grid cannot have {as_key(name)}: {_NO_AXIS[name]}.", hint="mopo ablate --help")
        if origins.get(name) == "flag":
            raise UsageError(f"{as_flag(name)} is an axis of --grid too: set it only once.")
        for value in values:
            check_flags(TrainPolicy, {name: value}, "--grid ")
        if len({word(value) for value in values}) < len(values):
            raise UsageError(f"--grid {as_key(name)} has a value twice.")
    lists = ("method", *({"lam", "h"} & set_for_all(origins))) if settings.method else ("penalty", "lam", "h")
    axes = {name: getattr(settings, name) for name in lists} | settings.grid
    if (count := prod(map(len, axes.values()))) > MOST_CELLS:
        longest = max(axes, key=lambda name: len(axes[name]))
        raise SettingsError(
            f"The grid has {count:,} cells, but at most {MOST_CELLS:,} can be compared.",
            hint=f"use fewer values of {as_key(longest)}: it has {len(axes[longest]):,}",
        )


def grid(settings: Ablate) -> tuple[TrainPolicy, ...]:
    """A cell per penalty, point of the grid, h and lam; only one where some of these have no effect.

    Penalty ``none`` has no lam, and without model rows there is neither penalty nor h. Raises UsageError for
    settings that conflict, and for an axis that has no effect on any cell.
    """
    kind = with_algorithm(TrainPolicy, settings.algorithm)
    shared = settings.model_dump(exclude={"method", "penalty", "lam", "h", "name", "grid"})
    points = _points(settings, build(kind, shared, {}))
    cells: dict[str, TrainPolicy] = {}
    for penalty, point in product(settings.penalty, points):
        plain = build(kind, {**shared, "penalty": penalty, **point}, point)
        if not plain.has_model_rows:
            plain = plain.model_copy(update={"penalty": "none"})
        horizons = settings.h if plain.has_model_rows else settings.h[:1]
        weights = settings.lam if plain.penalty != "none" else settings.lam[:1]
        variants = [_named(plain.model_copy(update={"lam": lam, "h": h}), point) for h in horizons for lam in weights]
        cells |= {cell.policy_name(): cell for cell in variants}
    _refuse_idle_axes(settings, points, f"the algorithm {settings.algorithm}")
    return tuple(cells.values())


def method_cells(settings: Ablate, origins: dict[str, str], settle: Settle) -> tuple[TrainPolicy, ...]:
    """A cell per method and point of the grid, with the method's settings except those that the user set.

    ``settle`` resolves a method's settings. If lam or h were set, there is a cell for each of their values that has
    an effect on the method. Raises as `grid` does.
    """
    by_user = set_for_all(origins)
    values = settings.model_dump()
    shared = {name: values[name] for name in PolicyTraining.model_fields if name in by_user}
    cells: list[TrainPolicy] = []
    all_points: list[Point] = []
    for method in settings.method:
        refuse_contradiction(TrainPolicy, method, shared, "The ablation")
        base = settle({**shared, "method": method})
        points = _points(settings, base)
        all_points += points
        for point in points:
            plain = build(type(base), {**base.model_dump(), **point}, point)
            weights = settings.lam if "lam" in by_user and plain.penalty != "none" else (plain.lam,)
            horizons = settings.h if "h" in by_user and plain.needs_model else (plain.h,)
            cells += [_named(plain.model_copy(update={"lam": lam, "h": h}), point) for h in horizons for lam in weights]
    _refuse_idle_axes(settings, all_points, ", ".join(settings.method))
    _refuse_idle_lists(settings, by_user, cells)
    return tuple(cells)


def named_after(settings: TrainPolicy, differing: Iterable[str]) -> str:
    """The policy's default name with the settings ``differing``: ``combo_h5_beta0.5``."""
    marks = (mark(name, [getattr(settings, name)]) for name in differing)
    return settings.model_copy(update={"name": None}).policy_name() + "".join(marks)


def axis_values(settings: Ablate, cell: TrainPolicy) -> dict[str, Any]:
    """A cell's value on each axis of the grid; None where the axis has no effect on it, "none" where it is None."""
    return {
        name: (value if (value := getattr(cell, name)) is not None else "none")
        if name == "real_ratio" or _matters(name, cell)
        else None
        for name in settings.grid
    }


def _points(settings: Ablate, base: TrainPolicy) -> list[Point]:
    """The points of the grid, without the axes that have no effect on what ``base`` trains."""
    axes = {name: values for name, values in settings.grid.items() if _matters(name, base)}
    return [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]


def _matters(name: str, settings: TrainPolicy) -> bool:
    if name in _FOR_MODEL_ROWS:
        return settings.has_model_rows
    return name not in _of_single_algorithms() or name in load(settings.algorithm).settings.__dataclass_fields__


@cache
def _of_single_algorithms() -> set[str]:
    """The settings that some algorithms use and others ignore."""
    from mopo_cli.agents.schedule import LoopSettings

    fields = {name for algorithm in NAMES for name in load(algorithm).settings.__dataclass_fields__}
    return fields - {*LoopSettings.__dataclass_fields__} - _FOR_MODEL_ROWS


def _refuse_idle_axes(settings: Ablate, points: list[Point], compared: str) -> None:
    for name in settings.grid:
        if not any(name in point for point in points):
            algorithms = algorithms_with(name)
            reason = f"it is a setting of {' and '.join(algorithms)}" if algorithms else "it has no effect there"
            if name in _FOR_MODEL_ROWS:
                reason = "it applies to model rows only"
            raise UsageError(f"--grid {as_key(name)} does not apply to {compared}: {reason}.", hint=_METHODS)


def _refuse_idle_lists(settings: Ablate, by_user: set[str], cells: list[TrainPolicy]) -> None:
    for name, values, has_effect, reason in (
        ("lam", settings.lam, any(cell.penalty != "none" for cell in cells), "none of them has a penalty"),
        ("h", settings.h, any(cell.needs_model for cell in cells), "none of them uses the model"),
    ):
        if name in by_user and len(values) > 1 and not has_effect:
            raise UsageError(f"--{name} does not apply to {', '.join(settings.method)}: {reason}.", hint=_METHODS)


def _named(settings: TrainPolicy, point: Point) -> TrainPolicy:
    return settings.model_copy(update={"name": named_after(settings, point) if point else None})


def method_demands(
    method: str, preset: str | None, dataset: str | None, file: Path | None = None
) -> dict[str, dict[str, Any]]:
    """The settings that a method requires of the stages before ``train-policy``, by stage, checked.

    They come from the method, the preset for it and the settings file for it. Raises what `read_config` does.
    """
    preset = preset or (find_preset(dataset) if dataset else None)
    sections = [load_method(method), *([load_preset(preset, method)] if preset else [])]
    sections += [read_config(file)[1].get(method, {})] if file else []
    demands: dict[str, dict[str, Any]] = {}
    for stage in ("train-model", "select-elites"):
        values = {name: value for section in sections for name, value in section.get(stage, {}).items()}
        checked = STAGES[stage](**values)
        demands[stage] = {name: getattr(checked, name) for name in values}
    return demands
