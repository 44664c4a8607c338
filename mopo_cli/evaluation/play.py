"""Returns of a policy in the real environment."""

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec, load_env_creator
from numpy.typing import NDArray

from mopo_cli.errors import InputError
from mopo_cli.evaluation.dict_observations import FlatObservations
from mopo_cli.evaluation.outside_code import CheckedEnvironment, RecreatedOnReset
from mopo_cli.evaluation.registered import LIST_IDS, first_line, registered
from mopo_cli.tasks.quiet import silent_mujoco

Environment = gym.Env[Any, Any]
Policy = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Observations `[n, O]` to actions `[n, A]` in the environment's own units."""

# A seeded reset of these puts back all that a simulator holds. Others may not: Box2D's walkers, for one,
# move a little differently after another episode.
_RESETTABLE = ("gymnasium.envs.mujoco.", "gymnasium.envs.classic_control.", "mopo_cli.tasks.")
_TRANSPARENT = (gym.wrappers.TimeLimit, gym.wrappers.OrderEnforcing, FlatObservations)


@dataclass(frozen=True)
class EpisodeResults:
    """Per episode, `[episodes]` each: undiscounted return f8, length in steps i8 and discounted return f8."""

    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]
    discounted: NDArray[np.float64]


def make_environments(
    env_id: str, n: int, kwargs: dict[str, Any] | None = None, entries: Sequence[str] = ()
) -> list[Environment]:
    """`n` copies of a registered environment made with `kwargs`, for as many episodes side by side.

    What follows a seeded reset depends on the seed and the actions alone, whatever was played before. Observations that
    are a Dict become flat, see `FlatObservations`, which takes the `entries`; others are left as they are.

    Raises `InputError` if the id is unknown, its module or simulator is missing, the spaces are not flat boxes, or
    the environment has no time limit (an episode might then never end).
    """
    environments: list[Environment] = []
    make = partial(_make, env_id, kwargs or {}, entries)
    try:
        for _ in range(n):
            environment = make()
            resets_fully = _resets_fully(environment)
            environments.append(
                environment if resets_fully else CheckedEnvironment(RecreatedOnReset(environment, make), env_id)
            )
            _check(env_id, environment)
    except BaseException:
        close_environments(environments)
        raise
    return environments


def close_environments(environments: list[Environment]) -> None:
    """Release the simulators."""
    for environment in environments:
        environment.close()


@contextmanager
def open_environments(
    env_id: str, n: int, kwargs: dict[str, Any] | None = None, entries: Sequence[str] = ()
) -> Iterator[list[Environment]]:
    """`make_environments`, closed when the block ends, however it ends."""
    environments = make_environments(env_id, n, kwargs, entries)
    try:
        yield environments
    finally:
        close_environments(environments)


def episode_seed(seed: int, episode: int) -> int:
    """The reset seed of one episode: a function of (seed, episode) alone, so policies meet equal starts."""
    return int(np.random.SeedSequence(seed, spawn_key=(episode,)).generate_state(1)[0])


def time_limit(env_id: str | None, kwargs: Mapping[str, Any]) -> int | None:
    """Steps after which episodes of a registered environment are cut off; None where there is none.

    No simulator is made for it.
    """
    spec = _spec(env_id)
    limit: int | None = kwargs.get("max_episode_steps", spec.max_episode_steps if spec else None)
    return limit


def is_simulated(env_id: str) -> bool:
    """Whether MuJoCo simulates a registered environment; none is made, and what cannot be made is not."""
    creator: Any = spec.entry_point if (spec := _spec(env_id)) else None
    try:
        creator = load_env_creator(creator) if isinstance(creator, str) else creator
    except Exception:  # whatever its module raises; it is reported when the environment is made
        return False
    return any(base.__name__ == "MujocoEnv" for base in getattr(creator, "__mro__", ()))


