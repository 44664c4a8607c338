"""Algorithms that ask the model themselves look at whole next observations, of which the model predicts the frame."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from probes.linear import linear_ensemble
from torch import Tensor

from mopo_cli.agents.algorithms import drop, mobile

FRAME, ACT, OBS, ELITES, ROWS = 2, 1, 5, 2, 6  # of two steps


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


MAPS, OFFSET, STD = 0.3 * random(ELITES, OBS + ACT, FRAME + 1), random(ELITES, FRAME + 1), random(ELITES, FRAME + 1)
OBSERVATION, ACTION = random(1, ROWS, OBS), torch.tanh(random(1, ROWS, ACT))


def elites() -> Any:
    return replace(linear_ensemble(MAPS, OFFSET, STD.exp(), tuple(range(ELITES))), obs_dim=OBS)


def following(k: int, noise: Tensor | float = 0.0) -> Tensor:
    """The next observation by elite k, `[B, OBS]`: its two frames, and the action between them."""
    change = torch.cat([OBSERVATION[0], ACTION[0]], dim=1) @ MAPS[k] + OFFSET[k]
    newest = OBSERVATION[0, :, :FRAME] + change[:, :FRAME] + STD[k, :FRAME].exp() * noise
    return torch.cat([newest, OBSERVATION[0, :, :FRAME], ACTION[0]], dim=1)


def test_mobile_draws_next_frames_and_keeps_what_came_before(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    monkeypatch.setattr(mobile, "_min_target_values", lambda _, states, noise: seen.append(states) or states.sum(dim=2))
    noise = random(1, ELITES, 3, ROWS, FRAME + ACT)
    u = mobile.inconsistency(SimpleNamespace(elites=[elites()]), OBSERVATION, ACTION, noise)  # type: ignore[arg-type]
    wanted = torch.stack([following(k, noise[0, k, i, :, :FRAME]) for k in range(ELITES) for i in range(3)])
    torch.testing.assert_close(seen[0].view_as(wanted), wanted, rtol=1e-4, atol=1e-4)
    assert u.shape == (1, ROWS)


def test_drop_compares_pairs_at_whole_next_observations(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []

    def step(_: Any, at: Tensor, first: Tensor, following: Tensor, *__: Any) -> Tensor:
        seen.extend([at, following])
        return torch.zeros(ELITES)

    monkeypatch.setattr(drop, "step_dice", step)
    actor = SimpleNamespace(act=lambda states, noise: noise)
    settings = SimpleNamespace(gamma=0.9, dice_norm=1.0, dice_lr=1e-3)
    how = SimpleNamespace(options=SimpleNamespace(precision="fp32"))
    learner = SimpleNamespace(settings=settings, world=how, elites=[elites()], dice=None, policy=lambda m: actor)
    draws = SimpleNamespace(normal=lambda n, *shape: random(n, 1, *shape))
    drop.learn_ratios(learner, OBSERVATION, ACTION, draws)  # type: ignore[arg-type]
    torch.testing.assert_close(seen[0][0], torch.cat([OBSERVATION[0], ACTION[0]], dim=1))
    for k in range(ELITES):
        torch.testing.assert_close(seen[1][k, :, :OBS], following(k), rtol=1e-4, atol=1e-4)
