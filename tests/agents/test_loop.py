"""A member of a stack is what it would be alone, and a loop taken up again is what it would have been."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mopo_cli.agents.loop import (
    Loop,
    LoopSettings,
    World,
    advance,
    loop_state,
    restore_loop,
    start_loop,
)
from mopo_cli.agents.sac import SacSettings
from mopo_cli.dynamics.ensemble import Ensemble
from mopo_cli.engine.members import Member
from mopo_cli.engine.rows import Rows
from mopo_cli.engine.streams import stream
from mopo_cli.nets.gaussian import gaussian_layout
from mopo_cli.nets.init import initial, truncated_normal, zeros
from mopo_cli.tasks.termination import TERMINATION_RULES

OBS, ACT = 11, 3
SAC = SacSettings(
    hidden=32, layers=2, actor_lr=3e-4, critic_lr=3e-4, alpha_lr=3e-4, gamma=0.99, tau=0.005,
    target_entropy=-3.0, alpha_max=1.0, log_std_min=-5.0, log_std_max=2.0,
)  # fmt: skip
SETTINGS = LoopSettings(
    steps_per_epoch=20, rollout_every=10, rollout_batch=100, pool_epochs=2, batch_size=37, real_ratio=0.2
)


def make_world(ensembles: int = 1) -> World:
    """Random real rows and untrained ensembles: nothing to learn, everything to compute."""
    draw = stream(0, "test")
    rows = Rows(OBS, ACT, 3)
    observation = torch.randn(300, OBS, generator=draw)
    action = torch.rand(300, ACT, generator=draw) * 2 - 1
    reward, ended = torch.randn(300, generator=draw), torch.rand(300, generator=draw) < 0.1
    real = rows.pack(observation, action, reward, ended, observation + 0.1, torch.zeros(300, 3))
    layout = gaussian_layout(OBS + ACT, OBS + 1, 16, 2)
    models = []
    for seed in range(ensembles):
        flat = initial(layout, [stream(seed, "test/weights", k) for k in range(7)], truncated_normal, zeros)
        mean, std = torch.zeros(OBS + ACT), torch.ones(OBS + ACT)
        models.append(Ensemble(flat, layout, mean, std, OBS, (0, 2, 3, 5, 6)))

    def rule(_: Tensor, __: Tensor, next_observation: Tensor) -> Tensor:
        return next_observation[:, 0].abs() > 1.5

    return World(rows, real, observation, rule, tuple(models))


def train(world: World, members: tuple[Member, ...], blocks: int) -> Loop:
    loop = start_loop(world, members, SAC, SETTINGS)
    for _ in range(blocks):
        advance(loop, world)
    return loop


MEMBERS = (
    Member(0, "max-var", 1.0, 5, 0),
    Member(3, "none", 0.0, 2, 1),
    Member(7, "ens", 5.0, 1, 0),
    Member(1, "avg-var", 0.5, 3, 1),
)


@pytest.mark.parametrize("position", range(4))
@pytest.mark.parametrize("threads", [1, 2])
def test_a_member_of_a_stack_equals_the_same_member_alone(position: int, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        world = make_world(2)
        stacked, alone = train(world, MEMBERS, 6), train(world, (MEMBERS[position],), 6)
    finally:
        torch.set_num_threads(before)
    m = position
    assert torch.equal(stacked.sac.actor[m], alone.sac.actor[0])
    assert torch.equal(stacked.sac.critic[2 * m : 2 * m + 2], alone.sac.critic)
    assert torch.equal(stacked.sac.target[2 * m : 2 * m + 2], alone.sac.target)
    assert torch.equal(stacked.sac.log_alpha[m], alone.sac.log_alpha[0])
    size = alone.pool.sizes[0]
    assert stacked.pool.sizes[m] == size > 0
    assert torch.equal(stacked.pool.rows[m, :size], alone.pool.rows[0, :size])


def test_the_full_size_update_is_the_same_alone_and_stacked() -> None:
    world = make_world()
    sac = SacSettings(**{**SAC.__dict__, "hidden": 256})
    settings = LoopSettings(**{**SETTINGS.__dict__, "batch_size": 256})
    members = tuple(Member(seed, "max-var", 1.0, 5, 0) for seed in range(3))
    stacked = start_loop(world, members, sac, settings)
    alone = start_loop(world, members[1:2], sac, settings)
    for loop in (stacked, alone):
        for _ in range(3):
            advance(loop, world)
    assert torch.equal(stacked.sac.actor[1], alone.sac.actor[0])
    assert torch.equal(stacked.sac.critic[2:4], alone.sac.critic)


@pytest.mark.parametrize("stop_after", [1, 3, 4, 7, 9])
def test_a_resumed_loop_ends_as_the_uninterrupted_one(stop_after: int) -> None:
    world = make_world(2)
    whole = train(world, MEMBERS, 10)
    first = train(world, MEMBERS, stop_after)
    tensors, numbers = loop_state(first)
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    second = start_loop(world, MEMBERS, SAC, SETTINGS)
    restore_loop(second, world, tensors, numbers)
    for _ in range(10 - stop_after):
        advance(second, world)
    assert second.step == whole.step
    for name, tensor in loop_state(whole)[0].items():
        assert torch.equal(tensor, loop_state(second)[0][name]), name
    for m, size in enumerate(whole.pool.sizes):
        assert torch.equal(whole.pool.rows[m, :size], second.pool.rows[m, :size])


def test_rollouts_that_no_longer_matter_are_forgotten() -> None:
    loop = train(make_world(2), MEMBERS, 40)
    assert len(loop.past) < 40 * loop.settings.block // SETTINGS.rollout_every
    for m, capacity in enumerate(loop.pool.capacities):
        assert sum(past.rows[m] for past in loop.past) >= capacity == loop.pool.sizes[m]


def test_a_member_that_is_not_finite_leaves_the_others_alone() -> None:
    world = make_world(2)
    healthy = train(world, MEMBERS, 6)
    loop = start_loop(world, MEMBERS, SAC, SETTINGS)
    advance(loop, world)
    loop.sac.critic[2:4] = float("nan")
    for _ in range(5):
        advance(loop, world)
    assert not torch.isfinite(loop.sac.actor[1]).all()
    for m in (0, 2, 3):
        assert torch.equal(loop.sac.actor[m], healthy.sac.actor[m])


def test_the_rule_of_the_task_decides_in_the_loop() -> None:
    calls: list[int] = []

    def counted(rule: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        def wrapped(observation: Tensor, action: Tensor, next_observation: Tensor) -> Tensor:
            calls.append(len(observation))
            return rule(observation, action, next_observation)

        return wrapped

    base = make_world()
    world = World(base.rows, base.real, base.start, counted(TERMINATION_RULES["hopper"]), base.ensembles)
    loop = train(world, (Member(0, "none", 0.0, 5, 0),), 1)
    # Random states are no healthy hopper: every row ends at the first step and none goes on.
    assert calls[0] == SETTINGS.rollout_batch
    assert loop.pool.rows[0, : loop.pool.sizes[0]][:, OBS + ACT + 1].sum() > 0
    assert loop.tallies[0].rows < SETTINGS.rollout_batch * 5
