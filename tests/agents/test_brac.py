"""BRAC: its updates re-derived, a behaviour found again, held to it or not."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from probes.agents import normal, tensors
from probes.offline import (
    ACT,
    LOOP,
    MEMBERS,
    OBS,
    Layer,
    assert_gradient,
    doubles,
    leaves,
    make_batch,
    make_world,
    perceptron,
)
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal, TanhTransform, TransformedDistribution, kl_divergence

from mopo_cli.agents.algorithm import Work
from mopo_cli.agents.algorithms import brac_p, brac_v, sac
from mopo_cli.agents.algorithms.sac import Sac
from mopo_cli.agents.brac import Brac, BracSettings, imitate, sampled_numbers, start_brac, update
from mopo_cli.agents.loop import advance
from mopo_cli.agents.runs import start_loop
from mopo_cli.engine.streams import Draws, draws, stream

SETTINGS = BracSettings(
    hidden=16, layers=2, actor_lr=1e-3, critic_lr=2e-3, alpha_lr=5e-3, gamma=0.9, tau=0.05, target_entropy=-1.0,
    alpha_max=1.0, log_std_min=-0.5, log_std_max=0.5, divergence_weight=0.7, behaviour_steps=4, warmup_steps=3,
)  # fmt: skip
MMD = replace(SETTINGS, divergence="mmd")
BOUNDS = (-0.5, 0.5)
KINDS = pytest.mark.parametrize("settings", [SETTINGS, MMD], ids=["kl", "mmd"])
BOTH = pytest.mark.parametrize("value_penalty", [False, True], ids=["p", "v"])


def make(members: int = 2, settings: BracSettings = SETTINGS) -> Brac:
    """Agents some way into training; some log deviations are out of their bounds."""
    brac = start_brac(OBS, ACT, settings, list(range(members)), "cpu")
    brac.critic.target.flat.add_(0.1 * normal(*brac.critic.target.flat.shape, name="target"))
    brac.actor.flat.mul_(2)
    brac.behaviour.flat.mul_(2)
    return brac


def noise(members: int = 2) -> Draws:
    return draws(range(members), "test/brac", 0, "cpu")


def gaussian(params: Layer, observation: Tensor) -> Distribution:
    mean, log_std = perceptron(params, observation).chunk(2, dim=1)
    return Independent(Normal(mean, log_std.clamp(*BOUNDS).exp()), 1)


def plain_mmd(one: Tensor, other: Tensor) -> Tensor:
    """Squared, of samples `[n, dim]`, with a laplacian kernel as wide as 20: by its definition."""

    def mean(xs: Tensor, ys: Tensor) -> Tensor:
        return torch.stack([torch.exp(-(x - y).abs().sum() / 20) for x in xs for y in ys]).mean()

    return mean(one, one) + mean(other, other) - 2 * mean(one, other)


def plain_divergence(settings: BracSettings, one: Distribution, other: Distribution, z: Sequence[Tensor]) -> Tensor:
    if settings.divergence == "kl":
        return kl_divergence(one, other)
    actions = (torch.tanh(each.mean + each.stddev * drawn) for each, drawn in zip((one, other), z, strict=True))
    pairs = zip(*(action.transpose(0, 1) for action in actions), strict=True)
    return torch.stack([plain_mmd(*pair) for pair in pairs])


@KINDS
@BOTH
@pytest.mark.parametrize("follow", [True, False])
def test_one_update_by_the_textbook(settings: BracSettings, value_penalty: bool, follow: bool) -> None:
    brac, batch = make(settings=settings), make_batch(2, rows=11)
    before = {name: tensors(brac)[name].clone() for name in ("actor", "critic", "target", "behaviour")}
    info = update(brac, batch, noise(), value_penalty=value_penalty, actor_uses_q=follow)
    for m in range(2):
        b, draw = doubles(batch, m), noise()
        first = draw.normal(2, 11, ACT)[:, m].double()
        # At s' first, where the next value is penalised there: the policy's noise, then the behaviour's.
        present, ahead = (draw.normal(8, 11, ACT)[:, m].double().split(4) for _ in range(2))
        present, ahead = (ahead, present) if value_penalty else (present, ahead)
        actor = leaves(brac.actor.layout, before["actor"], m)
        usual = leaves(brac.actor.layout, before["behaviour"], m)
        critics = [leaves(brac.critic.layout, before["critic"], 2 * m + i) for i in (0, 1)]
        targets = [leaves(brac.critic.layout, before["target"], 2 * m + i) for i in (0, 1)]
        fresh = [leaves(brac.critic.layout, brac.critic.flat, 2 * m + i) for i in (0, 1)]

        def least(params: list[Layer], observation: Tensor, action: Tensor) -> Tensor:
            return torch.minimum(*(perceptron(one, observation, action)[:, 0] for one in params))

        policy = gaussian(actor, b.next_observation)
        value = least(targets, b.next_observation, torch.tanh(policy.mean + policy.stddev * first[0]))
        if value_penalty:
            far = plain_divergence(settings, policy, gaussian(usual, b.next_observation), ahead)
            assert (far > 1e-4).any()
            value = value - 0.7 * far
        backup = (b.reward + 0.9 * (1 - b.terminal) * value).detach()
        for i, critic in enumerate(critics):
            q = perceptron(critic, b.observation, b.action)[:, 0]
            half = 0.5 * ((q - backup) ** 2).mean()
            assert_gradient(brac.critic.layout, brac.critic.adam.grad, 2 * m + i, half, critic)

        policy = gaussian(actor, b.observation)
        far = plain_divergence(settings, policy, gaussian(usual, b.observation), present)
        action = torch.tanh(policy.mean + policy.stddev * first[1])
        loss = (0.7 * far - follow * least(fresh, b.observation, action)).mean()
        assert_gradient(brac.actor.layout, brac.actor.adam.grad, m, loss, actor)
        assert info["divergence"][m].item() == pytest.approx(far.mean().item(), rel=1e-4)
    assert torch.equal(brac.behaviour.flat, before["behaviour"]), "it is kept"


def test_log_deviations_are_out_of_their_bounds_in_these_examples() -> None:
    brac, batch = make(), make_batch(2, rows=11)
    for flat in (brac.actor.flat, brac.behaviour.flat):
        for m in range(2):
            said = perceptron(leaves(brac.actor.layout, flat, m), doubles(batch, m).observation)[:, ACT:]
            assert 0.05 < ((said < BOUNDS[0]) | (said > BOUNDS[1])).double().mean() < 0.95


def test_the_value_penalty_is_taken_off_the_next_value() -> None:
    """Told by the reward: BRAC-v learns what BRAC-p does where each reward is lower by gamma w KL at a next state."""
    batch = make_batch(2)
    by_value, by_reward = make(), make()
    kl = torch.stack(
        [
            kl_divergence(
                *(
                    gaussian(leaves(by_value.actor.layout, flat, m), doubles(batch, m).next_observation)
                    for flat in (by_value.actor.flat, by_value.behaviour.flat)
                )
            ).detach()
            for m in range(2)
        ]
    )
    lowered = batch.reward - 0.9 * (1 - batch.terminal) * 0.7 * kl.float()
    update(by_value, batch, noise(), value_penalty=True)
    update(by_reward, replace(batch, reward=lowered), noise(), value_penalty=False)
    torch.testing.assert_close(by_value.critic.adam.grad, by_reward.critic.adam.grad, rtol=1e-4, atol=1e-6)
    assert (lowered - batch.reward)[batch.terminal == 0].max() < -1e-3


@KINDS
@BOTH
def test_without_the_divergence_it_is_sac_without_entropy(settings: BracSettings, value_penalty: bool) -> None:
    brac = make(settings=replace(settings, divergence_weight=0.0))
    plain = Sac(**{part.name: deepcopy(getattr(brac, part.name)) for part in fields(Sac)})
    plain.log_alpha.fill_(-torch.inf)
    for seed in range(3):
        batch, same = make_batch(2, seed=seed), noise().normal(2, 37, ACT)
        info = update(brac, batch, noise(), value_penalty=value_penalty)
        expected = sac.gradient_step(plain, batch, batch.reward, same)
        assert torch.equal(info["critic_loss"], expected["critic_loss"])
    for name in ("actor", "critic", "target"):
        assert torch.equal(tensors(brac)[name], tensors(plain)[name]), name


def test_the_behaviour_learns_by_maximum_likelihood() -> None:
    """The gradient is that of the mean negative log-likelihood of squashed actions, of those on the bounds as well."""
    brac, batch = make(), make_batch(2, rows=11)
    batch.action[0, 3], batch.action[1, 5, 0] = 1.0, -1.0
    before, others = brac.behaviour.flat.clone(), [brac.actor.flat.clone(), brac.critic.flat.clone()]
    imitate(brac, batch.observation, batch.action)
    for m in range(2):
        b, params = doubles(batch, m), leaves(brac.actor.layout, before, m)
        usual = TransformedDistribution(gaussian(params, b.observation), TanhTransform())
        inside = batch.action[m].clamp(-(1 - 1e-6), 1 - 1e-6).double()
        assert_gradient(brac.actor.layout, brac.behaviour.adam.grad, m, -usual.log_prob(inside).mean(), params)
    assert (brac.behaviour.flat - before).abs().max().item() == pytest.approx(5e-4, rel=1e-2)
    assert torch.equal(brac.actor.flat, others[0]) and torch.equal(brac.critic.flat, others[1])
    assert brac.finite().all()


def test_a_known_behaviour_is_found_again() -> None:
    """Actions tanh(x), x normal around 0.5 sin(s1) and -0.3, with deviations 0.6 and 0.2."""
    draw = stream(0, "test/behaviour")
    settings = replace(SETTINGS, hidden=32, log_std_min=-5.0, log_std_max=2.0, behaviour_lr=5e-3)
    brac, std = start_brac(OBS, 2, settings, [0], "cpu"), torch.tensor([0.6, 0.2])

    def mean(observation: Tensor) -> Tensor:
        return torch.stack([0.5 * observation[..., 0].sin(), torch.full(observation.shape[:-1], -0.3)], dim=-1)

    for _ in range(500):
        observation = torch.randn(1, 256, OBS, generator=draw)
        x = mean(observation) + std * torch.randn(1, 256, 2, generator=draw)
        imitate(brac, observation, torch.tanh(x))
    fresh = torch.randn(500, OBS, generator=draw).clamp(-1.5, 1.5)
    said_mean, said_log_std = perceptron(leaves(brac.actor.layout, brac.behaviour.flat, 0), fresh.double()).chunk(
        2, dim=1
    )
    assert (said_mean - mean(fresh)).abs().mean() < 0.1
    assert (said_log_std.exp() - std).abs().mean(dim=0).tolist() == pytest.approx([0, 0], abs=0.08)


@pytest.mark.parametrize(("settings", "near"), [(SETTINGS, 0.02), (MMD, 0.01)], ids=["kl", "mmd"])
def test_a_great_weight_holds_the_policy_to_the_behaviour(settings: BracSettings, near: float) -> None:
    """In the end, of the KL that it has without any weight there is next to nothing left."""
    batch, ends = make_batch(1, rows=64), []
    for weight in (1000.0, 0.0):
        quick = replace(settings, divergence_weight=weight, actor_lr=5e-3, log_std_min=-5.0, log_std_max=2.0)
        brac, kl = make(1, quick), replace(quick, divergence="kl")
        for k in range(150):
            update(brac, batch, draws([0], "test/brac", k, "cpu"), value_penalty=False)
        watched = Brac(**{part.name: getattr(brac, part.name) for part in fields(Brac)} | {"settings": kl})
        ends.append(update(watched, batch, noise(1), value_penalty=False)["divergence"].item())
    assert ends[0] < near * ends[1]


@pytest.mark.parametrize("algorithm", [brac_p.ALGORITHM, brac_v.ALGORITHM], ids=["p", "v"])
def test_the_behaviour_is_learned_first_and_then_kept(algorithm: Any) -> None:
    """Ten steps of it, eleven of the divergence alone, which all ends in 21 steps of warm-up, then the rest."""
    world, long = make_world(), replace(SETTINGS, behaviour_steps=10, warmup_steps=11)
    loop = start_loop(world, MEMBERS, long, replace(LOOP, steps_per_epoch=7, rollout_every=7), algorithm)
    brac = loop.agent
    assert isinstance(brac, Brac) and loop.step == -21
    advance(loop, world)
    fresh = start_brac(OBS, ACT, long, [member.seed for member in MEMBERS], "cpu")
    assert brac.behaviour.adam.steps == 7 and brac.critic.adam.steps == 0
    assert torch.equal(brac.actor.flat, fresh.actor.flat) and not torch.equal(brac.behaviour.flat, fresh.behaviour.flat)
    advance(loop, world)
    kept = brac.behaviour.flat.clone()
    assert brac.behaviour.adam.steps == 10 and brac.critic.adam.steps == 4
    while loop.step < 7:
        advance(loop, world)
    assert brac.behaviour.adam.steps == 10 and brac.critic.adam.steps == 18
    assert torch.equal(brac.behaviour.flat, kept) and not torch.equal(brac.actor.flat, fresh.actor.flat)


def test_only_the_mmd_holds_distances_between_samples() -> None:
    """Of each state and action dimension, all pairs among the four samples of both policies: values and two slopes."""
    work = Work(obs_dim=3, act_dim=2, batch=7, real_rows=7, data=100, elites=0)
    assert sampled_numbers(SETTINGS, work) == 0
    assert sampled_numbers(MMD, work) == 7 * 2 * 3 * (2 * 4) ** 2
