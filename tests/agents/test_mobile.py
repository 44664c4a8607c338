"""MOBILE: the inconsistency re-derived, in numpy and in closed form, and the step that is made of it."""

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from probes.agents import ACT, OBS, make_batch, make_sac, normal, tensors
from probes.agents import SETTINGS as SAC
from probes.linear import linear_ensemble
from probes.models import (
    ELITES,
    MEMBERS,
    Array,
    make_ensemble,
    make_world,
    numbers,
    predictions,
)
from torch import Tensor

from mopo_cli.agents.algorithm import Batch
from mopo_cli.agents.algorithms import mobile as module
from mopo_cli.agents.algorithms.mobile import ALGORITHM, Mobile, MobileSettings, inconsistency, start, update
from mopo_cli.agents.algorithms.sac import Sac, gradient_step
from mopo_cli.agents.world import World
from mopo_cli.dynamics.ensemble import Ensemble
from mopo_cli.engine.members import Member
from mopo_cli.engine.streams import draws, stream
from mopo_cli.errors import SettingsError
from mopo_cli.nets.stacked import Layout

SETTINGS = MobileSettings(**vars(SAC), mobile_coefficient=0.7, mobile_samples=3)
ZERO = replace(SETTINGS, target_floor="zero")
PLAIN = replace(SETTINGS, backup="soft", target_floor="none")


def make_mobile(members: int = 2, settings: MobileSettings = SETTINGS, *models: Ensemble) -> Mobile:
    """Agents some way into training, every other one in another model."""
    world = make_world(ALGORITHM)
    world = replace(world, ensembles=models or world.ensembles)
    stack = tuple(Member(m, "none", 0.0, 1, m % len(world.ensembles)) for m in range(members))
    return replace(start(world, stack, settings), **vars(make_sac(members, settings)))


def perceptron(layout: Layout, flat: Tensor, index: int, x: Array) -> Array:
    params = {name: view[index].double().numpy() for name, view in layout.views(flat).items()}
    for i in range(2):
        x = np.maximum(x @ params[f"w{i}"] + params[f"b{i}"], 0)
    return x @ params["w2"] + params["b2"]


def by_hand(sac: Sac, m: int, ensemble: Ensemble, observation: Array, action: Array, noise: Array) -> Array:
    """Elite by elite and sample by sample, as the method's description has it."""
    values = []
    for k, member in enumerate(ensemble.elites):
        mean, std = predictions(ensemble, member, observation, action)
        drawn = []
        for draw in noise[k]:
            following = observation + mean[:, :OBS] + std[:, :OBS] * draw[:, :OBS]
            centre, log_std = np.split(perceptron(sac.actor.layout, sac.actor.flat, m, following), 2, axis=1)
            acted = np.tanh(centre + np.exp(np.clip(log_std, SAC.log_std_min, SAC.log_std_max)) * draw[:, OBS:])
            asked = np.hstack([following, acted])
            twins = [perceptron(sac.critic.layout, sac.critic.target.flat, 2 * m + i, asked)[:, 0] for i in (0, 1)]
            drawn.append(np.minimum(*twins))
        values.append(np.mean(drawn, axis=0))
    spread = np.array(values) - np.mean(values, axis=0)
    return np.sqrt((spread**2).sum(axis=0) / (len(values) - 1))


@pytest.mark.parametrize("block", [512, 10])
@pytest.mark.parametrize(("rows", "samples"), [(7, 3), (1, 10), (28, 1)])
def test_the_inconsistency_by_hand(monkeypatch: pytest.MonkeyPatch, rows: int, samples: int, block: int) -> None:
    monkeypatch.setattr(module, "_CPU_ROWS", block)
    mobile, models = make_mobile(3), make_world(ALGORITHM).ensembles
    observation, action = normal(3, rows, OBS, name="s"), torch.tanh(normal(3, rows, ACT, name="a"))
    noise = normal(3, len(ELITES), samples, rows, OBS + ACT, name="n")
    result = inconsistency(mobile, observation, action, noise)
    assert result.shape == (3, rows)
    for m in range(3):
        expected = by_hand(mobile, m, models[m % 2], *numbers(observation[m], action[m], noise[m]))
        np.testing.assert_allclose(result[m], expected, rtol=2e-4, atol=1e-6)
    assert result.min() > 0


