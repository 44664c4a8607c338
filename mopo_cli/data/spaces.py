"""The sizes and action bounds of a Gymnasium environment that transitions can be logged in."""

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from mopo_cli.data.scores import reference_scores
from mopo_cli.data.transitions import Floats
from mopo_cli.errors import InputError
from mopo_cli.evaluation.play import Environment, open_environments
from mopo_cli.tasks.termination import termination_for_env


@dataclass(frozen=True, eq=False)
class Spaces:
    """O, A and the action bounds `[A]` f4 in the environment's own units."""

    obs_dim: int
    act_dim: int
    action_low: Floats
    action_high: Floats


def box_spaces(what: str, observation: gym.spaces.Box, action: gym.spaces.Box) -> Spaces:
    """The sizes and bounds of two flat boxes. InputError, which begins with ``what``, for an unbounded action."""
    low, high = action.low.astype(np.float32), action.high.astype(np.float32)
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
        raise InputError(f"{what} has the action space {action}; finite bounds are needed.")
    return Spaces(observation.shape[0], action.shape[0], low, high)


def spaces_of(env_id: str, environment: Environment) -> Spaces:
    """The spaces of an environment that has flat boxes for both.

    Raises InputError when observations are not floating-point or an action is unbounded.
    """
    observation, action = environment.observation_space, environment.action_space
    assert isinstance(observation, gym.spaces.Box) and isinstance(action, gym.spaces.Box)
    if not np.issubdtype(observation.dtype, np.floating):
        raise InputError(f"The environment {env_id!r} has {observation.dtype} observations; floating-point is needed.")
    return box_spaces(f"The environment {env_id!r}", observation, action)


def environment_fields(env_id: str | None, action_low: Floats, action_high: Floats) -> dict[str, Any]:
    """The fields of a `DatasetInfo` that tell of the environment: those that follow from its id, and the bounds."""
    low, high = reference_scores(env_id) or (None, None)
    named = {"env_id": env_id, "termination": termination_for_env(env_id), "reference_min": low, "reference_max": high}
    return named | {"action_low": action_low, "action_high": action_high}


def spaces_of_id(env_id: str, kwargs: dict[str, Any] | None = None) -> Spaces:
    """`spaces_of` a registered environment; InputError also when it cannot be made."""
    with open_environments(env_id, 1, kwargs) as (environment,):
        return spaces_of(env_id, environment)
