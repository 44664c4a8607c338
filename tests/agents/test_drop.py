"""DROP: what a ratio costs, which inputs the ratios learn from, and rollouts that hold the ratio of what drew them."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from probes.agents import tensors
from probes.linear import linear_ensemble
from probes.models import ACT, OBS, train
from probes.models import make_world as make_full_world
from probes.single_steps import single_steps
from torch import Tensor

from mopo_cli.agents.algorithm import Batch
from mopo_cli.agents.algorithms import drop, sac
from mopo_cli.agents.algorithms.drop import ALGORITHM, Drop, DropSettings, learn_ratios, penalty, start, update
from mopo_cli.agents.runs import Loop
from mopo_cli.agents.schedule import LoopSettings
from mopo_cli.agents.world import World
from mopo_cli.dynamics.branched_rollouts import RolloutOptions, branch
from mopo_cli.dynamics.ensemble import Ensemble
from mopo_cli.engine.members import Member
from mopo_cli.engine.rows import RowLayout
from mopo_cli.engine.streams import draws, stream
from mopo_cli.tasks.termination import never

NETWORKS, COLUMN = 3, 3
ELITES = (0, 2)
SETTINGS = DropSettings(
    hidden=16, layers=2, actor_lr=1e-3, critic_lr=2e-3, alpha_lr=5e-3, gamma=0.9, tau=0.05, target_entropy=-1.0,
    alpha_max=1.0, log_std_min=-3.0, log_std_max=1.0, batch_size=24, dice_lr=1e-3, dice_steps=3, dice_pretrain=10,
)  # fmt: skip
LOOP = LoopSettings(20, 10, 30, 2, batch_size=24, real_ratio=0.25)
MEMBERS = (Member(0, "none", 0.0, 3, 0), Member(5, "none", 0.0, 2, 1), Member(7, "none", 0.0, 1, 0))


def make_world(*models: Ensemble) -> World:
    """With two elites in each model."""
    world = make_full_world(ALGORITHM)
    return replace(world, ensembles=models or tuple(replace(model, elites=ELITES) for model in world.ensembles))


def make_batch(members: int, ratio: Tensor | None = None) -> Batch:
    draw, world = stream(1, "test/batch"), make_world()
    index = torch.randint(300, (members, 24), generator=draw)
    columns = world.row_layout.split(world.real[index].clone())
    columns.uncertainty[..., COLUMN] = torch.randn(members, 24, generator=draw) * 3 if ratio is None else ratio
    return Batch(**vars(columns), real_rows=6, index=index[:, :6])


def noise(seeds: tuple[int, ...], index: int = 0) -> Any:
    return draws(seeds, "test/noise", index, "cpu")


FORMS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "log": lambda t: np.log(1e-8 + np.minimum(np.maximum(t, 0.05), 4.0)),
    "tanh": lambda t: np.tanh(t - 1),
    "tanh-difference": lambda t: np.tanh(t) - np.tanh(1.0),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_ratio_s_cost_is_taken_off_the_model_s_rewards_alone_and_sac_learns_from_these(form: Any) -> None:
    settings = replace(SETTINGS, eta=0.7, ratio_form=form, ratio_min=0.05, ratio_max=4.0)
    agents, world, batch = (start(make_world(), MEMBERS[:2], settings) for _ in range(2)), make_world(), None
    one, other = agents
    batch = make_batch(2)
    metrics = update(one, batch, noise((0, 5)), 0.5)
    ratio, reward = batch.uncertainty[..., COLUMN].double().numpy(), batch.reward.double().numpy().copy()
    reward[:, 6:] -= 0.7 * FORMS[form](ratio[:, 6:])
    learned = torch.from_numpy(reward).float()
    expected = sac.gradient_step(other, batch, learned, noise((0, 5)).normal(2, 24, ACT), 0.5)
    for name in ("actor", "critic", "log_alpha"):
        torch.testing.assert_close(tensors(one)[name], tensors(other)[name], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(metrics["critic_loss"], expected["critic_loss"], rtol=1e-5, atol=1e-6)
    levels = np.quantile(ratio[:, 6:], (0.1, 0.5, 0.9), axis=1)
    for level, values in zip((10, 50, 90), levels, strict=True):
        np.testing.assert_allclose(metrics[f"ratio_p{level}"], values, rtol=1e-5)
    outside = ((ratio[:, 6:] < 0.05) | (ratio[:, 6:] > 4)).mean(axis=1)
    assert (outside > 0.2).all() and (outside < 0.9).all()
    np.testing.assert_allclose(metrics["clipped"], outside if form == "log" else 0 * outside, rtol=1e-6)
    assert set(metrics) == set(ALGORITHM.metrics) and world.options.uncertainties[COLUMN] == "ratio"


def test_eta_0_is_sac_and_a_penalty_beside_it_stays() -> None:
    agents = [start(make_world(), MEMBERS[:1], replace(SETTINGS, eta=0.0)) for _ in range(2)]
    batch = make_batch(1)
    update(agents[0], batch, noise((0,)), 1.0)
    sac.update(agents[1], batch, noise((0,)), 1.0)
    assert torch.equal(agents[0].actor.flat, agents[1].actor.flat) and torch.equal(
        agents[0].critic.flat, agents[1].critic.flat
    )


def test_a_ratio_of_one_costs_nothing_a_small_one_pays_and_the_clip_bounds_both() -> None:
    ratio = torch.tensor([1.0, -2.0, 0.0, 0.01, 10.0, 99.0])
    cost, clipped = penalty(ratio, SETTINGS)
    low, high = np.log(0.01), np.log(10)
    assert cost.tolist() == pytest.approx([0, low, low, low, high, high], abs=1e-5)
    assert clipped.tolist() == [0, 1, 1, 0, 0, 1]
    for form in ("tanh", "tanh-difference"):
        cost, clipped = penalty(ratio, replace(SETTINGS, ratio_form=form))
        assert cost[0].item() == pytest.approx(0, abs=1e-7) and (cost[1:4] < 0).all() and (cost[4:] > 0).all()
        assert (clipped == 0).all() and cost.abs().max() < 2


# Linear dynamics with the same noise everywhere, so that what every network expects is known.
MAPS = torch.stack([0.1 * torch.randn(OBS + ACT, OBS + 1, generator=stream(k, "test/map")) for k in range(NETWORKS)])
OFFSET = torch.linspace(-1, 1, NETWORKS)[:, None].expand(-1, OBS + 1).contiguous()
SCALER = torch.linspace(-0.5, 0.5, OBS + ACT), torch.linspace(0.5, 2, OBS + ACT)


def linear() -> Ensemble:
    return linear_ensemble(MAPS, OFFSET, torch.full((NETWORKS, OBS + 1), 0.3), ELITES, *SCALER)


def test_the_ratios_learn_from_the_data_its_states_and_what_each_elite_expects(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Actions are the policy's, here nearly without noise: they are the greedy ones, of the same states."""
    seen: list[Any] = []
    monkeypatch.setattr(drop, "step_dice", lambda *given: seen.append(given) or torch.arange(4.0))
    members = (Member(0, "none", 0.0, 1, 0), Member(5, "none", 0.0, 1, 1))
    settings = replace(SETTINGS, log_std_min=-30.0, log_std_max=-20.0)
    agents = start(make_world(linear(), linear()), members, settings)
    agents.actor.flat.mul_(3)
    batch = make_batch(2)
    objective = learn_ratios(agents, batch.observation, batch.action, noise((0, 5)))
    ((dice, at, first, ahead, gamma, norm, rate),) = seen
    assert dice is agents.dice and (gamma, norm, rate) == (0.9, 0.1, 1e-3)
    assert objective.tolist() == [0.5, 2.5], "the mean over the elites of a member"
    assert at.shape == first.shape == (2, 24, OBS + ACT) and ahead.shape == (4, 24, OBS + ACT)
    mean, std = (part.double().numpy() for part in SCALER)
    for m in range(2):
        state, action = batch.observation[m].double().numpy(), batch.action[m].double().numpy()

        def scaled(state: np.ndarray, action: np.ndarray | None = None, m: int = m) -> np.ndarray:
            if action is None:
                action = agents.policy(m).greedy(torch.from_numpy(state).float()).double().numpy()
            return (np.hstack([state, action]) - mean) / std

        np.testing.assert_allclose(at[m], scaled(state, action), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(first[m], scaled(state), rtol=1e-4, atol=1e-5)
        for place, k in enumerate(ELITES):
            change = np.hstack([state, action]) @ MAPS[k].double().numpy() + OFFSET[k].double().numpy()
            np.testing.assert_allclose(ahead[2 * m + place], scaled(state + change[:, :OBS]), rtol=1e-3, atol=1e-4)


def test_what_is_told_of_the_ratios_is_the_mean_over_the_latest_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([1.0, 2.0, 6.0, 5.0, 5.0, 8.0])
    monkeypatch.setattr(drop, "step_dice", lambda *_: torch.full((2,), next(values)))
    agents = start(make_world(), MEMBERS[:1], replace(SETTINGS, dice_steps=3))
    for mean in (3.0, 6.0):
        drop.refresh(agents, noise((0,)), lambda step, draws: step(draws))
        assert agents.objective.tolist() == pytest.approx([mean])


def test_where_each_network_leads_the_ratio_is_high() -> None:
    """One network drifts up, the other down, and the data are uniform; where the policy acts at random.

    On the data a ratio is 1 on average; that and all else swings, so several are averaged.
    """
    maps, offset = torch.zeros(2, 2, 2), torch.tensor([[0.3, 0.0], [-0.3, 0.0]])
    maps[:, 0, 0] = -0.3  # s' = 0.7 s +- 0.3
    both = linear_ensemble(maps, offset, torch.full((2, 2), 1e-3), (0, 1))
    draw, rows = stream(0, "test/uniform"), RowLayout(1, 1, 1)
    state, action = 2 * torch.rand(2, 2000, 1, generator=draw) - 1
    nothing = torch.zeros(2000)
    real = rows.pack(state, action, nothing, nothing, state, nothing[:, None])
    world = World(rows, real, state, single_steps(real), never, (both,), options=RolloutOptions(("ratio",)))
    agents = start(world, MEMBERS[:1], replace(SETTINGS, batch_size=128, dice_norm=1.0, dice_steps=150))
    results = []
    for i in range(5):
        drop.refresh(agents, noise((0,), i), lambda step, draws: step(draws))
        ratio = agents.ratio(0, ALGORITHM.rollout_parameters(agents))
        results.append([ratio(state, action, torch.full((2000,), k)) for k in (0, 1)])
        assert agents.objective.isfinite().all() and (agents.objective != 0).all()
    up, down = (torch.stack(of_network[1:]).mean(dim=0) for of_network in zip(*results, strict=True))
    high, low = state[:, 0] > 0.5, state[:, 0] < -0.5
    assert up[high].mean() > 2 * up[low].mean() > 0 and down[low].mean() > 2 * down[high].mean() > 0
    assert 0.5 < up.mean() < 1.5 and 0.5 < down.mean() < 1.5


def agents_of(loop: Loop) -> Drop:
    assert isinstance(loop.agent, Drop)
    return loop.agent


@cache
def stacked(blocks: int) -> Loop:
    """Not to be changed. The first block is the warm-up."""
    return train(make_world(), SETTINGS, ALGORITHM, blocks, MEMBERS, LOOP)


def test_the_ratios_are_trained_before_all_else_and_before_every_rollout() -> None:
    agents = {blocks: agents_of(stacked(blocks)) for blocks in (1, 2, 3, 5)}
    steps = {blocks: agent.dice.tau.adam.steps for blocks, agent in agents.items()}
    assert steps == {1: 10, 2: 13, 3: 16, 5: 22}
    assert agents[1].critic.adam.steps == 0 and agents[2].critic.adam.steps == 10


def test_the_pool_holds_the_ratio_of_the_network_that_drew_the_row() -> None:
    world = make_world()
    loop = train(world, SETTINGS, ALGORITHM, 2, MEMBERS, LOOP)
    assert isinstance(loop.agent, Drop)
    parameters = loop.past[-1].parameters
    for m, member in enumerate(MEMBERS):
        size = loop.pool.sizes[m]
        pool = world.row_layout.split(loop.pool.rows[m, :size])
        # The same rollout once more, which also tells the networks.
        how = ALGORITHM.rollout_options(loop.agent, m, parameters, replace(world.options, needs_uncertainties=False))
        generator = stream(member.seed, "policy/rollout", 0)
        begun = world.start[torch.randint(300, (30,), generator=generator)]
        models = world.ensembles[member.model]
        made = list(branch(models, never, begun, loop.agent.policy(m, parameters).sample, member.h, generator, how))
        assert torch.equal(torch.cat([step.rows for step in made]), loop.pool.rows[m, :size])
        network = torch.cat([step.network for step in made])
        assert set(network.tolist()) == {0, 2}
        x = torch.cat([pool.observation, pool.action], dim=1)
        inputs = ((x - models.input_mean) / models.input_std).double().numpy()
        width = loop.agent.actor.flat.shape[1]
        tau = parameters[m, width:].view(len(ELITES), -1)
        assert torch.equal(parameters[m, :width], loop.agent.policy(m, parameters).flat[0])
        for place, k in enumerate(ELITES):
            weights = {name: v.double().numpy() for name, v in loop.agent.dice.tau.layout.views(tau[place]).items()}
            hidden = inputs[network == k]
            for i in (0, 1):
                hidden = np.maximum(hidden @ weights[f"w{i}"] + weights[f"b{i}"], 0)
            expected = (hidden @ weights["w2"] + weights["b2"])[:, 0]
            np.testing.assert_allclose(pool.uncertainty[network == k, COLUMN], expected, rtol=1e-4, atol=1e-5)
        assert (pool.uncertainty[:, :COLUMN] == 0).all() and pool.uncertainty[:, COLUMN].abs().max() > 1e-3


def test_what_is_published_beside_a_policy_are_its_ratios() -> None:
    loop = stacked(3)
    assert isinstance(loop.agent, Drop)
    for m, member in enumerate(MEMBERS):
        (name, tensors), *others = ALGORITHM.files(loop.agent, m).items()
        assert name == "ratio" and not others
        views = loop.agent.dice.tau.layout.views(loop.agent.dice.tau.flat)
        for matrix, stored in views.items():
            assert torch.equal(tensors[matrix], stored[2 * m : 2 * m + 2]), matrix
        assert torch.equal(tensors["input_mean"], make_world().ensembles[member.model].input_mean)
        assert set(tensors) == {*views, "input_mean", "input_std", "networks"} and tensors["networks"].tolist() == [
            0,
            2,
        ]
