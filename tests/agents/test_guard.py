"""What a row that the guard ended is worth: as an absorbing state that pays the data's least reward, in closed form."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from probes.agents import SETTINGS as SAC
from probes.models import ACT, LOOP, MEMBERS, OBS, make_world, train
from probes.stacks import assert_same
from torch import Tensor

from mopo_cli.agents.algorithms.sac import ALGORITHM
from mopo_cli.agents.branching import fill_pools
from mopo_cli.agents.guard import absorbing_value, add_to_guarded, guarded_value
from mopo_cli.agents.runs import start_loop
from mopo_cli.agents.world import World
from mopo_cli.engine.rows import RowLayout
from mopo_cli.errors import SettingsError

REWARD = OBS + ACT


@pytest.mark.parametrize("gamma", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("least", [-3.0, 0.0, 4.0])
def test_what_follows_is_the_least_reward_for_ever_or_nothing(least: float, gamma: float) -> None:
    paid = min(0.0, least)
    assert guarded_value(least, gamma) == pytest.approx(sum(gamma**t * paid for t in range(1, 5000)), abs=1e-9)
    assert absorbing_value(least, gamma) == pytest.approx(sum(gamma**t * least for t in range(5000)), abs=1e-9)


def test_without_a_discount_only_a_reward_of_0_can_be_had_for_ever() -> None:
    assert guarded_value(2.0, 1.0) == absorbing_value(0.0, 1.0) == 0
    with pytest.raises(SettingsError, match="gamma 1") as caught:
        guarded_value(-0.5, 1.0)
    assert "--gamma" in caught.value.hint


def test_only_the_rewards_of_guarded_rows_are_charged() -> None:
    rows = RowLayout(2, 1, 3)
    packed = torch.arange(4.0 * rows.width).view(4, -1)
    wild = torch.tensor([False, True, False, True])
    charged = add_to_guarded(rows, packed, wild, -100.0)
    expected = np.arange(4.0 * rows.width).reshape(4, -1)
    expected[[1, 3], 3] -= 100
    assert charged.tolist() == expected.tolist() and packed[1, 3] == rows.width + 3, "the rows given are left alone"
    assert add_to_guarded(rows, packed, wild, 0.0) is packed


def shy(_observation: Tensor, _action: Tensor, next_observation: Tensor) -> Tensor:
    """A guard that takes a good part of all states for implausible."""
    return next_observation[:, 0] > 0.5


def world_with(least: float, guard: bool = True) -> World:
    """The least reward of the data is this; the rule and the guard end a good part of all branches."""
    world = make_world(ALGORITHM)
    world.real[:, REWARD] += least - world.real[:, REWARD].min()
    return replace(world, options=replace(world.options, guard=shy if guard else None))


def test_in_the_pool_a_guarded_row_pays_what_would_follow() -> None:
    """The same rollouts with and without negative rewards in the data differ in guarded rows, and by the formula."""
    plain, charged = (train(world_with(least), SAC, ALGORITHM, 0) for least in (0.0, -2.0))
    for loop, least in ((plain, 0.0), (charged, -2.0)):
        fill_pools(loop, world_with(least))
        assert all(0.05 < tally.guarded < 0.95 for tally in loop.tallies)
    rows, count = make_world(ALGORITHM).row_layout, 0
    for m in range(len(MEMBERS)):
        one, other = (rows.split(loop.pool.rows[m, : loop.pool.sizes[m]]) for loop in (plain, charged))
        wild = one.next_observation[:, 0] > 0.5
        assert torch.equal(one.terminal, other.terminal) and (one.terminal[wild] == 1).all()
        more = torch.where(wild, SAC.gamma * -2.0 / (1 - SAC.gamma), 0.0)
        torch.testing.assert_close(other.reward, one.reward + more)
        assert torch.equal(one.reward[~wild], other.reward[~wild])
        count += int(wild.sum())
    assert count > 20


def test_where_no_reward_is_negative_a_guarded_row_is_a_terminal_as_ever() -> None:
    """Bit for bit the loop in which the guard is a rule of the task."""
    world = world_with(0.25)
    as_rule = replace(world_with(0.25, guard=False), rule=shy)
    loop, other = (train(one, SAC, ALGORITHM, 2) for one in (world, as_rule))
    assert loop.tallies[0].guarded > 0 == loop.tallies[0].terminated
    assert_same(loop, other)


def test_the_least_reward_is_asked_for_only_where_rollouts_are_made() -> None:
    endless = replace(SAC, gamma=1.0)
    with pytest.raises(SettingsError, match="gamma 1"):
        start_loop(world_with(-2.0), MEMBERS, endless, LOOP, ALGORITHM)
    start_loop(world_with(0.0), MEMBERS, endless, LOOP, ALGORITHM)
    start_loop(world_with(-2.0), MEMBERS, endless, replace(LOOP, real_ratio=1.0), ALGORITHM)
