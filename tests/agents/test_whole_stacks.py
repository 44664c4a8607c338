"""An ensemble's networks computed all at once, as on CUDA: on the CPU the same numbers but for rounding."""

import pytest
import torch
from probes.agents import normal
from probes.fits import make_data
from probes.gpu import as_on_cuda
from torch import Tensor

from mopo_cli.dynamics.ensemble import Ensemble
from mopo_cli.dynamics.fit import FitSettings, start_fit
from mopo_cli.dynamics.training import advance as advance_fit
from mopo_cli.engine.streams import stream
from mopo_cli.nets.gaussian import gaussian_layout
from mopo_cli.nets.init import initial, truncated_normal, zeros

OBS, ACT = 7, 2


def model() -> Ensemble:
    layout = gaussian_layout(OBS + ACT, OBS + 1, 20, 2)
    flat = initial(layout, [stream(k, "test/weights") for k in range(4)], truncated_normal, zeros)
    layout.views(flat)["min_logvar"].fill_(-8.0)
    return Ensemble(flat, layout, torch.zeros(OBS + ACT), torch.ones(OBS + ACT), OBS, (0, 1, 3))


def fitted() -> Tensor:
    settings = FitSettings(3, 20, 2, 16, 1e-3, (1e-4, 1e-4, 1e-4), 0.2, 50, 5, 0.01, None)
    fit = start_fit(make_data(), settings, (0, 1))
    advance_fit(fit, 15)
    return fit.flat


def close(one: Tensor, other: Tensor) -> None:
    """Adam makes every first step as long as the rate, so where a gradient is rounding alone, its sign is free."""
    assert one.shape == other.shape
    off = (one - other).abs() > 1e-4
    assert off.float().mean() < 2e-3 and (one - other).abs().max() < 0.02


def test_fitting(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = fitted()
    with as_on_cuda(monkeypatch):
        close(alone, fitted())


@pytest.mark.parametrize("bf16", [False, True])
def test_predicting(bf16: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask() -> tuple[Tensor, Tensor]:
        observation, action = normal(400, OBS, name="s"), normal(400, ACT, name="a").clamp(-1, 1)
        return model().predict(observation, action, "bf16" if bf16 else "fp32")

    mean, std = ask()
    with as_on_cuda(monkeypatch):
        other_mean, other_std = ask()
    torch.testing.assert_close(mean, other_mean, rtol=1e-4, atol=2e-3 if bf16 else 1e-5)
    torch.testing.assert_close(std, other_std, rtol=2e-3 if bf16 else 1e-4, atol=1e-6)
