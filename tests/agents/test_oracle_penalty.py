"""The simulator's penalty in the loop: for the members that ask for it, and for no other's numbers."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from probes.agents import SETTINGS as SAC
from probes.linear import linear_ensemble
from probes.single_steps import single_steps
from torch import Tensor

from mopo_cli.agents.algorithms.sac import ALGORITHM
from mopo_cli.agents.loop import advance, loop_state, restore_loop
from mopo_cli.agents.runs import Loop, start_loop
from mopo_cli.agents.schedule import LoopSettings
from mopo_cli.agents.world import World
from mopo_cli.dynamics.branched_rollouts import RolloutOptions
from mopo_cli.engine.members import Member
from mopo_cli.engine.rows import RowLayout
from mopo_cli.engine.streams import stream
from mopo_cli.tasks.termination import never

OBS, ACT = 2, 1
NAMES = ("max-var", "avg-var", "ens", "oracle")
LOOP = LoopSettings(20, 10, 40, 2, batch_size=32, real_ratio=0.25)
PLAIN = Member(0, "max-var", 1.0, 3, 0), Member(1, "none", 1.0, 2, 0)
TRUE = Member(2, "oracle", 0.5, 3, 0)


def make_world(asked: list[int] | None = None) -> World:
    """A model that stands still where the truth moves by (0.3, 0); with `asked`, an oracle that counts its rows.

    The oracle does not know the states on the left. Real rows have as many uncertainties, all zero.
    """
    how = RolloutOptions(NAMES[:3])
    if asked is not None:

        def oracle(observation: Tensor, action: Tensor, predicted: Tensor) -> Tensor:
            asked.append(len(observation))
            truth = observation + torch.tensor([0.3, 0.0])
            error = torch.linalg.vector_norm(predicted - truth, dim=1)
            return torch.where(observation[:, 0] < 0, torch.nan, error)

        how = RolloutOptions(NAMES, oracle=oracle)
    rows = RowLayout(OBS, ACT, len(how.uncertainties))
    draw = stream(0, "test/rows")
    observation, action = torch.randn(200, OBS, generator=draw), 2 * torch.rand(200, ACT, generator=draw) - 1
    nothing = torch.zeros(200)
    real = rows.pack(observation, action, nothing, nothing, observation, torch.zeros(200, rows.uncertainties))
    maps = torch.zeros(2, OBS + ACT, OBS + 1)
    ensemble = linear_ensemble(maps, torch.zeros(2, OBS + 1), torch.full((2, OBS + 1), 0.05), (0, 1))
    return World(rows, real, observation, single_steps(real), never, (ensemble,), options=how)


def train(world: World, members: tuple[Member, ...], blocks: int) -> Loop:
    loop = start_loop(world, members, SAC, LOOP, ALGORITHM)
    for _ in range(blocks):
        advance(loop, world)
    return loop


def test_the_penalty_is_lambda_times_the_error_or_max_var_where_that_is_unknown() -> None:
    world = make_world([])
    loop = start_loop(world, (TRUE,), SAC, LOOP, ALGORITHM)
    advance(loop, world)
    means = advance(loop, world)
    rows = world.row_layout.split(loop.pool.rows[0, : loop.pool.sizes[0]])
    blind = rows.observation[:, 0] < 0
    assert 0 < blind.sum() < len(blind)
    torch.testing.assert_close(rows.uncertainty[~blind, 3], torch.full((int((~blind).sum()),), 0.3))
    assert torch.equal(rows.uncertainty[blind, 3], rows.uncertainty[blind, 0])
    assert rows.uncertainty[:, 0].tolist() == pytest.approx([0.05 * 3**0.5] * len(blind), rel=1e-4)
    # The penalty of a batch lies between those of the known and the unknown; a quarter of its rows is real.
    share = 0.75 * 0.5
    assert means is not None
    assert share * 0.05 * 3**0.5 < means["penalty"].item() < share * 0.3
    blind_share = blind[-120:].float().mean().item()
    assert loop.tallies[0].unknown == pytest.approx(blind_share) and 0 < blind_share < 1


def test_a_member_that_does_not_ask_is_bit_for_bit_what_it_is_without_a_simulator() -> None:
    asked: list[int] = []
    stack, plain = train(make_world(asked), (PLAIN[0], TRUE, PLAIN[1]), 4), train(make_world(), PLAIN, 4)
    assert sum(asked) == 4 * LOOP.rollout_batch * TRUE.h, "the other members' rows are not simulated"
    for theirs, ours in ((0, 0), (1, 2)):
        assert torch.equal(plain.agent.actor.flat[theirs], stack.agent.actor.flat[ours])
        assert [plain.tallies[theirs].unknown, stack.tallies[ours].unknown] == [0, 0]
    assert stack.tallies[1].unknown > 0


def test_it_is_the_same_alone_and_resumes_exactly() -> None:
    stack, alone = train(make_world([]), (PLAIN[0], TRUE), 5), train(make_world([]), (TRUE,), 5)
    assert torch.equal(stack.agent.actor.flat[1], alone.agent.actor.flat[0])
    size = alone.pool.sizes[0]
    assert torch.equal(stack.pool.rows[1, :size], alone.pool.rows[0, :size])

    world = make_world([])
    stopped, resumed = train(world, (PLAIN[0], TRUE), 3), start_loop(world, (PLAIN[0], TRUE), SAC, LOOP, ALGORITHM)
    restore_loop(resumed, world, *deepcopy(loop_state(stopped)))
    for _ in range(2):
        advance(resumed, world)
    assert torch.equal(resumed.agent.actor.flat, stack.agent.actor.flat)
    assert torch.equal(resumed.pool.rows, stack.pool.rows)
    assert resumed.tallies == stack.tallies


def test_the_simulator_s_word_changes_what_is_learned() -> None:
    world = make_world([])
    loops = [train(world, (replace(TRUE, lam=lam, penalty=name),), 3) for name, lam in (("oracle", 2.0), ("none", 2.0))]
    assert not torch.equal(loops[0].agent.actor.flat, loops[1].agent.actor.flat)
    same = train(world, (replace(TRUE, lam=0.0),), 3)
    assert torch.equal(same.agent.actor.flat, loops[1].agent.actor.flat), "a weight of zero is no penalty, bit for bit"
