"""What the loop draws for a learner: which rows make a batch, and with which noise. The learner here only looks."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from probes.single_steps import single_steps
from torch import Tensor

from mopo_cli.agents.actor import Actor
from mopo_cli.agents.algorithm import Algorithm, Batch, Learned, Start
from mopo_cli.agents.loop import advance
from mopo_cli.agents.runs import Loop, start_loop
from mopo_cli.agents.schedule import LoopSettings
from mopo_cli.agents.world import World
from mopo_cli.engine.members import Member
from mopo_cli.engine.rows import RowLayout
from mopo_cli.engine.streams import Draws
from mopo_cli.tasks.termination import never

ACT, REAL, MODEL = 2, 60, 90
LAYOUT = RowLayout(1, ACT, 3)
# Of 20 rows 5 are real; blocks are of 10 steps.
SETTINGS = LoopSettings(30, 10, 7, 2, batch_size=20, real_ratio=0.27)
MEMBERS = (Member(0, "max-var", 1.0, 1, 0), Member(1, "ens", 3.0, 1, 0), Member(2, "none", 1.0, 1, 0))
UNCERTAINTY = torch.tensor([0.2, 0.5, 0.9])


@dataclass
class Onlooker(Learned):
    """What a learner was shown, step by step."""

    nothing: Tensor
    rows: list[Tensor] = field(default_factory=list)  # [S, B], which row of which source
    gain: list[Tensor] = field(default_factory=list)  # [S, B], the reward to learn from less the raw one
    noise: list[Tensor] = field(default_factory=list)  # [2, S, B, ACT]

    def policy(self, m: int, flat: Tensor | None = None) -> Actor:
        raise AssertionError("nobody acts here")

    def finite(self) -> Tensor:
        return torch.ones(len(self.nothing), dtype=torch.bool)


def look(agent: Onlooker, batch: Batch, draws: Draws, scale: float) -> dict[str, Tensor]:
    assert torch.equal(batch.observation[..., 0], batch.next_observation[..., 0])
    assert torch.equal(batch.observation[:, : batch.real_rows, 0], batch.index.float())
    ids = batch.observation[..., 0]
    agent.rows.append(ids.clone())
    agent.gain.append(batch.reward - (100 + ids))
    agent.noise.append(draws.normal(2, *batch.action.shape[1:]))
    return {"id": ids.mean(dim=1)}


def start(world: World, members: tuple[Member, ...], settings: None) -> Onlooker:
    return Onlooker(torch.zeros(len(members), 1))


PLAIN = SimpleNamespace(update_precision="fp32")
LOOK = Algorithm(type(None), ("id",), cast(Start, start), look)


def identified(ids: Tensor, uncertainty: Tensor) -> Tensor:
    """Rows that say who they are."""
    count = len(ids)
    state, action = ids[:, None], torch.zeros(count, ACT)
    return LAYOUT.pack(state, action, 100.0 + ids, torch.zeros(count), state, uncertainty.expand(count, 3))


def make_world(buffer: bool = True) -> World:
    """Real rows are 0, 1, …, those of the buffer -1, -2, …"""
    real = identified(torch.arange(float(REAL)), torch.zeros(3))
    imagined = identified(-1 - torch.arange(float(MODEL)), UNCERTAINTY)
    return World(LAYOUT, real, real[:, :1], single_steps(real), never, buffer=imagined if buffer else None)


def watched(members: tuple[Member, ...] = MEMBERS, steps: int = 300, settings: LoopSettings = SETTINGS) -> Onlooker:
    world = make_world()
    loop = start_loop(world, members, PLAIN, settings, LOOK)
    while loop.step < steps:
        advance(loop, world)
    return seen(loop)


def seen(loop: Loop) -> Onlooker:
    assert isinstance(loop.agent, Onlooker)
    return loop.agent


def test_a_batch_is_its_share_of_real_rows_and_then_model_rows_each_drawn_alike() -> None:
    rows = torch.stack(watched().rows).long()  # [steps, S, B]
    assert rows.shape == (300, 3, 20)
    real, model = rows[..., :5], -1 - rows[..., 5:]
    for ids, count in ((real, REAL), (model, MODEL)):
        assert ids.min() == 0 and ids.max() == count - 1
        for m in range(3):
            drawn = torch.bincount(ids[:, m].flatten(), minlength=count).double()
            expected = ids[:, m].numel() / count
            # Chi-squared has the mean count - 1 and the variance twice that.
            distance = ((drawn - expected).square() / expected).sum().item()
            assert abs(distance - (count - 1)) < 5 * np.sqrt(2 * (count - 1))


@pytest.mark.parametrize(("ratio", "first"), [(1.0, 20), (0.0, 0)])
def test_a_batch_of_one_source(ratio: float, first: int) -> None:
    rows = torch.stack(watched(steps=10, settings=LoopSettings(10, 10, 7, 2, 20, ratio)).rows)
    assert rows.shape == (10, 3, 20) and ((rows >= 0).sum(dim=-1) == first).all()


def test_no_two_steps_members_or_blocks_are_shown_the_same() -> None:
    """By chance two batches share one row in sixty and in ninety at the same place, and no noise."""
    agent = watched()
    rows, noise = torch.stack(agent.rows), torch.stack(agent.noise)
    batches = rows.flatten(0, 1)
    assert len(batches.unique(dim=0)) == len(batches) == 900
    draws = noise.flatten(0, 2).flatten(1)
    assert len(draws.unique(dim=0)) == len(draws) == 1800, "nor for the next and the present actions"
    assert (rows[:, 0] == rows[:, 1]).double().mean() < 0.03
    for lag in (1, 10):
        assert (rows[lag:] == rows[:-lag]).double().mean() < 0.03


def test_the_noise_is_standard_normal_and_independent() -> None:
    noise = torch.stack(watched().noise).double()  # [steps, 2, S, B, ACT]
    assert noise.shape == (300, 2, 3, 20, ACT)
    count = noise.numel()
    assert abs(noise.mean()) < 5 / np.sqrt(count) and abs(noise.var() - 1) < 5 * np.sqrt(2 / count)
    assert abs((noise**4).mean() - 3) < 5 * np.sqrt(96 / count)
    for dim in range(noise.dim()):
        product = noise.diff(dim=dim).square().mean() / 2  # 1 less the correlation of neighbours
        assert abs(product - 1) < 5 * np.sqrt(3 / count), dim


def test_each_member_s_penalty_is_taken_off_model_rows_alone() -> None:
    agent = watched(steps=10)
    gain, model = torch.stack(agent.gain), torch.stack(agent.rows) < 0
    for m, penalty in enumerate((0.2, 2.7, 0.0)):
        expected = torch.where(model[:, m], -penalty, 0.0)
        torch.testing.assert_close(gain[:, m], expected, atol=2e-5, rtol=0)


def test_a_member_is_shown_its_own_pool_as_far_as_it_is_written() -> None:
    world = make_world(buffer=False)
    loop = start_loop(world, MEMBERS, PLAIN, SETTINGS, LOOK)
    loop.pool.rows.fill_(torch.nan)
    for m, count in enumerate((3, 14, 8)):
        loop.pool.write(m, identified(-100.0 * (m + 1) - torch.arange(float(count)), UNCERTAINTY))
    loop.step = 5  # from here no block begins where a rollout is due
    for _ in range(6):
        advance(loop, world)
    rows = torch.stack(seen(loop).rows)
    assert (rows[..., :5] >= 0).all()
    for m, count in enumerate((3, 14, 8)):
        assert set((-100 * (m + 1) - rows[:, m, 5:]).flatten().tolist()) == set(range(count))
