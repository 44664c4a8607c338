"""Behaviour cloning: one update re-derived, a known policy found again."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from mopo_cli.agents.algorithms.bc import ALGORITHM, Bc, BcSettings, start_bc, update
from mopo_cli.agents.loop import advance
from mopo_cli.agents.runs import start_loop
from mopo_cli.agents.schedule import LoopSettings
from mopo_cli.agents.world import World
from mopo_cli.engine.members import Member
from mopo_cli.engine.rows import Rows, Transition
from mopo_cli.engine.streams import stream
from mopo_cli.tasks.termination import never

OBS, ACT, BATCH = 4, 2, 37
SETTINGS = BcSettings(hidden=16, layers=2, actor_lr=1e-3, log_std_min=-3.0, log_std_max=1.0)
LOOP = LoopSettings(20, 10, 30, 2, batch_size=37, real_ratio=1.0)
MEMBERS = tuple(Member(seed, "none", 1.0, 5, 0) for seed in (0, 3, 7))


def make_batch(members: int, seed: int = 0, rows: int = BATCH, act_dim: int = ACT) -> Transition:
    draw = stream(seed, "test/batch")
    observation = torch.randn(members, rows, OBS, generator=draw)
    action = 2 * torch.rand(members, rows, act_dim, generator=draw) - 1
    nothing = torch.zeros(members, rows)
    return Transition(observation, action, nothing, nothing, observation, torch.zeros(members, rows, 3))


def learn(bc: Bc, batch: Transition, scale: float = 1.0) -> dict[str, Tensor]:
    reward = torch.randn(batch.reward.shape, generator=stream(0, "test/reward"))
    return update(bc, replace(batch, reward=reward), scale)


def perceptron(params: dict[str, np.ndarray], x: np.ndarray) -> list[np.ndarray]:
    """The outputs of every layer, the first being the input."""
    layers = [x]
    for i in range(3):
        x = layers[-1] @ params[f"w{i}"] + params[f"b{i}"]
        layers.append(np.maximum(x, 0) if i < 2 else x)
    return layers


def by_hand(
    params: dict[str, np.ndarray], state: np.ndarray, target: np.ndarray
) -> tuple[float, dict[str, np.ndarray]]:
    """The mean squared error over rows and action dimensions, and its gradient by backpropagation."""
    act_dim = target.shape[1]
    *hidden, out = perceptron(params, state)
    action = np.tanh(out[:, :act_dim])
    loss = np.square(action - target).mean()
    back = np.zeros_like(out)
    back[:, :act_dim] = 2 * (action - target) / target.size * (1 - action**2)
    gradient: dict[str, np.ndarray] = {}
    for i in (2, 1, 0):
        gradient |= {f"w{i}": hidden[i].T @ back, f"b{i}": back.sum(axis=0, keepdims=True)}
        back = (back @ params[f"w{i}"].T) * (hidden[i] > 0)
    return loss, gradient


@pytest.mark.parametrize(("rows", "act_dim"), [(37, 2), (7, 1), (1, 3)])
def test_one_update_by_hand(rows: int, act_dim: int) -> None:
    """Loss and gradient by backpropagation; Adam's first step is the learning rate against the gradient's sign."""
    bc, batch = start_bc(OBS, act_dim, SETTINGS, [0, 5], "cpu"), make_batch(2, rows=rows, act_dim=act_dim)
    before = {name: view.double().numpy().copy() for name, view in bc.actor.layout.views(bc.actor.flat).items()}
    losses = learn(bc, batch)["actor_loss"]
    after = bc.actor.layout.views(bc.actor.flat)
    for m in range(2):
        own = {name: value[m] for name, value in before.items()}
        loss, gradient = by_hand(own, batch.observation[m].double().numpy(), batch.action[m].double().numpy())
        assert losses[m].item() == pytest.approx(loss, rel=1e-5)
        for name, expected in gradient.items():
            found = bc.actor.layout.views(bc.actor.adam.grad)[name][m].numpy()
            np.testing.assert_allclose(found, expected, atol=1e-7, rtol=1e-4)
            sure = np.abs(expected) > 1e-5  # where Adam's epsilon does not count
            step = after[name][m].double().numpy() - own[name]
            np.testing.assert_allclose(step[sure], -1e-3 * np.sign(expected[sure]), rtol=2e-2)
        assert (gradient["w2"][:, act_dim:] == 0).all() and (gradient["w2"][:, :act_dim] != 0).any()


def test_neither_the_reward_nor_the_deviation_is_learned() -> None:
    bc, other, batch = *(start_bc(OBS, ACT, SETTINGS, [0], "cpu") for _ in range(2)), make_batch(1)
    heads = bc.actor.layout.views(bc.actor.flat.clone())
    learn(bc, batch)
    update(other, replace(batch, reward=batch.reward + 9))
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
    layout, observation = Rows(OBS, ACT, 3), torch.randn(rows, OBS, generator=draw)
    action = torch.stack([0.8 * torch.sin(observation[:, 0] + observation[:, 1]), 0.5 * torch.tanh(observation[:, 2])])
    reward, following = torch.randn(rows, generator=draw), torch.randn(rows, OBS, generator=draw)
    real = layout.pack(observation, action.T, reward, torch.zeros(rows), following, torch.zeros(rows, 3))
    return World(layout, real, observation, never), action.T


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
