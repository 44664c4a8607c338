"""The spaces that a Minari dataset states, and the environment it names, made again from what can be trusted.

A stored specification holds the import path of the environment and of every wrapper, and whoever makes it
runs the code behind them. So only its id, keyword arguments and time limit are read, and the id must be one
that this Python's gymnasium has registered.
"""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from mopo_cli.data.minari.sets import METADATA, MinariSet, mend
from mopo_cli.data.spaces import (
    Spaces,
    box_spaces,
    choose_entries,
    environment_fields,
    moved_by,
    spaces_of_id,
    usable_columns,
)
from mopo_cli.errors import CorruptError, InputError, UsageError
from mopo_cli.evaluation.dict_observations import check_entries, leaves_of
from mopo_cli.evaluation.registered import registered, registered_id, split_id
from mopo_cli.tasks.termination import termination_for_env

_ENV_ID = re.compile(r"(?:[\w:-]+/)?[\w.:-]+")
# Gymnasium's doors to other packages: their keyword arguments name what to import.
_DOORS = ("GymV21Environment-v0", "GymV26Environment-v0")
# Gymnasium's wrappers after which an observation is what it was.
_LEAVE_OBSERVATIONS = (
    *("ClipAction", "RescaleAction", "TransformAction", "StickyAction", "RepeatAction"),
    *("ClipReward", "NormalizeReward", "TransformReward"),
    *("TimeLimit", "OrderEnforcing", "PassiveEnvChecker", "Autoreset"),
    *("RecordEpisodeStatistics", "RecordVideo", "RenderCollection", "HumanRendering"),
)
# A policy is evaluated without a window.
_LOOKS = ("render_mode",)


@dataclass(frozen=True)
class RebuiltEnvironment:
    """Where to evaluate: ``gymnasium.make(env_id, **kwargs)``; ``env_id`` is None where there is nowhere.

    ``termination`` is the rule of the environment that the data were logged in, ``notes`` say what was done;
    ``spaces`` tell the action bounds.
    """

    env_id: str | None
    kwargs: dict[str, Any]
    termination: str
    notes: tuple[str, ...]
    spaces: Spaces


@dataclass(frozen=True)
class _Spec:
    env_id: str
    kwargs: dict[str, Any]
    max_episode_steps: int | None
    wrappers: tuple[str, ...]


def dataset_spaces(minari_set: MinariSet, chosen: Sequence[str] = ()) -> Spaces:
    """The set's own spaces, from its metadata; no environment is asked.

    Of Dict observations the entries are those `chosen`, else all, see `choose_entries`. Raises InputError unless both
    spaces, or the entries, are floating-point boxes, the actions' finite; UsageError for entries that are not there;
    CorruptError for damage.
    """
    what = f"The Minari set {minari_set.dataset_id}"
    entries: tuple[str, ...] = ()
    observation, action = (_space(minari_set, role) for role in ("observation", "action"))
    if isinstance(observation, gym.spaces.Dict):
        observation, entries = _side_by_side(what, observation, chosen)
    elif chosen:
        raise UsageError(
            f"--columns chooses entries of Dict observations; the Minari set {minari_set.dataset_id} has flat ones.",
            hint="leave --columns out",
        )
    observation, action = (
        _flat_box(minari_set, role, space) for role, space in (("observation", observation), ("action", action))
    )
    return box_spaces(what, observation, action, entries)


def _side_by_side(what: str, space: gym.spaces.Dict, chosen: Sequence[str]) -> tuple[gym.spaces.Box, tuple[str, ...]]:
    """The box of the chosen entries side by side, and their paths."""
    leaves = leaves_of(what, space)
    entries = choose_entries(what, leaves, chosen)
    try:
        boxes = check_entries(what, leaves, entries)
    except InputError as error:
        raise InputError(error.message, usable_columns(leaves)) from error
    width = sum(math.prod(box.shape) for box in boxes)
    return gym.spaces.Box(-np.inf, np.inf, (width,), np.float32), entries


