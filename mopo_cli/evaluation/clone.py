"""A deterministic clone of logged behaviour: what a policy must beat (NeoRL, Qin et al. 2021), and a density of it."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from mopo_cli.agents.actor import Actor
from mopo_cli.agents.algorithms.bc import BcSettings, start_bc, update
from mopo_cli.engine.rows import Transition
from mopo_cli.engine.streams import Draws, stream
from mopo_cli.evaluation.fitted_q import Log
from mopo_cli.nets.scales import standard_units

_SETTINGS = BcSettings(hidden=128, layers=2, actor_lr=1e-3, log_std_min=-5.0, log_std_max=2.0)
_BATCH = 256
_CHECKED = 50  # steps between looks at what is held out
_LEAST_DEVIATION = 0.02  # of actions in [-1, 1]: a log that is deterministic has no density


def clone_of(log: Log, steps: int = 5_000, seed: int = 0) -> Actor:
    """The mean action of a log by least squares, from the step at which a tenth of the episodes, held out, fits best.

    Of a log of one episode nothing is held out.
    """
    holdout = _holdout(log, seed)
    seen = torch.nonzero(~holdout)[:, 0] if bool((~holdout).any()) else torch.nonzero(holdout)[:, 0]
    scale = standard_units(log.observation[seen])
    scaled, device = scale.apply(log.observation), log.observation.device
    agent = start_bc(log.observation.shape[1], log.action.shape[1], _SETTINGS, [seed], device)
    actor = agent.policy(0)
    generator = stream(seed, "clone/batch")
    nothing = scaled.new_empty(1, _BATCH, 0)
    best, least = agent.actor.flat.clone(), math.inf
    for taken in range(1, steps + 1):
        rows = seen[torch.randint(len(seen), (1, _BATCH), generator=generator).to(device)]
        update(agent, Transition(scaled[rows], log.action[rows], nothing, nothing, nothing, nothing), Draws(()))
        if taken % _CHECKED == 0 or taken == steps:
            error = float((actor.greedy(scaled[holdout]) - log.action[holdout]).double().square().mean())
            if error < least:
                best, least = agent.actor.flat.clone(), error
    return replace(actor, flat=scale.folded(actor.layout, best))


def _holdout(log: Log, seed: int) -> Tensor:
    """The rows `[N]` of a tenth of the episodes, drawn at random, at least of one."""
    episodes = len(log.first)
    chosen = torch.randperm(episodes, generator=stream(seed, "clone/held"))[: max(1, round(episodes / 10))]
    return torch.isin(log.episode, chosen.to(log.episode.device))


def log_density(mean: Tensor, action: Tensor, deviation: Tensor) -> Tensor:
    """log N(action; mean, deviation) `[N]` f8, of `[N, act_dim]` twice and `[act_dim]`."""
    std = deviation.double().clamp(min=_LEAST_DEVIATION)
    score = (action.double() - mean.double()) / std
    return (-0.5 * score.square() - std.log() - 0.5 * math.log(2 * math.pi)).sum(dim=-1)
