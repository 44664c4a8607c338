"""What a policy returns in single networks of an ensemble, where predictions end as soon as they leave the data."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from mopo_cli.dynamics.branched_rollouts import RolloutOptions, TerminationRule, branch
from mopo_cli.dynamics.ensemble import Ensemble
from mopo_cli.dynamics.penalties import uncertainties
from mopo_cli.engine.rows import RowLayout, Transition
from mopo_cli.engine.streams import stream
from mopo_cli.evaluation.fitted_q import Act

UNCERTAINTY = "max-var"
_ROWS = 4096  # predicted at once

Tail = Callable[[Tensor, Tensor], Tensor]
"""Observations and actions `[n, ·]` -> what follows from there on, discounted, `[n]`."""


@dataclass(frozen=True)
class ModelValues:
    """Discounted returns `[n]` f8 of episodes; the shares of episodes and of steps that left the data and were cut."""

    value: Tensor
    cut: float
    cut_steps: float


def data_quantile(
    ensemble: Ensemble, observation: Tensor, action: Tensor, options: RolloutOptions, share: float = 0.99
) -> float:
    """The quantile of the uncertainty over rows `[N, ·]`: what is above it is outside of the data."""
    values = []
    for some, act in zip(observation.split(_ROWS), action.split(_ROWS), strict=True):
        values.append(uncertainties(*ensemble.predict(some, act), options.form, ensemble.elites, (UNCERTAINTY,))[:, 0])
    return float(np.quantile(torch.cat(values).double().cpu().numpy(), share))


@dataclass(frozen=True)
class JudgeModel:
    """Where episodes are imagined: an ensemble, the task's rule, how it is rolled out, and the greatest uncertainty."""

    ensemble: Ensemble
    rule: TerminationRule
    options: RolloutOptions
    limit: float
    gamma: float


def policy_values(
    model: JudgeModel, network: int, start: Tensor, act: Act, tail: Tail, horizon: int, generator: torch.Generator
) -> ModelValues:
    """Episodes of a policy from `start` `[n, obs_dim]` in one network, of at most `horizon` steps.

    Where the uncertainty of a step exceeds the limit, or the prediction is no plausible state, the step is not made,
    and `tail` says what it and all that follows is worth; also at the horizon.
    """
    value = torch.zeros(len(start), dtype=torch.float64, device=start.device)
    pending, cut, steps = torch.ones_like(value, dtype=torch.bool), 0, 0
    observation, length = start.clone(), torch.zeros_like(pending, dtype=torch.int64)
    for t, (step, origin, outside) in enumerate(_steps(model, network, start, act, horizon, generator)):
        _add(value, model.gamma**t, step, origin, outside, tail)
        cut, steps = cut + int(outside.sum()), steps + len(origin)
        pending[origin[step.terminal > 0]] = False
        observation[origin], length[origin] = step.next_observation, t + 1
    rest = torch.nonzero(pending)[:, 0]
    if len(rest):
        ends = observation[rest]
        value[rest] += model.gamma ** length[rest].double() * tail(ends, act(ends))
    return ModelValues(value, cut / len(start), cut / max(steps, 1))


def noise_generator(network: int, device: torch.device) -> torch.Generator:
    """The noise of episodes in one network: the same for all policies, so that they differ in what they do."""
    return stream(0, "judge/model", network, device)


def values_by_network(
    model: JudgeModel, start: Tensor, act: Act, tail: Callable[[int], Tail], horizon: int
) -> list[ModelValues]:
    """`policy_values` in every network, by its number, from which `tail` makes the tail that goes with it."""
    networks = range(len(model.ensemble))
    return [policy_values(model, k, start, act, tail(k), horizon, noise_generator(k, start.device)) for k in networks]


@dataclass(frozen=True)
class Record:
    """n logged episodes: first observations `[n, obs_dim]`, actions `[n, longest, act_dim]`, lengths `[n]`.

    `rest` `[n]` is what a tail counts after the end of the record, 0 where the task ended.
    """

    start: Tensor
    action: Tensor
    length: Tensor
    rest: Tensor


def replayed_values(
    model: JudgeModel, network: int, record: Record, tail: Tail, generator: torch.Generator
) -> ModelValues:
    """As `policy_values`, with the actions of a record: what its steps return in one network, and no more."""
    value = torch.zeros(len(record.start), dtype=torch.float64, device=record.start.device)
    alive, t, cut, steps = torch.arange(len(value), device=value.device), 0, 0, 0

    def logged(_: Tensor) -> Tensor:
        return record.action[alive, t]

    model = replace(model, rule=_never)
    for step, origin, outside in _steps(model, network, record.start, logged, record.action.shape[1], generator):
        within = t < record.length[origin]
        part = Transition(**{name: column[within] for name, column in vars(step).items()})
        _add(value, model.gamma**t, part, origin[within], outside[within], tail)
        left = origin[outside & within]
        value[left] -= model.gamma ** record.length[left].double() * record.rest[left]
        cut, steps = cut + len(left), steps + int(within.sum())
        alive, t = origin[step.terminal == 0], t + 1
    return ModelValues(value, cut / len(value), cut / max(steps, 1))


def _add(value: Tensor, discount: float, step: Transition, origin: Tensor, outside: Tensor, tail: Tail) -> None:
    inside = ~outside
    value[origin[inside]] += discount * step.reward[inside].double()
    if bool(outside.any()):
        value[origin[outside]] += discount * tail(step.observation[outside], step.action[outside])


def _never(observation: Tensor, action: Tensor, next_observation: Tensor) -> Tensor:
    return torch.zeros(observation.shape[:-1], dtype=torch.bool, device=observation.device)


def _steps(
    model: JudgeModel, network: int, start: Tensor, act: Act, horizon: int, generator: torch.Generator
) -> Iterator[tuple[Transition, Tensor, Tensor]]:
    """The transitions of each step, the start that each belongs to `[n]`, and which of them are outside, bool `[n]`."""
    ensemble = replace(model.ensemble, elites=(network,))
    options = replace(model.options, uncertainties=(UNCERTAINTY,), halt=(UNCERTAINTY, model.limit))
    rows = RowLayout(ensemble.obs_dim, ensemble.input_mean.shape[0] - ensemble.obs_dim, 1)
    for imagined in branch(ensemble, model.rule, start, lambda seen, _: act(seen), horizon, generator, options):
        step = rows.split(imagined.rows)
        yield step, imagined.start, (step.uncertainty[:, 0] > model.limit) | imagined.guarded_rows
