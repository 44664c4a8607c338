"""CQL's and COMBO's update in double precision and by autograd, and small worlds whose right values are known."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from probes.agents import ACT, make_batch, make_sac, normal, tensors
from probes.agents import SETTINGS as SAC
from probes.offline import Layer, assert_gradient, leaves, perceptron
from probes.single_steps import single_steps
from torch import Tensor

from mopo_cli.agents.algorithm import Algorithm, Batch
from mopo_cli.agents.algorithms.cql import CqlSettings, gradient_step
from mopo_cli.agents.loop import advance
from mopo_cli.agents.runs import Loop, start_loop
from mopo_cli.agents.schedule import LoopSettings
from mopo_cli.agents.world import World
from mopo_cli.engine.members import Member
from mopo_cli.engine.rows import RowLayout
from mopo_cli.engine.streams import stream
from mopo_cli.nets.perceptron import evaluate
from mopo_cli.tasks.termination import never

LOG_STD = (-0.3, 0.2)  # so narrow that some are out of them on either side
PLAIN = replace(SAC, log_std_min=LOG_STD[0], log_std_max=LOG_STD[1])


def act(actor: Layer, observation: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Actions `[R, K, act_dim]` by noise of this shape, and their log-probabilities, by the textbook."""
    mean, log_std = perceptron(actor, observation)[:, None].chunk(2, dim=-1)
    base = torch.distributions.Normal(mean, log_std.clamp(*LOG_STD).exp())
    x = mean + base.stddev * noise
    return x.tanh(), (base.log_prob(x) - torch.log(1 - x.tanh() ** 2)).sum(dim=-1)


def ask(critic: Layer, observation: Tensor, action: Tensor) -> Tensor:
    """Values `[R, K]` of actions `[R, K, act_dim]` at R states."""
    state = observation[:, None].expand(-1, action.shape[1], -1)
    return perceptron(critic, torch.cat([state, action], dim=-1).flatten(0, 1)).view(action.shape[:2])


def check_update(settings: CqlSettings, real: int, first: int = 0, rows: int = 23) -> None:
    """All numbers that an update tells and all gradients that it takes, against losses written out for autograd."""
    sac, (plain, reward, _) = make_sac(2, settings), make_batch(2, rows)
    batch = Batch(**vars(plain) | {"reward": reward}, real_rows=real, index=torch.zeros(2, real))
    count, states = settings.actions, rows - first
    noise = normal(2, 2, rows, 1 + count, ACT, name="noise")
    uniform = 2 * torch.rand(2, states, count, ACT, generator=stream(0, "test/uniform")) - 1
    before = {name: tensors(sac)[name].clone() for name in ("actor", "critic", "target", "log_alpha")}
    metrics = gradient_step(sac, batch, noise, uniform, first)
    for m in range(2):
        s, a, n = (t[m].double() for t in (batch.observation, batch.action, batch.next_observation))
        actor, alpha = leaves(sac.actor.layout, before["actor"], m), before["log_alpha"][m].double().exp()
        critics, targets, fresh = (
            [leaves(sac.critic.layout, flat, 2 * m + i) for i in (0, 1)]
            for flat in (before["critic"], before["target"], sac.critic.flat)
        )
        (ahead, ahead_log_prob), (present, log_prob) = (
            act(actor, state, noise[i, m].double()) for i, state in ((0, n), (1, s))
        )
        value = torch.minimum(*(ask(target, n, ahead[:, :1]) for target in targets))[:, 0]
        if settings.backup == "soft":
            value = value - alpha * ahead_log_prob[:, 0]
        backup = (reward[m].double() + settings.gamma * (1 - batch.terminal[m].double()) * value).detach()
        said = []
        for i, critic in enumerate(critics):
            kinds = [
                ask(critic, s[first:], uniform[m].double()) - np.log(0.5**ACT),
                ask(critic, s[first:], ahead[first:, 1:].detach()) - ahead_log_prob[first:, 1:].detach(),
                ask(critic, s[first:], present[first:, 1:].detach()) - log_prob[first:, 1:].detach(),
            ]
            listed = torch.stack(kinds, dim=1)  # [R, 3, N]
            low = torch.logsumexp(listed.flatten(1), dim=1) if settings.lse == "full" else listed.logsumexp(1).mean(1)
            q = ask(critic, s, a[:, None])[:, 0]
            term = settings.beta * (low.mean() - q[:real].mean())
            error = (q - backup).square().mean()
            assert_gradient(sac.critic.layout, sac.critic.adam.grad, 2 * m + i, term + error, critic)
            regulariser = ask(critic, s[first:], present[first:, 1:]).mean() - q[:real].mean()
            said.append([x.item() for x in (q.mean(), error, term, regulariser)])
        expected = dict(zip(("q", "critic_loss", "conservative", "regulariser"), np.mean(said, axis=0), strict=True))
        expected |= {"entropy": -log_prob[:, 0].mean().item(), "alpha": alpha.item()}
        assert metrics.keys() == expected.keys()
        for name, wanted in expected.items():
            assert metrics[name][m].item() == pytest.approx(wanted, rel=1e-4, abs=1e-5), name
        best = torch.minimum(*(ask(critic, s, present[:, :1]) for critic in fresh))
        loss = (alpha * log_prob[:, 0] - best[:, 0]).mean()
        assert_gradient(sac.actor.layout, sac.actor.adam.grad, m, loss, actor)
        wanted = -(log_prob[:, 0] + settings.target_entropy).mean().item()
        assert sac.alpha_adam.grad[m].item() == pytest.approx(wanted, rel=1e-4)


