"""An environment that remembers: what was played in it before shows in its rewards and observations."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import gymnasium as gym
import numpy as np

WORN = "mopo-test/Worn-v0"


class Worn(gym.Env[Any, Any]):
    """A position that actions move, less with every step ever taken; a reset puts it to a random start."""

    observation_space = gym.spaces.Box(-9.0, 9.0, (1,), np.float64)
    action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self) -> None:
        self.wear = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = self.np_random.uniform(-1.0, 1.0, 1)
        return self.place.copy(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.wear += 1
        self.place = np.clip(self.place + action / self.wear, -9.0, 9.0)
        return self.place.copy(), -abs(float(self.place[0])), bool(abs(self.place[0]) > 2.0), False, {}


@contextmanager
def registered(env_id: str, make: Any, steps: int | None) -> Iterator[str]:
    """The id, which gymnasium knows until the block ends; an episode has so many steps at most."""
    gym.register(env_id, make, max_episode_steps=steps)
    try:
        yield env_id
    finally:
        del gym.registry[env_id]


def registered_worn() -> AbstractContextManager[str]:
    """Its id, which gymnasium knows until the block ends; an episode has 20 steps at most."""
    return registered(WORN, Worn, 20)
