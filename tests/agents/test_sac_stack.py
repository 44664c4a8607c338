"""Agents of a stack are what each would be alone, with any number of threads, and go on after a stop as without."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from probes.agents import ACT, BATCH, OBS, SETTINGS, make_batch, make_sac, tensors
from torch import Tensor

from mopo_cli.agents.algorithm import agent_state, restore_agent
from mopo_cli.agents.algorithms.sac import Sac, SacSettings, start_sac, update
from mopo_cli.engine.rows import Transition

PARTS = ("actor", "critic", "target", "log_alpha")


def member(sac: Sac, m: int, act_dim: int) -> Sac:
    """One of the agents, by itself, as it is now."""
    alone, (tensors, steps) = start_sac(OBS, act_dim, sac.settings, [9], "cpu"), agent_state(sac)
    own = {name: tensor.unflatten(0, (-1, len(tensor) // len(sac.actor.flat)))[m] for name, tensor in tensors.items()}
    restore_agent(alone, own, steps)
    return alone


def rows_of(m: int, batch: Transition, reward: Tensor, noise: Tensor) -> tuple[Transition, Tensor, Tensor]:
    one = slice(m, m + 1)
    own = Transition(*(getattr(batch, name)[one].clone() for name in Transition.__dataclass_fields__))
    return own, reward[one].clone(), noise[:, one].clone()


def assert_alone_as_stacked(
    members: int, which: tuple[int, ...], settings: SacSettings, rows: int, act_dim: int, steps: int
) -> None:
    stacked, batch = make_sac(members, settings, act_dim), make_batch(members, rows, act_dim)
    update(stacked, *batch)
    alone = {m: member(stacked, m, act_dim) for m in which}
    for _ in range(steps):
        info = update(stacked, *batch)
    for m, sac in alone.items():
        for _ in range(steps):
            own = update(sac, *rows_of(m, *batch))
        for name, tensor in agent_state(sac)[0].items():
            count = len(tensor)
            assert torch.equal(tensor, agent_state(stacked)[0][name][m * count : (m + 1) * count]), (m, name)
        assert all(torch.equal(own[name][0], info[name][m]) for name in info)


@pytest.mark.parametrize("members", [1, 3, 4])
@pytest.mark.parametrize(
    ("rows", "act_dim", "hidden"), [(7, 1, 16), (37, 2, 17), (1, 1, 5), (64, 8, 32), (256, 1, 256)]
)
def test_a_member_is_bit_for_bit_the_same_alone(members: int, rows: int, act_dim: int, hidden: int) -> None:
    settings = replace(SETTINGS, hidden=hidden)
    assert_alone_as_stacked(members, tuple(range(members)), settings, rows, act_dim, 2 if rows == 256 else 6)


def test_a_member_of_twenty_is_bit_for_bit_the_same_alone() -> None:
    """More members than a vector of the processor holds."""
    assert_alone_as_stacked(20, (0, 7, 8, 15, 16, 19), SETTINGS, BATCH, ACT, 40)


@pytest.mark.parametrize("members", [1, 2, 3])
@pytest.mark.parametrize(("rows", "act_dim", "hidden"), [(7, 1, 17), (256, 3, 64)])
def test_the_number_of_threads_changes_no_byte(
    members: int, rows: int, act_dim: int, hidden: int, use_threads: Callable[[int], None]
) -> None:
    ends = []
    for threads in (1, 2, 3):
        use_threads(threads)
        sac = make_sac(members, replace(SETTINGS, hidden=hidden), act_dim)
        for _ in range(5):
            info = update(sac, *make_batch(members, rows, act_dim))
        ends.append(agent_state(sac)[0] | info)
    for other in ends[1:]:
        assert all(torch.equal(tensor, other[name]) for name, tensor in ends[0].items())


def test_agents_put_back_go_on_as_those_they_were_taken_from() -> None:
    """Also from memory that is not aligned, as a mapped file's may not be."""
    sac, batch = make_sac(3), make_batch(3)
    update(sac, *batch)
    saved, steps = agent_state(sac)
    odd = {name: torch.cat([torch.zeros(1), tensor.flatten()])[1:].view_as(tensor) for name, tensor in saved.items()}
    other = start_sac(OBS, ACT, SETTINGS, [7, 8, 9], "cpu")
    restore_agent(other, odd, list(steps))
    for agents in (sac, other):
        for _ in range(3):
            update(agents, *batch)
    assert agent_state(other)[1] == agent_state(sac)[1] == [4, 4, 4]
    assert all(torch.equal(tensors(sac)[name], tensors(other)[name]) for name in PARTS)


def test_a_step_leaves_the_batch_and_the_noise_as_they_were() -> None:
    sac, (batch, reward, noise), (kept, kept_reward, kept_noise) = make_sac(), make_batch(2), make_batch(2)
    update(sac, batch, reward, noise)
    assert torch.equal(reward, kept_reward) and torch.equal(noise, kept_noise)
    for name in Transition.__dataclass_fields__:
        assert torch.equal(getattr(batch, name), getattr(kept, name)), name


def test_what_is_told_of_a_step_is_not_changed_by_the_next() -> None:
    sac, batch = make_sac(), make_batch(2)
    info = update(sac, *batch)
    kept = {name: value.clone() for name, value in info.items()}
    update(sac, *batch)
    assert all(torch.equal(info[name], value) for name, value in kept.items())


def test_what_is_not_a_number_stays_in_its_member() -> None:
    healthy, broken, (batch, reward, noise) = make_sac(3), make_sac(3), make_batch(3)
    spoilt = reward.clone()
    spoilt[1, 5] = float("nan")
    for _ in range(3):
        update(healthy, batch, reward, noise)
        info = update(broken, batch, spoilt, noise)
    for name in ("actor", "log_alpha"):
        assert not torch.isfinite(tensors(broken)[name][1]).all(), name
        assert torch.equal(tensors(broken)[name][[0, 2]], tensors(healthy)[name][[0, 2]]), name
    for name in ("critic", "target"):
        assert not torch.isfinite(tensors(broken)[name][2:4]).all(), name
        assert torch.equal(tensors(broken)[name][[0, 1, 4, 5]], tensors(healthy)[name][[0, 1, 4, 5]]), name
    assert torch.isfinite(info["critic_loss"][[0, 2]]).all()