def ask(mobile: Mobile, rows: int = 50, samples: int = 10) -> Tensor:
    noise = normal(len(mobile.elites), len(mobile.elites[0]), samples, rows, OBS + ACT, name="n")
    members = len(mobile.elites)
    return inconsistency(mobile, normal(members, rows, OBS, name="s"), normal(members, rows, ACT, name="a"), noise)


def constant(offsets: list[float], std: float, elites: tuple[int, ...]) -> Ensemble:
    """Networks that add their offset to the first dimension of the state, with noise in all of them."""
    shift = torch.zeros(len(offsets), OBS + 1)
    shift[:, 0] = torch.tensor(offsets)
    nothing = torch.zeros(len(offsets), OBS + ACT, OBS + 1)
    return linear_ensemble(nothing, shift, torch.full((len(offsets), OBS + 1), std), elites)


def test_networks_that_say_the_same_are_consistent_and_inconsistent_as_far_as_they_differ() -> None:
    """A policy without noise, critics smooth in the state: half the distance is half the inconsistency."""
    quiet, result = replace(SETTINGS, log_std_min=-20.0, log_std_max=-15.0), []
    for apart in (0.0, 0.005, 0.01, 0.1, 1.0):
        result.append(ask(make_mobile(1, quiet, constant([0.0, -apart, apart], 1e-7, (0, 1, 2)))).mean().item())
    assert 0 <= result[0] < 1e-6 < 1e-4 < result[1] and result == sorted(result)
    assert result[2] == pytest.approx(2 * result[1], rel=0.05) and result[4] > 50 * result[2]


def test_only_elites_count_and_a_single_one_is_consistent() -> None:
    others = [ask(make_mobile(1, SETTINGS, constant([0.0, far, 0.5, 0.2], 0.1, (0, 2, 3)))) for far in (0.0, 90.0)]
    assert torch.equal(*others)
    elites = [ask(make_mobile(1, SETTINGS, constant([0.0, far, 0.5, 0.2], 0.1, (0, 1, 3)))) for far in (0.0, 90.0)]
    assert not torch.equal(*elites)
    assert (ask(make_mobile(1, SETTINGS, constant([0.3], 0.5, (0,)))) == 0).all()


def linear_values(sac: Sac, slope: Tensor) -> None:
    """Both target critics become Q(s, a) = slope · (s, a), the second one above the first by 3."""
    views = sac.critic.layout.views(sac.critic.target.flat.zero_())
    width = len(slope)
    for i in range(width):
        # relu(x) - relu(-x) is x, and so it is after another layer that passes both on.
        views["w0"][:, i, 2 * i], views["w0"][:, i, 2 * i + 1] = 1.0, -1.0
        views["w2"][:, 2 * i, 0], views["w2"][:, 2 * i + 1, 0] = slope[i], -slope[i]
    views["w1"][:] = torch.eye(SETTINGS.hidden)
    views["b2"][1::2] = 3.0


@pytest.mark.parametrize(("samples", "std"), [(10, 0.3), (2, 0.3), (5, 0.0)])
def test_linear_gaussian_models_and_linear_values_in_closed_form(samples: int, std: float) -> None:
    """Elite k's mean value is w · (s + d_k) + e, e of variance |w|² std² / M: so the mean of u² is the sum of that
    and of the variance of w · d_k. The policy's actions are worth nothing, and the higher critic is never asked."""
    offsets = torch.tensor([0.0, 0.3, -0.2, 0.5])
    slope = torch.tensor([1.5, -0.5, 0.8, 0.1, 0.0, 0.0])
    mobile = make_mobile(1, SETTINGS, constant(offsets.tolist(), max(std, 1e-7), (0, 1, 2, 3)))
    linear_values(mobile, slope)
    result = ask(mobile, rows=4000 if std else 30, samples=samples).square().mean().item()
    values, noise = 1.5 * offsets.double().numpy(), (slope.double() ** 2).sum().item() * std**2 / samples
    assert result == pytest.approx(values.var(ddof=1) + noise, rel=0.05 if std else 1e-4)
    assert abs(values.var() / values.var(ddof=1) - 1) > 0.2, "the denominator makes a difference"


