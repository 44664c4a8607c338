"""The other way to compute a stack, all members at once as on CUDA, on the CPU: the same numbers but for rounding."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from probes.gpu import as_on_cuda
from torch import Tensor

from mopo_cli.agents.algorithm import agent_state
from mopo_cli.agents.algorithms import load
from mopo_cli.agents.algorithms.bc import BcSettings
from mopo_cli.agents.algorithms.bear import BearSettings
from mopo_cli.agents.algorithms.sac import SacSettings
from mopo_cli.agents.brac import BracSettings
from mopo_cli.agents.loop import advance
from mopo_cli.agents.runs import Loop, start_loop
from mopo_cli.agents.schedule import LoopSettings
from mopo_cli.agents.world import World
from mopo_cli.dynamics.ensemble import Ensemble
from mopo_cli.dynamics.fit import FitSettings, start_fit
from mopo_cli.dynamics.split import FitData
from mopo_cli.dynamics.training import advance as advance_fit
from mopo_cli.engine.members import Member
from mopo_cli.engine.rows import Rows
from mopo_cli.engine.streams import stream
from mopo_cli.nets.gaussian import gaussian_layout
from mopo_cli.nets.init import initial, truncated_normal, zeros
from mopo_cli.tasks.termination import never

OBS, ACT, ROWS = 7, 2, 400
SAC = (24, 2, 3e-4, 3e-4, 3e-4, 0.99, 0.005, -2.0, 1.0, -5.0, 2.0)
LEARNERS: dict[str, Any] = {
    "sac": SacSettings(*SAC),
    "bc": BcSettings(24, 2, 3e-4, -5.0, 2.0),
    "bear": BearSettings(*SAC, warmup_steps=0, behaviour_hidden=20),
    "brac-v": BracSettings(*SAC, divergence="mmd", behaviour_steps=1, warmup_steps=0),
}


def transitions() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    draw = stream(0, "test/data")
    observation, action = torch.randn(ROWS, OBS, generator=draw), 2 * torch.rand(ROWS, ACT, generator=draw) - 1
    return observation, action, observation[:, 0] * action[:, 0], 0.9 * observation + 0.1 * action[:, :1]


def model() -> Ensemble:
    layout = gaussian_layout(OBS + ACT, OBS + 1, 20, 2)
    flat = initial(layout, [stream(k, "test/weights") for k in range(4)], truncated_normal, zeros)
    layout.views(flat)["min_logvar"].fill_(-8.0)
    return Ensemble(flat, layout, torch.zeros(OBS + ACT), torch.ones(OBS + ACT), OBS, (0, 1, 3))


def trained(name: str) -> Loop:
    rows, (observation, action, reward, following) = Rows(OBS, ACT, 3), transitions()
    real = rows.pack(observation, action, reward, reward > 9, following, torch.zeros(ROWS, 3))
    world = World(rows, real, observation, never, ensembles=(model(),))
    settings = LoopSettings(10, 10, 60, 2, batch_size=33, real_ratio=0.1)
    members = tuple(Member(seed, "max-var", 0.5, 2, 0) for seed in range(3))
    loop = start_loop(world, members, LEARNERS[name], settings, load(name))
    for _ in range(2):
        advance(loop, world)
    return loop


def fitted() -> Tensor:
    settings = FitSettings(3, 20, 2, 16, 1e-3, (1e-4, 1e-4, 1e-4), 0.2, 50, 5, 0.01, None)
    data = FitData.of(*transitions())
    fit = start_fit(data, settings, (0, 1))
    advance_fit(fit, data, 15)
    return fit.flat


def close(one: Tensor, other: Tensor) -> None:
    """Adam makes every first step as long as the rate, so where a gradient is rounding alone, its sign is free."""
    assert one.shape == other.shape
    off = (one - other).abs() > 1e-4
    assert off.float().mean() < 2e-3 and (one - other).abs().max() < 0.02


@pytest.mark.parametrize("name", list(LEARNERS))
def test_learning(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = trained(name)
    with as_on_cuda(monkeypatch):
        whole = trained(name)
    tensors, others = agent_state(alone.agent)[0], agent_state(whole.agent)[0]
    for key in tensors:
        if "second" not in key:
            close(tensors[key], others[key])
    close(alone.pool.rows[:, :100], whole.pool.rows[:, :100])


def test_fitting(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = fitted()
    with as_on_cuda(monkeypatch):
        close(alone, fitted())


@pytest.mark.parametrize("bf16", [False, True])
def test_predicting(bf16: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    observation, action, _, _ = transitions()
    ask: Callable[[], tuple[Tensor, Tensor]] = lambda: model().predict(observation, action, "bf16" if bf16 else "fp32")  # noqa: E731
    mean, std = ask()
    with as_on_cuda(monkeypatch):
        other_mean, other_std = ask()
    torch.testing.assert_close(mean, other_mean, rtol=1e-4, atol=2e-3 if bf16 else 1e-5)
    torch.testing.assert_close(std, other_std, rtol=2e-3 if bf16 else 1e-4, atol=1e-6)
