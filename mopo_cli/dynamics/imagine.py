"""Branched rollouts: from real states h steps in the ensemble, a random elite per row and step (MOPO algorithm 2)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import exp

import torch
from torch import Tensor

from mopo_cli.dynamics.ensemble import Ensemble
from mopo_cli.dynamics.penalties import (
    ORACLE,
    RATIO,
    RELEASED_FORM,
    UNCERTAINTIES,
    PenaltyForm,
    uncertainties,
)
from mopo_cli.engine.rows import Rows
from mopo_cli.engine.workers import spread
from mopo_cli.nets.gaussian import MIN_LOG_VARIANCE
from mopo_cli.nets.precision import Precision

# Rows predicted at once on CPU: the activations of all networks then stay in the processor's cache.
_CPU_ROWS = 1024
# A state further than this many standard deviations from the data's mean is no state: the rollout ends there.
_GUARD = 100.0

ENDS = ("terminated", "halted", "guarded", "dropped")
"""What may end a branch before its horizon, see `Imagined`."""

TerminationRule = Callable[[Tensor, Tensor, Tensor], Tensor]
Policy = Callable[[Tensor, torch.Generator], Tensor]
Oracle = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Observations, actions in [-1, 1] and predicted next observations `[B, ·]` -> the predictions' errors `[B]`, NaN
where a simulator cannot be put into the state."""


@dataclass(frozen=True)
class Imagining:
    """What a branch tells of each step; the default is what MOPO's released code does.

    `uncertainties` are stored in that order, measured in the form `form`; where nobody asks for them (`uncertain`
    false) a CPU evaluates the drawn network alone, and they are 0. The model's products are made in `precision`.
    `guard` says of which next states no task can be in, besides those too far from the data; they end a branch.
    `reward_mean`: the reward is the drawn network's mean instead of its sample. "oracle" is the error of the drawn
    network's mean (its sample, where `oracle_sample`) by the `oracle`, and 0 without one; where the oracle knows
    nothing, max-var stands in. "ratio" is what `ratio` says of observations, actions `[B, ·]` and the drawn networks
    `[B]`, and 0 without it.
    A step whose uncertainty of the name in `halt` is above the number there ends its branch, with terminal = 1.
    """

    uncertainties: tuple[str, ...] = ("max-var", "avg-var", "ens")
    form: PenaltyForm = RELEASED_FORM
    reward_mean: bool = False
    oracle: Oracle | None = None
    oracle_sample: bool = False
    uncertain: bool = True
    precision: Precision = "fp32"
    ratio: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None
    halt: tuple[str, float] | None = None
    guard: TerminationRule | None = None

    @property
    def measured(self) -> tuple[str, ...]:
        """The uncertainties that the networks' predictions have to tell: those stored, and the oracle's stand-in."""
        wanted = (*self.uncertainties, *(("max-var",) if self.oracle is not None else ()))
        return tuple(name for name in UNCERTAINTIES if name in wanted)


RELEASED = Imagining()


@dataclass(frozen=True)
class Imagined:
    """One step of a branch: n packed rows `[n, width]`, the elite of each `[n]`, and what became of them.

    `start` `[n]` is the position of the start state that a row's rollout began in.
    `terminated` counts rows the task's rule ended, `halted` others that an uncertainty ended, `guarded` others ended
    because the prediction left every plausible range, `dropped` rows with a number that is not finite, which are not
    among `rows`; `unknown` those of the `rows` that the oracle knows nothing of.
    `wild` `[n]` says which rows are the guarded ones: no state of the task is an end there, see `agents.guard`.
    """

    step: int
    rows: Tensor
    member: Tensor
    start: Tensor
    terminated: int
    guarded: int
    dropped: int
    wild: Tensor
    unknown: int = 0
    halted: int = 0

    def ends(self) -> dict[str, int]:
        """How many branches ended in this step, by the cause."""
        return {name: getattr(self, name) for name in ENDS}


@dataclass(frozen=True)
class Step:
    """A step of B rows: what came `[B, obs_dim]`, `[B]`, how unsure the model is `[B, U]`, which elite drew it `[B]`.

    `mean` `[B, obs_dim]` is the next observation that the elite expects.
    """

    next_observation: Tensor
    reward: Tensor
    uncertainty: Tensor
    member: Tensor
    mean: Tensor


def uniform_policy(act_dim: int) -> Policy:
    """Actions uniform in [-1, 1], as the out-of-distribution tasks of the paper branch (MOPO appendix G.1)."""

    def act(observation: Tensor, generator: torch.Generator) -> Tensor:
        return 2 * torch.rand(len(observation), act_dim, generator=generator, device=observation.device) - 1

    return act