def make_rows(members: int = 2, real: int = 9) -> Batch:
    batch, reward, _ = make_batch(members)
    return Batch(**vars(batch) | {"reward": reward + 0.2}, real_rows=real, index=torch.zeros(members, 0))


def same_noise(real: int = 9) -> tuple[Tensor, Tensor]:
    noise = draws((0, 1), "test/noise", 0, "cpu")
    return noise.normal(1, len(ELITES), 3, 37 - real, OBS + ACT)[0], noise.normal(2, 37, ACT)


@pytest.mark.parametrize("real", [0, 9, 36])
def test_sac_learns_from_the_lowered_reward_and_from_nothing_else(real: int) -> None:
    """The step is soft actor-critic's bit for bit, the model's rows worth less by the inconsistency at that moment."""
    batch, mobile, other = make_rows(real=real), make_mobile(settings=PLAIN), make_sac(2, PLAIN)
    penalty_noise, noise = same_noise(real)
    u = inconsistency(mobile, batch.observation[:, real:], batch.action[:, real:], penalty_noise)
    metrics = update(mobile, batch, draws((0, 1), "test/noise", 0, "cpu"), 0.5)
    reward = torch.cat([batch.reward[:, :real], batch.reward[:, real:] - 0.7 * u], dim=1)
    plain = gradient_step(other, batch, reward, noise, 0.5)
    for name in ("actor", "critic", "target", "log_alpha"):
        assert torch.equal(tensors(mobile)[name], tensors(other)[name]), name
    assert all(torch.equal(metrics[name], value) for name, value in plain.items())
    assert torch.equal(metrics["inconsistency"], u.mean(dim=1)) and set(metrics) == set(ALGORITHM.metrics)


@pytest.mark.parametrize("backup", ["soft", "deterministic"])
@pytest.mark.parametrize("floor", ["zero", "none"])
def test_the_target_by_hand(backup: Literal["soft", "deterministic"], floor: Literal["zero", "none"]) -> None:
    """Reward less penalty, and the discounted lower target value, with the entropy or not, at least 0 or not."""
    settings = replace(SETTINGS, backup=backup, target_floor=floor)
    batch, mobile, models = make_rows(), make_mobile(settings=settings), make_world(ALGORITHM).ensembles
    sac, alphas = make_sac(2, settings), mobile.alpha[:, 0].tolist()
    penalty_noise, noise = same_noise()
    metrics = update(mobile, batch, draws((0, 1), "test/noise", 0, "cpu"), 1.0)
    clipped = 0
    for m in range(2):
        observation, action, following = numbers(batch.observation[m], batch.action[m], batch.next_observation[m])
        reward, terminal, draw = numbers(batch.reward[m], batch.terminal[m], noise[0, m])
        drawn = penalty_noise[m].double().numpy()
        reward[9:] -= 0.7 * by_hand(sac, m, models[m], observation[9:], action[9:], drawn)
        mean, log_std = np.split(perceptron(sac.actor.layout, sac.actor.flat, m, following), 2, axis=1)
        std = np.exp(np.clip(log_std, SAC.log_std_min, SAC.log_std_max))
        x = mean + std * draw
        density = np.exp(-0.5 * draw**2) / (std * np.sqrt(2 * np.pi)) * np.cosh(x) ** 2
        asked = np.hstack([following, np.tanh(x)])
        value = np.min(
            [perceptron(sac.critic.layout, sac.critic.target.flat, 2 * m + i, asked)[:, 0] for i in (0, 1)], axis=0
        )
        value -= alphas[m] * np.log(density).sum(axis=1) if backup == "soft" else 0
        target = reward + 0.9 * (1 - terminal) * value
        clipped += (target < 0).sum()
        target = np.maximum(target, 0) if floor == "zero" else target
        present = np.hstack([observation, action])
        q = np.array([perceptron(sac.critic.layout, sac.critic.flat, 2 * m + i, present)[:, 0] for i in (0, 1)])
        assert metrics["critic_loss"][m].item() == pytest.approx(((q - target) ** 2).mean(), rel=1e-4)
    assert clipped > 5, "the floor matters"


