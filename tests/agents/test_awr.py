"""AWR: returns, weights and updates against their definitions, closed forms."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from probes.agents import normal, tensors
from probes.environments import Probe, discounted_reward, endless_reward
from probes.offline import (
    LOOP,
    MEMBERS,
    OBS,
    assert_gradient,
    doubles,
    leaves,
    make_world,
    perceptron,
    returns_by_definition,
    train,
    two_ways,
    world_of,
)
from torch import Tensor

from mopo_cli.agents.algorithm import agent_state
from mopo_cli.agents.algorithms.awr import (
    ALGORITHM,
    Awr,
    AwrSettings,
    Logged,
    gradient_step,
    refresh,
    returns_and_advantages,
    start_awr,
    weights,
)
from mopo_cli.agents.world import World
from mopo_cli.engine.rows import Transition

SETTINGS = AwrSettings(
    hidden=16, layers=2, actor_lr=1e-3, critic_lr=2e-3, gamma=0.9, log_std_min=-3.0, log_std_max=1.0, weight_max=2.0
)
QUICK = replace(SETTINGS, hidden=32, actor_lr=3e-3, critic_lr=3e-3, weight_max=20.0)
LONG = replace(LOOP, steps_per_epoch=50, rollout_every=50, batch_size=256)
LENGTHS = (9, 1, 30, 17, 2, 40, 1, 25)


def split(world: World) -> Transition:
    return world.row_layout.split(world.real)


def make(members: int = 2, settings: AwrSettings = SETTINGS, world: World | None = None) -> Awr:
    world = world or make_world()
    return start_awr(Logged(split(world), world.last), settings, list(range(members)), "cpu")


def value_of(awr: Awr, m: int, observation: Tensor) -> Tensor:
    """V in float64, of observations as they are."""
    mean, std = awr.standard.mean.double(), awr.standard.divisor.double()
    return perceptron(leaves(awr.value.layout, awr.value.flat, m), (observation.double() - mean) / std)[:, 0].detach()


def test_returns_bootstrap_at_a_time_limit_and_not_at_an_end() -> None:
    awr, logged = make(), split(make_world())
    for m in range(2):
        returns, advantage = returns_and_advantages(awr, m)
        value = value_of(awr, m, logged.observation).numpy()
        following = (value_of(awr, m, logged.next_observation) * (1 - logged.terminal)).numpy()
        wanted = returns_by_definition(logged.reward.double().numpy(), following, LENGTHS, 0.9, 0.95)
        np.testing.assert_allclose(returns, wanted, atol=2e-5)
        np.testing.assert_allclose(advantage, wanted - value, atol=2e-5)


def test_the_states_after_an_end_are_never_looked_at() -> None:
    """They may be fillers."""
    world = make_world()
    over = split(world).terminal > 0
    split(world).next_observation[over] = 1e9
    awr = make(world=world)
    assert torch.equal(returns_and_advantages(awr, 0)[0], returns_and_advantages(make(), 0)[0])


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_the_weights_are_min_of_exp_of_standardised_advantages_and_the_bound(temperature: float) -> None:
    settings = replace(SETTINGS, awr_temperature=temperature)
    advantage = 50 * normal(400, name="advantage") + 7
    exact = advantage.double().numpy()
    wanted = np.exp((exact - exact.mean()) / (exact.std() + 1e-5) / temperature)
    assert 0.02 < (wanted > 2.0).mean() < 0.5
    np.testing.assert_allclose(weights(advantage, settings), np.minimum(wanted, 2.0), rtol=1e-5)
    assert torch.equal(weights(torch.zeros(5), settings), torch.ones(5))


def test_a_refresh_weighs_all_rows_by_the_present_v_of_each_member() -> None:
    awr = make()
    refresh(awr)
    for m in range(2):
        returns, advantage = returns_and_advantages(awr, m)
        assert torch.equal(awr.returns[m], returns) and torch.equal(awr.weights[m], weights(advantage, SETTINGS))
    first = awr.returns.clone()
    awr.value.flat.add_(0.1)
    assert torch.equal(awr.returns, first)
    refresh(awr)
    assert ((awr.returns != first) | (split(make_world()).terminal > 0)).all()


def test_the_gradients_are_those_of_both_regressions() -> None:
    world = make_world()
    awr, logged = make(world=world), split(world)
    refresh(awr)
    index = torch.stack([torch.randperm(len(world.real), generator=torch.Generator().manual_seed(m)) for m in (0, 1)])
    index = index[:, :37]
    batch = Transition(*(column[index] for column in vars(logged).values()))
    before = {name: tensors(awr)[name].clone() for name in ("actor", "value")}
    info = gradient_step(awr, batch, index, actor_scale=0.25)
    for m in range(2):
        b, rows = doubles(batch, m), index[m]
        observation = (b.observation - awr.standard.mean) / awr.standard.divisor
        value = leaves(awr.value.layout, before["value"], m)
        surplus = perceptron(value, observation)[:, 0] - awr.returns[m, rows]
        assert_gradient(awr.value.layout, awr.value.adam.grad, m, 0.5 * surplus.square().mean(), value)
        assert info["value_loss"][m].item() == pytest.approx(surplus.square().mean().item(), rel=1e-5)

        actor = leaves(awr.actor.layout, before["actor"], m)
        mean = torch.tanh(perceptron(actor, observation)[:, :2])
        loss = (awr.weights[m, rows, None] * (mean - b.action).square()).mean()
        assert_gradient(awr.actor.layout, awr.actor.adam.grad, m, loss, actor)
        assert info["actor_loss"][m].item() == pytest.approx(loss.item(), rel=1e-5)
        assert info["weight"][m].item() == pytest.approx(awr.weights[m, rows].mean().item(), rel=1e-5)
    for name, rate in (("actor", 0.25e-3), ("value", 2e-3)):
        assert (tensors(awr)[name] - before[name]).abs().max().item() == pytest.approx(rate, rel=1e-2)
    gradient_step(awr, batch, index)
    assert agent_state(awr)[1] == [2, 2]


@pytest.mark.parametrize("temperature", [1.0, 0.25])
def test_the_policy_is_the_weighted_mean_of_the_actions(temperature: float) -> None:
    """Half the actions are worth 1, half 0: standardised advantages are 1 and -1, their mean 0.6 tanh(1 / t)."""
    settings = replace(QUICK, awr_temperature=temperature, weight_max=100.0)
    loop, states = train(two_ways(), settings, ALGORITHM, 500, MEMBERS[:2], LONG), torch.tensor([[-1.0], [1.0]])
    assert isinstance(loop.agent, Awr)
    for m in range(2):
        action = loop.agent.policy(m).greedy(states)
        torch.testing.assert_close(action, 0.6 * np.tanh(1 / temperature) * states, atol=0.03, rtol=0)
        torch.testing.assert_close(value_of(loop.agent, m, states), torch.full((2,), 0.5).double(), atol=0.05, rtol=0)


@pytest.mark.parametrize("make_probe", [discounted_reward, endless_reward], ids=lambda make: make.__name__)
def test_the_values_of_a_probe_are_learned(make_probe: Callable[[int], Probe]) -> None:
    """Through an end that counts, and through time limits that do not."""
    probe = make_probe(1000)
    world = world_of(probe)
    settings = replace(QUICK, gamma=probe.gamma, critic_lr=1e-2)
    loop = train(world, settings, ALGORITHM, 800, MEMBERS[:2], LONG)
    assert isinstance(loop.agent, Awr)
    wanted = probe.q_value(probe.dataset["observations"], probe.dataset["actions"])
    for m in range(2):
        error = value_of(loop.agent, m, world.start).numpy() - wanted
        assert np.abs(error).mean() < 0.04 * np.abs(wanted).max()


def test_the_published_policy_is_for_observations_as_they_are() -> None:
    awr, observation = make(), 3 * normal(50, OBS) + 1
    mean, std = awr.standard.mean.double(), awr.standard.divisor.double()
    np.testing.assert_allclose(std, split(make_world()).observation.double().std(dim=0, correction=0) + 1e-3, rtol=1e-6)
    for m in range(2):
        out = perceptron(leaves(awr.actor.layout, awr.actor.flat, m), (observation.double() - mean) / std)
        torch.testing.assert_close(awr.policy(m).greedy(observation), torch.tanh(out[:, :2]).float())
