"""Behaviour cloning: one update re-derived, a known policy found again."""

from dataclasses import replace

import pytest
import torch
from probes.offline import ACT, MEMBERS, OBS, assert_gradient, doubles, leaves, make_batch, perceptron
from probes.single_steps import single_steps
from torch import Tensor

from mopo_cli.agents.algorithms.bc import ALGORITHM, Bc, BcSettings, start_bc, update
from mopo_cli.agents.loop import advance
from mopo_cli.agents.runs import start_loop
from mopo_cli.agents.schedule import LoopSettings
from mopo_cli.agents.world import World
from mopo_cli.engine.rows import RowLayout, Transition
from mopo_cli.engine.streams import Draws, stream
from mopo_cli.tasks.termination import never

SETTINGS = BcSettings(hidden=16, layers=2, actor_lr=1e-3, log_std_min=-3.0, log_std_max=1.0)
LOOP = LoopSettings(20, 10, 30, 2, batch_size=37, real_ratio=1.0)


def learn(bc: Bc, batch: Transition, scale: float = 1.0) -> dict[str, Tensor]:
    reward = torch.randn(batch.reward.shape, generator=stream(0, "test/reward"))
    return update(bc, replace(batch, reward=reward), Draws(()), scale)


@pytest.mark.parametrize(("rows", "act_dim"), [(37, 2), (7, 1), (1, 3)])
def test_one_update_by_the_textbook(rows: int, act_dim: int) -> None:
    """Adam's first step is the learning rate against the gradient's sign."""
    bc, batch = start_bc(OBS, act_dim, SETTINGS, [0, 5], "cpu"), make_batch(2, rows, act_dim)
    before = bc.actor.flat.clone()
    losses = learn(bc, batch)["actor_loss"]
    for m in range(2):
        b, params = doubles(batch, m), leaves(bc.actor.layout, before, m)
        action = torch.tanh(perceptron(params, b.observation)[:, :act_dim])
        loss = (action - b.action).square().mean()
        assert losses[m].item() == pytest.approx(loss.item(), rel=1e-5)
        assert_gradient(bc.actor.layout, bc.actor.adam.grad, m, loss, params)
    gradient = bc.actor.layout.views(bc.actor.adam.grad)
    assert (gradient["w2"][..., act_dim:] == 0).all() and (gradient["w2"][..., :act_dim] != 0).any()
    sure = bc.actor.adam.grad.abs() > 1e-5  # where Adam's epsilon does not count
    change = (bc.actor.flat - before)[sure]
    torch.testing.assert_close(change, -1e-3 * bc.actor.adam.grad[sure].sign(), rtol=2e-2, atol=0)


def test_neither_the_reward_nor_the_deviation_is_learned() -> None:
    bc, other, batch = *(start_bc(OBS, ACT, SETTINGS, [0], "cpu") for _ in range(2)), make_batch(1)
    heads = bc.actor.layout.views(bc.actor.flat.clone())
    learn(bc, batch)
    update(other, replace(batch, reward=batch.reward + 9), Draws(()))
    assert torch.equal(bc.actor.flat, other.actor.flat)
    after = bc.actor.layout.views(bc.actor.flat)
    assert torch.equal(after["w2"][..., ACT:], heads["w2"][..., ACT:])
    assert torch.equal(after["b2"][..., ACT:], heads["b2"][..., ACT:])
    assert not torch.equal(after["w2"][..., :ACT], heads["w2"][..., :ACT])


def test_the_factor_scales_the_step() -> None:
    steps = {}
    for scale in (1.0, 0.25, 0.0):
        bc = start_bc(OBS, ACT, SETTINGS, [0], "cpu")
        before = bc.actor.flat.clone()
        learn(bc, make_batch(1), scale)
        steps[scale] = bc.actor.flat - before
    torch.testing.assert_close(steps[0.25], 0.25 * steps[1.0], atol=1e-7, rtol=1e-3)
    assert (steps[0.0] == 0).all() and (steps[1.0] != 0).any()


def make_world(rows: int = 500) -> tuple[World, Tensor]:
    """Real rows whose actions are a known function of the observation, and those actions; no model at all."""
    draw = stream(0, "test/rows")
    layout, observation = RowLayout(OBS, ACT, 3), torch.randn(rows, OBS, generator=draw)
    action = torch.stack([0.8 * torch.sin(observation[:, 0] + observation[:, 1]), 0.5 * torch.tanh(observation[:, 2])])
    reward, following = torch.randn(rows, generator=draw), torch.randn(rows, OBS, generator=draw)
    real = layout.pack(observation, action.T, reward, torch.zeros(rows), following, torch.zeros(rows, 3))
    return World(layout, real, observation, single_steps(real), never), action.T


def test_a_known_policy_is_found_again() -> None:
    world, expected = make_world()
    quick = replace(SETTINGS, hidden=64, actor_lr=3e-3)
    loop = start_loop(world, MEMBERS[:2], quick, replace(LOOP, steps_per_epoch=100, rollout_every=100), ALGORITHM)
    epochs = []
    for _ in range(12):
        means = advance(loop, world)
        assert means is not None
        epochs.append(means)
    assert set(epochs[-1]) == {"actor_loss", "penalty", "reward"}
    assert (epochs[-1]["actor_loss"] < 0.002).all() and (epochs[0]["actor_loss"] > 0.02).all()
    fresh = torch.randn(200, OBS, generator=stream(1, "test/fresh")).clamp(-1.5, 1.5)
    truth = torch.stack([0.8 * torch.sin(fresh[:, 0] + fresh[:, 1]), 0.5 * torch.tanh(fresh[:, 2])], dim=1)
    for m in range(2):
        policy = loop.agent.policy(m)
        assert (policy.greedy(world.start) - expected).square().mean() < 0.002
        assert (policy.greedy(fresh) - truth).square().mean() < 0.01
    assert loop.pool.sizes == [0, 0] and not loop.tallies, "nothing was imagined"