def test_values_are_lower_where_the_networks_disagree() -> None:
    """The networks part company where the action is positive, and there the critics learn to expect less."""
    maps = torch.zeros(3, OBS + ACT, OBS + 1)
    maps[:, OBS, 0] = torch.tensor([-1.0, 0.0, 1.0])
    noise = torch.full((3, OBS + 1), 1e-4)
    gaps = []
    for coefficient in (0.0, 2.0):
        settings = replace(PLAIN, mobile_coefficient=coefficient, critic_lr=5e-3, gamma=0.5)
        mobile = make_mobile(1, settings, linear_ensemble(maps, torch.zeros(3, OBS + 1), noise, (0, 1, 2)))
        linear_values(mobile, torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0, 0.0]))
        mobile.critic.target.flat[1] = mobile.critic.target.flat[0]
        frozen, draw = mobile.critic.target.flat.clone(), stream(0, "test/toy")
        for i in range(150):
            action = 2 * torch.rand(1, 64, ACT, generator=draw) - 1
            action[..., 0] = (action[..., 0] > 0).float()
            state = torch.zeros(1, 64, OBS)
            columns = (state, action, torch.ones(1, 64), torch.ones(1, 64), state, torch.zeros(1, 64, 3))
            update(
                mobile, Batch(*columns, real_rows=0, index=torch.zeros(1, 0)), draws((0,), "test/toy", i, "cpu"), 0.0
            )
            mobile.critic.target.flat.copy_(frozen)
        asked = np.array([[0, 0, 0, 0, 0.0, 0.3], [0, 0, 0, 0, 1.0, 0.3]])
        agreed, disputed = perceptron(mobile.critic.layout, mobile.critic.flat, 0, asked)[:, 0]
        assert agreed == pytest.approx(1.0, abs=0.25)
        gaps.append(agreed - disputed)
    assert gaps[0] == pytest.approx(0.0, abs=0.2)
    assert gaps[1] == pytest.approx(2.0, abs=0.3), "the values are -1, 0 and 1: the deviation is 1"


def test_a_floor_of_zero_is_refused_where_returns_are_negative() -> None:
    world = make_world(ALGORITHM)
    below = replace(world, real=world.real.clone())
    below.real[:, OBS + ACT] = -below.real[:, OBS + ACT].abs()
    with pytest.raises(SettingsError, match="no reward of the data is positive") as caught:
        start(below, MEMBERS, ZERO)
    assert caught.value.hint == "--target-floor auto"
    start(below, MEMBERS, replace(SETTINGS, target_floor="none"))
    below.real[7, OBS + ACT] = 0.1
    start(below, MEMBERS, ZERO)


def chained(rewards: list[list[float]]) -> World:
    """A world whose data are these episodes' rewards, one after another; every episode ends by a timeout."""
    world, count = make_world(ALGORITHM), sum(map(len, rewards))
    reward = torch.tensor([reward for episode in rewards for reward in episode])
    state, nothing = torch.zeros(count, OBS), torch.zeros(count, world.row_layout.uncertainties)
    real = world.row_layout.pack(state, torch.zeros(count, ACT), reward, torch.zeros(count), state, nothing)
    last = torch.tensor([t == len(episode) - 1 for episode in rewards for t in range(len(episode))])
    return replace(world, real=real, last=last)


