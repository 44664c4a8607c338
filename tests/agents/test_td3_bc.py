"""TD3+BC: its updates re-derived, delay, noise and standardisation, a balance in closed form."""

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
    leaves,
    make_batch,
    make_world,
    perceptron,
    train,
)
from torch import Tensor

from mopo_cli.agents.algorithms.td3_bc import ALGORITHM, Td3Bc, Td3BcSettings, gradient_step, start_td3_bc
from mopo_cli.agents.standardise import standard_of
from mopo_cli.nets.scales import Standard

SETTINGS = Td3BcSettings(
    hidden=16, layers=2, actor_lr=1e-3, critic_lr=2e-3, gamma=0.9, tau=0.05, log_std_min=-3.0, log_std_max=1.0
)
NOISY = replace(SETTINGS, target_noise=0.8, target_noise_clip=0.5)
STANDARD = Standard(torch.tensor([1.0, 0.5, -2.0, 0.0]), torch.tensor([3.0, 1.0, 0.2, 2.0]))
LONG = replace(LOOP, steps_per_epoch=100, rollout_every=100, batch_size=256)
PARTS = ("actor", "actor_target", "critic", "critic_target")


def make(members: int = 2, settings: Td3BcSettings = NOISY, act_dim: int = ACT) -> Td3Bc:
    """Agents some way into training: targets differ from what they follow."""
    td3 = start_td3_bc(STANDARD, act_dim, settings, list(range(members)), "cpu")
    td3.critic.target.flat.add_(0.1 * normal(*td3.critic.flat.shape, name="target"))
    td3.actor.target.flat.add_(0.1 * normal(*td3.actor.flat.shape, name="ahead"))
    td3.actor.flat.mul_(2)
    td3.actor.target.flat.mul_(2)
    return td3


def copies(td3: Td3Bc) -> dict[str, Tensor]:
    return {name: tensors(td3)[name].clone() for name in PARTS}


def plain_action(actor: dict[str, Tensor], observation: Tensor) -> Tensor:
    return torch.tanh(perceptron(actor, observation).chunk(2, dim=1)[0])


@pytest.mark.parametrize(("rows", "act_dim"), [(37, 2), (7, 1), (2, 3)])
def test_the_gradients_are_those_of_the_losses_of_the_paper(rows: int, act_dim: int) -> None:
    td3, batch, noise = make(act_dim=act_dim), make_batch(2, rows, act_dim), normal(2, rows, act_dim, name="z")
    gradient_step(td3, batch, noise, False)
    before = copies(td3)
    info = gradient_step(td3, batch, noise, True)
    for m in range(2):
        b = doubles(batch, m)
        state, following = ((s - STANDARD.mean) / STANDARD.divisor for s in (b.observation, b.next_observation))
        ahead = leaves(td3.actor.layout, before["actor_target"], m)
        targets = [leaves(td3.critic.layout, before["critic_target"], 2 * m + i) for i in (0, 1)]
        with torch.no_grad():
            blur = torch.maximum(torch.minimum(0.8 * noise[m].double(), torch.tensor(0.5)), torch.tensor(-0.5))
            after = torch.maximum(torch.minimum(plain_action(ahead, following) + blur, torch.ones(1)), -torch.ones(1))
            least = torch.minimum(*(perceptron(target, following, after)[:, 0] for target in targets))
            backup = b.reward + 0.9 * (1 - b.terminal) * least
        losses, values = [], []
        for i in (0, 1):
            critic = leaves(td3.critic.layout, before["critic"], 2 * m + i)
            values.append(perceptron(critic, state, b.action)[:, 0])
            losses.append((values[i] - backup).square().mean())
            assert_gradient(td3.critic.layout, td3.critic.adam.grad, 2 * m + i, losses[i], critic)
        assert info["critic_loss"][m].item() == pytest.approx((losses[0] + losses[1]).item() / 2, rel=1e-5)
        assert info["q"][m].item() == pytest.approx(torch.stack(values).mean().item(), rel=1e-4, abs=1e-6)

        actor = leaves(td3.actor.layout, before["actor"], m)
        first = leaves(td3.critic.layout, td3.critic.flat, 2 * m)  # as it is after its step
        action = plain_action(actor, state)
        q = perceptron(first, state, action)[:, 0]
        imitation = (action - b.action).square().mean()
        loss = -2.5 / q.detach().abs().mean() * q.mean() + imitation
        grads = td3.actor.layout.views(td3.actor.adam.grad)
        assert (grads["w2"][m, :, act_dim:] == 0).all(), "the deviation is not learned"
        assert_gradient(td3.actor.layout, td3.actor.adam.grad, m, loss, actor)
        assert info["imitation"][m].item() == pytest.approx(imitation.item(), rel=1e-5)


def test_these_examples_reach_the_bounds_of_noise_and_action() -> None:
    td3, batch, noise = make(), make_batch(2), normal(2, 37, 2, name="z")
    clipped = (0.8 * noise).abs() > 0.5
    assert 0.3 < clipped.float().mean() < 0.8
    state = STANDARD.apply(batch.next_observation)
    for m in range(2):
        ahead = leaves(td3.actor.layout, td3.actor.target.flat, m)
        beyond = (plain_action(ahead, state[m].double()) + (0.8 * noise[m]).clamp(-0.5, 0.5)).abs() > 1
        assert 0 < beyond.float().mean() < 0.7


