"""Branched rollouts on a GPU: all rows take every step, those that have ended too, and are told apart at the end.

So the operations of a step depend on shapes alone, and no step asks the GPU for a number: steps can be recorded (see
`engine.capture`). The transitions are those of `branched_rollouts.branch` with the same draws.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import exp

import torch
from torch import Tensor

from mopo_cli.dynamics.ensemble import Ensemble
from mopo_cli.dynamics.penalties import PenaltyForm, uncertainties
from mopo_cli.engine.fused import fused
from mopo_cli.engine.rows import Rows
from mopo_cli.nets.gaussian import MIN_LOG_VARIANCE, head_parameters, moments
from mopo_cli.nets.precision import Precision

# Steps of which all rows are held before those that are none are taken out.
_HELD = 16
# A row of a step is none; goes on; was ended by the task's rule, an uncertainty, or the guard; or is not finite.
NONE, GOES_ON, TERMINATED, HALTED, GUARDED, DROPPED = range(6)

Rule = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Stepping:
    """What a step is made with; `halt` is the position of an uncertainty among `names`, and its threshold."""

    ensemble: Ensemble
    act: Callable[[Tensor, Tensor], Tensor]
    rule: Rule
    guard: Rule | None
    names: tuple[str, ...]
    form: PenaltyForm
    reward_mean: bool
    halt: tuple[int, float] | None
    precision: Precision
    limit: float


@dataclass(frozen=True)
class Branches:
    """N branches in progress, changed in place: where they are `[N, obs_dim]`, their latest rows, and what these are.

    `rows` `[N, width]`, `kind` `[N]`, see above. A branch that has ended stays where it is.
    """

    observation: Tensor
    rows: Tensor
    kind: Tensor

    @classmethod
    def at(cls, start: Tensor, width: int) -> "Branches":
        """None has taken a step."""
        kind = torch.full((len(start),), GOES_ON, dtype=torch.int32, device=start.device)
        return cls(start.clone(), start.new_zeros(len(start), width), kind)


def take_step(branches: Branches, how: Stepping, action_noise: Tensor, network: Tensor, noise: Tensor) -> None:
    """Take a step in place, with draws for every row: the policy's, networks `[N]`, and normal `[N, obs_dim + 1]`."""
    ensemble = how.ensemble
    action = how.act(branches.observation, action_noise)
    _finish(
        branches.observation,
        branches.rows,
        branches.kind,
        action,
        network,
        noise,
        *ensemble.head_products(branches.observation, action, how.precision),
        *head_parameters(ensemble.networks),
        ensemble.input_mean,
        ensemble.input_std,
        how.form.scale,
        ensemble.elites,
        how.rule,
        how.guard,
        how.names,
        how.form.elites_only,
        how.form.reward,
        how.reward_mean,
        how.halt,
        how.limit,
    )


@fused
def _finish(
    observation: Tensor,
    rows: Tensor,
    kind: Tensor,
    action: Tensor,
    network: Tensor,
    noise: Tensor,
    mean: Tensor,
    raw: Tensor,
    mean_bias: Tensor,
    raw_bias: Tensor,
    high: Tensor,
    low: Tensor,
    centre: Tensor,
    scale: Tensor,
    form_scale: Tensor | None,
    elites: tuple[int, ...],
    rule: Rule,
    guard: Rule | None,
    names: tuple[str, ...],
    elites_only: bool,
    count_reward: bool,
    reward_mean: bool,
    halt: tuple[int, float] | None,
    limit: float,
) -> None:
    """All of a step after the heads' products: sample, uncertainties, what the rows are, and the rows.

    It has sums over several dimensions one after the other, of which a compiler makes several kernels.
    """
    obs_dim = observation.shape[1]
    means, variances = moments(mean, raw, mean_bias, raw_bias, high, low)
    stds = variances.sqrt()
    chosen = network[None, :, None].expand(1, -1, means.shape[2])
    expected, std = means.gather(0, chosen)[0], stds.gather(0, chosen)[0]
    sample = expected + std * noise
    following = observation + sample[:, :-1]
    reward = expected[:, -1] if reward_mean else sample[:, -1]
    form = PenaltyForm(elites_only, form_scale, count_reward)
    uncertainty = uncertainties(means, stds, form, elites, names)
    terminal = rule(observation, action, following)
    halted = torch.zeros_like(terminal) if halt is None else (uncertainty[:, halt[0]] > halt[1]) & ~terminal
    # Where the data hardly vary, the least noise of a network is still no sign of a wild prediction.
    deviation = scale[:obs_dim].clamp(min=exp(0.5 * MIN_LOG_VARIANCE))
    wild = ((following - centre[:obs_dim]) / deviation).abs().amax(dim=-1) > limit
    if guard is not None:
        wild = wild | guard(observation, action, following)
    wild = wild & ~terminal & ~halted
    packed = Rows(obs_dim, action.shape[1], len(names)).pack(
        observation, action, reward, terminal | halted | wild, following, uncertainty
    )
    now = GOES_ON + terminal * (TERMINATED - GOES_ON) + halted * (HALTED - GOES_ON) + wild * (GUARDED - GOES_ON)
    now = torch.where(torch.isfinite(packed).all(dim=-1), now, DROPPED)
    now = torch.where(kind == GOES_ON, now, NONE)
    observation.copy_(torch.where((now == GOES_ON)[:, None], following, observation))
    rows.copy_(packed)
    kind.copy_(now)


def whole_steps(
    branches: Branches,
    draw: Callable[[int], tuple[Tensor, Tensor, Tensor]],
    step: Callable[[Tensor, Tensor, Tensor], None],
    horizon: int,
) -> Iterator[tuple[int, Tensor, Tensor, Tensor, Tensor, list[int]]]:
    """Roll `branches` out by `step(*draws)`, `draw(count)` giving the draws of a step for so many rows.

    Yields each step's number, its rows, their networks, the branches they are of, what they are, and how many of them
    are of each kind. Of rows that are none or not finite there is only the count.
    """
    count = len(branches.kind)
    for begin in range(0, horizon, _HELD):
        held: list[tuple[Tensor, Tensor, Tensor]] = []
        for _ in range(min(_HELD, horizon - begin)):
            draws = draw(count)
            step(*draws)
            held.append((branches.rows.clone(), draws[1], branches.kind.clone()))
        rows, network, kind = (torch.stack(column) for column in zip(*held, strict=True))
        kept = (kind >= GOES_ON) & (kind <= GUARDED)
        counts = torch.stack([(kind == k).sum(dim=1) for k in range(DROPPED + 1)], dim=1).tolist()
        sizes = [sum(of_step[GOES_ON : GUARDED + 1]) for of_step in counts]
        branch = torch.arange(count, device=kind.device).expand_as(kind)
        columns = (column[kept].split(sizes) for column in (rows, network, branch, kind))
        for i, parts in enumerate(zip(*columns, strict=True)):
            if not sizes[i] and not counts[i][DROPPED]:
                return
            yield begin + i, *parts, counts[i]
