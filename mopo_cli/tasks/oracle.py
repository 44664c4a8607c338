"""The true dynamics of a task, from its simulator: by how much a model's prediction misses the next state.

Observations of these tasks hold every velocity and every position but the root's horizontal ones, and the motion
does not depend on those; so the simulator can be put into the state that was observed, or imagined. What an
observation holds besides (Ant's contact forces) is no state and is not compared.

The simulator is MuJoCo's own batched rollout, on threads: the same steps as the environment takes, without its
Python. A row's result depends on that row alone, whatever stands beside it and however many threads there are.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from mopo_cli.dynamics.branched_rollouts import Oracle
from mopo_cli.errors import InputError
from mopo_cli.tasks import registration
from mopo_cli.tasks.quiet import silent_mujoco

gym.register_envs(registration)

# Body: (positions that its observations leave out, bound at which they clip the velocities).
_BODIES = {
    "HalfCheetah": (1, inf),
    "Hopper": (1, 10.0),
    "Walker2d": (1, 10.0),
    "Ant": (2, inf),
    "InvertedPendulum": (0, inf),
}
_TASKS = {f"{body}-v{version}": layout for body, layout in _BODIES.items() for version in (4, 5)}
_TASKS |= {"mopo/HalfCheetahJump-v0": _BODIES["HalfCheetah"], "mopo/AntAngle-v0": _BODIES["Ant"]}

_BLOCK = 8192  # rows simulated at once, so that memory does not grow with the batch
_CLOCK = 1.0  # where a motion begins: one that MuJoCo finds unstable starts again at time 0
_LARGEST = 1e10  # MuJoCo's own bound of what is stable, mjMAXVAL


def check_oracle(env_id: str | None) -> str:
    """The id again. InputError, naming the tasks that can be done, where its true dynamics are not to be had."""
    if env_id in _TASKS:
        return str(env_id)
    what = f"the environment {env_id!r}" if env_id else "data that name no environment"
    raise InputError(
        f"The true dynamics of {what} are not available, only those of {', '.join(_BODIES)} (-v4 and -v5), "
        "mopo/HalfCheetahJump-v0 and mopo/AntAngle-v0."
    )


@contextmanager
def open_oracle(
    env_id: str | None,
    env_kwargs: Mapping[str, Any],
    action_low: ArrayLike,
    action_high: ArrayLike,
    threads: int = 1,
) -> Iterator[Oracle]:
    """Give the task's `Oracle`, which computes on ``threads`` threads until the block ends.

    ``action_low``, ``action_high`` `[A]` are what actions of -1 and 1 mean, in the environment's units. Raises
    InputError for a task without true dynamics (see `check_oracle`), one that cannot be made, whose observations
    do not begin with its state, or with another number of actions. The oracle itself raises it for observations
    narrower than a state.
    """
    task = check_oracle(env_id)
    model, substeps, hidden = _open_task(task, env_kwargs)
    low, high = np.asarray(action_low, np.float64), np.asarray(action_high, np.float64)
    if low.shape != (model.nu,) or high.shape != low.shape:
        raise InputError(f"{task} takes {model.nu} actions, but there are bounds for {low.size}.")
    import mujoco
    from mujoco.rollout import Rollout

    work = [mujoco.MjData(model) for _ in range(threads)]
    rest = np.empty(mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_FULLPHYSICS))
    mujoco.mj_getState(model, work[0], rest, mujoco.mjtState.mjSTATE_FULLPHYSICS)
    with Rollout(nthread=threads if threads > 1 else 0) as pool:
        simulator = _Simulator(model, substeps, hidden, _TASKS[task][1], rest, work, pool)

        def error(observation: Tensor, action: Tensor, predicted: Tensor) -> Tensor:
            if observation.shape[1] < simulator.width:
                raise InputError(
                    f"A state of {task} has {simulator.width} numbers, but these observations have "
                    f"{observation.shape[1]}."
                )
            state, guess = (_array(tensor[:, : simulator.width]) for tensor in (observation, predicted))
            truth = simulator.next_states(state, low + (_array(action) + 1) * (high - low) / 2)
            distance = torch.from_numpy(np.linalg.norm(guess - truth, axis=1))
            return distance.to(observation.device, torch.float32)

        yield error


def _open_task(task: str, env_kwargs: Mapping[str, Any]) -> tuple[Any, int, int]:
    """A task's MuJoCo model, its steps per action, and how many positions stand before those observed."""
    with silent_mujoco():
        try:
            # By its spec: by its name, gymnasium would warn that the v4 environments are old.
            environment: Any = gym.make(gym.registry[task], disable_env_checker=True, **env_kwargs).unwrapped
        except (gym.error.Error, ImportError, OSError, TypeError, ValueError) as error:
            raise InputError(f"The environment {task!r} cannot be made: {error}") from error
        observation, _ = environment.reset(seed=0)
    environment.close()
    # An option of the environments puts the hidden positions into the observation.
    for hidden in (_TASKS[task][0], 0):
        state = np.concatenate([environment.data.qpos[hidden:], environment.data.qvel])
        if np.array_equal(observation[: len(state)], state):
            return environment.model, int(environment.frame_skip), hidden
    raise InputError(f"The observations of {task!r} made with {dict(env_kwargs)} do not begin with its state.")


@dataclass(frozen=True, eq=False)
class _Simulator:
    """A task's physics: `hidden` positions stand before those observed, observed velocities are clipped at `bound`."""

    model: Any
    substeps: int
    hidden: int
    bound: float
    rest: NDArray[np.float64]
    """A full state of MuJoCo's: the time, all positions, all velocities, and what these models do not have."""
    work: list[Any]
    pool: Any

    @property
    def positions(self) -> int:
        """Observed positions; the velocities follow them."""
        return int(self.model.nq) - self.hidden

    @property
    def width(self) -> int:
        """Entries of an observation that are the state."""
        return self.positions + int(self.model.nv)

    def next_states(self, state: NDArray[np.float64], control: NDArray[np.float64]) -> NDArray[np.float64]:
        """The observed state `[B, width]` an action later; rows of NaN where it is not to be had."""
        after = np.full_like(state, np.nan)
        finite = np.isfinite(state).all(axis=1) & np.isfinite(control).all(axis=1)
        exact = finite & (np.abs(state[:, self.positions :]) < self.bound).all(axis=1)
        places = np.flatnonzero(exact)
        with silent_mujoco():
            for start in range(0, len(places), _BLOCK):
                rows = places[start : start + _BLOCK]
                after[rows] = self._step(state[rows], control[rows])
        return after

    def _step(self, state: NDArray[np.float64], control: NDArray[np.float64]) -> NDArray[np.float64]:
        observed = slice(1 + self.hidden, 1 + self.hidden + self.width)
        full = np.tile(self.rest, (len(state), 1))
        full[:, 0] = _CLOCK
        full[:, observed] = state
        path, _ = self.pool.rollout(self.model, self.work, full, control[:, None], nstep=self.substeps)
        clock, after = path[:, -1, 0], path[:, -1, observed]
        # MuJoCo itself looks for numbers beyond mjMAXVAL only where a step begins.
        stable = (clock > _CLOCK) & (np.abs(after) <= _LARGEST).all(axis=1)
        after[:, self.positions :] = after[:, self.positions :].clip(-self.bound, self.bound)
        return np.where(stable[:, None], after, np.nan)


def _array(tensor: Tensor) -> NDArray[np.float64]:
    array: NDArray[np.float64] = tensor.detach().cpu().double().numpy()
    return array