def _space(minari_set: MinariSet, role: str) -> gym.Space[Any]:
    from minari.serialization import deserialize_space

    text = minari_set.metadata.get(f"{role}_space")
    if not isinstance(text, str):
        # The library would make the stored environment to find out.
        raise InputError(f"The Minari set {minari_set.dataset_id} does not state its {role} space.")
    try:
        space: gym.Space[Any] = deserialize_space(text)
    except Exception as error:  # the library lets every fault of the text through as it comes
        where = f"{minari_set.data / METADATA}: {role}_space"
        raise CorruptError(f"{where} is not valid ({error!r}).", mend(minari_set.dataset_id)) from error
    return space


def _flat_box(minari_set: MinariSet, role: str, space: gym.Space[Any]) -> gym.spaces.Box:
    if isinstance(space, gym.spaces.Box):
        if len(space.shape) == 1 and np.issubdtype(space.dtype, np.floating):
            return space
        what = f"{role}s of shape {space.shape}" if len(space.shape) != 1 else f"{space.dtype} {role}s"
    elif isinstance(space, (gym.spaces.Discrete, gym.spaces.MultiDiscrete, gym.spaces.MultiBinary)):
        what = f"discrete {role}s ({type(space).__name__})"
    else:
        what = f"{role}s of the kind {type(space).__name__}"
    raise InputError(f"The Minari set {minari_set.dataset_id} has {what}; mopo learns from flat continuous ones only.")


def rebuild_environment(
    minari_set: MinariSet, spaces: Spaces, env_id: str | None = None, env_kwargs: dict[str, Any] | None = None
) -> RebuiltEnvironment:
    """The environment to evaluate in: the set's own for evaluation, else the one it was logged in.

    ``env_id`` and ``env_kwargs`` are those of a set which names none; or ``env_id`` is that of the set after the module
    that registers it. Where it cannot be made here, ``notes`` say why. Raises InputError when the environment's spaces
    are not those of the data (`spaces`), or its keyword arguments are nothing that JSON can keep; UsageError where the
    set names another environment than ``env_id``.
    """
    logged = _read_spec(minari_set, "env_spec")
    spec = _read_spec(minari_set, "eval_env_spec") or logged
    if spec is None:
        return _named(minari_set, spaces, env_id, env_kwargs or {})
    logged = logged or spec
    if env_kwargs is not None:
        raise UsageError(
            f"--env-kwargs contradicts the Minari set {minari_set.dataset_id}, which says what its environment "
            f"{logged.env_id} is made with.",
            hint="leave --env-kwargs out; it is for sets and files that name no environment",
        )
    # What the set itself names is never imported.
    module, name = (None, spec.env_id) if env_id is None else split_id(env_id)
    if name not in (logged.env_id, spec.env_id):
        raise UsageError(
            f"--env {env_id} contradicts the Minari set {minari_set.dataset_id}, which names its environment "
            f"{logged.env_id}.",
            hint="leave --env out; it is for sets and files that name no environment",
        )
    made_as = spec.env_id if module is None else registered_id(f"{module}:{spec.env_id}")
    notes = [f"environment {spec.env_id}" + (f", logged in {logged.env_id}" if logged.env_id != spec.env_id else "")]
    if spec.wrappers:
        notes.append(f"its wrappers are not applied: {', '.join(spec.wrappers)}")
    termination, note = _termination(logged)
    notes += note
    kwargs, reason = _arguments(spec)
    if reason is None:
        try:
            present = spaces_of_id(spec.env_id, kwargs, spaces.entries)
        except Exception as error:  # the constructor of a simulator may raise anything
            reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
    if reason is not None:
        notes.append(f"it cannot be made here, so there is no evaluation: {reason}")
        return RebuiltEnvironment(None, {}, termination, tuple(notes), spaces)
    _check_spaces(minari_set, spec, spaces, present)
    return RebuiltEnvironment(made_as, kwargs, termination, tuple(notes), spaces)


