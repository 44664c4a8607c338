"""Wrappers of environments that are neither Gymnasium's nor mopo's, of which nothing is certain."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

import gymnasium as gym
import numpy as np

from mopo_cli.errors import InputError, MopoError
from mopo_cli.evaluation.registered import first_line


class RecreatedOnReset(gym.Wrapper[Any, Any, Any, Any]):
    """An environment that may remember what was played in it: each seeded reset but the first replaces it by a new one.

    Thus what follows a seeded reset depends on the seed and the actions alone, as it does in a fresh process.
    """

    def __init__(self, environment: gym.Env[Any, Any], make: Callable[[], gym.Env[Any, Any]]) -> None:
        super().__init__(environment)
        self._make = make
        self._new = True

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As of any environment. Raises what making a new one does."""
        if seed is not None and not self._new:
            self.env.close()
            self.env = self._make()
        self._new = False
        return self.env.reset(seed=seed, options=options)


class CheckedEnvironment(gym.Wrapper[Any, Any, Any, Any]):
    """An environment of somebody's code: what it raises or gives in a wrong shape is an InputError, naming it.

    What it prints goes to stderr.
    """

    def __init__(self, environment: gym.Env[Any, Any], env_id: str) -> None:
        super().__init__(environment)
        self._env_id = env_id

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As of any environment."""
        with self._guarded("reset"):
            observation, info = self.env.reset(seed=seed, options=options)
        return self._checked(observation), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """As of any environment."""
        with self._guarded("step"):
            observation, reward, terminated, truncated, info = self.env.step(action)
            return self._checked(observation), float(reward), bool(terminated), bool(truncated), info

    def _checked(self, observation: Any) -> Any:
        stated, given = self.observation_space.shape, np.shape(observation)
        if given != stated:
            raise InputError(
                f"The environment {self._env_id!r} gives observations of shape {given}, but its space has {stated}."
            )
        return observation

    @contextmanager
    def _guarded(self, what: str) -> Iterator[None]:
        try:
            with redirect_stdout(sys.stderr):
                yield
        except (MopoError, MemoryError):
            raise
        except Exception as error:
            raise InputError(f"The environment {self._env_id!r} fails in {what}: {first_line(error)}.") from error
