"""The spaces that a Minari dataset states, and the environment it names, made anew from what can be trusted.

A stored specification holds the import path of the environment and of every wrapper, and whoever makes it
runs the code behind them. So only its id, keyword arguments and time limit are read, and the id must be one
that this Python's gymnasium has registered.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from mopo_cli.data.minari_sets import METADATA, MinariSet, mend
from mopo_cli.data.spaces import Spaces, box_spaces, spaces_of_id
from mopo_cli.errors import CorruptError, InputError, UsageError
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


def dataset_spaces(minari_set: MinariSet) -> Spaces:
    """The set's own spaces, from its metadata; no environment is asked.

    Raises InputError unless both are flat floating-point boxes, the actions' finite; CorruptError for damage.
    """
    observation, action = (_flat_box(minari_set, role) for role in ("observation", "action"))
    return box_spaces(f"The Minari set {minari_set.dataset_id}", observation, action)


def _flat_box(minari_set: MinariSet, role: str) -> gym.spaces.Box:
    from minari.serialization import deserialize_space

    text = minari_set.metadata.get(f"{role}_space")
    if not isinstance(text, str):
        # The library would make the stored environment to find out.
        raise InputError(f"The Minari set {minari_set.dataset_id} does not state its {role} space.")
    try:
        space = deserialize_space(text)
    except Exception as error:  # the library lets every fault of the text through as it comes
        where = f"{minari_set.data / METADATA}: {role}_space"
        raise CorruptError(f"{where} is not valid ({error!r}).", mend(minari_set.dataset_id)) from error
    if isinstance(space, gym.spaces.Box):
        if len(space.shape) == 1 and np.issubdtype(space.dtype, np.floating):
            return space
        what = f"{role}s of shape {space.shape}" if len(space.shape) != 1 else f"{space.dtype} {role}s"
    elif isinstance(space, (gym.spaces.Discrete, gym.spaces.MultiDiscrete, gym.spaces.MultiBinary)):
        what = f"discrete {role}s ({type(space).__name__})"
    else:
        what = f"{role}s of the kind {type(space).__name__}"
    raise InputError(f"The Minari set {minari_set.dataset_id} has {what}; mopo learns from flat continuous ones only.")


def rebuild_environment(minari_set: MinariSet, spaces: Spaces, env_id: str | None = None) -> RebuiltEnvironment:
    """The environment to evaluate in: the set's own for evaluation, else the one it was logged in.

    ``env_id`` is that of a set which names none. Where it cannot be made here, ``notes`` say why. Raises InputError
    when the environment's spaces are not those of the data (`spaces`), or its keyword arguments are nothing that JSON
    can keep; UsageError where the set names another environment than ``env_id``.
    """
    logged = _read_spec(minari_set, "env_spec")
    spec = _read_spec(minari_set, "eval_env_spec") or logged
    if spec is None:
        return _named(minari_set, spaces, env_id)
    logged = logged or spec
    if env_id not in (None, logged.env_id, spec.env_id):
        raise UsageError(
            f"--env {env_id} contradicts the Minari set {minari_set.dataset_id}, which names its environment "
            f"{logged.env_id}.",
            hint="leave --env out; it is for sets and files that name no environment",
        )
    notes = [f"environment {spec.env_id}" + (f", logged in {logged.env_id}" if logged.env_id != spec.env_id else "")]
    if spec.wrappers:
        notes.append(f"its wrappers are not applied: {', '.join(spec.wrappers)}")
    termination, note = _termination(logged)
    notes += note
    kwargs, reason = _arguments(spec)
    if reason is None:
        try:
            present = spaces_of_id(spec.env_id, kwargs)
        except Exception as error:  # the constructor of a simulator may raise anything
            reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
    if reason is not None:
        notes.append(f"it cannot be made here, so there is no evaluation: {reason}")
        return RebuiltEnvironment(None, {}, termination, tuple(notes), spaces)
    _check_spaces(minari_set, spec, spaces, present)
    return RebuiltEnvironment(spec.env_id, kwargs, termination, tuple(notes), spaces)


def _named(minari_set: MinariSet, spaces: Spaces, env_id: str | None) -> RebuiltEnvironment:
    """The environment that was named for a set that names none: its bounds and rule count, as they do for a file."""
    if env_id is None:
        return RebuiltEnvironment(None, {}, "none", ("the set names no environment: no evaluation",), spaces)
    present = spaces_of_id(env_id)
    if differences := _other_widths(spaces, present):
        raise InputError(f"The Minari set {minari_set.dataset_id} does not match {env_id}, which has {differences}.")
    note = f"the set names no environment: {env_id} was named"
    return RebuiltEnvironment(env_id, {}, termination_for_env(env_id), (note,), present)


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
    from gymnasium.envs.registration import registry

    registered = registry.get(spec.env_id)
    if registered is None or spec.env_id in _DOORS:
        return {}, f"{spec.env_id} is not registered in this gymnasium"
    kwargs = {name: value for name, value in spec.kwargs.items() if name not in _LOOKS}
    if spec.max_episode_steps not in (None, registered.max_episode_steps):
        kwargs["max_episode_steps"] = spec.max_episode_steps
    return kwargs, None


def _termination(spec: _Spec) -> tuple[str, list[str]]:
    """The rule of the environment; "none", and why, where its columns or bounds are not those the rule knows."""
    rule = termination_for_env(spec.env_id)
    moved = [
        name
        for name, value in spec.kwargs.items()
        if (name.startswith("healthy") and name != "healthy_reward")
        or (name in ("terminate_when_unhealthy", "exclude_current_positions_from_observation") and value is False)
    ]
    moved += [name for name in spec.wrappers if name not in _LEAVE_OBSERVATIONS]
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
