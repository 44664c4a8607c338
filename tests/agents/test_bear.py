"""BEAR: one update re-derived, its constraint active and satisfied on a toy."""

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from probes.agents import normal
from probes.offline import (
    ACT,
    LOOP,
    MEMBERS,
    OBS,
    Layer,
    assert_gradient,
    bandit,
    doubles,
    leaves,
    make_batch,
    perceptron,
    train,
)
from torch import Tensor
from torch.distributions import Normal

from mopo_cli.agents.algorithm import agent_state
from mopo_cli.agents.algorithms.bear import ALGORITHM, Bear, BearSettings, start_bear, update
from mopo_cli.agents.loop import advance
from mopo_cli.agents.runs import start_loop
from mopo_cli.engine.members import Member
from mopo_cli.engine.streams import Draws, draws

SETTINGS = BearSettings(
    hidden=16, layers=2, actor_lr=1e-3, critic_lr=2e-3, alpha_lr=5e-3, gamma=0.9, tau=0.05, target_entropy=-1.0,
    alpha_max=1.0, log_std_min=-0.5, log_std_max=0.5, mmd_sigma=0.7, warmup_steps=7, behaviour_hidden=12,
)  # fmt: skip
BOUNDS = (-0.5, 0.5)
LATENT = 2 * ACT


def make(members: int = 2, settings: BearSettings = SETTINGS) -> Bear:
    """Agents some way into training; multipliers differ, and some log deviations are out of their bounds."""
    bear = start_bear(OBS, ACT, settings, list(range(members)), "cpu")
    bear.critic.target.flat.add_(0.1 * normal(*bear.critic.target.flat.shape, name="target"))
    bear.log_multiplier += torch.linspace(-1.0, 0.7, members)[:, None]
    bear.actor.flat.mul_(2)
    bear.vae.encoder.flat.mul_(4)
    return bear


def noise(members: int = 2) -> Draws:
    return draws(range(members), "test/bear", 0, "cpu")


def plain_mmd(one: Tensor, other: Tensor, kernel: str, sigma: float) -> Tensor:
    """The root of the squared MMD of samples `[n, dim]`, by its definition."""

    def mean(xs: Tensor, ys: Tensor) -> Tensor:
        sizes = [((x - y).abs() if kernel == "laplacian" else (x - y) ** 2).sum() for x in xs for y in ys]
        return torch.stack([torch.exp(-size / (2 * sigma)) for size in sizes]).mean()

    return torch.sqrt(mean(one, one) + mean(other, other) - 2 * mean(one, other) + 1e-6)


class Plain:
    """One member and its noise in float64, by the textbook."""

    def __init__(self, bear: Bear, batch: Any, m: int) -> None:
        self.b, draw = doubles(batch, m), noise()
        rows = len(self.b.reward)
        self.coding = draw.normal(1, rows, LATENT)[0, m].double()
        self.ahead = draw.normal(10, rows, ACT)[:, m].double()
        self.latent = draw.normal(4, rows, LATENT)[:, m].double().clamp(-0.5, 0.5)
        self.present = draw.normal(4, rows, ACT)[:, m].double()
        self.actor = leaves(bear.actor.layout, bear.actor.flat, m)
        self.encoder = leaves(bear.vae.encoder.layout, bear.vae.encoder.flat, m)
        self.decoder = leaves(bear.vae.decoder.layout, bear.vae.decoder.flat, m)
        self.critics = [leaves(bear.critic.layout, bear.critic.flat, 2 * m + i) for i in (0, 1)]
        self.targets = [leaves(bear.critic.layout, bear.critic.target.flat, 2 * m + i) for i in (0, 1)]

    def raw(self, observation: Tensor, z: Tensor) -> Tensor:
        mean, log_std = perceptron(self.actor, observation).chunk(2, dim=1)
        return mean + log_std.clamp(*BOUNDS).exp() * z

    def values(self, critics: list[Layer], observation: Tensor, action: Tensor) -> Tensor:
        return torch.stack([perceptron(critic, observation, action)[:, 0] for critic in critics])

    def vae_loss(self) -> Tensor:
        mean, log_std = perceptron(self.encoder, self.b.observation, self.b.action).chunk(2, dim=1)
        coded = Normal(mean, log_std.clamp(-4, 15).exp())
        rebuilt = perceptron(self.decoder, self.b.observation, mean + coded.scale * self.coding).tanh()
        kl = torch.distributions.kl_divergence(coded, Normal(torch.zeros_like(mean), 1.0))
        return ((rebuilt - self.b.action) ** 2).mean() + 0.5 * kl.mean()

    def backup(self) -> Tensor:
        each = []
        for z in self.ahead:
            value = self.values(self.targets, self.b.next_observation, self.raw(self.b.next_observation, z).tanh())
            each.append(0.75 * value.min(dim=0).values + 0.25 * value.max(dim=0).values)
        return self.b.reward + 0.9 * (1 - self.b.terminal) * torch.stack(each).max(dim=0).values

    def mmd(self, kernel: str, decoder: Layer) -> Tensor:
        """Of every row; the behaviour is sampled by the decoder that has just learned."""
        samples = torch.stack([self.raw(self.b.observation, z) for z in self.present], dim=1)
        usual = torch.stack([perceptron(decoder, self.b.observation, z) for z in self.latent], dim=1)
        return torch.stack([plain_mmd(*pair, kernel, 0.7) for pair in zip(samples, usual.detach(), strict=True)])


