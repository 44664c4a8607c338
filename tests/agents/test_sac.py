"""One update of soft actor-critic re-derived: backup and losses in numpy, gradients by a plain implementation."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from probes.agents import ACT, OBS, SETTINGS, make_batch, make_sac, normal, tensors
from torch import Tensor
from torch.nn.functional import relu

from mopo_cli.agents.algorithms.sac import start_sac, update
from mopo_cli.engine.rows import Transition
from mopo_cli.engine.streams import stream

BOUNDS = (-0.15, 0.15)  # so narrow that some are out of them on either side
BOUNDED = replace(SETTINGS, log_std_min=BOUNDS[0], log_std_max=BOUNDS[1])
SIZES = [(37, 2), (7, 1), (1, 3)]
Array = NDArray[np.float64]


def perceptron(params: dict[str, Array], x: Array) -> Array:
    for i in range(2):
        x = np.maximum(x @ params[f"w{i}"] + params[f"b{i}"], 0)
    return x @ params["w2"] + params["b2"]


def numbers(views: dict[str, Tensor], index: int) -> dict[str, Array]:
    return {name: view[index].double().numpy() for name, view in views.items()}


def act(params: dict[str, Array], observation: Array, noise: Array) -> tuple[Array, Array]:
    """Squashed actions and log-probabilities of one member, by the textbook: log N(x) - log(1 - tanh(x)^2)."""
    mean, log_std = np.split(perceptron(params, observation), 2, axis=1)
    std = np.exp(np.clip(log_std, *BOUNDS))
    x = mean + std * noise
    density = np.exp(-0.5 * ((x - mean) / std) ** 2) / (std * np.sqrt(2 * np.pi))
    return np.tanh(x), np.log(density / np.cosh(x) ** -2).sum(axis=1)


@pytest.mark.parametrize(("rows", "act_dim"), SIZES)
def test_backup_critic_loss_and_what_one_watches_in_numpy(rows: int, act_dim: int) -> None:
    sac, (batch, reward, noise) = make_sac(2, BOUNDED, act_dim), make_batch(2, rows, act_dim)
    actors, critics = sac.actor.layout.views(sac.actor.flat.clone()), sac.critic.layout.views(sac.critic.flat.clone())
    targets, alpha = sac.critic.layout.views(sac.critic.target.flat.clone()), sac.log_alpha.exp()[:, 0].tolist()
    info = update(sac, batch, reward, noise)
    for m in range(2):
        b = {name: getattr(batch, name)[m].double().numpy() for name in Transition.__dataclass_fields__}
        next_action, next_log_prob = act(numbers(actors, m), b["next_observation"], noise[0, m].double().numpy())
        following = np.hstack([b["next_observation"], next_action])
        next_q = np.min([perceptron(numbers(targets, 2 * m + i), following)[:, 0] for i in (0, 1)], axis=0)
        backup = reward[m].numpy() + 0.9 * (1 - b["terminal"]) * (next_q - alpha[m] * next_log_prob)
        present = np.hstack([b["observation"], b["action"]])
        q = np.array([perceptron(numbers(critics, 2 * m + i), present)[:, 0] for i in (0, 1)])
        _, log_prob = act(numbers(actors, m), b["observation"], noise[1, m].double().numpy())
        assert info["critic_loss"][m].item() == pytest.approx(((q - backup) ** 2).mean(), rel=1e-5)
        assert info["q"][m].item() == pytest.approx(q.mean(), rel=1e-4, abs=1e-5)
        assert info["entropy"][m].item() == pytest.approx(-log_prob.mean(), rel=1e-5, abs=1e-5)
        assert info["alpha"][m].item() == pytest.approx(alpha[m])


def plain_perceptron(params: dict[str, Tensor], x: Tensor) -> Tensor:
    for i in range(2):
        x = relu(x @ params[f"w{i}"] + params[f"b{i}"])
    return x @ params["w2"] + params["b2"]


def plain_act(params: dict[str, Tensor], observation: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    mean, log_std = plain_perceptron(params, observation).chunk(2, dim=1)
    base = torch.distributions.Normal(mean, log_std.clamp(*BOUNDS).exp())
    x = mean + base.scale * noise
    return x.tanh(), (base.log_prob(x) - torch.log(1 - x.tanh() ** 2)).sum(dim=1)


def leaves(views: dict[str, Tensor], index: int) -> dict[str, Tensor]:
    return {name: view[index].double().requires_grad_() for name, view in views.items()}


def test_the_log_std_is_out_of_its_bounds_on_either_side_in_these_examples() -> None:
    sac, (batch, _, _) = make_sac(2, BOUNDED), make_batch(2)
    for m in range(2):
        params = numbers(sac.actor.layout.views(sac.actor.flat), m)
        log_std = perceptron(params, batch.observation[m].double().numpy())[:, ACT:]
        below, above = (log_std < BOUNDS[0]).mean(), (log_std > BOUNDS[1]).mean()
        assert below > 0.05 and above > 0.05 and below + above < 0.9


@pytest.mark.parametrize(("rows", "act_dim"), SIZES)
def test_the_gradients_are_those_of_the_losses_of_the_paper(rows: int, act_dim: int) -> None:
    """Critics: half the squared error each. Actor: alpha log pi - min Q with the critics just updated."""
    sac, (batch, reward, noise) = make_sac(2, BOUNDED, act_dim), make_batch(2, rows, act_dim)
    before = {name: tensors(sac)[name].clone() for name in ("actor", "critic", "target", "log_alpha")}
    update(sac, batch, reward, noise)
    noise = noise.double()
    for m in range(2):
        b = {name: getattr(batch, name)[m].double() for name in Transition.__dataclass_fields__}
        alpha = before["log_alpha"][m].double().exp()
        actor = leaves(sac.actor.layout.views(before["actor"]), m)
        twins = [leaves(sac.critic.layout.views(before["critic"]), 2 * m + i) for i in (0, 1)]
        fresh = [leaves(sac.critic.layout.views(sac.critic.flat), 2 * m + i) for i in (0, 1)]
        targets = [leaves(sac.critic.layout.views(before["target"]), 2 * m + i) for i in (0, 1)]

        def least(critics: list[dict[str, Tensor]], observation: Tensor, action: Tensor) -> Tensor:
            x = torch.cat([observation, action], dim=1)
            return torch.minimum(*(plain_perceptron(critic, x)[:, 0] for critic in critics))

        with torch.no_grad():
            action, log_prob = plain_act(actor, b["next_observation"], noise[0, m])
            value = least(targets, b["next_observation"], action) - alpha * log_prob
            backup = reward[m].double() + 0.9 * (1 - b["terminal"]) * value
        for i, critic in enumerate(twins):
            q = plain_perceptron(critic, torch.cat([b["observation"], b["action"]], dim=1))[:, 0]
            loss = 0.5 * (q - backup).square().mean()
            grads = dict(zip(critic, torch.autograd.grad(loss, list(critic.values())), strict=True))
            for name, grad in sac.critic.layout.views(sac.critic.adam.grad).items():
                torch.testing.assert_close(grad[2 * m + i], grads[name].float(), rtol=1e-4, atol=1e-6)
        action, log_prob = plain_act(actor, b["observation"], noise[1, m])
        loss = (alpha * log_prob - least(fresh, b["observation"], action)).mean()
        grads = dict(zip(actor, torch.autograd.grad(loss, list(actor.values())), strict=True))
        for name, grad in sac.actor.layout.views(sac.actor.adam.grad).items():
            torch.testing.assert_close(grad[m], grads[name].float(), rtol=1e-4, atol=1e-6)
        # The temperature's loss is -log alpha (log pi + target entropy), by log alpha.
        wanted = -(log_prob + SETTINGS.target_entropy).mean()
        assert sac.alpha_adam.grad[m].item() == pytest.approx(wanted.item(), rel=1e-4)


def test_the_first_step_of_each_network_is_its_own_learning_rate() -> None:
    """Adam's first step is the learning rate along the sign of the gradient."""
    sac, batch = make_sac(), make_batch(2)
    before = {name: tensors(sac)[name].clone() for name in ("actor", "critic", "log_alpha")}
    update(sac, *batch)
    for name, rate in (("actor", 1e-3), ("critic", 2e-3), ("log_alpha", 5e-3)):
        step = (tensors(sac)[name] - before[name]).abs().max().item()
        assert step == pytest.approx(rate, rel=1e-2), name


