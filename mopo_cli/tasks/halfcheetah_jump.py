"""halfcheetah-jump: run as before, and jump, which the data never show (MOPO §5.2)."""

from typing import Any

import numpy as np
from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv
from gymnasium.utils import EzPickle
from numpy.typing import NDArray

from mopo_cli.tasks.rewards import halfcheetah_run, height_bonus

Step = tuple[NDArray[np.float64], np.float64, bool, bool, dict[str, np.float64]]


class HalfCheetahJump(HalfCheetahEnv):
    """HalfCheetah-v5 with the reward min(v, 3) - 0.1 ‖a‖² + 15 (z - z₀).

    v is the mean velocity over the step. z is the height of the root, the first of the 17 observations, and
    z₀ its value after the reset, so that stored observations tell the reward exactly. The authors' code takes
    the torso's height, which MuJoCo brings up to date one substep of 0.01 s later: at most 0.035 m different in
    30,000 steps of random actions.

    ``reward="behaviour"`` leaves the jump out: the reward that the data's policy was trained on.
    """

    def __init__(self, reward: str = "task", **mujoco: Any) -> None:
        if reward not in ("task", "behaviour"):
            raise ValueError(f"reward must be 'task' or 'behaviour', not {reward!r}")
        super().__init__(**mujoco)
        EzPickle.__init__(self, reward, **mujoco)
        self._jumps = reward == "task"
        self._start_height = 0.0

    def reset_model(self) -> NDArray[np.float64]:
        """A start state as HalfCheetah-v5 draws it, whose height the jumps count from."""
        observation: NDArray[np.float64] = super().reset_model()
        self._start_height = float(self.data.qpos[1])
        return observation

    def step(self, action: Any) -> Step:
        """HalfCheetah-v5's step with this task's reward; the info holds x_position and x_velocity."""
        observation, _, terminated, truncated, info = super().step(action)
        reward = halfcheetah_run(info["x_velocity"], action)
        if self._jumps:
            reward = reward + height_bonus(self.data.qpos[1] - self._start_height)
        places = {name: info[name] for name in ("x_position", "x_velocity")}
        return observation, np.float64(reward), terminated, truncated, places
