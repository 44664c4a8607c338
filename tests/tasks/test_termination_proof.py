"""Termination rules against the real environments' `terminated`, 6,000 steps of each: half noise, half a controller.

The rule sees what a dataset holds: the next observation in float32.
"""

from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mopo_cli.evaluation.play import open_environments
from mopo_cli.tasks.termination import TERMINATION_RULES, termination_for_env

STEPS = 3000  # of each kind of actions: enough to notice bounds that are off by a hundredth
Floats = NDArray[Any]


def noise(generator: np.random.Generator, _obs_dim: int, act_dim: int) -> Callable[[Floats], Floats]:
    draws = iter(generator.uniform(-1, 1, (STEPS + 1, act_dim)))
    return lambda _: next(draws)


def controller(generator: np.random.Generator, obs_dim: int, act_dim: int) -> Callable[[Floats], Floats]:
    """A random smooth feedback of the state, and a little noise: it pushes bodies where noise alone does not."""
    inner = generator.normal(size=(16, obs_dim)) / np.sqrt(obs_dim)
    outer = generator.normal(size=(act_dim, 16))

    def act(observation: Floats) -> Floats:
        hidden = np.tanh(inner @ np.clip(observation, -10, 10))
        return np.clip(np.tanh(outer @ hidden) + generator.uniform(-0.3, 0.3, act_dim), -1, 1)

    return act


def drive(env_id: str, make_actor: Callable[..., Any], seed: int, look: Callable[[Any], float]) -> tuple[Floats, ...]:
    """Observations `[STEPS, O]` f4, terminated `[STEPS]` and `look(simulator)` `[STEPS]` after every step."""
    generator = np.random.default_rng(seed)
    with open_environments(env_id, 1) as (limited,):
        limit = limited.spec.max_episode_steps
        environment: Any = limited.unwrapped
        low, high = environment.action_space.low, environment.action_space.high
        shape = environment.observation_space.shape[0], len(low)
        result, terminated, seen = np.empty((STEPS, shape[0]), "f4"), np.empty(STEPS, bool), np.empty(STEPS)
        observation, act, age = environment.reset(seed=seed)[0], make_actor(generator, *shape), 0
        for k in range(STEPS):
            action = low + (act(observation) + 1) / 2 * (high - low)
            observation, _, terminated[k], _, _ = environment.step(action.astype(np.float32))
            result[k], seen[k], age = observation, look(environment), age + 1
            if terminated[k] or age == limit:
                observation, act, age = environment.reset()[0], make_actor(generator, *shape), 0
    return result, terminated, seen


def compare(env_id: str, look: Callable[[Any], float] = lambda _: 0.0) -> tuple[Floats, ...]:
    """What the rule says, what the simulator said and what `look` saw in all steps."""
    rule = TERMINATION_RULES[termination_for_env(env_id)]
    columns = zip(drive(env_id, noise, 1, look), drive(env_id, controller, 2, look), strict=True)
    following, terminated, seen = (np.concatenate(pair) for pair in columns)
    blank = torch.zeros(len(following), 1)
    return rule(blank, blank, torch.from_numpy(following)).numpy(), terminated, seen


@pytest.mark.parametrize(
    ("env_id", "ends"),
    [
        ("Hopper-v5", True),
        ("Walker2d-v5", True),
        ("HalfCheetah-v5", False),
        ("Ant-v5", True),
        ("Humanoid-v5", True),
        ("InvertedPendulum-v5", True),
        ("Pendulum-v1", False),
    ],
)
def test_the_rule_agrees_with_the_simulator(env_id: str, ends: bool) -> None:
    result, terminated, _ = compare(env_id)
    rows = np.flatnonzero(result != terminated)
    assert not len(rows), f"{env_id}: the rule disagrees in {len(rows)} of {len(result):,} steps, first in {rows[:5]}"
    assert (terminated.sum() > STEPS / 50) if ends else not terminated.any()
    assert (~terminated).sum() > STEPS


def test_the_double_pendulum_ends_by_the_tip_of_its_present_state() -> None:
    """The simulator looks at the tip of the integrator's last trial state, a little beside the state it reports."""
    reported: list[float] = []

    def present_tip(environment: Any) -> float:
        reported.append(float(environment.data.site_xpos[0][2]))
        mujoco.mj_kinematics(environment.model, environment.data)
        return float(environment.data.site_xpos[0][2])

    result, terminated, tip = compare("InvertedDoublePendulum-v5", present_tip)
    assert (terminated == (np.array(reported) <= 1)).all()
    wrong = int((result != (tip <= 1)).sum())
    assert not wrong, f"the rule disagrees with the tip of the state it is given in {wrong} of {len(result):,} steps"
    rows = np.flatnonzero(result != terminated)
    message = f"the rule disagrees with the simulator in {len(rows)} of {len(result):,} steps"
    assert len(rows) <= 2, message
    assert np.abs(tip[rows] - 1).max(initial=0) < 2e-3, f"{message}, with the tip at {tip[rows]}"
    assert terminated.sum() > STEPS / 50
