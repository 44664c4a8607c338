"""Soft actor-critic while it acts: every transition is kept, and after each one the agent is updated once.

All draws of a step come from streams named by its number, so a learner that is put back to any step, with the
parameters it had then, goes on as if nothing had happened.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from mopo_cli.agents.algorithms.sac import Sac, SacSettings, gradient_step, start_sac
from mopo_cli.engine.rows import RowLayout
from mopo_cli.engine.streams import stream


@dataclass(frozen=True)
class OnlineSettings:
    """The schedule: `warmup` steps of uniform actions come before the first update, of `batch_size` rows."""

    warmup: int
    batch_size: int


@dataclass
class Online:
    """One learner: `replay` `[capacity, width]` holds packed rows, the first `steps` of which are filled."""

    settings: OnlineSettings
    seed: int
    rows: RowLayout
    sac: Sac
    replay: Tensor
    steps: int = 0
    metrics: dict[str, Tensor] = field(default_factory=dict)
    """The metrics of the latest update, each `[1]`."""


def start_online(
    rows: RowLayout, capacity: int, sac: SacSettings, settings: OnlineSettings, seed: int, device: torch.device | str
) -> Online:
    """Build a fresh learner that can take `capacity` steps."""
    agent = start_sac(rows.obs_dim, rows.act_dim, sac, [seed], device)
    return Online(settings, seed, rows, agent, torch.empty(capacity, rows.width, device=device))


def act(online: Online, observation: Tensor) -> Tensor:
    """The next action `[act_dim]` in [-1, 1] for an observation `[obs_dim]`: uniform while warming up, then sampled."""
    device = online.replay.device
    draw = stream(online.seed, "online/action", online.steps, device)
    if online.steps < online.settings.warmup:
        return 2 * torch.rand(online.rows.act_dim, generator=draw, device=device) - 1
    return online.sac.policy(0).sample(observation[None].to(device), draw)[0]


def learn(online: Online, row: Tensor) -> None:
    """Keep the transition `[width]` that the action led to; once warm, take one gradient step on what was kept."""
    index, device = online.steps, online.replay.device
    online.replay[index] = row
    online.steps += 1
    if online.steps <= online.settings.warmup:
        return
    size, act_dim = online.settings.batch_size, online.rows.act_dim
    draw = stream(online.seed, "online/batch", index, device)
    chosen = torch.randint(online.steps, (size,), generator=draw, device=device)
    noise = torch.randn(
        (2, 1, size, act_dim), generator=stream(online.seed, "online/noise", index, device), device=device
    )
    batch = online.rows.split(online.replay[chosen][None])
    online.metrics = gradient_step(online.sac, batch, batch.reward, noise)
