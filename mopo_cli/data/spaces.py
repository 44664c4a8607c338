"""The sizes and action bounds of a Gymnasium environment that transitions can be logged in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from mopo_cli.data.scores import reference_scores
from mopo_cli.data.transitions import Floats
from mopo_cli.errors import InputError, UsageError
from mopo_cli.evaluation.dict_observations import Leaves, entries_in, is_usable, leaves_of
from mopo_cli.evaluation.play import Environment, open_environments, raw_observation_space
from mopo_cli.evaluation.registered import registered_id
from mopo_cli.tasks.termination import termination_for_env

# What may stand before an entry in --columns, as it does in a file.
_COLUMN = ("observations/", "observation/")


@dataclass(frozen=True, eq=False)
class Spaces:
    """O, A and the action bounds `[A]` f4 in the environment's own units."""

    obs_dim: int
    act_dim: int
    action_low: Floats
    action_high: Floats
    entries: tuple[str, ...] = ()
    """Of Dict observations: the entries that are put side by side, in order."""


def box_spaces(what: str, observation: gym.spaces.Box, action: gym.spaces.Box, entries: tuple[str, ...] = ()) -> Spaces:
    """The sizes and bounds of two flat boxes. InputError, which begins with ``what``, for an unbounded action."""
    low, high = action.low.astype(np.float32), action.high.astype(np.float32)
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
        raise InputError(f"{what} has the action space {action}; finite bounds are needed.")
    return Spaces(observation.shape[0], action.shape[0], low, high, entries)


def spaces_of(env_id: str, environment: Environment) -> Spaces:
    """The spaces of an environment that has flat boxes for both.

    Raises InputError when observations are not floating-point or an action is unbounded.
    """
    observation, action = environment.observation_space, environment.action_space
    assert isinstance(observation, gym.spaces.Box) and isinstance(action, gym.spaces.Box)
    if not np.issubdtype(observation.dtype, np.floating):
        raise InputError(f"The environment {env_id!r} has {observation.dtype} observations; floating-point is needed.")
    return box_spaces(f"The environment {env_id!r}", observation, action, entries_in(environment))


def environment_fields(
    env_id: str | None, action_low: Floats, action_high: Floats, kwargs: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The fields of a `DatasetInfo` that tell of the environment: what follows from its id and from what somebody made
    it with, and the bounds.

    Where `kwargs` change when episodes end, there is no rule; where they change anything, no reference score.
    InputError for an id that is not registered.
    """
    env_id = None if env_id is None else registered_id(env_id)
    low, high = (None if kwargs else reference_scores(env_id)) or (None, None)
    rule = "none" if moved_by(kwargs or {}) else termination_for_env(env_id)
    named = {"env_id": env_id, "termination": rule, "reference_min": low, "reference_max": high}
    return named | {"action_low": action_low, "action_high": action_high}


def moved_by(kwargs: Mapping[str, Any]) -> list[str]:
    """The keyword arguments of an environment with which its termination rule is not the usual one any more."""
    return [
        name
        for name, value in kwargs.items()
        if (name.startswith("healthy") and name != "healthy_reward")
        or (name in ("terminate_when_unhealthy", "exclude_current_positions_from_observation") and value is False)
    ]


def spaces_of_id(env_id: str, kwargs: dict[str, Any] | None = None, entries: Sequence[str] = ()) -> Spaces:
    """`spaces_of` a registered environment; InputError also when it cannot be made."""
    with open_environments(env_id, 1, kwargs, entries) as (environment,):
        return spaces_of(env_id, environment)


def spaces_for_columns(env_id: str, kwargs: dict[str, Any], columns: Sequence[str]) -> Spaces:
    """The spaces of the environment that a file was logged in, whose observations are these ``columns`` of the file.

    Where all of them are entries of Dict observations, those are meant, in that order; else all, in Gymnasium's order.
    """
    space = raw_observation_space(env_id, kwargs) if columns else None
    entries: tuple[str, ...] = ()
    if isinstance(space, gym.spaces.Dict):
        leaves = leaves_of(f"The environment {env_id!r}", space)
        if all(_named(leaves, name) for name in columns):
            entries = choose_entries(f"The environment {env_id!r}", leaves, columns)
    return spaces_of_id(env_id, kwargs, entries)


def choose_entries(what: str, leaves: Leaves, names: Sequence[str]) -> tuple[str, ...]:
    """The entries that names in --columns stand for, in their order; all entries without names.

    A name is the path of an entry or of a Dict with all its entries, after ``observations/`` if that helps. UsageError
    for a name that is none, and for an entry that is used twice.
    """
    if not names:
        return tuple(leaves)
    chosen: list[str] = []
    for name in names:
        paths = _named(leaves, name)
        if not paths:
            raise UsageError(
                f"--columns: {what} has no observation entry {name!r}; its entries are {', '.join(leaves)}.",
                usable_columns(leaves),
            )
        if twice := [path for path in paths if path in chosen]:
            raise UsageError(f"--columns uses the observation entry {twice[0]!r} twice.", usable_columns(leaves))
        chosen += paths
    return tuple(chosen)


def usable_columns(leaves: Leaves) -> str:
    """What to write to use every entry that can be used, for a hint."""
    return f"--columns 'obs={'+'.join(path for path, space in leaves.items() if is_usable(space))}'"


def _named(leaves: Leaves, name: str) -> list[str]:
    for form in (name, *(name.removeprefix(prefix) for prefix in _COLUMN if name.startswith(prefix))):
        if paths := [path for path in leaves if path == form or path.startswith(f"{form}/")]:
            return paths
    return []