@pytest.mark.parametrize(
    ("rewards", "lowest"),
    [
        ([[1.0, 2.0], [0.0]], 0.0),
        ([[-1.0, 4.0], [3.0]], 1.0),  # -1 + 0.5 * 4: a negative reward, and no negative return
        ([[-1.0, 1.5], [3.0]], -0.25),
        ([[5.0, -1.0], [3.0]], -1.0),  # from the second row on
        ([[5.0, 5.0, -1.0, 6.0], [-3.0]], -3.0),
        ([[-1.0, 4.0] * 20, [1.0]], 1.0),
        ([[4.0], [-1.0], [9.0]], -1.0),  # the next episode's reward does not make up for it
    ],
)
def test_the_floor_is_there_where_no_return_of_the_data_is_negative(rewards: list[list[float]], lowest: float) -> None:
    """Discounted returns from every row to its episode's end, summed backwards here."""
    returns = []
    for episode in rewards:
        total = 0.0
        for reward in reversed(episode):
            total = reward + 0.5 * total
            returns.append(total)
    assert min(returns) == pytest.approx(lowest, abs=0.01 if len(rewards[0]) > 9 else 1e-9) or lowest > 0
    mobile = start(chained(rewards), MEMBERS, replace(SETTINGS, gamma=0.5, target_floor="auto"))
    assert mobile.lowest_return == pytest.approx(min(returns), abs=1e-6)
    assert mobile.has_floor == (lowest >= 0)
    (choice,) = ALGORITHM.choices(mobile)
    assert (choice.setting, choice.value) == ("target_floor", "zero" if lowest >= 0 else "none")
    assert choice.why == f"the data's lowest discounted return is {min(returns):.4g}"


@pytest.mark.parametrize(("floor", "there"), [("zero", True), ("none", False)])
def test_a_floor_that_was_asked_for_is_not_left_to_the_data(floor: Any, there: bool) -> None:
    mobile = start(chained([[-1.0, 0.5], [3.0]]), MEMBERS, replace(SETTINGS, target_floor=floor))
    assert mobile.has_floor == there and ALGORITHM.choices(mobile) == ()


def test_values_below_0_are_learned_where_returns_are_negative() -> None:
    """Every step pays -1 and none ends: Q is -1 / (1 - gamma) = -2, which a floor would make 0."""
    rewards = [[-1.0] * 60 + [0.5]]
    ends = {}
    for floor in ("auto", "zero"):
        settings = replace(SETTINGS, target_floor=floor, gamma=0.5, critic_lr=5e-3, tau=0.1, mobile_coefficient=0.0)
        world = chained(rewards)
        mobile = start(world, MEMBERS[:1], settings)
        state, following = torch.zeros(1, 32, OBS), torch.zeros(1, 32, OBS)
        for i in range(300):
            action = 2 * torch.rand(1, 32, ACT, generator=stream(i, "test/negative")) - 1
            columns = (state, action, -torch.ones(1, 32), torch.zeros(1, 32), following, torch.zeros(1, 32, 3))
            batch = Batch(*columns, real_rows=16, index=torch.zeros(1, 16))
            ends[floor] = update(mobile, batch, draws((0,), "test/negative", i, "cpu"), 0.0)["q"].item()
    assert ends["auto"] == pytest.approx(-2.0, abs=0.1) and ends["zero"] == pytest.approx(0.0, abs=0.1)


def test_it_asks_the_model_itself() -> None:
    assert ALGORITHM.learns_from == "model" and ALGORITHM.uncertainties == ()
    mobile = start(make_world(ALGORITHM), MEMBERS, SETTINGS)
    ensembles = [make_ensemble(member.model) for member in MEMBERS]
    for elites, ensemble in zip(mobile.elites, ensembles, strict=True):
        assert torch.equal(elites.flat, ensemble.flat[list(ELITES)]) and elites.elites == (0, 1, 2)
