"""A deterministic clone of logged behaviour: what a policy must beat (NeoRL, Qin et al. 2021), and a density of it."""

from math import log, pi

import torch
from torch import Tensor

from mopo_cli.agents.actor import Actor
from mopo_cli.agents.algorithms.bc import BcSettings, start_bc, update
from mopo_cli.engine.rows import Transition
from mopo_cli.engine.streams import Draws, stream
from mopo_cli.nets.scales import standard_units

_SETTINGS = BcSettings(hidden=128, layers=2, actor_lr=1e-3, log_std_min=-5.0, log_std_max=2.0)
_BATCH = 256
_LEAST_DEVIATION = 0.02  # of actions in [-1, 1]: a log that is deterministic has no density


def clone_of(observation: Tensor, action: Tensor, steps: int = 5_000, seed: int = 0) -> Actor:
    """The mean action of the log by least squares: `[N, obs_dim]`, `[N, act_dim]` in [-1, 1]."""
    scale = standard_units(observation)
    scaled, device = scale.apply(observation), observation.device
    bc = start_bc(observation.shape[1], action.shape[1], _SETTINGS, [seed], device)
    generator = stream(seed, "clone/batch")
    nothing = observation.new_empty(1, _BATCH, 0)
    for _ in range(steps):
        rows = torch.randint(len(action), (1, _BATCH), generator=generator).to(device)
        batch = Transition(scaled[rows], action[rows], nothing, nothing, nothing, nothing)
        update(bc, batch, Draws(()))
    flat = scale.folded(bc.actor.layout, bc.actor.flat)
    return Actor(flat, bc.actor.layout, _SETTINGS.log_std_min, _SETTINGS.log_std_max)


def log_density(mean: Tensor, action: Tensor, deviation: Tensor) -> Tensor:
    """log N(action; mean, deviation) `[N]` f8, of `[N, act_dim]` twice and `[act_dim]`."""
    std = deviation.double().clamp(min=_LEAST_DEVIATION)
    score = (action.double() - mean.double()) / std
    return (-0.5 * score.square() - std.log() - 0.5 * log(2 * pi)).sum(dim=-1)
