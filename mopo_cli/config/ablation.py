"""The cells of an ablation: the settings of every policy it compares."""

import re
from collections.abc import Callable, Iterable
from functools import cache
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from mopo_cli.agents.algorithms import NAMES, load
from mopo_cli.config.axes import mark, word
from mopo_cli.config.learners import of_algorithms, own_settings, with_own
from mopo_cli.config.presets import find_preset, load_method, load_preset_method
from mopo_cli.config.resolve import INHERITED, build, check_flags, read_method, refuse_contradiction, suggestion
from mopo_cli.config.schema import STAGES, Ablate, Imagination, PolicyTraining, TrainPolicy
from mopo_cli.errors import SettingsError, UsageError

MOST_CELLS = 10_000
"""So many that years go by before all are trained; each needs a folder, and to be compared with all others."""

Settle = Callable[[dict[str, object]], TrainPolicy]
"""From flags of train-policy to its settings."""

Point = dict[str, Any]
"""One value of each axis of the grid that means something to a policy, by setting."""

_METHODS = "mopo presets methods lists the methods; --method A,B compares some"
_OF_MOPO = re.compile(r"default|run|(preset|method) .*")

# Settings that are no axis of --grid, and why.
_NO_AXIS = {
    "method": "methods are compared with --method A,B",
    "algorithm": "algorithms are compared by their methods, with --method A,B",
    "penalty": "penalties are compared with --penalty A,B",
    "lam": "its values are compared with --lam A,B",
    "h": "its values are compared with --h A,B",
    "seeds": "all cells have the same, with --seeds N",
    "seed_list": "all cells have the same, with --seed-list A,B",
    "name": "cells are named after what differs",
    "eval_every": "it changes nothing that is learned",
    "eval_episodes": "it changes nothing that is learned",
}
_OF_MODEL_ROWS = {
    *Imagination.model_fields,
    *("real_ratio", "rollouts", "rollout_actions", "rollout_batch", "rollout_every", "pool_epochs"),
    "oracle_prediction",
}


def given(origins: dict[str, str]) -> set[str]:
    """The settings that the user gave, by flag or file."""
    return {name for name, origin in origins.items() if not _OF_MOPO.fullmatch(origin)}


def given_for_all(origins: dict[str, str]) -> set[str]:
    """Those that hold whatever the method; what a file says of train-policy is settled with what it says of methods."""
    return {name for name in given(origins) if not origins[name].endswith(f", {INHERITED}")}


def check_grid(settings: Ablate, origins: dict[str, str]) -> None:
    """Raises UsageError for an axis of the grid that can be none, or is given a value that is not allowed.

    SettingsError where there are more points than anybody could train a policy for.
    """
    for name, values in settings.grid.items():
        if name not in TrainPolicy.model_fields and not of_algorithms(name):
            own = {own for algorithm in NAMES for own in own_settings(algorithm)}
            close = suggestion(_key(name), sorted(map(_key, own.union(TrainPolicy.model_fields))))
            raise UsageError(f"--grid: unknown setting {_key(name)!r}{close}.", hint="mopo train-policy --help")
        if name in _NO_AXIS:
            raise UsageError(f"--grid cannot have {_key(name)}: {_NO_AXIS[name]}.", hint="mopo ablate --help")
        if origins.get(name) == "flag":
            raise UsageError(f"--{_key(name)} is an axis of --grid, too: give it once.")
        for value in values:
            check_flags(TrainPolicy, {name: value}, "--grid ")
        if len({word(value) for value in values}) < len(values):
            raise UsageError(f"--grid {_key(name)} must not have a value twice.")
    lists = ("method", *({"lam", "h"} & given_for_all(origins))) if settings.method else ("penalty", "lam", "h")
    axes = {name: getattr(settings, name) for name in lists} | settings.grid
    if (count := prod(map(len, axes.values()))) > MOST_CELLS:
        longest = max(axes, key=lambda name: len(axes[name]))
        raise SettingsError(
            f"The grid has {count:,} cells, and at most {MOST_CELLS:,} can be compared.",
            hint=f"fewer values of {_key(longest)}, which has {len(axes[longest]):,}",
        )


def grid(settings: Ablate) -> tuple[TrainPolicy, ...]:
    """A cell per penalty, point of the grid, h and lam, but one where some of these mean nothing.

    Penalty ``none`` has no lam, and without model rows there is neither penalty nor h. Raises UsageError for
    settings that do not go together, and for an axis that means nothing to any cell.
    """
    kind = with_own(TrainPolicy, settings.algorithm)
    shared = settings.model_dump(exclude={"method", "penalty", "lam", "h", "name", "grid"})
    points = _points(settings, build(kind, shared, {}))
    cells: dict[str, TrainPolicy] = {}
    for penalty, point in product(settings.penalty, points):
        plain = build(kind, {**shared, "penalty": penalty, **point}, point)
        if not plain.has_model_rows:
            plain = plain.model_copy(update={"penalty": "none"})
        horizons = settings.h if plain.has_model_rows else settings.h[:1]
        weights = settings.lam if plain.penalty != "none" else settings.lam[:1]
        made = [_named(plain.model_copy(update={"lam": lam, "h": h}), point) for h in horizons for lam in weights]
        cells |= {cell.policy_name(): cell for cell in made}
    _refuse_idle_axes(settings, points, f"the algorithm {settings.algorithm}")
    return tuple(cells.values())


