"""The actor's step size over a training: constant, or falling along a cosine, and nothing else with it."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from probes.agents import tensors
from torch import Tensor

from mopo_cli.agents.algorithms.sac import ALGORITHM, Sac, SacSettings, start_sac, update
from mopo_cli.agents.loop import advance
from mopo_cli.agents.runs import Loop, start_loop
from mopo_cli.agents.schedule import LoopSettings
from mopo_cli.agents.world import World
from mopo_cli.engine.members import Member
from mopo_cli.engine.rows import Rows, Transition
from mopo_cli.engine.streams import stream
from mopo_cli.tasks.termination import never

OBS, ACT, BATCH = 3, 2, 20
SETTINGS = SacSettings(
    hidden=16, layers=2, actor_lr=1e-3, critic_lr=2e-3, alpha_lr=5e-3, gamma=0.9, tau=0.05,
    target_entropy=-2.0, alpha_max=1.0, log_std_min=-5.0, log_std_max=2.0,
)  # fmt: skip


def schedule(epochs: int, name: str = "cosine", steps: int = 10) -> LoopSettings:
    return LoopSettings(steps, steps, 30, 2, BATCH, 1.0, actor_schedule=name, epochs=epochs)


@pytest.mark.parametrize("epochs", [1, 2, 7, 1000])
def test_the_cosine_is_torch_s_own_stepped_once_an_epoch(epochs: int) -> None:
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    annealing = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=epochs)
    settings = schedule(epochs)
    for epoch in range(epochs):
        (expected,) = annealing.get_last_lr()
        for step in (0, 4, 9):
            assert settings.actor_scale(10 * epoch + step) == pytest.approx(expected, abs=1e-9)
        optimiser.step()
        annealing.step()


def test_it_begins_at_one_and_ends_near_zero() -> None:
    settings = schedule(1000)
    scales = [settings.actor_scale(step) for step in range(0, 10_000, 10)]
    assert scales[0] == settings.actor_scale(9) == 1
    assert all(after < before for before, after in pairwise(scales))
    assert scales[500] == pytest.approx(0.5) and 0 < scales[-1] < 1e-5
    assert {schedule(1000, "constant").actor_scale(step) for step in range(0, 10_000, 10)} == {1.0}


def make_batch() -> tuple[Transition, Tensor, Tensor]:
    draw = stream(0, "test/batch")
    observation, following = torch.randn(2, 2, BATCH, OBS, generator=draw)
    action = 2 * torch.rand(2, BATCH, ACT, generator=draw) - 1
    reward = torch.randn(2, BATCH, generator=draw)
    noise = torch.randn(2, 2, BATCH, ACT, generator=draw)
    return Transition(observation, action, reward, 0 * reward, following, torch.zeros(2, BATCH, 3)), reward, noise


def updated(scale: float) -> tuple[Sac, Tensor]:
    """Agents after one update, and the step of their actors."""
    sac = start_sac(OBS, ACT, SETTINGS, [0, 1], "cpu")
    before = sac.actor.flat.clone()
    update(sac, *make_batch(), scale)
    return sac, sac.actor.flat - before


def test_the_factor_scales_the_actor_s_step_alone() -> None:
    (whole, step), (quarter, less), (still, none) = updated(1.0), updated(0.25), updated(0.0)
    torch.testing.assert_close(less, 0.25 * step, atol=1e-7, rtol=1e-3)
    assert step.abs().max() > 9e-4 and (none == 0).all()
    for other in (quarter, still):
        for name in ("critic", "target", "log_alpha"):
            assert torch.equal(tensors(whole)[name], tensors(other)[name]), name


def make_world() -> World:
    draw, rows = stream(0, "test/rows"), Rows(OBS, ACT, 3)
    observation, action = torch.randn(200, OBS, generator=draw), 2 * torch.rand(200, ACT, generator=draw) - 1
    reward, nothing = -action[:, 0].square(), torch.zeros(200)
    return World(
        rows, rows.pack(observation, action, reward, nothing, observation, torch.zeros(200, 3)), observation, never
    )


def trained(settings: LoopSettings, steps: int) -> Loop:
    world = make_world()
    loop = start_loop(world, (Member(0, "none", 0.0, 1, 0),), SETTINGS, settings, ALGORITHM)
    while loop.step < steps:
        advance(loop, world)
    return loop


def test_the_loop_keeps_to_the_schedule() -> None:
    """The first of two epochs goes at full speed, the second as if the actor's rate were half of it."""
    cosine, constant = schedule(2), schedule(2, "constant")
    halved = trained(constant, 10)
    assert torch.equal(trained(cosine, 10).agent.actor.flat, halved.agent.actor.flat)
    halved.agent.settings = replace(SETTINGS, actor_lr=SETTINGS.actor_lr / 2)
    advance(halved, make_world())
    whole = trained(cosine, 20)
    torch.testing.assert_close(whole.agent.actor.flat, halved.agent.actor.flat, atol=1e-7, rtol=1e-6)
    assert (whole.agent.actor.flat - trained(constant, 20).agent.actor.flat).abs().max() > 1e-4
