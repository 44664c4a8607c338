"""One update of soft actor-critic re-derived: backup, losses and gradients by a plain implementation."""

from dataclasses import replace

import pytest
import torch
from probes.agents import ACT, OBS, SETTINGS, make_batch, make_sac, normal, tensors
from probes.offline import Layer, assert_gradient, doubles, leaves, perceptron
from torch import Tensor

from mopo_cli.agents.algorithms.sac import gradient_step, start_sac
from mopo_cli.engine.rows import Transition
from mopo_cli.engine.streams import stream

BOUNDS = (-0.15, 0.15)  # so narrow that some are out of them on either side
BOUNDED = replace(SETTINGS, log_std_min=BOUNDS[0], log_std_max=BOUNDS[1])
SIZES = [(37, 2), (7, 1), (1, 3)]


def plain_act(params: Layer, observation: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    mean, log_std = perceptron(params, observation).chunk(2, dim=1)
    base = torch.distributions.Normal(mean, log_std.clamp(*BOUNDS).exp())
    x = mean + base.scale * noise
    return x.tanh(), (base.log_prob(x) - torch.log(1 - x.tanh() ** 2)).sum(dim=1)


def test_the_log_std_is_out_of_its_bounds_on_either_side_in_these_examples() -> None:
    sac, (batch, _, _) = make_sac(2, BOUNDED), make_batch(2)
    for m in range(2):
        params = leaves(sac.actor.layout, sac.actor.flat, m)
        log_std = perceptron(params, batch.observation[m].double())[:, ACT:]
        below, above = (log_std < BOUNDS[0]).double().mean(), (log_std > BOUNDS[1]).double().mean()
        assert below > 0.05 and above > 0.05 and below + above < 0.9


@pytest.mark.parametrize(("rows", "act_dim"), SIZES)
def test_the_gradients_are_those_of_the_losses_of_the_paper(rows: int, act_dim: int) -> None:
    """Critics: half the squared error each. Actor: alpha log pi - min Q with the critics just updated."""
    sac, (batch, reward, noise) = make_sac(2, BOUNDED, act_dim), make_batch(2, rows, act_dim)
    before = {name: tensors(sac)[name].clone() for name in ("actor", "critic", "target", "log_alpha")}
    info = gradient_step(sac, batch, reward, noise)
    noise = noise.double()
    for m in range(2):
        b, alpha = doubles(batch, m), before["log_alpha"][m].double().exp()
        actor = leaves(sac.actor.layout, before["actor"], m)
        twins, targets, fresh = (
            [leaves(sac.critic.layout, flat, 2 * m + i) for i in (0, 1)]
            for flat in (before["critic"], before["target"], sac.critic.flat)
        )

        def least(critics: list[Layer], observation: Tensor, action: Tensor) -> Tensor:
            return torch.minimum(*(perceptron(critic, observation, action)[:, 0] for critic in critics))

        with torch.no_grad():
            action, log_prob = plain_act(actor, b.next_observation, noise[0, m])
            value = least(targets, b.next_observation, action) - alpha * log_prob
            backup = reward[m].double() + 0.9 * (1 - b.terminal) * value
        q = torch.stack([perceptron(critic, b.observation, b.action)[:, 0] for critic in twins])
        for i, critic in enumerate(twins):
            loss = 0.5 * (q[i] - backup).square().mean()
            assert_gradient(sac.critic.layout, sac.critic.adam.grad, 2 * m + i, loss, critic)
        assert info["critic_loss"][m].item() == pytest.approx((q - backup).square().mean().item(), rel=1e-5)
        assert info["q"][m].item() == pytest.approx(q.mean().item(), rel=1e-4, abs=1e-5)
        action, log_prob = plain_act(actor, b.observation, noise[1, m])
        loss = (alpha * log_prob - least(fresh, b.observation, action)).mean()
        assert_gradient(sac.actor.layout, sac.actor.adam.grad, m, loss, actor)
        assert info["entropy"][m].item() == pytest.approx(-log_prob.mean().item(), rel=1e-5, abs=1e-5)
        assert info["alpha"][m].item() == pytest.approx(alpha.item())
        # The temperature's loss is -log alpha (log pi + target entropy), by log alpha.
        wanted = -(log_prob + SETTINGS.target_entropy).mean()
        assert sac.alpha_adam.grad[m].item() == pytest.approx(wanted.item(), rel=1e-4)


def test_the_first_step_of_each_network_is_its_own_learning_rate() -> None:
    """Adam's first step is the learning rate along the sign of the gradient."""
    sac, batch = make_sac(), make_batch(2)
    before = {name: tensors(sac)[name].clone() for name in ("actor", "critic", "log_alpha")}
    gradient_step(sac, *batch)
    for name, rate in (("actor", 1e-3), ("critic", 2e-3), ("log_alpha", 5e-3)):
        step = (tensors(sac)[name] - before[name]).abs().max().item()
        assert step == pytest.approx(rate, rel=1e-2), name


def test_the_target_follows_by_tau() -> None:
    sac, batch = make_sac(), make_batch(2)
    before = sac.critic.target.flat.clone()
    gradient_step(sac, *batch)
    torch.testing.assert_close(sac.critic.target.flat, 0.95 * before + 0.05 * sac.critic.flat, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("target", "direction"), [(5.0, 1), (-5.0, -1)])
def test_the_temperature_rises_while_the_policy_is_too_certain_and_falls_otherwise(
    target: float, direction: int
) -> None:
    sac = make_sac(settings=replace(SETTINGS, target_entropy=target, actor_lr=1e-9))
    before = sac.log_alpha.clone()
    for _ in range(5):
        gradient_step(sac, *make_batch(2))
    assert (torch.sign(sac.log_alpha - before) == direction).all()


def test_the_entropy_reaches_its_target() -> None:
    """Whatever the reward, the temperature brings the entropy to -1, on average over the last steps."""
    settings = replace(SETTINGS, actor_lr=3e-3, alpha_lr=3e-2, critic_lr=3e-3)
    sac, draw = start_sac(OBS, ACT, settings, [0, 1], "cpu"), stream(0, "test/loop")
    observation, nothing = normal(2, 64, OBS), torch.zeros(2, 64)
    entropies = []
    for _ in range(600):
        action = 2 * torch.rand(2, 64, ACT, generator=draw) - 1
        batch = Transition(observation, action, nothing, nothing + 1, observation, torch.zeros(2, 64, 3))
        reward = -3 * action.square().sum(dim=-1)
        info = gradient_step(sac, batch, reward, torch.randn(2, 2, 64, ACT, generator=draw))
        entropies.append(info["entropy"])
    assert torch.stack(entropies[200:]).mean(dim=0).tolist() == pytest.approx([-1.0, -1.0], abs=0.15)
    assert (sac.alpha < 1).all() and (sac.alpha > 0).all()


def test_the_temperature_is_capped_where_it_is_used() -> None:
    sac, batch = make_sac(), make_batch(2)
    sac.log_alpha.fill_(3.0)
    other = make_sac()
    other.log_alpha.fill_(0.0)
    assert (sac.alpha == 1).all()
    info, expected = gradient_step(sac, *batch), gradient_step(other, *batch)
    assert torch.equal(info["critic_loss"], expected["critic_loss"]) and torch.equal(sac.actor.flat, other.actor.flat)
    assert make_sac(settings=replace(SETTINGS, alpha_max=0.2)).alpha.max() == pytest.approx(0.2)
