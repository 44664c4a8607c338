"""Rollouts in the training loop: who acts, in which model, what is kept of them, and members that diverge."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import cache

import pytest
import torch
from probes.agents import SETTINGS as SMALL
from probes.linear import linear_ensemble
from probes.single_steps import single_steps
from torch import Tensor

from mopo_cli.agents.algorithms.sac import ALGORITHM, Sac
from mopo_cli.agents.loop import advance, loop_state, restore_loop
from mopo_cli.agents.runs import Loop, start_loop
from mopo_cli.agents.schedule import LoopSettings
from mopo_cli.agents.states import member_state, stacked_state
from mopo_cli.agents.world import World
from mopo_cli.dynamics.ensemble import Ensemble
from mopo_cli.engine.members import Member
from mopo_cli.engine.rows import RowLayout
from mopo_cli.engine.streams import stream
from mopo_cli.nets.gaussian import gaussian_layout
from mopo_cli.nets.init import initial, truncated_normal, zeros
from mopo_cli.tasks.termination import TERMINATION_RULES

OBS, ACT = 11, 3
SAC = replace(SMALL, hidden=32, actor_lr=3e-4, log_std_min=-5.0, log_std_max=2.0)
SETTINGS = LoopSettings(
    steps_per_epoch=20, rollout_every=10, rollout_batch=100, pool_epochs=2, batch_size=37, real_ratio=0.2
)


def make_world(ensembles: int = 1) -> World:
    """Random real rows and untrained ensembles: nothing to learn, everything to compute."""
    draw = stream(0, "test")
    rows = RowLayout(OBS, ACT, 3)
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

    return World(rows, real, observation, single_steps(real), rule, tuple(models))


def train(world: World, members: tuple[Member, ...], blocks: int, settings: LoopSettings = SETTINGS) -> Loop:
    loop = start_loop(world, members, SAC, settings, ALGORITHM)
    for _ in range(blocks):
        advance(loop, world)
    return loop


def critics(loop: Loop) -> Tensor:
    assert isinstance(loop.agent, Sac)
    return loop.agent.critic.flat


MEMBERS = (
    Member(0, "max-var", 1.0, 5, 0),
    Member(3, "none", 0.0, 2, 1),
    Member(7, "ens", 5.0, 1, 0),
    Member(1, "avg-var", 0.5, 3, 1),
)


@cache
def stacked(blocks: int) -> Loop:
    """The whole stack after so many blocks, shared among the tests and so not to be changed."""
    return train(make_world(2), MEMBERS, blocks)


def test_the_full_size_update_is_the_same_alone_and_stacked() -> None:
    world = make_world()
    sac = replace(SAC, hidden=256)
    settings = replace(SETTINGS, batch_size=256)
    members = tuple(Member(seed, "max-var", 1.0, 5, 0) for seed in range(3))
    stack = start_loop(world, members, sac, settings, ALGORITHM)
    alone = start_loop(world, members[1:2], sac, settings, ALGORITHM)
    for loop in (stack, alone):
        advance(loop, world)
    assert torch.equal(stack.agent.actor.flat[1], alone.agent.actor.flat[0])
    assert torch.equal(critics(stack)[2:4], critics(alone))


def assert_resumes(whole: Loop, stopped: Loop) -> None:
    """What is taken up where `stopped` is now comes to be equal to `whole`."""
    world, second = make_world(2), start_loop(make_world(2), whole.members, SAC, whole.settings, ALGORITHM)
    restore_loop(second, world, *deepcopy(loop_state(stopped)))
    while second.step < whole.step:
        advance(second, world)
    for name, tensor in loop_state(whole)[0].items():
        assert torch.equal(tensor, loop_state(second)[0][name]), name
    for m, size in enumerate(whole.pool.sizes):
        assert torch.equal(whole.pool.rows[m, :size], second.pool.rows[m, :size])


def test_uniform_rollouts_act_at_random_whatever_the_policy_and_resume_exactly() -> None:
    world, settings = make_world(2), replace(SETTINGS, rollout_actions="uniform")
    loop = start_loop(world, MEMBERS[:2], SAC, settings, ALGORITHM)
    # A policy that always does the same; learning moves it little in these few steps.
    loop.agent.actor.layout.views(loop.agent.actor.flat)["b2"][:, :, :ACT] = 9.0
    for _ in range(3):
        advance(loop, world)
    for m, size in enumerate(loop.pool.sizes):
        action = world.row_layout.split(loop.pool.rows[m, :size]).action
        assert action.min() < -0.98 and action.max() > 0.98 and action.abs().max() <= 1
        assert action.mean(dim=0).abs().max() < 0.1
        assert action.std(dim=0).sub(3**-0.5).abs().max() < 0.05
    assert_resumes(train(world, MEMBERS[:2], 5, settings), train(world, MEMBERS[:2], 3, settings))


def test_members_of_several_stacks_go_on_as_one() -> None:
    parts = [train(make_world(2), members, 13) for members in (MEMBERS[:1], MEMBERS[1:3], MEMBERS[3:])]
    assert len({len(part.past) for part in parts}) > 1
    states = [
        member_state(deepcopy(loop_state(part)), m, len(part.members))
        for part in parts
        for m in range(len(part.members))
    ]
    world, loop = make_world(2), start_loop(make_world(2), MEMBERS, SAC, SETTINGS, ALGORITHM)
    restore_loop(loop, world, *stacked_state(states))
    while loop.step < stacked(20).step:
        advance(loop, world)
    (tensors, numbers), (whole, whole_numbers) = loop_state(loop), loop_state(stacked(20))
    assert tensors.keys() == whole.keys() and numbers == whole_numbers
    assert all(torch.equal(tensor, whole[name]) for name, tensor in tensors.items())
    for m, size in enumerate(loop.pool.sizes):
        assert torch.equal(loop.pool.rows[m, :size], stacked(20).pool.rows[m, :size])


def test_members_at_different_steps_are_no_stack() -> None:
    states = [loop_state(train(make_world(2), (member,), 3 + m)) for m, member in enumerate(MEMBERS[:2])]
    with pytest.raises(ValueError, match="different steps"):
        stacked_state(states)


def test_rollouts_that_no_longer_matter_are_forgotten() -> None:
    loop = stacked(20)
    assert len(loop.past) < 20 * loop.settings.block // SETTINGS.rollout_every
    for m, capacity in enumerate(loop.pool.capacities):
        assert sum(past.rows[m] for past in loop.past) >= capacity == loop.pool.sizes[m]


def test_a_diverged_member_neither_keeps_old_rollouts_nor_prevents_a_resume() -> None:
    world = make_world(2)
    loop = start_loop(world, MEMBERS, SAC, SETTINGS, ALGORITHM)
    advance(loop, world)
    critics(loop)[2:4] = float("nan")
    for _ in range(20):
        advance(loop, world)
    assert len(loop.past) <= len(stacked(20).past) + 1
    assert not any(past.parameters[1].isfinite().all() for past in loop.past)
    resumed = start_loop(world, MEMBERS, SAC, SETTINGS, ALGORITHM)
    restore_loop(resumed, world, *deepcopy(loop_state(loop)))
    advance(loop, world), advance(resumed, world)
    for m in (0, 2, 3):
        assert torch.equal(resumed.agent.actor.flat[m], loop.agent.actor.flat[m])


def test_a_stack_of_diverged_members_goes_on() -> None:
    world = make_world(2)
    loop = start_loop(world, MEMBERS[:2], SAC, SETTINGS, ALGORITHM)
    advance(loop, world)
    critics(loop).fill_(float("nan"))
    for _ in range(5):
        advance(loop, world)
    assert len(loop.past) == 1


def test_the_rule_of_the_task_decides_in_the_loop() -> None:
    calls: list[int] = []

    def counted(rule: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        def wrapped(observation: Tensor, action: Tensor, next_observation: Tensor) -> Tensor:
            calls.append(len(observation))
            return rule(observation, action, next_observation)

        return wrapped

    base = make_world()
    world = World(
        base.row_layout, base.real, base.start, base.last, counted(TERMINATION_RULES["hopper"]), base.ensembles
    )
    loop = train(world, (Member(0, "none", 0.0, 5, 0),), 1)
    # Random states are no healthy hopper: every row ends at the first step and none goes on.
    assert calls[0] == SETTINGS.rollout_batch
    assert loop.pool.rows[0, : loop.pool.sizes[0]][:, OBS + ACT + 1].sum() > 0
    assert loop.tallies[0].rows < SETTINGS.rollout_batch * 5


def test_each_member_branches_in_its_own_model_by_sampling_its_present_policy() -> None:
    rewards = (1.0, 2.0)
    models = []
    for paid in rewards:
        offset = torch.zeros(1, OBS + 1)
        offset[0, OBS] = paid
        still = torch.zeros(1, OBS + ACT, OBS + 1), offset, torch.full((1, OBS + 1), 1e-3)
        models.append(linear_ensemble(*still, elites=(0,)))
    base = make_world()
    world = replace(base, start=torch.zeros(50, OBS), rule=TERMINATION_RULES["none"], ensembles=tuple(models))
    members = (Member(0, "none", 0.0, 1, 1), Member(1, "none", 0.0, 1, 0))
    loop = start_loop(world, members, SAC, SETTINGS, ALGORITHM)

    def latest(m: int) -> tuple[Tensor, Tensor]:
        end = loop.pool.positions[m] or loop.pool.capacities[m]
        rows = world.row_layout.split(loop.pool.rows[m, end - SETTINGS.rollout_batch : end])
        return rows.action, rows.reward

    advance(loop, world)
    for m, member in enumerate(members):
        action, reward = latest(m)
        assert reward.mean().item() == pytest.approx(rewards[member.model], abs=1e-2)
        assert action.std(dim=0).min() > 0.3, "one state, many actions"
    loop.agent.actor.layout.views(loop.agent.actor.flat)["b2"][0, :, :ACT] = 9.0
    advance(loop, world)
    assert latest(0)[0].min() > 0.9 and latest(1)[0].min() < 0
