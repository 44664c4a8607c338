"""Branched rollouts: from real states h steps in the ensemble, a random elite per row and step (MOPO algorithm 2)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mopo_cli.dynamics.ensemble import Ensemble
from mopo_cli.dynamics.penalties import ORACLE, RATIO, RELEASED_FORM, UNCERTAINTIES, PenaltyForm, uncertainties
from mopo_cli.engine.parallel import spread
from mopo_cli.engine.rows import RowLayout
from mopo_cli.nets.precision import Precision

# Rows predicted at once on CPU: the activations of all networks then stay in the processor's cache.
_CPU_ROWS = 1024
# A state further than this many standard deviations from the data's mean is no state: the rollout ends there.
_GUARD = 100.0

ENDS = ("terminated", "halted", "guarded", "dropped")
"""What may end a branch before its horizon, see `RolloutStep`."""

TerminationRule = Callable[..., Tensor]
"""(observation `[..., O]`, action `[..., A]` in [-1, 1], next_observation `[..., O]`) -> terminal, bool `[...]`.

A rule with a true attribute `uses_step` is also given how many steps its episode has then taken, `[...]`.
"""
RewardRule = Callable[..., Tensor]
"""The reward `[...]` of the same."""


@dataclass(frozen=True)
class Restated:
    """A rule, an oracle or a reward that sees observations in other units, which `undo` gives them."""

    judge: Callable[..., Tensor]
    undo: Callable[[Tensor], Tensor]

    @property
    def uses_step(self) -> bool:
        """Whether it is also given the number of steps."""
        return getattr(self.judge, "uses_step", False)

    def __call__(self, observation: Tensor, action: Tensor, next_observation: Tensor, *step: Tensor) -> Tensor:
        """As the rule itself."""
        return self.judge(self.undo(observation), action, self.undo(next_observation), *step)


Policy = Callable[[Tensor, torch.Generator], Tensor]
Oracle = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(observation `[B, O]`, action `[B, A]` in [-1, 1], predicted next observation `[B, O]`) -> error `[B]` f4.

The error is the Euclidean norm of predicted minus true over the next state, in the observation's units; the reward
is not part of it. NaN where the true next state is not to be had: a velocity that the observation clips lies at its
bound, a number is not finite, or the simulator calls the motion unstable.
"""


@dataclass(frozen=True)
class RolloutOptions:
    """How the model is rolled out; the default is what MOPO's released code does, with the penalties of its paper.

    - `uncertainties`: the names of those stored with every step, in that order, measured in the form `form`. Where
      `needs_uncertainties` is false they are not needed: a CPU evaluates the drawn network alone, and they are 0.
    - `reward_mean`: the reward is the drawn network's mean instead of its sample.
    - `precision`: in which the networks' products are computed.
    - `oracle`: gives the uncertainty "oracle", the error of the drawn network's mean (of its sample, where
      `oracle_sample`), 0 without it. Where it is NaN, max-var is stored instead.
    - `ratio`: gives the uncertainty "ratio", from observations, actions `[B, ·]` and the drawn networks `[B]`; 0
      without it.
    - `halt`: a step whose uncertainty of this name is above this number ends its branch, with terminal = 1.
    - `reward`: the reward is known, and this rule gives it instead of the model.
    - `guard`: next states that the task cannot be in, besides those too far from the data; they end a branch.
    """

    uncertainties: tuple[str, ...] = ("max-var", "avg-var", "ens")
    form: PenaltyForm = RELEASED_FORM
    reward_mean: bool = False
    oracle: Oracle | None = None
    oracle_sample: bool = False
    needs_uncertainties: bool = True
    precision: Precision = "fp32"
    ratio: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None
    halt: tuple[str, float] | None = None
    guard: TerminationRule | None = None
    reward: RewardRule | None = None

    @property
    def measured(self) -> tuple[str, ...]:
        """The uncertainties computed from the networks' predictions: those stored, and max-var beside an oracle."""
        wanted = (*self.uncertainties, *(("max-var",) if self.oracle is not None else ()))
        return tuple(name for name in UNCERTAINTIES if name in wanted)


RELEASED = RolloutOptions()