def _named(minari_set: MinariSet, spaces: Spaces, env_id: str | None, env_kwargs: dict[str, Any]) -> RebuiltEnvironment:
    """The environment that was named for a set that names none: its bounds and rule count, as they do for a file."""
    if env_id is None:
        return RebuiltEnvironment(None, {}, "none", ("the set names no environment: no evaluation",), spaces)
    present = spaces_of_id(env_id, env_kwargs, spaces.entries)
    if differences := _other_widths(spaces, present):
        raise InputError(f"The Minari set {minari_set.dataset_id} does not match {env_id}, which has {differences}.")
    note = f"the set names no environment: {env_id} was named"
    fields = environment_fields(env_id, present.action_low, present.action_high, env_kwargs)
    return RebuiltEnvironment(fields["env_id"], env_kwargs, fields["termination"], (note,), present)


def _read_spec(minari_set: MinariSet, name: str) -> _Spec | None:
    text = minari_set.metadata.get(name)
    if text is None:
        return None
    where = f"{minari_set.data / METADATA}: {name}"
    try:
        stored = json.loads(text)
        env_id, kwargs = stored["id"], stored.get("kwargs") or {}
        limit, wrappers = stored.get("max_episode_steps"), stored.get("additional_wrappers") or []
        names = tuple(re.sub(r"\W", "_", str(wrapper["name"]))[:60] for wrapper in wrappers)
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
        raise CorruptError(
            f"{where} is not an environment specification ({error!r}).", mend(minari_set.dataset_id)
        ) from error
    if not isinstance(env_id, str) or not _ENV_ID.fullmatch(env_id) or not isinstance(kwargs, dict):
        raise CorruptError(f"{where} is not an environment specification.", mend(minari_set.dataset_id))
    try:
        json.dumps(kwargs, allow_nan=False)
    except ValueError as error:
        raise InputError(f"{where} has keyword arguments that are not JSON ({error}).") from error
    return _Spec(env_id, kwargs, limit if type(limit) is int and limit > 0 else None, names)


def _arguments(spec: _Spec) -> tuple[dict[str, Any], str | None]:
    """What to make the environment with, and why it cannot be made, if so."""
    try:
        entry = None if ":" in spec.env_id else registered(spec.env_id)
    except InputError:
        entry = None
    if entry is None or spec.env_id in _DOORS:
        return {}, f"{spec.env_id} is not registered in this gymnasium"
    kwargs = {name: value for name, value in spec.kwargs.items() if name not in _LOOKS}
    if spec.max_episode_steps not in (None, entry.max_episode_steps):
        kwargs["max_episode_steps"] = spec.max_episode_steps
    return kwargs, None


def _termination(spec: _Spec) -> tuple[str, list[str]]:
    """The rule of the environment; "none", and why, where its columns or bounds are not those the rule knows."""
    rule = termination_for_env(spec.env_id)
    moved = moved_by(spec.kwargs) + [name for name in spec.wrappers if name not in _LEAVE_OBSERVATIONS]
    if rule == "none" or not moved:
        return rule, []
    return "none", [f"the rule {rule} does not know its {', '.join(moved)}: name a rule with --termination"]


def _check_spaces(minari_set: MinariSet, spec: _Spec, data: Spaces, present: Spaces) -> None:
    wrapped = f" without its wrappers ({', '.join(spec.wrappers)})" if spec.wrappers else ""
    differences = _other_widths(data, present)
    if not differences and not (
        np.allclose(data.action_low, present.action_low) and np.allclose(data.action_high, present.action_high)
    ):
        differences = f"actions in {_interval(present)} (the data: {_interval(data)})"
    if differences:
        raise InputError(
            f"The Minari set {minari_set.dataset_id} does not match its environment: {spec.env_id}, as created here"
            f"{wrapped}, has {differences}.",
            hint="install the versions that the set was made with, or write its columns to a file: --dataset FILE.h5",
        )


def _other_widths(data: Spaces, present: Spaces) -> str:
    """How the widths in an environment differ from the data's, in words; empty where they do not."""
    widths = (
        ("observations", data.obs_dim, present.obs_dim),
        ("actions", data.act_dim, present.act_dim),
    )
    return " and ".join(
        f"{name} of {in_env} dimensions (the data: {in_data})" for name, in_data, in_env in widths if in_data != in_env
    )


def _interval(spaces: Spaces) -> str:
    return f"{spaces.action_low.tolist()} to {spaces.action_high.tolist()}"