def method_cells(settings: Ablate, origins: dict[str, str], settle: Settle) -> tuple[TrainPolicy, ...]:
    """A cell per method and point of the grid, with the method's own settings but where the user gave others.

    ``settle`` knows the method's. Where lam or h were given, a cell for each of their values that means something
    to the method. Raises as `grid` does.
    """
    own = given_for_all(origins)
    values = settings.model_dump()
    shared = {name: values[name] for name in PolicyTraining.model_fields if name in own}
    cells: list[TrainPolicy] = []
    met: list[Point] = []
    for method in settings.method:
        refuse_contradiction(TrainPolicy, method, shared, "The ablation")
        base = settle({**shared, "method": method})
        points = _points(settings, base)
        met += points
        for point in points:
            plain = build(type(base), {**base.model_dump(), **point}, point)
            weights = settings.lam if "lam" in own and plain.penalty != "none" else (plain.lam,)
            horizons = settings.h if "h" in own and plain.needs_model else (plain.h,)
            cells += [_named(plain.model_copy(update={"lam": lam, "h": h}), point) for h in horizons for lam in weights]
    _refuse_idle_axes(settings, met, ", ".join(settings.method))
    _refuse_idle_lists(settings, own, cells)
    return tuple(cells)


def named_after(settings: TrainPolicy, differing: Iterable[str]) -> str:
    """The name that the policy would have by itself, and the settings ``differing``: ``combo_h5_beta0.5``."""
    marks = (mark(name, [getattr(settings, name)]) for name in differing)
    return settings.model_copy(update={"name": None}).policy_name() + "".join(marks)


def axis_values(settings: Ablate, cell: TrainPolicy) -> dict[str, Any]:
    """A cell's value on each axis of the grid; None where the axis means nothing to it, the word where it is none."""
    return {
        name: (value if (value := getattr(cell, name)) is not None else "none")
        if name == "real_ratio" or _matters(name, cell)
        else None
        for name in settings.grid
    }


def _points(settings: Ablate, base: TrainPolicy) -> list[Point]:
    """The points of the grid, less the axes that make no difference to what ``base`` trains."""
    axes = {name: values for name, values in settings.grid.items() if _matters(name, base)}
    return [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]


def _matters(name: str, settings: TrainPolicy) -> bool:
    if name in _OF_MODEL_ROWS:
        return settings.has_model_rows
    return name not in _of_learners() or name in load(settings.algorithm).settings.__dataclass_fields__


@cache
def _of_learners() -> set[str]:
    """The settings that learners alone look at, each at its own."""
    from mopo_cli.agents.schedule import LoopSettings

    fields = {name for algorithm in NAMES for name in load(algorithm).settings.__dataclass_fields__}
    return fields - {*LoopSettings.__dataclass_fields__} - _OF_MODEL_ROWS


def _refuse_idle_axes(settings: Ablate, points: list[Point], whose: str) -> None:
    for name in settings.grid:
        if not any(name in point for point in points):
            owners = of_algorithms(name)
            about = f"it is a setting of {' and '.join(owners)}" if owners else "that changes nothing"
            if name in _OF_MODEL_ROWS:
                about = "it is about what the model makes"
            raise UsageError(f"--grid {_key(name)} does not go with {whose}: {about}.", hint=_METHODS)


def _refuse_idle_lists(settings: Ablate, given: set[str], cells: list[TrainPolicy]) -> None:
    for name, values, means, why in (
        ("lam", settings.lam, any(cell.penalty != "none" for cell in cells), "none of them lowers rewards by it"),
        ("h", settings.h, any(cell.needs_model for cell in cells), "none of them looks ahead in the model"),
    ):
        if name in given and len(values) > 1 and not means:
            raise UsageError(f"--{name} does not go with {', '.join(settings.method)}: {why}.", hint=_METHODS)


def _named(settings: TrainPolicy, point: Point) -> TrainPolicy:
    return settings.model_copy(update={"name": named_after(settings, point) if point else None})


def _key(name: str) -> str:
    return name.replace("_", "-")


def method_demands(
    method: str, preset: str | None, dataset: str | None, file: Path | None = None
) -> dict[str, dict[str, Any]]:
    """What a method asks of the stages before ``train-policy``, by stage: the checked values of its settings.

    They are those of the method, of the preset for it and of the settings file for it. Raises what `read_config` does.
    """
    preset = preset or (find_preset(dataset) if dataset else None)
    sections = [load_method(method), *([load_preset_method(preset, method)] if preset else [])]
    sections += [read_method(file, method)] if file else []
    demands: dict[str, dict[str, Any]] = {}
    for stage in ("train-model", "select-elites"):
        values = {name: value for section in sections for name, value in section.get(stage, {}).items()}
        checked = STAGES[stage](**values)
        demands[stage] = {name: getattr(checked, name) for name in values}
    return demands
