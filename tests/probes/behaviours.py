"""Behaviours small enough to be trained in a test, and ways to look at them."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from mopo_cli.agents.online import OnlineSettings, start_online
from mopo_cli.data.behaviour import Behaviour, start_behaviour, take_step
from mopo_cli.data.generate import LOGGED_INFOS
from mopo_cli.data.recipes import Recipe
from mopo_cli.data.spaces import Spaces, spaces_of
from mopo_cli.data.transitions import DatasetInfo, Transitions
from mopo_cli.engine.rows import RowLayout
from mopo_cli.evaluation.play import Environment, open_environments

TINY = Recipe(
    hidden=16,
    learning_rate=3e-3,
    batch_size=32,
    warmup=60,
    episodes=2,
    early_every=50,
    early_steps=200,
    every=100,
)


@dataclass
class Bench:
    """A behaviour with its environments: `judges` evaluate it."""

    behaviour: Behaviour
    environment: Environment
    judges: list[Environment]
    spaces: Spaces

    def train(self, steps: int) -> "Bench":
        """Take so many steps in all."""
        while self.behaviour.online.steps < steps:
            take_step(self.behaviour, self.environment)
        return self


def bench(
    context: ExitStack,
    env_id: str,
    capacity: int,
    seed: int = 0,
    recipe: Recipe = TINY,
    level: str = "expert",
    **kwargs: Any,
) -> Bench:
    """A behaviour that has done nothing yet, and its environments, which `context` closes."""
    opened = context.enter_context(open_environments(env_id, 1 + recipe.episodes, kwargs))
    spaces = spaces_of(env_id, opened[0])
    info = DatasetInfo(
        dataset_id=f"generate:{env_id}:{level}",
        env_id=env_id,
        source="",
        action_low=spaces.action_low,
        action_high=spaces.action_high,
        termination="none",
        seed=seed,
    )
    rows, schedule = RowLayout(spaces.obs_dim, spaces.act_dim, 0), OnlineSettings(recipe.warmup, recipe.batch_size)
    online = start_online(rows, capacity, recipe.sac(spaces.act_dim), schedule, seed, "cpu")
    return Bench(start_behaviour(online, info), opened[0], opened[1:], spaces)


def confirm(logged: Transitions, environment: gym.Env[Any, Any], seed: Callable[[int], int | None]) -> int:
    """Every row is what the environment says of the logged actions, where episode k starts from ``seed(k)``.

    The number of episodes that ended.
    """
    episode, observation = 0, environment.reset(seed=seed(0))[0]
    for i, action in enumerate(logged.actions):
        assert np.array_equal(logged.observations[i], observation.astype(np.float32))
        observation, reward, terminated, truncated, info = environment.step(action)
        assert np.array_equal(logged.next_observations[i], observation.astype(np.float32))
        assert logged.rewards[i] == np.float32(reward)
        assert logged.terminals[i] == terminated
        assert logged.timeouts[i] == ((truncated or i == len(logged) - 1) and not terminated)
        infos = {name: np.float32(info[name]) for name in LOGGED_INFOS if name in info}
        assert {name: column[i] for name, column in logged.infos.items()} == infos
        if terminated or truncated:
            episode += 1
            observation = environment.reset(seed=seed(episode))[0]
    environment.close()
    return episode


class Three(gym.Env[Any, Any]):
    """Ends by itself in its third step."""

    observation_space = gym.spaces.Box(0, 9, (1,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, **_: Any) -> Any:
        self.state = np.zeros(1, np.float32)
        return self.state, {}

    def step(self, _: Any) -> Any:
        self.state += 1  # in place: what was logged before must not change with it
        return self.state, 1.0, bool(self.state[0] == 3), False, {}
