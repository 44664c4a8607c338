"""The actor's step size over a training: constant, or falling along a cosine, and nothing else with it."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from probes.agents import SETTINGS, make_batch, make_sac, tensors
from probes.offline import MEMBERS, make_world, train
from torch import Tensor

from mopo_cli.agents.algorithms.sac import ALGORITHM, Sac, gradient_step
from mopo_cli.agents.loop import advance
from mopo_cli.agents.runs import Loop
from mopo_cli.agents.schedule import LoopSettings


def schedule(epochs: int, name: str = "cosine", steps: int = 10) -> LoopSettings:
    return LoopSettings(steps, steps, 30, 2, 20, 1.0, actor_schedule=name, epochs=epochs)


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


def updated(scale: float) -> tuple[Sac, Tensor]:
    """Agents after one gradient_step, and the step of their actors."""
    sac = make_sac()
    before = sac.actor.flat.clone()
    gradient_step(sac, *make_batch(2), scale)
    return sac, sac.actor.flat - before


def test_the_factor_scales_the_actor_s_step_alone() -> None:
    (whole, step), (quarter, less), (still, none) = updated(1.0), updated(0.25), updated(0.0)
    torch.testing.assert_close(less, 0.25 * step, atol=1e-7, rtol=1e-3)
    assert step.abs().max() > 9e-4 and (none == 0).all()
    for other in (quarter, still):
        for name in ("critic", "target", "log_alpha"):
            assert torch.equal(tensors(whole)[name], tensors(other)[name]), name


def trained(settings: LoopSettings, steps: int) -> Loop:
    return train(make_world(), SETTINGS, ALGORITHM, steps, MEMBERS[:1], settings)


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