def evaluate_returns(
    policy: Policy, environments: list[Environment], seed: int, gamma: float = 1.0, exact: bool = False
) -> EpisodeResults:
    """Run one episode per environment until it terminates or reaches its time limit.

    All running episodes are one batch for `policy`; finished ones are not stepped again. The environments
    are left open and can be used again: an evaluation depends on `policy` and `seed` only. An action that
    is not finite ends its episode with a return of NaN and leaves the other episodes alone. The discounted
    return is the sum of gamma^t r_t from t = 0. Observations are given to `policy` in float32, or as `exact` as they
    are, for one that first takes an offset off them.

    Raises `InputError` if the actions do not have the environment's shape.
    """
    episodes = len(environments)
    returns, discounted = np.zeros(episodes), np.zeros(episodes)
    lengths = np.zeros(episodes, dtype=np.int64)
    starts = [env.reset(seed=episode_seed(seed, k))[0] for k, env in enumerate(environments)]
    running = dict(enumerate(starts))
    while running:
        observations = np.stack(list(running.values()))
        actions = policy(observations if exact else observations.astype(np.float32))
        _check_actions(actions, len(running), environments[0])
        for k, action in zip(list(running), actions, strict=True):
            if not np.isfinite(action).all():
                returns[k] = discounted[k] = np.nan
                del running[k]
                continue
            running[k], reward, terminated, truncated, _ = environments[k].step(action)
            returns[k] += float(reward)
            discounted[k] += gamma ** lengths[k] * float(reward)
            lengths[k] += 1
            if terminated or truncated:
                del running[k]
    return EpisodeResults(returns, lengths, discounted)


def raw_observation_space(env_id: str, kwargs: dict[str, Any]) -> gym.Space[Any]:
    """The observation space as the environment states it, a Dict or not; raises `InputError` as making it does."""
    environment = _make_raw(env_id, kwargs)
    try:
        return environment.observation_space
    finally:
        environment.close()


def _spec(env_id: str | None) -> EnvSpec | None:
    """What the id is registered with; None where it is not: that is reported when the environment is made."""
    try:
        return registered(env_id) if env_id else None
    except InputError:
        return None


def _make(env_id: str, kwargs: dict[str, Any], entries: Sequence[str]) -> Environment:
    environment = _make_raw(env_id, kwargs)
    if not isinstance(environment.observation_space, gym.spaces.Dict):
        return environment
    try:
        return FlatObservations(environment, entries, f"The environment {env_id!r}")
    except InputError:
        environment.close()
        raise


def _make_raw(env_id: str, kwargs: dict[str, Any]) -> Environment:
    spec = registered(env_id)
    with warnings.catch_warnings(), silent_mujoco(), redirect_stdout(sys.stderr):
        # D4RL-trained policies belong on the -v4 environments, of which gymnasium warns each time.
        warnings.filterwarnings("ignore", message=".*out of date.*")
        try:
            return gym.make(spec.id, disable_env_checker=True, **kwargs)
        except MemoryError:
            raise
        except Exception as error:  # the constructor may raise anything
            raise InputError(f"The environment {env_id!r} cannot be made: {first_line(error)}.", LIST_IDS) from error


def _resets_fully(environment: Environment) -> bool:
    """Whether all of an environment, its wrappers included, is put back by a seeded reset."""
    while isinstance(environment, _TRANSPARENT):
        environment = environment.env
    return type(environment).__module__.startswith(_RESETTABLE)


def _check(env_id: str, environment: Environment) -> None:
    for role, space in (
        ("observation", environment.observation_space),
        ("action", environment.action_space),
    ):
        if not isinstance(space, gym.spaces.Box) or len(space.shape) != 1:
            why = " as mopo learns continuous actions" if role == "action" else ""
            raise InputError(f"The environment {env_id!r} has the {role} space {space}; a flat Box is needed{why}.")
    if environment.spec is None or environment.spec.max_episode_steps is None:
        raise InputError(
            f"The environment {env_id!r} has no time limit, so its episodes may never end: register it with "
            "max_episode_steps, or give one with --env-kwargs '{\"max_episode_steps\": 1000}'."
        )


def _check_actions(actions: NDArray[np.float32], running: int, environment: Environment) -> None:
    expected = (running, *(environment.action_space.shape or ()))
    if actions.shape != expected:
        raise InputError(f"The policy gives actions of shape {actions.shape}; the environment needs {expected}.")
