"""Whole runs of SAC on problems whose values are known: the probes, and a penalty whose effect is known."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from probes.environments import PROBES, Probe
from probes.linear import linear_ensemble
from probes.offline import tensor, train, world_of
from probes.single_steps import single_steps
from torch import Tensor

from mopo_cli.agents.algorithms.sac import ALGORITHM, Sac, SacSettings
from mopo_cli.agents.loop import advance
from mopo_cli.agents.runs import Loop, start_loop
from mopo_cli.agents.schedule import LoopSettings
from mopo_cli.agents.world import World
from mopo_cli.config.resolve import resolve
from mopo_cli.config.schema import TrainPolicy
from mopo_cli.engine.members import Member
from mopo_cli.engine.rows import RowLayout
from mopo_cli.engine.streams import stream
from mopo_cli.nets.perceptron import evaluate
from mopo_cli.tasks.termination import never

MEMBERS = (Member(0, "max-var", 1.0, 1, 0), Member(1, "none", 0.0, 1, 0))


def settings(gamma: float, target_entropy: float = -1.0) -> SacSettings:
    """Fast enough for seconds; the temperature is so small that entropy does not move the values."""
    return SacSettings(
        hidden=32, layers=2, actor_lr=3e-3, critic_lr=3e-3, alpha_lr=3e-3, gamma=gamma, tau=0.05,
        target_entropy=target_entropy, alpha_max=1e-3, log_std_min=-5.0, log_std_max=2.0,
    )  # fmt: skip


def schedule(real_ratio: float) -> LoopSettings:
    return LoopSettings(100, 100, 1, 1, batch_size=64, real_ratio=real_ratio)


def q_values(loop: Loop, observation: Tensor, action: Tensor) -> Tensor:
    """What every critic of every member says: `[S, 2, n]`."""
    members = len(loop.members)
    inputs = observation.expand(members, -1, -1), action.expand(members, -1, -1)
    (judged,) = evaluate((loop.agent.critic, inputs))  # type: ignore[attr-defined]
    return judged.out.view(members, 2, -1)


@pytest.mark.parametrize("make", PROBES, ids=lambda make: make.__name__)
def test_the_values_and_the_actions_of_a_probe_are_learned(make: Callable[[], Probe]) -> None:
    probe = make()
    world = world_of(probe)
    loop = train(
        world, settings(probe.gamma), ALGORITHM, 900 if probe.name == "endless reward" else 400, MEMBERS, schedule(1.0)
    )
    observation, action = probe.dataset["observations"][:200], probe.dataset["actions"][:200]
    expected = probe.q_value(observation, action)
    learned = q_values(loop, tensor(observation), tensor(action))
    error = (learned - tensor(expected)).abs().mean(dim=-1)
    assert (error < 0.03 * max(1.0, np.abs(expected).max())).all(), error
    if probe.optimal_action is not None:
        for m in range(len(MEMBERS)):
            greedy = loop.agent.policy(m).greedy(tensor(observation))
            assert (greedy - tensor(probe.optimal_action(observation))).abs().mean() < 0.1
    assert loop.pool.sizes == [0, 0], "with real data alone nothing is imagined"


def test_the_penalty_is_lambda_times_the_uncertainty_named_and_never_on_real_rows() -> None:
    """One step, all of it in closed form: Q = r - lambda u on model rows (observation -1), Q = r on real ones (1).

    Every model row has u = (0.2, 0.5, 0.9) x (1 or 2), by its action's sign.
    """
    rows, count = RowLayout(1, 1, 3), 1000
    action = 2 * torch.rand(count, 1, generator=stream(0, "test/actions")) - 1
    ones, level = torch.ones(count), torch.where(action[:, 0] > 0, 2.0, 1.0)
    uncertainty = level[:, None] * torch.tensor([0.2, 0.5, 0.9])

    def pack(observation: float, u: Tensor) -> Tensor:
        state = torch.full((count, 1), observation)
        return rows.pack(state, action, 0.7 * ones, ones, state, u)

    real, buffer = pack(1.0, torch.zeros(count, 3)), pack(-1.0, uncertainty)
    world = World(rows, real, real[:, :1], single_steps(real), never, buffer=buffer)
    penalties = {"max-var": 1.0, "avg-var": 0.5, "ens": 2.0, "none": 1.0}
    members = tuple(Member(seed, name, lam, 1, 0) for seed, (name, lam) in enumerate(penalties.items()))
    loop = train(world, settings(0.99), ALGORITHM, 600, members, schedule(0.25))
    weights = {"max-var": 1.0 * 0.2, "avg-var": 0.5 * 0.5, "ens": 2.0 * 0.9, "none": 0.0}
    where = torch.tensor([[-0.6], [0.6]])
    imagined = q_values(loop, torch.full((2, 1), -1.0), where)
    actual = q_values(loop, torch.full((2, 1), 1.0), where)
    for m, weight in enumerate(weights.values()):
        expected = torch.tensor([0.7 - weight, 0.7 - 2 * weight])
        torch.testing.assert_close(imagined[m], expected.expand(2, 2), atol=0.06, rtol=0)
        torch.testing.assert_close(actual[m], torch.full((2, 2), 0.7), atol=0.06, rtol=0)


def test_what_is_watched_is_the_raw_reward_and_the_penalty_apart() -> None:
    rows = RowLayout(1, 1, 3)
    state, ones = torch.zeros(50, 1), torch.ones(50)
    real = rows.pack(state, state, 5.0 * ones, ones, state, torch.zeros(50, 3))
    buffer = rows.pack(state, state, 1.0 * ones, ones, state, ones[:, None] * torch.tensor([0.2, 0.5, 0.9]))
    world = World(rows, real, state, single_steps(real), never, buffer=buffer)
    members = (Member(0, "ens", 2.0, 1, 0), Member(0, "none", 2.0, 1, 0))
    loop = start_loop(world, members, settings(0.9), schedule(0.25), ALGORITHM)
    means = advance(loop, world)
    assert means is not None
    assert means["reward"].tolist() == pytest.approx([2.0, 2.0])  # 16 of 64 rows are real
    assert means["penalty"].tolist() == pytest.approx([0.75 * 1.8, 0.0])


@pytest.mark.parametrize(("ratio", "real"), [(0.05, 12), (0.0, 0), (1.0, 256), (0.5, 128)])
def test_the_real_part_of_a_batch_is_rounded_down(ratio: float, real: int) -> None:
    assert LoopSettings(100, 100, 1, 1, 256, ratio).real_rows == real


@pytest.mark.parametrize(
    ("steps", "every", "block"),
    [(1000, 1000, 100), (1000, 250, 50), (20, 10, 10), (7, 7, 7), (300, 200, 100), (101, 101, 1)],
)
def test_blocks_end_where_epochs_and_rollouts_do(steps: int, every: int, block: int) -> None:
    assert LoopSettings(steps, every, 1, 1, 256, 0.05).block == block


def test_only_what_was_imagined_is_ever_learned_from() -> None:
    """A pool that holds NaN wherever nothing was written, one that is never full, and real rows of no weight."""
    rows = RowLayout(2, 1, 3)
    start = torch.randn(100, 2, generator=stream(0, "test/start"))
    real = rows.pack(start, start[:, :1], start[:, 0], torch.zeros(100), start, torch.zeros(100, 3))
    ensemble = linear_ensemble(torch.zeros(2, 3, 3), torch.zeros(2, 3), torch.full((2, 3), 0.1), (0, 1))

    def rule(_: Tensor, __: Tensor, next_observation: Tensor) -> Tensor:
        return next_observation[:, 0] > 0

    world = World(rows, real, start, single_steps(real), rule, (ensemble,))
    members = (Member(0, "max-var", 1.0, 3, 0), Member(1, "ens", 1.0, 1, 0))
    loop = start_loop(world, members, settings(0.9), LoopSettings(40, 20, 30, 4, 32, 0.0), ALGORITHM)
    loop.pool.rows.fill_(float("nan"))
    sizes = []
    for _ in range(12):
        means = advance(loop, world)
        assert means is None or all(mean.isfinite().all() for mean in means.values())
        sizes.append(list(loop.pool.sizes))
    assert isinstance(loop.agent, Sac)
    assert loop.agent.actor.flat.isfinite().all() and loop.agent.critic.flat.isfinite().all()
    assert sizes[0][1] == 30 and sizes[-1] == [360, 120], "one step from each of 30 states, then four rollouts' worth"
    assert 30 < sizes[0][0] < 90, "rows that ended are not rolled on"
    assert loop.pool.rows[0].isfinite().all() and not loop.pool.rows[1, 120:].isfinite().any()


def test_sac_off_learns_from_the_data_alone_though_a_model_is_there() -> None:
    """The method's own settings: all of a batch is real. A model that is asked anything raises."""
    method = resolve(TrainPolicy, flags={"method": "sac-off"}).settings
    assert (method.real_ratio, method.penalty, method.needs_model) == (1.0, "none", False)

    class Untouchable:
        def __getattribute__(self, name: str) -> None:
            raise AssertionError(f"the model's {name} was asked for")

    probe = PROBES[4]()
    assert probe.name == "rewarded response" and probe.optimal_action is not None
    world = replace(world_of(probe), ensembles=(Untouchable(), Untouchable()))  # type: ignore[arg-type]
    members = (Member(0, method.penalty, 5.0, 5, 1), Member(1, "max-var", 5.0, 5, 1))
    loop = train(world, settings(probe.gamma), ALGORITHM, 400, members, schedule(method.real_ratio))
    observation, action = probe.dataset["observations"][:200], probe.dataset["actions"][:200]
    for m in range(2):
        greedy = loop.agent.policy(m).greedy(tensor(observation))
        assert (greedy - tensor(probe.optimal_action(observation))).abs().mean() < 0.1
    learned = q_values(loop, tensor(observation), tensor(action))
    error = (learned - tensor(probe.q_value(observation, action))).abs().mean(dim=-1)
    assert (error < 0.03).all(), "nor is a penalty taken off real rewards"
    assert loop.pool.sizes == [0, 0] and not loop.tallies and not loop.past
