"""Branched rollouts: from real states h steps in the ensemble, a random elite per row and step (MOPO algorithm 2)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import exp

import torch
from torch import Tensor

from mopo_cli.dynamics.ensemble import Ensemble
from mopo_cli.dynamics.penalties import UNCERTAINTIES, uncertainties
from mopo_cli.engine.rows import Rows
from mopo_cli.nets.gaussian import MIN_LOG_VARIANCE

# Rows predicted at once on CPU: the activations of all networks then stay in the processor's cache.
_CPU_ROWS = 1024
# A state further than this many standard deviations from the data's mean is no state: the rollout ends there.
_GUARD = 100.0

TerminationRule = Callable[[Tensor, Tensor, Tensor], Tensor]
Policy = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class Imagined:
    """One step of a branch: n packed rows `[n, width]`, the elite of each `[n]`, and what became of them.

    `terminated` counts rows the task's rule ended, `guarded` rows ended because the prediction left every
    plausible range, `dropped` rows with a number that is not finite, which are not among `rows`.
    """

    step: int
    rows: Tensor
    member: Tensor
    terminated: int
    guarded: int
    dropped: int


def uniform_policy(act_dim: int) -> Policy:
    """Actions uniform in [-1, 1], as the out-of-distribution tasks of the paper branch (MOPO appendix G.1)."""

    def act(observation: Tensor, generator: torch.Generator) -> Tensor:
        return 2 * torch.rand(len(observation), act_dim, generator=generator, device=observation.device) - 1

    return act


def sample_step(
    ensemble: Ensemble, observation: Tensor, action: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sample from a random elite per row: `[B, obs_dim]`, `[B, act_dim]` -> s', r `[B]`, u `[B, 3]`, elite `[B]`.

    State and reward come from the same Gaussian sample, as in MOPO's released code.
    """
    count, device = len(observation), observation.device
    elites = torch.tensor(ensemble.elites, device=device)
    member = elites[torch.randint(len(elites), (count,), generator=generator, device=device)]
    noise = torch.randn(count, ensemble.obs_dim + 1, generator=generator, device=device)
    size = count if observation.is_cuda else _CPU_ROWS
    samples, us = [], []
    for i in range(0, count, size):
        part = slice(i, i + size)
        mean, std = ensemble.predict(observation[part], action[part])
        chosen = member[part][None, :, None].expand(1, -1, mean.shape[2])
        samples.append(mean.gather(0, chosen)[0] + std.gather(0, chosen)[0] * noise[part])
        us.append(uncertainties(mean, std))
    sample = torch.cat(samples)
    return observation + sample[:, :-1], sample[:, -1], torch.cat(us), member


def branch(
    ensemble: Ensemble,
    rule: TerminationRule,
    start: Tensor,
    policy: Policy,
    horizon: int,
    generator: torch.Generator,
) -> Iterator[Imagined]:
    """Roll out from `start` `[N, obs_dim]` for up to `horizon` steps, yielding the transitions of each step.

    A row that ends, by the rule on the predicted next state or by the guard, is stored with terminal = 1
    and goes no further. Iteration stops early when no row is left.
    """
    layout = Rows(ensemble.obs_dim, ensemble.input_mean.shape[0] - ensemble.obs_dim, len(UNCERTAINTIES))
    centre, scale = ensemble.input_mean[: ensemble.obs_dim], ensemble.input_std[: ensemble.obs_dim]
    # Where the data hardly vary, the least noise of a network is still no sign of a wild prediction.
    scale = scale.clamp(min=exp(0.5 * MIN_LOG_VARIANCE))
    observation = start
    for step in range(horizon):
        if not len(observation):
            return
        action = policy(observation, generator)
        next_observation, reward, uncertainty, member = sample_step(ensemble, observation, action, generator)
        terminal = rule(observation, action, next_observation)
        wild = ((next_observation - centre) / scale).abs().amax(dim=-1) > _GUARD
        rows = layout.pack(observation, action, reward, terminal | wild, next_observation, uncertainty)
        finite = torch.isfinite(rows).all(dim=-1)
        yield Imagined(
            step,
            rows[finite],
            member[finite],
            terminated=int((terminal & finite).sum()),
            guarded=int((wild & ~terminal & finite).sum()),
            dropped=int((~finite).sum()),
        )
        observation = next_observation[finite & ~terminal & ~wild]