@dataclass(frozen=True)
class RolloutStep:
    """One step of n branches: packed rows `[n, width]`, and the network that predicted each `[n]`.

    `start` `[n]` is the position of the start state that a row's branch began in. `guarded_rows` `[n]` says which rows
    the guard ended: no state of the task is an end there, see `agents.guard`.
    Counts: of rows that ended by the task's rule (`terminated`), by an uncertainty (`halted`) or by the guard
    (`guarded`), of rows that are not among `rows` as a number is not finite (`dropped`), and of rows for which the
    oracle has no answer (`unknown`).
    """

    step: int
    rows: Tensor
    network: Tensor
    start: Tensor
    terminated: int
    guarded: int
    dropped: int
    guarded_rows: Tensor
    unknown: int = 0
    halted: int = 0

    def ends(self) -> dict[str, int]:
        """How many branches ended in this step, by the cause."""
        return {name: getattr(self, name) for name in ENDS}


@dataclass(frozen=True)
class Prediction:
    """What the model predicts of B rows: next observation `[B, obs_dim]` and reward `[B]` as sampled.

    `uncertainty` `[B, U]`, the `network` sampled from `[B]`, and the next observation that it expects, `mean`
    `[B, obs_dim]`.
    """

    next_observation: Tensor
    reward: Tensor
    uncertainty: Tensor
    network: Tensor
    mean: Tensor


def uniform_policy(act_dim: int) -> Policy:
    """Actions uniform in [-1, 1], as the out-of-distribution tasks of the paper branch (MOPO appendix G.1)."""

    def act(observation: Tensor, generator: torch.Generator) -> Tensor:
        return 2 * torch.rand(len(observation), act_dim, generator=generator, device=observation.device) - 1

    return act


