"""IQL: its updates re-derived, expectiles and weights in closed form."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from probes.agents import normal, tensors
from probes.offline import (
    ACT,
    LOOP,
    MEMBERS,
    OBS,
    assert_gradient,
    bandit,
    doubles,
    expectile,
    leaves,
    make_batch,
    make_world,
    perceptron,
    train,
    two_ways,
)
from torch import Tensor

from mopo_cli.agents.algorithm import agent_state
from mopo_cli.agents.algorithms.iql import ALGORITHM, Iql, IqlSettings, log_likelihood, start_iql, update
from mopo_cli.agents.runs import start_loop
from mopo_cli.engine.streams import Draws
from mopo_cli.nets.perceptron import evaluate

BOUNDS = (-0.3, 0.4)
SETTINGS = IqlSettings(
    hidden=16, layers=2, actor_lr=1e-3, critic_lr=2e-3, gamma=0.9, tau=0.05, log_std_min=-3.0, log_std_max=1.0,
    weight_max=1.5,
)  # fmt: skip
QUICK = replace(SETTINGS, hidden=32, actor_lr=5e-3, critic_lr=5e-3, weight_max=100.0, return_range=0.0)
LONG = replace(LOOP, steps_per_epoch=100, rollout_every=100, batch_size=256, actor_schedule="cosine", epochs=6)
STATES = torch.tensor([[-1.0], [1.0]])
NETWORKS = ("actor", "value", "critic", "target")


def make(members: int = 2, settings: IqlSettings = SETTINGS, act_dim: int = ACT, reward_scale: float = 1.0) -> Iql:
    """Agents some way into training: targets differ from critics, deviations from one."""
    iql = start_iql(OBS, act_dim, settings, list(range(members)), "cpu", reward_scale)
    iql.critic.target.flat.add_(0.1 * normal(*iql.critic.target.flat.shape, name="target"))
    iql.actor.layout.views(iql.actor.flat)["b2"][..., act_dim:] = 0.5 * normal(members, 1, act_dim, name="deviation")
    return iql


@pytest.mark.parametrize(("rows", "act_dim"), [(37, 2), (7, 1), (2, 3)])
def test_the_gradients_are_those_of_the_losses_of_the_paper(rows: int, act_dim: int) -> None:
    """V by the expectile of the lower target, Q by the new V at s', the policy by weights of the new V at s."""
    settings = replace(SETTINGS, log_std_min=BOUNDS[0], log_std_max=BOUNDS[1])
    iql, batch = make(2, settings, act_dim, reward_scale=0.5), make_batch(2, rows, act_dim)
    before = {name: tensors(iql)[name].clone() for name in NETWORKS}
    info = update(iql, batch, Draws(()))
    capped = 0
    for m in range(2):
        b = doubles(batch, m)
        targets = [leaves(iql.critic.layout, before["target"], 2 * m + i) for i in (0, 1)]
        value = leaves(iql.value.layout, before["value"], m)
        with torch.no_grad():
            least = torch.minimum(*(perceptron(target, b.observation, b.action)[:, 0] for target in targets))
        gap = least - perceptron(value, b.observation)[:, 0]
        loss = (torch.abs(0.7 - (gap < 0).double()) * gap.square()).mean()
        assert_gradient(iql.value.layout, iql.value.adam.grad, m, loss, value)
        assert info["value_loss"][m].item() == pytest.approx(loss.item(), rel=1e-5)

        fresh = leaves(iql.value.layout, iql.value.flat, m)
        with torch.no_grad():
            backup = 0.5 * b.reward + 0.9 * (1 - b.terminal) * perceptron(fresh, b.next_observation)[:, 0]
            weight = torch.exp(3.0 * (least - perceptron(fresh, b.observation)[:, 0]))
            capped += int((weight > 1.5).sum())
            weight = torch.minimum(weight, torch.tensor(1.5))
        losses, values = [], []
        for i in (0, 1):
            critic = leaves(iql.critic.layout, before["critic"], 2 * m + i)
            values.append(perceptron(critic, b.observation, b.action)[:, 0])
            losses.append((values[i] - backup).square().mean())
            assert_gradient(iql.critic.layout, iql.critic.adam.grad, 2 * m + i, losses[i], critic)
        assert info["critic_loss"][m].item() == pytest.approx((losses[0] + losses[1]).item() / 2, rel=1e-5)
        assert info["q"][m].item() == pytest.approx(torch.stack(values).mean().item(), rel=1e-4, abs=1e-6)
        assert info["weight"][m].item() == pytest.approx(weight.mean().item(), rel=1e-4)

        actor = leaves(iql.actor.layout, before["actor"], m)
        mean, _ = perceptron(actor, b.observation).chunk(2, dim=1)
        deviation = actor["b2"][0, act_dim:].clamp(*BOUNDS).exp()  # one for all states
        log_prob = torch.distributions.Normal(torch.tanh(mean), deviation).log_prob(b.action).sum(dim=1)
        loss = -(weight * log_prob).mean()
        assert_gradient(iql.actor.layout, iql.actor.adam.grad, m, loss, actor)
        assert info["actor_loss"][m].item() == pytest.approx(loss.item(), rel=1e-4, abs=1e-6)
    assert rows < 37 or 0 < capped < 2 * rows