# Learning where the values are known.

MEMBER = (Member(0, "none", 0.0, 1, 0),)
GRID = torch.linspace(-1, 1, 21)
SMALL = {
    "hidden": 32, "layers": 2, "actor_lr": 1e-3, "critic_lr": 3e-3, "alpha_lr": 1e-3, "gamma": 0.9, "tau": 0.05,
    "target_entropy": 0.0, "alpha_max": 0.3, "log_std_min": -3.0, "log_std_max": 1.0,
}  # fmt: skip


def start(world: World, algorithm: Algorithm, real_ratio: float, **settings: Any) -> Loop:
    schedule = LoopSettings(50, 50, 1, 1, batch_size=64, real_ratio=real_ratio)
    return start_loop(world, MEMBER, algorithm.settings(**SMALL, **settings), schedule, algorithm)


def values(loop: Loop, state: Tensor) -> Tensor:
    """What the critics on average say of the actions of the grid in a state `[obs_dim]`."""
    x = state.expand(1, len(GRID), -1)
    (judged,) = evaluate((loop.agent.critic, (x, GRID[None, :, None])))  # type: ignore[attr-defined]
    return judged.out.mean(dim=0)[:, 0]


def check_fixed_point(algorithm: Algorithm, share: float, beta: float) -> None:
    """One state, one step, reward a; the data's actions have density p(a) = (2 - a) / 4, the model's are uniform.

    With f the share of the data the loss is least where at every action
    2 (f p + (1 - f) / 2) (Q - a) + beta (e^Q / ∫ e^Q - p) = 0.
    """

    def packed(action: Tensor) -> Tensor:
        nothing, one = torch.zeros(len(action), 3), torch.ones(len(action), 1)
        return rows.pack(one, action[:, None], action, one[:, 0], one, nothing)

    rows, even = RowLayout(1, 1, 3), (torch.arange(2000) + 0.5) / 2000
    data, model = packed(2 - torch.sqrt(9 - 8 * even)), packed(2 * even - 1)
    world = World(rows, data, torch.ones(1, 1), single_steps(data), never, buffer=model if share < 1 else None)
    loop, result = start(world, algorithm, share, beta=beta), []
    for k in range(9):
        advance(loop, world)
        if k >= 4:
            result.append(values(loop, torch.ones(1)))
    a = np.linspace(-1, 1, 2001)
    density, q = (2 - a) / 4, a.copy()
    for _ in range(2000):
        soft = np.exp(q) / np.trapezoid(np.exp(q), a)
        q = 0.95 * q + 0.05 * (a + beta * (density - soft) / (2 * (share * density + (1 - share) / 2)))
    expected = np.interp(GRID.numpy(), a, q)
    assert np.abs(expected - GRID.numpy()).max() > 0.6, "it is far from the reward"
    np.testing.assert_allclose(torch.stack(result).mean(dim=0), expected, atol=0.08)


def chain_errors(algorithm: Algorithm, share: float, optimism: float, **settings: Any) -> tuple[Tensor, Tensor]:
    """How far the critics are above the truth, at actions out of the data's support, and at those within.

    Three states after one another, reward a; the data's actions are below 0. The model knows all but that actions
    above 0 are worth `optimism` less than it says. The truth is the value of the policy that was learned.
    """

    def packed(action: Tensor, extra: float, name: str) -> Tensor:
        state = torch.randint(3, (len(action),), generator=stream(0, f"test/{name}"))
        reward = action + extra * (action > 0)
        following = eye[(state + 1) % 3]
        return rows.pack(eye[state], action[:, None], reward, state == 2, following, torch.zeros(len(action), 3))

    rows, eye, even = RowLayout(3, 1, 3), torch.eye(3), (torch.arange(1000) + 0.5) / 1000
    real, model = packed(-even, 0.0, "data"), packed(2 * even - 1, optimism, "model")
    world = World(rows, real, eye, single_steps(real), never, buffer=model if share < 1 else None)
    loop = start(world, algorithm, share, **settings)
    for _ in range(6):
        advance(loop, world)
    policy, draw = loop.agent.policy(0), stream(0, "test/policy")
    ahead, errors = 0.0, []
    for k in (2, 1, 0):
        errors.append(values(loop, eye[k]) - (GRID + 0.9 * ahead))
        ahead = 0.9 * ahead + policy.sample(eye[k].expand(4000, 3), draw).mean().item()
    result = torch.stack(errors)
    return result[:, GRID > 0.35], result[:, GRID <= 0]
