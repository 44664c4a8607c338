"""Environments whose observations are of several steps, as those of the data are that a policy was trained on."""

from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from mopo_cli.data.transitions import ActionBounds, normalise_actions
from mopo_cli.evaluation.play import Environment


class Recorded(ActionBounds, Protocol):
    """What says of how many steps an observation is, and what the bounds of actions are."""

    @property
    def history(self) -> int:
        """Steps of an observation, see `data.history`."""


class WithHistory(gym.Wrapper[Any, Any, Any, Any]):
    """An environment whose observations are the last ones and the actions between them, as `data.history` has them."""

    def __init__(self, environment: Environment, recorded: Recorded) -> None:
        super().__init__(environment)
        self._recorded = recorded
        self._frames: deque[NDArray[Any]] = deque(maxlen=recorded.history)
        self._actions: deque[NDArray[np.float32]] = deque(maxlen=recorded.history - 1)

    def reset(self, **options: Any) -> tuple[NDArray[Any], dict[str, Any]]:
        """The first observation, as often as there are steps, and actions of 0."""
        observation, info = self.env.reset(**options)
        steps = self._recorded.history
        self._frames.extend([np.array(observation)] * steps)
        self._actions.extend([np.zeros_like(self._recorded.action_low)] * (steps - 1))
        return self._observation(), info

    def step(self, action: Any) -> tuple[NDArray[Any], float, bool, bool, dict[str, Any]]:
        """As the environment does; the action is in its units."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._frames.appendleft(np.array(observation))
        self._actions.appendleft(normalise_actions(np.asarray(action), self._recorded))
        return self._observation(), float(reward), terminated, truncated, info

    def _observation(self) -> NDArray[Any]:
        return np.concatenate([*self._frames, *self._actions])


def with_history(environments: Sequence[Environment], recorded: Recorded) -> list[Environment]:
    """The environments, their observations being of as many steps as is recorded."""
    if recorded.history == 1:
        return list(environments)
    return [WithHistory(environment, recorded) for environment in environments]
