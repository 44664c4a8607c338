"""Probe MDPs: decision problems so small that every value is known, each of which tests one ability.

A learner that fails one of them is broken in one nameable place. Each probe is an offline dataset with
uniformly random actions in [-1, 1], together with its optimal values. `q_value` is the optimal action value
without entropy bonus; in the probes of one step it is what a soft critic must learn, too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Probe:
    """A dataset with known answers.

    `dataset` has the columns of `mopo_cli.data.transitions.Transitions`: observations [N, O] f4, actions
    [N, A] f4, rewards [N] f4, next_observations [N, O] f4, terminals [N] bool, timeouts [N] bool.
    `q_value` maps observations [n, O] and actions [n, A] to [n]; `optimal_action` maps observations to
    actions [n, A] and is None where every action is as good as any other.
    """

    name: str
    gamma: float
    dataset: dict[str, NDArray[Any]]
    q_value: Callable[[Array, Array], Array]
    optimal_action: Callable[[Array], Array] | None = None


def constant_reward(n: int = 2000, seed: int = 0) -> Probe:
    """Reward 1, one step: Q = 1. Fails if the critic does not fit, or bootstraps past the end (Q = 100)."""
    observations = np.zeros((n, 1))
    actions = _uniform(seed, n)
    return Probe(
        "constant reward",
        0.99,
        _one_step(observations, actions, np.ones(n)),
        q_value=lambda obs, act: np.ones(len(obs), np.float32),
    )


def observed_reward(n: int = 2000, seed: int = 0) -> Probe:
    """Reward = observation = -1 or 1, one step: Q = obs. Fails if the critic does not see the state."""
    rng = np.random.default_rng((seed, 1))
    observations = rng.choice([-1.0, 1.0], size=(n, 1))
    return Probe(
        "observed reward",
        0.99,
        _one_step(observations, _uniform(seed, n), observations[:, 0]),
        q_value=lambda obs, act: obs[:, 0],
    )


def discounted_reward(n: int = 2000, seed: int = 0) -> Probe:
    """Two steps, 0 -> 1 -> end, reward 1 at the second: Q = gamma, then 1. Fails if targets do not bootstrap.

    The observation is the number of the step.
    """
    gamma = 0.5
    step = np.arange(n - n % 2) % 2
    observations = step[:, None].astype(float)
    dataset = _columns(
        observations,
        _uniform(seed, len(step)),
        rewards=(step == 1).astype(float),
        next_observations=1.0 - observations,
        terminals=step == 1,
        timeouts=np.zeros(len(step), bool),
    )
    return Probe(
        "discounted reward",
        gamma,
        dataset,
        q_value=lambda obs, act: np.where(obs[:, 0] < 0.5, gamma, 1.0).astype(np.float32),
    )


def rewarded_action(n: int = 2000, seed: int = 0) -> Probe:
    """Reward -(a - 0.5)^2, one step: a* = 0.5, V = 0. Fails if the actor does not climb the critic."""
    actions = _uniform(seed, n)
    return Probe(
        "rewarded action",
        0.99,
        _one_step(np.zeros((n, 1)), actions, -((actions[:, 0] - 0.5) ** 2)),
        q_value=lambda obs, act: -((act[:, 0] - np.float32(0.5)) ** 2),
        optimal_action=lambda obs: np.full((len(obs), 1), 0.5, np.float32),
    )


def rewarded_response(n: int = 2000, seed: int = 0) -> Probe:
    """Reward -(a - 0.5 obs)^2, one step: a* = 0.5 obs, V = 0. Fails if the actor does not see the state."""
    observations = np.random.default_rng((seed, 1)).uniform(-1.0, 1.0, size=(n, 1))
    actions = _uniform(seed, n)
    return Probe(
        "rewarded response",
        0.99,
        _one_step(observations, actions, -((actions[:, 0] - 0.5 * observations[:, 0]) ** 2)),
        q_value=lambda obs, act: -((act[:, 0] - np.float32(0.5) * obs[:, 0]) ** 2),
        optimal_action=lambda obs: np.float32(0.5) * obs,
    )


def endless_reward(n: int = 2000, seed: int = 0) -> Probe:
    """Reward 1 for ever, cut every 5 steps by a time limit: Q = 1 / (1 - gamma) = 10.

    A learner that takes the time limit for an end finds 3.6. Observations are uniform in [-1, 1] and
    independent of each other and of the action.
    """
    gamma, limit = 0.9, 5
    n -= n % limit
    rng = np.random.default_rng((seed, 1))
    observations, next_observations = rng.uniform(-1.0, 1.0, size=(2, n, 1))
    timeouts = np.arange(n) % limit == limit - 1
    next_observations[:-1][~timeouts[:-1]] = observations[1:][~timeouts[:-1]]
    dataset = _columns(
        observations,
        _uniform(seed, n),
        rewards=np.ones(n),
        next_observations=next_observations,
        terminals=np.zeros(n, bool),
        timeouts=timeouts,
    )
    return Probe(
        "endless reward",
        gamma,
        dataset,
        q_value=lambda obs, act: np.full(len(obs), 1 / (1 - gamma), np.float32),
    )


PROBES: tuple[Callable[..., Probe], ...] = (
    constant_reward,
    observed_reward,
    discounted_reward,
    rewarded_action,
    rewarded_response,
    endless_reward,
)


def _uniform(seed: int, n: int) -> NDArray[np.float64]:
    return np.random.default_rng((seed, 0)).uniform(-1.0, 1.0, size=(n, 1))


def _one_step(
    observations: NDArray[np.float64], actions: NDArray[np.float64], rewards: NDArray[np.float64]
) -> dict[str, NDArray[Any]]:
    return _columns(
        observations,
        actions,
        rewards,
        next_observations=observations,
        terminals=np.ones(len(rewards), bool),
        timeouts=np.zeros(len(rewards), bool),
    )


def _columns(
    observations: NDArray[np.float64],
    actions: NDArray[np.float64],
    rewards: NDArray[np.float64],
    next_observations: NDArray[np.float64],
    terminals: NDArray[np.bool_],
    timeouts: NDArray[np.bool_],
) -> dict[str, NDArray[Any]]:
    return {
        "observations": observations.astype(np.float32),
        "actions": actions.astype(np.float32),
        "rewards": rewards.astype(np.float32),
        "next_observations": next_observations.astype(np.float32),
        "terminals": terminals,
        "timeouts": timeouts,
    }