@pytest.mark.parametrize("delay", [1, 2, 3])
def test_actors_and_targets_move_at_every_so_many_th_step_of_the_critics(delay: int) -> None:
    td3 = make(settings=replace(SETTINGS, policy_delay=delay))
    for step in range(1, 7):
        before = copies(td3)
        info = gradient_step(td3, make_batch(2, seed=step), normal(2, 37, 2, name=f"z{step}"), step % delay == 0)
        moved = {name for name in PARTS if not torch.equal(before[name], tensors(td3)[name])}
        assert moved == (set(PARTS) if step % delay == 0 else {"critic"}), step
        assert td3.actor.adam.steps == step // delay and td3.critic.adam.steps == step
        assert (info["imitation"] > 0).all() == (step >= delay)
        if step % delay == 0:
            for name in ("actor", "critic"):
                wanted = 0.95 * before[f"{name}_target"] + 0.05 * tensors(td3)[name]
                torch.testing.assert_close(tensors(td3)[f"{name}_target"], wanted, rtol=1e-6, atol=1e-7)


def test_the_first_step_of_each_network_is_its_own_learning_rate() -> None:
    td3 = make(settings=replace(SETTINGS, policy_delay=1))
    before = copies(td3)
    gradient_step(td3, make_batch(2), normal(2, 37, 2), True, actor_scale=0.25)
    assert (td3.critic.flat - before["critic"]).abs().max().item() == pytest.approx(2e-3, rel=1e-2)
    assert (td3.actor.flat - before["actor"]).abs().max().item() == pytest.approx(0.25e-3, rel=1e-2)


def test_the_actor_s_step_does_not_depend_on_the_unit_of_the_values() -> None:
    """Of critics that are 1000 times as high everywhere, lambda is a thousandth."""
    ends = []
    for factor in (1.0, 1000.0):
        td3 = make(settings=replace(SETTINGS, policy_delay=1, critic_lr=1e-30))
        for name, view in td3.critic.layout.views(td3.critic.flat).items():
            view *= factor if name.endswith("2") else 1.0
        gradient_step(td3, make_batch(2), normal(2, 37, 2), True)
        ends.append(td3.actor.adam.grad.clone())
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-4, atol=1e-7)


def test_means_and_deviations_are_those_of_the_data() -> None:
    observation = make_world().start.clone()
    observation[:, 2] = 5.0
    standard, exact = standard_of(observation), observation.double().numpy()
    np.testing.assert_allclose(standard.mean, exact.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(standard.divisor, exact.std(axis=0) + 1e-3, rtol=1e-6)
    assert standard.divisor[2].item() == pytest.approx(1e-3)
    assert standard.apply(observation)[:, 2].abs().max() < 1e-6


@pytest.mark.parametrize("hidden", [5, 33])
def test_the_published_policy_is_the_learned_one_for_observations_as_they_are(hidden: int) -> None:
    td3, observation = make(3, replace(SETTINGS, hidden=hidden)), 3 * normal(50, OBS) + 1
    kept = td3.actor.flat.clone()
    other = td3.actor.flat + 0.3
    for m in range(3):
        for flat, given in ((td3.actor.flat, None), (other, other)):
            state = (observation.double() - STANDARD.mean.double()) / STANDARD.divisor.double()
            wanted = plain_action(leaves(td3.actor.layout, flat, m), state)
            action = td3.policy(m, given).greedy(observation)
            torch.testing.assert_close(action, wanted.float(), rtol=1e-4, atol=2e-5)
    assert torch.equal(td3.actor.flat, kept) and td3.policy(0).flat.shape == (1, td3.actor.layout.size)
    assert (td3.policy(0).log_std_min, td3.policy(0).log_std_max) == (-3.0, 1.0)


def test_the_policy_leaves_the_data_s_actions_as_far_as_the_balance_says() -> None:
    """Uniform actions that pay 10 + 2 s a in the states s of +-1: the mean of the actions is 0, the best is s.

    The loss -alpha Q / |Q| + (a - 0)^2 is least where a = s alpha / (10 + 2 |a|), that is at 0.2386 for alpha 2.5.
    """

    def act(count: int, draw: torch.Generator) -> Tensor:
        return 2 * torch.rand(count, 1, generator=draw) - 1

    world = bandit(act, lambda state, action: 10 + 2 * state * action)
    states = torch.tensor([[-1.0], [1.0]])
    for alpha, wanted in ((2.5, (np.sqrt(120) - 10) / 4), (0.0, 0.0)):
        settings = replace(SETTINGS, hidden=32, actor_lr=3e-3, critic_lr=5e-3, bc_alpha=alpha)
        loop = train(world, settings, ALGORITHM, 700, MEMBERS[:2], LONG)
        for m in range(2):
            result = loop.agent.policy(m).greedy(states)
            torch.testing.assert_close(result, wanted * states.double(), atol=0.06, rtol=0, check_dtype=False)