def sample_step(
    ensemble: Ensemble, observation: Tensor, action: Tensor, generator: torch.Generator, how: Imagining = RELEASED
) -> Step:
    """Sample from a random elite per row: observation `[B, obs_dim]`, action `[B, act_dim]`.

    State and reward come from the same Gaussian sample, as in MOPO's released code, unless `how` says otherwise.
    """
    count, device = len(observation), observation.device
    elites = torch.tensor(ensemble.elites, device=device)
    member = elites[torch.randint(len(elites), (count,), generator=generator, device=device)]
    noise = torch.randn(count, ensemble.obs_dim + 1, generator=generator, device=device)
    every = how.uncertain or observation.is_cuda
    size = count if observation.is_cuda else _CPU_ROWS * (1 if every else 4)

    def block(i: int) -> tuple[Tensor, Tensor, Tensor]:
        part = slice(i * size, (i + 1) * size)
        if every:
            means, stds = ensemble.predict(observation[part], action[part], how.precision)
            chosen = member[part][None, :, None].expand(1, -1, means.shape[2])
            mean, std = means.gather(0, chosen)[0], stds.gather(0, chosen)[0]
            uncertainty = uncertainties(means, stds, how.form, ensemble.elites, how.measured)
        else:
            mean, std = ensemble.predict_by(member[part], observation[part], action[part], how.precision)
            uncertainty = mean.new_zeros(len(mean), len(how.measured))
        return mean, mean + std * noise[part], uncertainty

    blocks = zip(*spread(block, -(-count // size)), strict=True)
    expected, sample, uncertainty = (torch.cat(column) for column in blocks)
    reward = expected[:, -1] if how.reward_mean else sample[:, -1]
    return Step(observation + sample[:, :-1], reward, uncertainty, member, observation + expected[:, :-1])


def branch(
    ensemble: Ensemble,
    rule: TerminationRule,
    start: Tensor,
    policy: Policy,
    horizon: int,
    generator: torch.Generator,
    how: Imagining = RELEASED,
) -> Iterator[Imagined]:
    """Roll out from `start` `[N, obs_dim]` for up to `horizon` steps, yielding the transitions of each step.

    A row that ends, by the rule on the predicted next state, by `how.halt` or by the guard, is stored with terminal = 1
    and goes no further. Iteration stops early when no row is left.
    """
    layout = Rows(ensemble.obs_dim, ensemble.input_mean.shape[0] - ensemble.obs_dim, len(how.uncertainties))
    centre, scale = ensemble.input_mean[: ensemble.obs_dim], ensemble.input_std[: ensemble.obs_dim]
    # Where the data hardly vary, the least noise of a network is still no sign of a wild prediction.
    scale = scale.clamp(min=exp(0.5 * MIN_LOG_VARIANCE))
    observation, origin = start, torch.arange(len(start), device=start.device)
    for step in range(horizon):
        if not len(observation):
            return
        action = policy(observation, generator)
        came = sample_step(ensemble, observation, action, generator, how)
        next_observation = came.next_observation
        uncertainty, blank = _stored(came, observation, action, how)
        terminal = rule(observation, action, next_observation)
        halted = _halted(uncertainty, how) & ~terminal
        wild = ((next_observation - centre) / scale).abs().amax(dim=-1) > _GUARD
        if how.guard is not None:
            wild = wild | how.guard(observation, action, next_observation)
        wild = wild & ~terminal & ~halted
        ended = terminal | halted | wild
        rows = layout.pack(observation, action, came.reward, ended, next_observation, uncertainty)
        finite = torch.isfinite(rows).all(dim=-1)
        yield Imagined(
            step,
            rows[finite],
            came.member[finite],
            origin[finite],
            terminated=int((terminal & finite).sum()),
            guarded=int((wild & finite).sum()),
            dropped=int((~finite).sum()),
            wild=wild[finite],
            unknown=int((blank & finite).sum()),
            halted=int((halted & finite).sum()),
        )
        alive = finite & ~ended
        observation, origin = next_observation[alive], origin[alive]


def _halted(uncertainty: Tensor, how: Imagining) -> Tensor:
    """Which rows `how.halt` ends, bool `[B]`, by their uncertainties `[B, U]`."""
    if how.halt is None:
        return torch.zeros(len(uncertainty), dtype=torch.bool, device=uncertainty.device)
    name, threshold = how.halt
    return uncertainty[:, how.uncertainties.index(name)] > threshold


def _stored(came: Step, observation: Tensor, action: Tensor, how: Imagining) -> tuple[Tensor, Tensor]:
    """The uncertainties to store `[B, U]`, and of which rows the oracle knows nothing, bool `[B]`."""
    columns = dict(zip(how.measured, came.uncertainty.unbind(dim=-1), strict=True))
    nothing = torch.zeros_like(came.reward)
    blank = nothing > 0
    if how.oracle is not None:
        error = how.oracle(observation, action, came.next_observation if how.oracle_sample else came.mean)
        blank = torch.isnan(error)
        columns[ORACLE] = torch.where(blank, columns["max-var"], error)
    if how.ratio is not None:
        columns[RATIO] = how.ratio(observation, action, came.member)
    stored = came.uncertainty.new_empty(len(nothing), len(how.uncertainties))
    for u, name in enumerate(how.uncertainties):
        stored[:, u] = columns.get(name, nothing)
    return stored, blank
