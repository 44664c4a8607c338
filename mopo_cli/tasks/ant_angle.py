"""ant-angle: walk at an angle to the direction that the data's policy walked in (MOPO §5.2)."""

from typing import Any

import numpy as np
from gymnasium.envs.mujoco.ant_v5 import AntEnv
from gymnasium.utils import EzPickle
from numpy.typing import NDArray

from mopo_cli.tasks.rewards import ant_heading

Step = tuple[NDArray[np.float64], np.float64, bool, bool, dict[str, np.float64]]


class AntAngle(AntEnv):
    """Ant-v5 without contact forces (27 observations) and the reward v_x cos + v_y sin - 0.5 ‖a‖².

    The velocities are means over the step; ``angle`` is in degrees (MOPO: 30, and 45, 60, 90). An episode
    ends when the height leaves [0.2, 1]. ``reward="behaviour"`` is the reward that the data's policy was
    trained on: the same along the x-axis. The paper's formula has no more terms, but its authors' code has;
    ``survive`` adds their 1 per step, ``contact_cost`` takes off their 5e-4 ‖clip(contact forces, -1, 1)‖².
    """

    def __init__(
        self,
        angle: float = 30.0,
        reward: str = "task",
        survive: bool = False,
        contact_cost: bool = False,
        **mujoco: Any,
    ) -> None:
        if reward not in ("task", "behaviour"):
            raise ValueError(f"reward must be 'task' or 'behaviour', not {reward!r}")
        super().__init__(include_cfrc_ext_in_observation=False, **mujoco)
        EzPickle.__init__(self, angle, reward, survive, contact_cost, **mujoco)
        self._heading = angle if reward == "task" else 0.0
        self._survive, self._touches = survive, contact_cost

    def step(self, action: Any) -> Step:
        """Ant-v5's step with this task's reward; the info holds position and velocity in x and y."""
        observation, _, terminated, truncated, info = super().step(action)
        reward = np.float64(ant_heading(info["x_velocity"], info["y_velocity"], action, self._heading))
        if self._survive:
            reward += 1.0
        if self._touches:
            reward -= self.contact_cost
        places = {name: info[name] for name in ("x_position", "y_position", "x_velocity", "y_velocity")}
        return observation, reward, terminated, truncated, places
