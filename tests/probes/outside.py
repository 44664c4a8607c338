"""Modules of environments that nobody installed, as a user writes them."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gymnasium as gym

TANK = """
import gymnasium as gym, numpy as np

print("the module is imported")

def box(n):
    return gym.spaces.Box(-np.inf, np.inf, (n,), np.float32)

class Tank(gym.Env):
    observation_space, action_space = box(2), gym.spaces.Box(0.0, 5.0, (1,), np.float32)

    def __init__(self, level=1.0, fault=None):
        self.level, self.fault = level, fault

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.x = self.np_random.uniform(0.5, 1.5, 2).astype("f4")
        return self.seen(), {}

    def step(self, action):
        print("a step")
        if self.fault == "raise":
            raise KeyError("pump")
        self.x = (self.x + 0.1 * np.array([action[0] - 2 * self.x[0], self.x[0] - self.x[1]])).astype("f4")
        return self.seen(), -abs(float(self.x[1]) - self.level), False, False, {}

    def seen(self):
        return np.zeros(3, "f4") if self.fault == "shape" else self.x

class DictTank(Tank):
    more = gym.spaces.Dict(lower=box(1), goal=gym.spaces.Box(0, 9, (2, 2)))
    observation_space = gym.spaces.Dict(upper=box(1), more=more)

    def seen(self):
        goal = self.level * np.arange(4, dtype="f4").reshape(2, 2)
        return {"upper": self.x[:1], "more": {"lower": self.x[1:], "goal": goal}}

class Valve(Tank):
    action_space = gym.spaces.Discrete(2)

class Lamp(Tank):
    observation_space = gym.spaces.Dict(x=box(2), lamp=gym.spaces.Discrete(2))

gym.register("Tank-v0", entry_point=f"{__name__}:Tank", max_episode_steps=10)
gym.register("Tank-v1", entry_point=f"{__name__}:Tank", max_episode_steps=12)
gym.register("TankWithoutVersion", entry_point=f"{__name__}:Tank", max_episode_steps=10)
gym.register("TankForever-v0", entry_point=f"{__name__}:Tank")
gym.register("DictTank-v0", entry_point=f"{__name__}:DictTank", max_episode_steps=10)
gym.register("Valve-v0", entry_point=f"{__name__}:Valve", max_episode_steps=10)
gym.register("Lamp-v0", entry_point=f"{__name__}:Lamp", max_episode_steps=10)
"""


@contextmanager
def tank_module(folder: Path, text: str = TANK) -> Iterator[str]:
    """The module tank_env in a folder; afterwards this process knows neither it nor its environments."""
    (folder / "tank_env.py").write_text(text)
    registry, path = dict(gym.registry), list(sys.path)
    try:
        yield "tank_env"
    finally:
        for name in [name for name in gym.registry if name not in registry]:
            del gym.registry[name]
        sys.modules.pop("tank_env", None)
        sys.path[:] = path
        importlib.invalidate_caches()