def test_the_target_follows_by_tau() -> None:
    sac, batch = make_sac(), make_batch(2)
    before = sac.critic.target.flat.clone()
    update(sac, *batch)
    torch.testing.assert_close(sac.critic.target.flat, 0.95 * before + 0.05 * sac.critic.flat, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("target", "direction"), [(5.0, 1), (-5.0, -1)])
def test_the_temperature_rises_while_the_policy_is_too_certain_and_falls_otherwise(
    target: float, direction: int
) -> None:
    sac = make_sac(settings=replace(SETTINGS, target_entropy=target, actor_lr=1e-9))
    before = sac.log_alpha.clone()
    for _ in range(5):
        update(sac, *make_batch(2))
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
        info = update(sac, batch, reward, torch.randn(2, 2, 64, ACT, generator=draw))
        entropies.append(info["entropy"])
    assert torch.stack(entropies[200:]).mean(dim=0).tolist() == pytest.approx([-1.0, -1.0], abs=0.15)
    assert (sac.alpha < 1).all() and (sac.alpha > 0).all()


def test_the_temperature_is_capped_where_it_is_used() -> None:
    sac, batch = make_sac(), make_batch(2)
    sac.log_alpha.fill_(3.0)
    other = make_sac()
    other.log_alpha.fill_(0.0)
    assert (sac.alpha == 1).all()
    info, expected = update(sac, *batch), update(other, *batch)
    assert torch.equal(info["critic_loss"], expected["critic_loss"]) and torch.equal(sac.actor.flat, other.actor.flat)
    assert make_sac(settings=replace(SETTINGS, alpha_max=0.2)).alpha.max() == pytest.approx(0.2)
