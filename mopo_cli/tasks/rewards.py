"""Rewards of the tasks that ship with mopo, as functions of what a step did.

All take numbers or arrays: velocities, heights `[...]`, actions `[..., A]` in the environment's units; they
compute and return float64 `[...]`. Sources: MOPO §5.2 and App. G.1 for the two out-of-distribution tasks,
App. F for the HIV treatment; where the paper's text and its formula differ, the function says so.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Values = NDArray[np.float64]

TOP_SPEED = 3.0
HALFCHEETAH_CONTROL, ANT_CONTROL = 0.1, 0.5
_JUMP = 15.0


def squared_norm(actions: ArrayLike) -> Values:
    """‖a‖² of each action."""
    squares: Values = np.square(np.asarray(actions, np.float64)).sum(axis=-1)
    return squares


def halfcheetah_run(x_velocity: Any, actions: ArrayLike) -> Values:
    """min(v, 3) - 0.1 ‖a‖²: what the behaviour of halfcheetah-jump is rewarded for.

    The paper prints max(v, 3), but speaks of 3 as the maximum velocity; its co-author's code has the minimum.
    """
    return np.minimum(np.asarray(x_velocity, np.float64), TOP_SPEED) - HALFCHEETAH_CONTROL * squared_norm(actions)


def height_bonus(height_gain: Any) -> Values:
    """15 (z - z at the episode's start), metres: what the task halfcheetah-jump adds to `halfcheetah_run`."""
    return _JUMP * np.asarray(height_gain, np.float64)


def ant_heading(x_velocity: Any, y_velocity: Any, actions: ArrayLike, degrees: float) -> Values:
    """v_x cos + v_y sin - 0.5 ‖a‖² for a heading in degrees; 0, the x-axis, is what the behaviour is rewarded for."""
    angle = np.deg2rad(degrees)
    speed = np.cos(angle) * np.asarray(x_velocity, np.float64) + np.sin(angle) * np.asarray(y_velocity, np.float64)
    reward: Values = speed - ANT_CONTROL * squared_norm(actions)
    return reward


def hiv_treatment(states: ArrayLike, actions: ArrayLike) -> Values:
    """1000 E - 0.1 V - 20000 (e₁² + e₂²) of the new states `[..., 6]`, in the paper's raw unit."""
    state = np.asarray(states, np.float64)
    reward: Values = 1000.0 * state[..., 5] - 0.1 * state[..., 4] - 20000.0 * squared_norm(actions)
    return reward
