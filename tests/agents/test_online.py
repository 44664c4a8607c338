"""The learner that acts: when it begins to learn, from what, and that it learns by the update of offline training."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from probes.agents import SETTINGS
from torch import Tensor

from mopo_cli.agents.algorithm import agent_state
from mopo_cli.agents.algorithms.sac import gradient_step
from mopo_cli.agents.online import Online, OnlineSettings, act, learn, start_online
from mopo_cli.engine.rows import RowLayout
from mopo_cli.engine.streams import stream

ROWS = RowLayout(1, 1, 0)
SAC = replace(
    SETTINGS, actor_lr=3e-3, critic_lr=3e-3, alpha_lr=3e-3, alpha_max=float("inf"), log_std_min=-20.0, log_std_max=2.0
)
Reward = Callable[[Tensor, Tensor], Tensor]


def fresh(seed: int = 0, warmup: int = 30, capacity: int = 2000, batch: int = 32) -> Online:
    return start_online(ROWS, capacity, SAC, OnlineSettings(warmup, batch), seed, "cpu")


def live(online: Online, steps: int, reward: Reward = lambda s, a: a) -> list[Tensor]:
    """Take so many steps in all, each an episode of its own with a random observation; the actions."""
    actions = []
    while online.steps < steps:
        observation = 2 * torch.rand(1, generator=stream(5, "test/state", online.steps)) - 1
        action = act(online, observation)
        actions.append(action)
        one = torch.ones(1)
        row = ROWS.pack(
            observation[None], action[None], reward(observation, action), one, observation[None], torch.empty(1, 0)
        )
        learn(online, row[0])
    return actions


def parameters(online: Online) -> list[Tensor]:
    return [tensor.clone() for tensor in agent_state(online.sac)[0].values()]


def test_it_acts_uniformly_and_learns_nothing_while_it_warms_up() -> None:
    online = fresh(warmup=600)
    before = parameters(online)
    actions = torch.cat(live(online, 600))
    assert -1 <= actions.min() < -0.98 and 0.98 < actions.max() < 1
    assert torch.quantile(actions, torch.tensor([0.25, 0.5, 0.75])).tolist() == pytest.approx([-0.5, 0, 0.5], abs=0.1)
    assert all(map(torch.equal, before, parameters(online))) and not online.metrics
    live(online, 601)
    assert online.sac.critic.adam.steps == 1 and online.metrics["q"].shape == (1,)
    live(online, 700)
    assert [adam.steps for adam in (online.sac.actor.adam, online.sac.critic.adam, online.sac.alpha_adam)] == [100] * 3


def test_after_the_warm_up_it_acts_by_its_policy() -> None:
    online = fresh(warmup=1)
    live(online, 50)
    observation = torch.tensor([0.3])
    expected = online.sac.policy(0).sample(observation[None], stream(0, "online/action", 50))[0]
    assert torch.equal(act(online, observation), expected)
    assert torch.equal(act(online, observation), expected), "acting alone changes nothing"
    online.steps += 1
    assert not torch.equal(act(online, observation), expected)


def test_a_step_is_the_update_of_offline_training_on_rows_lived_through() -> None:
    """The update is done again by hand: a batch gathered out of the log, and `sac.gradient_step` on it."""
    online = fresh()
    live(online, 80)
    twin = deepcopy(online)
    live(online, 81)
    chosen = torch.randint(81, (32,), generator=stream(0, "online/batch", 80))
    noise = torch.randn(2, 1, 32, 1, generator=stream(0, "online/noise", 80))
    batch = ROWS.split(online.replay[:81][chosen][None])
    gradient_step(twin.sac, batch, batch.reward, noise)
    assert all(map(torch.equal, parameters(twin), parameters(online)))


def test_it_learns_from_what_it_lived_through_alone_the_latest_step_included() -> None:
    online = fresh(warmup=0, batch=4)
    online.replay.fill_(float("nan"))
    live(online, 40)
    assert all(tensor.isfinite().all() for tensor in parameters(online))
    one_row = fresh(warmup=0)
    live(one_row, 1)
    assert one_row.sac.actor.adam.steps == 1, "the first step is learnt from at once"


def test_put_back_to_any_step_it_goes_on_as_before() -> None:
    online = fresh()
    live(online, 90)
    kept = deepcopy(online.sac), online.replay[:90].clone()
    actions = live(online, 150)
    again = fresh()
    again.sac, again.replay[:90], again.steps = *kept, 90
    assert all(map(torch.equal, actions, live(again, 150)))
    assert all(map(torch.equal, parameters(online), parameters(again)))


def test_the_seed_decides_everything() -> None:
    one, same, other = fresh(0), fresh(0), fresh(1)
    assert all(map(torch.equal, live(one, 60), live(same, 60)))
    assert all(map(torch.equal, parameters(one), parameters(same)))
    assert not torch.equal(torch.cat(live(other, 20)), torch.cat(live(fresh(0), 20)))


def test_acting_and_learning_it_finds_the_best_response() -> None:
    """Reward -(a - 0.5 s)^2, one step: the best action is 0.5 s."""
    online = fresh(warmup=100)
    live(online, 900, lambda s, a: -((a - 0.5 * s) ** 2))
    states = torch.linspace(-1, 1, 21)[:, None]
    assert (online.sac.policy(0).greedy(states) - 0.5 * states).abs().mean() < 0.1
