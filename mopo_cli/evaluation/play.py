"""Returns of a policy in the real environment."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import load_env_creator
from numpy.typing import NDArray

from mopo_cli.errors import InputError
from mopo_cli.tasks import registration
from mopo_cli.tasks.quiet import silent_mujoco

Environment = gym.Env[Any, Any]
Policy = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Observations `[n, O]` to actions `[n, A]` in the environment's own units."""

gym.register_envs(registration)

# A seeded reset of these puts back all that a simulator holds. Of others that is not known: Box2D's walkers, for one,
# move a little differently after another episode.
_FORGETFUL = ("gymnasium.envs.mujoco.", "gymnasium.envs.classic_control.", "mopo_cli.tasks.")
_TRANSPARENT = (gym.wrappers.TimeLimit, gym.wrappers.OrderEnforcing)

KNOWN_IDS = 'list the known ids with: python -c "import gymnasium; gymnasium.pprint_registry()"'


@dataclass(frozen=True)
class EpisodeResults:
    """Per episode, `[episodes]` each: undiscounted return f8, length in steps i8 and discounted return f8."""

    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]
    discounted: NDArray[np.float64]


class MadeAnew(gym.Wrapper[Any, Any, Any, Any]):
    """An environment that may remember what was played in it: each seeded reset but the first replaces it by a new one.

    Thus what follows a seeded reset depends on the seed and the actions alone, as it does in a fresh process.
    """

    def __init__(self, environment: Environment, make: Callable[[], Environment]) -> None:
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


def make_environments(env_id: str, n: int, kwargs: dict[str, Any] | None = None) -> list[Environment]:
    """`n` copies of a registered environment made with `kwargs`, for as many episodes side by side.

    What follows a seeded reset depends on the seed and the actions alone, whatever was played before.

    Raises `InputError` if the id is unknown, its simulator is missing, the spaces are not flat boxes, or
    the environment has no time limit (an episode might then never end).
    """
    environments: list[Environment] = []
    make = partial(_make, env_id, kwargs or {})
    try:
        for _ in range(n):
            environment = make()
            environments.append(environment if _forgets(environment) else MadeAnew(environment, make))
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
def open_environments(env_id: str, n: int, kwargs: dict[str, Any] | None = None) -> Iterator[list[Environment]]:
    """`make_environments`, closed when the block ends, however it ends."""
    environments = make_environments(env_id, n, kwargs)
    try:
        yield environments
    finally:
        close_environments(environments)


def episode_seed(seed: int, episode: int) -> int:
    """The reset seed of one episode: a function of (seed, episode) alone, so policies meet equal starts."""
    return int(np.random.SeedSequence(seed, spawn_key=(episode,)).generate_state(1)[0])


def time_limit(env_id: str | None, kwargs: Mapping[str, Any]) -> int | None:
    """Steps after which episodes of a registered environment are cut off; None where that is not known.

    No simulator is made for it.
    """
    spec = gym.registry.get(env_id or "")
    limit: int | None = kwargs.get("max_episode_steps", spec.max_episode_steps if spec else None)
    return limit


def is_simulated(env_id: str) -> bool:
    """Whether MuJoCo simulates a registered environment; none is made, and what cannot be made is not."""
    spec = gym.registry.get(env_id)
    try:
        creator = load_env_creator(spec.entry_point) if spec and isinstance(spec.entry_point, str) else None
    except Exception:  # whatever its module raises, who makes it is told
        return False
    return any(base.__name__ == "MujocoEnv" for base in getattr(creator, "__mro__", ()))


def evaluate_returns(
    policy: Policy, environments: list[Environment], seed: int, gamma: float = 1.0, exact: bool = False
) -> EpisodeResults:
    """Run one episode per environment until it terminates or reaches its time limit.

    All living episodes are one batch for `policy`; finished ones are not stepped again. The environments
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
    living = dict(enumerate(starts))
    while living:
        observations = np.stack(list(living.values()))
        actions = policy(observations if exact else observations.astype(np.float32))
        _check_actions(actions, len(living), environments[0])
        for k, action in zip(list(living), actions, strict=True):
            if not np.isfinite(action).all():
                returns[k] = discounted[k] = np.nan
                del living[k]
                continue
            living[k], reward, terminated, truncated, _ = environments[k].step(action)
            returns[k] += float(reward)
            discounted[k] += gamma ** lengths[k] * float(reward)
            lengths[k] += 1
            if terminated or truncated:
                del living[k]
    return EpisodeResults(returns, lengths, discounted)


def _make(env_id: str, kwargs: dict[str, Any]) -> Environment:
    # "module:Env-v1" makes gymnasium import that module, and an id may come out of somebody's data file.
    if ":" in env_id:
        raise InputError(f"The environment id {env_id!r} must not contain ':'.", KNOWN_IDS)
    with warnings.catch_warnings(), silent_mujoco():
        # D4RL-trained policies belong on the -v4 environments, of which gymnasium warns each time.
        warnings.filterwarnings("ignore", message=".*out of date.*")
        try:
            return gym.make(env_id, disable_env_checker=True, **kwargs)
        except (gym.error.Error, ImportError, TypeError, ValueError) as error:
            raise InputError(f"The environment {env_id!r} cannot be made: {error}", KNOWN_IDS) from error


def _forgets(environment: Environment) -> bool:
    """Whether all of an environment, its wrappers included, is known to be put back by a seeded reset."""
    while isinstance(environment, _TRANSPARENT):
        environment = environment.env
    return type(environment).__module__.startswith(_FORGETFUL)


def _check(env_id: str, environment: Environment) -> None:
    for role, space in (
        ("observation", environment.observation_space),
        ("action", environment.action_space),
    ):
        if not isinstance(space, gym.spaces.Box) or len(space.shape) != 1:
            why = " as mopo learns continuous actions" if role == "action" else ""
            raise InputError(f"The environment {env_id!r} has the {role} space {space}; a flat Box is needed{why}.")
    if environment.spec is None or environment.spec.max_episode_steps is None:
        raise InputError(f"The environment {env_id!r} has no time limit, so its episodes may never end.")


def _check_actions(actions: NDArray[np.float32], living: int, environment: Environment) -> None:
    expected = (living, *(environment.action_space.shape or ()))
    if actions.shape != expected:
        raise InputError(f"The policy gives actions of shape {actions.shape}; the environment needs {expected}.")