def sample_step(
    ensemble: Ensemble,
    observation: Tensor,
    action: Tensor,
    generator: torch.Generator,
    options: RolloutOptions = RELEASED,
) -> Prediction:
    """Sample from a random elite per row: observation `[B, obs_dim]`, action `[B, act_dim]`.

    State and reward come from the same Gaussian sample, as in MOPO's released code, unless the options say otherwise.
    """
    count, device = len(observation), observation.device
    elites = torch.tensor(ensemble.elites, device=device)
    network = elites[torch.randint(len(elites), (count,), generator=generator, device=device)]
    noise = torch.randn(count, ensemble.frame + 1, generator=generator, device=device)
    every = options.needs_uncertainties or observation.is_cuda
    size = count if observation.is_cuda else _CPU_ROWS * (1 if every else 4)

    def block(i: int) -> tuple[Tensor, Tensor, Tensor]:
        part = slice(i * size, (i + 1) * size)
        if every:
            means, stds = ensemble.predict(observation[part], action[part], options.precision)
            chosen = network[part][None, :, None].expand(1, -1, means.shape[2])
            mean, std = means.gather(0, chosen)[0], stds.gather(0, chosen)[0]
            uncertainty = uncertainties(means, stds, options.form, ensemble.elites, options.measured)
        else:
            mean, std = ensemble.predict_by(network[part], observation[part], action[part], options.precision)
            uncertainty = mean.new_zeros(len(mean), len(options.measured))
        return mean, mean + std * noise[part], uncertainty

    blocks = zip(*spread(block, -(-count // size)), strict=True)
    expected, sample, uncertainty = (torch.cat(column) for column in blocks)
    reward = expected[:, -1] if options.reward_mean else sample[:, -1]
    next_observation, mean = (
        ensemble.next_observation(observation, action, each[:, :-1]) for each in (sample, expected)
    )
    return Prediction(next_observation, reward, uncertainty, network, mean)


def branch(
    ensemble: Ensemble,
    rule: TerminationRule,
    start: Tensor,
    policy: Policy,
    horizon: int,
    generator: torch.Generator,
    options: RolloutOptions = RELEASED,
    start_step: Tensor | None = None,
) -> Iterator[RolloutStep]:
    """Roll out from `start` `[N, obs_dim]` for up to `horizon` steps, yielding the transitions of each step.

    `start_step` `[N]` are the steps that the episodes of these states had taken, 0 without it.

    A row that ends, by the rule on the predicted next state, by `options.halt` or by the guard, is stored with
    terminal = 1 and goes no further. Iteration stops early when no row is left.
    """
    layout = RowLayout(ensemble.obs_dim, ensemble.input_mean.shape[0] - ensemble.obs_dim, len(options.uncertainties))
    centre, scale = ensemble.input_mean[: ensemble.frame], ensemble.input_std[: ensemble.frame]
    # Where the data hardly vary, the least noise of a network is still no sign of a wild prediction.
    scale = scale.clamp(min=ensemble.least_noise)
    observation, origin = start, torch.arange(len(start), device=start.device)
    for step in range(horizon):
        if not len(observation):
            return
        action = policy(observation, generator)
        prediction = sample_step(ensemble, observation, action, generator, options)
        next_observation = prediction.next_observation
        uncertainty, unknown = _uncertainties_to_store(prediction, observation, action, options)
        count = step + 1 if start_step is None else start_step[origin] + step + 1
        terminal = _apply_rule(rule, observation, action, next_observation, count)
        reward = prediction.reward
        if options.reward is not None:
            reward = _apply_rule(options.reward, observation, action, next_observation, count).to(reward.dtype)
        halted = _halted(uncertainty, options) & ~terminal
        guarded_rows = ((next_observation[:, : ensemble.frame] - centre) / scale).abs().amax(dim=-1) > _GUARD
        if options.guard is not None:
            guarded_rows = guarded_rows | options.guard(observation, action, next_observation)
        guarded_rows = guarded_rows & ~terminal & ~halted
        ended = terminal | halted | guarded_rows
        rows = layout.pack(observation, action, reward, ended, next_observation, uncertainty)
        finite = torch.isfinite(rows).all(dim=-1)
        yield RolloutStep(
            step,
            rows[finite],
            prediction.network[finite],
            origin[finite],
            terminated=int((terminal & finite).sum()),
            guarded=int((guarded_rows & finite).sum()),
            dropped=int((~finite).sum()),
            guarded_rows=guarded_rows[finite],
            unknown=int((unknown & finite).sum()),
            halted=int((halted & finite).sum()),
        )
        alive = finite & ~ended
        observation, origin = next_observation[alive], origin[alive]


def _apply_rule(
    rule: Callable[..., Tensor], observation: Tensor, action: Tensor, next_observation: Tensor, step: Tensor | int
) -> Tensor:
    if not getattr(rule, "uses_step", False):
        return rule(observation, action, next_observation)
    steps = torch.as_tensor(step, device=observation.device).expand(len(observation))
    return rule(observation, action, next_observation, steps)


def _halted(uncertainty: Tensor, options: RolloutOptions) -> Tensor:
    """Which rows `options.halt` ends, bool `[B]`, by their uncertainties `[B, U]`."""
    if options.halt is None:
        return torch.zeros(len(uncertainty), dtype=torch.bool, device=uncertainty.device)
    name, threshold = options.halt
    return uncertainty[:, options.uncertainties.index(name)] > threshold


def _uncertainties_to_store(
    prediction: Prediction, observation: Tensor, action: Tensor, options: RolloutOptions
) -> tuple[Tensor, Tensor]:
    """The uncertainties to store `[B, U]`, and for which rows the oracle has no answer, bool `[B]`."""
    columns = dict(zip(options.measured, prediction.uncertainty.unbind(dim=-1), strict=True))
    zeros = torch.zeros_like(prediction.reward)
    unknown = zeros > 0
    if options.oracle is not None:
        error = options.oracle(
            observation, action, prediction.next_observation if options.oracle_sample else prediction.mean
        )
        unknown = torch.isnan(error)
        columns[ORACLE] = torch.where(unknown, columns["max-var"], error)
    if options.ratio is not None:
        columns[RATIO] = options.ratio(observation, action, prediction.network)
    stored = prediction.uncertainty.new_empty(len(zeros), len(options.uncertainties))
    for u, name in enumerate(options.uncertainties):
        stored[:, u] = columns.get(name, zeros)
    return stored, unknown
