"""A small system to fit ensembles to, and settings that train them in a moment."""

import torch

from mopo_cli.dynamics.fit import FitSettings, FitState, start_fit
from mopo_cli.dynamics.split import Examples
from mopo_cli.dynamics.training import advance
from mopo_cli.engine.streams import stream

TINY = FitSettings(3, 9, 2, 37, 1e-2, (1e-3, 1e-3, 1e-3), 0.2, 1000, 0, 0.01, 12)


def make_data(rows: int = 400, device: str = "cpu") -> Examples:
    """Transitions of a system with three observations and two actions."""
    draw = stream(0, "test/data")
    observation, action = torch.randn(rows, 3, generator=draw) * 2 + 1, torch.rand(rows, 2, generator=draw) * 2 - 1
    reward = observation[:, 0].sin() + 0.1 * torch.randn(rows, generator=draw)
    following = observation + 0.3 * action[:, :1].tanh()
    return Examples.of(*(column.to(device) for column in (observation, action, reward, following)))


def train(data: Examples, settings: FitSettings, seeds: tuple[int, ...]) -> tuple[FitState, list[int]]:
    """A finished fit and how many ensembles were active in each of its epochs."""
    fit, active = start_fit(data, settings, seeds), []
    while not fit.done:
        report = advance(fit, 1000)
        assert report is not None
        active.append(len(report.active))
    return fit, active