@pytest.mark.parametrize("kernel", ["laplacian", "gaussian"])
@pytest.mark.parametrize("follow", [True, False])
def test_one_update_by_the_textbook(kernel: Any, follow: bool) -> None:
    bear, batch = make(settings=replace(SETTINGS, mmd_kernel=kernel)), make_batch(2, rows=11)
    before = [Plain(bear, batch, m) for m in range(2)]
    multipliers = bear.log_multiplier.exp()[:, 0].tolist()
    info = update(bear, batch, noise(), actor_uses_q=follow)
    for m, plain in enumerate(before):
        after = Plain(bear, batch, m)
        loss = plain.vae_loss()
        assert_gradient(bear.vae.encoder.layout, bear.vae.encoder.adam.grad, m, plain.vae_loss(), plain.encoder)
        assert_gradient(bear.vae.decoder.layout, bear.vae.decoder.adam.grad, m, loss, plain.decoder)
        assert info["vae_loss"][m].item() == pytest.approx(loss.item(), rel=1e-5)

        backup = plain.backup().detach()
        q = plain.values(plain.critics, plain.b.observation, plain.b.action)
        for i, critic in enumerate(plain.critics):
            predicted = perceptron(critic, plain.b.observation, plain.b.action)[:, 0]
            half = 0.5 * ((predicted - backup) ** 2).mean()
            assert_gradient(bear.critic.layout, bear.critic.adam.grad, 2 * m + i, half, critic)
        assert info["critic_loss"][m].item() == pytest.approx(((q - backup) ** 2).mean().item(), rel=1e-5)
        assert info["q"][m].item() == pytest.approx(q.mean().item(), rel=1e-4)

        mmd = plain.mmd(kernel, after.decoder)
        action = plain.raw(plain.b.observation, plain.present[0]).tanh()
        value = plain.values(after.critics, plain.b.observation, action).min(dim=0).values
        actor_loss = (multipliers[m] * (mmd - 0.05) - follow * value).mean()
        assert_gradient(bear.actor.layout, bear.actor.adam.grad, m, actor_loss, plain.actor)
        assert info["mmd"][m].item() == pytest.approx(mmd.mean().item(), rel=1e-4)
        assert info["multiplier"][m].item() == pytest.approx(multipliers[m], rel=1e-6)
        rising = multipliers[m] * (mmd.mean().item() - 0.05)
        assert bear.multiplier_adam.grad[m].item() == pytest.approx(-rising, rel=1e-4)


def test_log_deviations_are_out_of_their_bounds_in_these_examples() -> None:
    bear, batch = make(), make_batch(2, rows=11)
    for m in range(2):
        plain = Plain(bear, batch, m)
        coded = perceptron(plain.encoder, plain.b.observation, plain.b.action)[:, LATENT:]
        said = perceptron(plain.actor, plain.b.observation)[:, ACT:]
        assert 0 < (coded < -4).double().mean() < 0.8
        assert 0.05 < ((said < BOUNDS[0]) | (said > BOUNDS[1])).double().mean() < 0.95