def test_the_likelihood_and_its_gradient() -> None:
    """Within the bounds of the deviation and out of them, of actions at the very border, too."""
    out = normal(50, 6, name="out").double().requires_grad_()
    action = torch.tanh(2 * normal(50, 3, name="a").double())
    action[:5] = 1.0
    result, gradient = log_likelihood(out.detach(), action, *BOUNDS)
    mean, log_std = out.chunk(2, dim=1)
    wanted = torch.distributions.Normal(torch.tanh(mean), log_std.clamp(*BOUNDS).exp()).log_prob(action).sum(dim=1)
    torch.testing.assert_close(result, wanted.detach())
    torch.testing.assert_close(gradient, torch.autograd.grad(wanted.sum(), out)[0])
    assert 0.2 < (gradient[:, 3:] == 0).double().mean() < 0.95


def test_targets_follow_by_tau_and_every_network_steps_at_its_rate() -> None:
    iql = make()
    before = {name: tensors(iql)[name].clone() for name in NETWORKS}
    update(iql, make_batch(2), Draws(()), actor_scale=0.25)
    torch.testing.assert_close(
        iql.critic.target.flat, 0.95 * before["target"] + 0.05 * iql.critic.flat, rtol=1e-6, atol=1e-7
    )
    for name, rate in (("actor", 0.25e-3), ("value", 2e-3), ("critic", 2e-3)):
        change = (tensors(iql)[name] - before[name]).abs().max().item()
        assert change == pytest.approx(rate, rel=1e-2), name
    update(iql, make_batch(2), Draws(()))
    assert agent_state(iql)[1] == [2, 2, 2]


def values(iql: Iql, observation: Tensor) -> Tensor:
    (valued,) = evaluate((iql.value, (observation.expand(len(iql.value.flat), -1, -1),)))
    return valued.out[..., 0]


def uniform_action(count: int, draw: torch.Generator) -> Tensor:
    return 2 * torch.rand(count, 1, generator=draw) - 1


@pytest.mark.parametrize("share", [0.5, 0.7, 0.9])
def test_v_is_the_expectile_of_what_the_data_s_actions_are_worth(share: float) -> None:
    """Uniform actions a that pay exp(s a): V of a state is the expectile of these rewards."""
    world = bandit(uniform_action, lambda state, action: torch.exp(state * action))
    loop = train(world, replace(QUICK, expectile=share), ALGORITHM, 600, MEMBERS[:2], LONG)
    rewards = world.row_layout.split(world.real)
    for i, state in enumerate((-1.0, 1.0)):
        paid = rewards.reward[rewards.observation[:, 0] == state].numpy()
        result = values(loop.agent, STATES)[:, i]  # type: ignore[arg-type]
        assert (result - expectile(paid, share)).abs().max() < 0.04
        assert share == 0.5 or expectile(paid, share) > paid.mean() + 0.08


def test_the_policy_is_the_weighted_mean_of_the_actions_and_as_wide_as_they_are() -> None:
    """Half the actions are worth 1, half 0. V is their expectile 0.7, so the weights are exp(0.9) and exp(-2.1)."""
    loop = train(two_ways(), QUICK, ALGORITHM, 600, MEMBERS[:2], LONG)
    good, bad = np.exp([0.9, -2.1]) / np.exp([0.9, -2.1]).sum()
    centre = 0.6 * (good - bad)
    deviation = np.sqrt(good * (0.6 - centre) ** 2 + bad * (0.6 + centre) ** 2 + 0.045**2)
    assert (values(loop.agent, STATES) - 0.7).abs().max() < 0.03  # type: ignore[arg-type]
    for m in range(2):
        policy = loop.agent.policy(m)
        torch.testing.assert_close(policy.greedy(STATES), (centre * STATES).float(), atol=0.04, rtol=0)
        head = policy.layout.views(policy.flat)
        assert head["b2"][0, 0, 1:].exp().item() == pytest.approx(deviation, abs=0.03)
        assert (head["w2"][..., 1:] == 0).all(), "the deviation depends on no state"


def test_with_the_settings_of_the_paper_the_better_of_the_logged_actions_is_taken() -> None:
    """Its rewards are scaled to 1000, so that the worse actions weigh nothing; 0.6 +- 0.1 is what there is."""
    loop = train(two_ways(), replace(QUICK, return_range=1000.0, critic_lr=2e-2), ALGORITHM, 600, MEMBERS[:2], LONG)
    for m in range(2):
        assert (loop.agent.policy(m).greedy(STATES) - 0.6 * STATES).abs().max() < 0.1


def test_rewards_are_scaled_by_the_returns_of_the_episodes() -> None:
    world = make_world((9, 1, 30, 17))
    reward = world.row_layout.split(world.real).reward.double().numpy()
    returns = [part.sum() for part in np.split(reward, [9, 10, 40])]
    for span in (1000.0, 5.0):
        iql = start_loop(world, MEMBERS, replace(SETTINGS, return_range=span), LOOP, ALGORITHM).agent
        assert iql.reward_scale == pytest.approx(span / (max(returns) - min(returns)))  # type: ignore[attr-defined]
    for left, settings in ((world, replace(SETTINGS, return_range=0.0)), (make_world((9,)), SETTINGS)):
        iql = start_loop(left, MEMBERS, settings, LOOP, ALGORITHM).agent
        assert iql.reward_scale == 1.0  # type: ignore[attr-defined]