def test_every_network_steps_by_its_own_rate_and_targets_follow() -> None:
    """Adam's first step is the rate along the gradient's sign; the temperature is not SAC's to move."""
    rates = replace(SETTINGS, behaviour_lr=3e-3, multiplier_lr=4e-3)
    bear, batch = make(settings=rates), make_batch(2)
    before, steps = deepcopy(agent_state(bear)[0]), {}
    update(bear, batch, noise(), 0.5)
    after = agent_state(bear)[0]
    for name in ("actor", "critic", "encoder", "decoder", "log_multiplier"):
        steps[name] = (after[name] - before[name]).abs().max().item()
    expected = {"actor": 5e-4, "critic": 2e-3, "encoder": 3e-3, "decoder": 3e-3, "log_multiplier": 4e-3}
    assert steps == pytest.approx(expected, rel=1e-2)
    torch.testing.assert_close(
        bear.critic.target.flat, 0.95 * before["target"] + 0.05 * bear.critic.flat, rtol=1e-6, atol=1e-7
    )
    assert torch.equal(after["log_alpha"], before["log_alpha"])


@pytest.mark.parametrize(("threshold", "bound"), [(10.0, -5.0), (1e-9, 10.0)])
def test_the_multiplier_stays_within_its_bounds(threshold: float, bound: float) -> None:
    bear = make(settings=replace(SETTINGS, mmd_threshold=threshold, multiplier_lr=4.0))
    for _ in range(8):
        update(bear, make_batch(2), noise())
    assert bear.log_multiplier.tolist() == [[bound], [bound]]


def pulled_away(threshold: float, steps: int) -> tuple[list[dict[str, float]], Tensor]:
    """What one watches in each 100 steps, and the actions in the end: the data's are -0.4 +- 0.05, more pays more."""
    world = bandit(lambda count, draw: -0.4 + 0.05 * torch.randn(count, 1, generator=draw), lambda _, a: a, 500)
    quick = replace(
        SETTINGS, actor_lr=2e-3, critic_lr=3e-3, log_std_min=-5.0, log_std_max=2.0, mmd_kernel="gaussian",
        mmd_threshold=threshold, mmd_sigma=20.0, multiplier_lr=0.01, warmup_steps=200, behaviour_lr=3e-3,
        behaviour_hidden=32,
    )  # fmt: skip
    schedule = replace(LOOP, batch_size=64, steps_per_epoch=100, rollout_every=100)
    loop = start_loop(world, (Member(0, "none", 1.0, 5, 0),), quick, schedule, ALGORITHM)
    seen = []
    while loop.step < steps:
        means = advance(loop, world)
        if means is not None:
            seen.append({name: value.item() for name, value in means.items()})
    return seen, loop.agent.policy(0).greedy(torch.tensor([[-1.0], [1.0]]))


def test_the_constraint_becomes_active_and_is_satisfied() -> None:
    seen, action = pulled_away(0.05, 900)
    assert seen[0]["mmd"] > 0.1, "it was violated first"
    assert sum(means["mmd"] for means in seen[-4:]) / 4 == pytest.approx(0.05, abs=0.01)
    assert all(means["multiplier"] > 1.5 for means in seen[-4:]), "where it started at 1"
    assert (action < 0.2).all() and (action > -0.45).all()


def test_without_the_constraint_the_policy_leaves_the_data() -> None:
    seen, action = pulled_away(10.0, 400)
    assert (action > 0.6).all()
    assert seen[-1]["mmd"] > 0.2 and seen[-1]["multiplier"] < 0.2


def test_the_warm_up_leads_to_the_behaviour() -> None:
    """Whatever pays: 140 steps by the divergence alone."""
    world = bandit(lambda count, draw: -0.4 + 0.05 * torch.randn(count, 1, generator=draw), lambda _, a: a, 500)
    quick = replace(SETTINGS, actor_lr=5e-3, log_std_min=-5.0, mmd_sigma=20.0, warmup_steps=140, behaviour_lr=5e-3)
    loop = train(world, quick, ALGORITHM, 0, MEMBERS[:2], replace(LOOP, batch_size=64))
    for m in range(2):
        assert (loop.agent.policy(m).greedy(torch.tensor([[-1.0], [1.0]])) + 0.4).abs().max() < 0.1
    assert isinstance(loop.agent, Bear)
    assert loop.agent.critic.adam.steps == loop.agent.vae.encoder.adam.steps == 140
