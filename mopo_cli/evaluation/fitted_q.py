"""Fitted Q evaluation: what policies return, by logged transitions alone (Le et al. 2019; DOPE, Fu et al. 2021).

Every policy has critics of its own, each on its own bootstrap of whole episodes, so that they differ by as much as the
estimate would with other data. All critics are one stack. They begin at the returns that the log has.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import cos, pi

import torch
from torch import Tensor

from mopo_cli.agents.returns import lambda_returns
from mopo_cli.engine.streams import stream
from mopo_cli.nets.network import Network, descend, start_network
from mopo_cli.nets.perceptron import evaluate
from mopo_cli.nets.scales import Standard, standard_units
from mopo_cli.nets.stacked import Parameters

Act = Callable[[Tensor], Tensor]
"""Observations `[n, obs_dim]` -> actions in [-1, 1] `[n, act_dim]`."""

_ROWS = 4096  # evaluated at once
_DRAWN = 100  # steps whose batches are drawn from one stream


@dataclass(frozen=True)
class FqeSettings:
    """`first_steps` toward the returns of the log, then `steps` of temporal differences, whose rate falls to 0.

    Values settle within about 1 / (`tau` (1 - gamma)) steps; `steps` should be several times that.
    """

    critics: int = 8
    hidden: int = 64
    layers: int = 2
    batch_size: int = 256
    first_steps: int = 1_000
    steps: int = 5_000
    learning_rate: float = 3e-3
    tau: float = 0.1

    @property
    def all_steps(self) -> int:
        """Gradient steps of both phases."""
        return self.first_steps + self.steps


@dataclass(frozen=True)
class Log:
    """N transitions of whole episodes, one after another: `[N, obs_dim]`, `[N, act_dim]` in [-1, 1], and `[N]`.

    `episode` numbers the episodes from 0 in their order.
    """

    observation: Tensor
    action: Tensor
    reward: Tensor
    terminal: Tensor
    next_observation: Tensor
    episode: Tensor

    @cached_property
    def first(self) -> Tensor:
        """The first row of every episode `[E]`."""
        return torch.nonzero(torch.diff(self.episode, prepend=self.episode.new_tensor([-1])))[:, 0]

    @cached_property
    def last(self) -> Tensor:
        """The last row of every episode `[E]`."""
        return torch.cat([self.first[1:], self.first.new_tensor([len(self.episode)])]) - 1

    def steps_left(self) -> Tensor:
        """How many rows of its episode follow each row `[N]`."""
        return self.last[self.episode] - torch.arange(len(self.episode), device=self.episode.device)


@dataclass(frozen=True)
class TargetPolicy:
    """A policy: the actions `[N, act_dim]` it takes after every row, and which rows to learn from, bool `[N]`."""

    name: str
    next_action: Tensor
    rows: Tensor


@dataclass
class FqeState:
    """The critics of P policies in training, K each; a value is `centre` + `unit` times a critic's output."""

    log: Log
    policies: tuple[TargetPolicy, ...]
    settings: FqeSettings
    gamma: float
    critic: Network
    scale: Standard
    table: Tensor  # [P * K, longest], the rows of every critic's bootstrap
    lengths: Tensor  # [P * K, 1]
    step: int = 0
    observation: Tensor = field(init=False)  # [N, obs_dim], scaled
    next_observation: Tensor = field(init=False)
    next_action: Tensor = field(init=False)  # [P, N, act_dim]
    returns: Tensor = field(init=False)  # [N], of the log from each row on
    centre: float = field(init=False)
    unit: float = field(init=False)
    bounds: tuple[float, float] = field(init=False)
    drawn: Tensor | None = None  # [_DRAWN, P * K, B], the rows of a block's batches; not state

    def __post_init__(self) -> None:
        log = self.log
        self.observation = self.scale.apply(log.observation)
        self.next_observation = self.scale.apply(log.next_observation)
        self.next_action = torch.stack([policy.next_action for policy in self.policies])
        self.bounds = return_bounds(log.reward, self.gamma, int(log.steps_left().max()) + 1)
        self.returns = logged_returns(log, self.gamma)
        self.centre = float(self.returns.mean())
        self.unit = float(self.returns.std(correction=0)) or 1.0

    @property
    def done(self) -> bool:
        """Whether all steps are taken."""
        return self.step >= self.settings.all_steps


def return_bounds(reward: Tensor, gamma: float, longest: int) -> tuple[float, float]:
    """The least and the greatest discounted return that rewards `[N]` allow; undiscounted, in `longest` steps."""
    sum_of_weights = 1 / (1 - gamma) if gamma < 1 else float(longest)
    low, high = float(reward.min()), float(reward.max())
    return min(low, low * sum_of_weights), max(high, high * sum_of_weights)


def logged_returns(log: Log, gamma: float, tail: Tensor | None = None) -> Tensor:
    """The discounted return from every row to the end of its episode `[N]` f8.

    Where the record ends and not the task, `tail` `[E]` is what follows; else the mean reward forever (for gamma = 1,
    nothing).
    """
    reward, ended = log.reward.double(), log.terminal[log.last] > 0
    if tail is None:
        rest = float(reward.mean()) / (1 - gamma) if gamma < 1 else 0.0
        tail = torch.full_like(ended, rest, dtype=torch.float64)
    last = torch.zeros_like(reward, dtype=torch.bool)
    last[log.last] = True
    next_value = torch.zeros_like(reward)
    next_value[log.last] = torch.where(ended, 0.0, tail.double())
    return lambda_returns(reward, next_value, last, gamma, 1.0)


def start_fqe(log: Log, policies: Sequence[TargetPolicy], settings: FqeSettings, gamma: float) -> FqeState:
    """Fresh critics; those of a policy depend on its name alone, and not on the other policies."""
    inputs = log.observation.shape[1] + log.action.shape[1]
    sizes = (inputs, *(settings.hidden,) * settings.layers, 1)
    places = [(policy, k) for policy in policies for k in range(settings.critics)]
    generators = [stream(0, f"fqe/{policy.name}/weights", k) for policy, k in places]
    critic = start_network(sizes, generators, log.reward.device, target=True)
    rows = [_bootstrap(log, policy, stream(0, f"fqe/{policy.name}/episodes", k)) for policy, k in places]
    table = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    lengths = torch.tensor([[len(some)] for some in rows], device=table.device)
    return FqeState(log, tuple(policies), settings, gamma, critic, standard_units(log.observation), table, lengths)


def _bootstrap(log: Log, policy: TargetPolicy, generator: torch.Generator) -> Tensor:
    """As many episodes as the policy has rows of, drawn with replacement: their rows, one after another."""
    rows = torch.nonzero(policy.rows)[:, 0]
    episode = log.episode[rows]
    present, counts = torch.unique_consecutive(episode, return_counts=True)
    drawn = torch.randint(len(present), (len(present),), generator=generator).to(rows.device)
    times = torch.bincount(drawn, minlength=len(present))
    return rows.repeat_interleave(times.repeat_interleave(counts))


def advance_fqe(fqe: FqeState, steps: int) -> None:
    """Take up to so many gradient steps of every critic, in place."""
    settings = fqe.settings
    for _ in range(min(steps, settings.all_steps - fqe.step)):
        block, place = divmod(fqe.step, _DRAWN)
        if place == 0 or fqe.drawn is None:
            fqe.drawn = _draw(fqe, block)
        _learn(fqe, fqe.drawn[place])
        fqe.step += 1


def _draw(fqe: FqeState, block: int) -> Tensor:
    """The rows of the batches of a block, `[steps, P * K, B]`."""
    settings, drawn = fqe.settings, []
    for policy in fqe.policies:
        generator = stream(0, f"fqe/{policy.name}/batch", block)
        drawn.append(torch.rand(_DRAWN, settings.critics, settings.batch_size, generator=generator))
    place = (torch.cat(drawn, dim=1).to(fqe.table.device) * fqe.lengths).long()
    return fqe.table.expand(_DRAWN, -1, -1).gather(2, place)


def _learn(fqe: FqeState, rows: Tensor) -> None:
    settings, log = fqe.settings, fqe.log
    policy = torch.arange(len(rows), device=rows.device)[:, None] // settings.critics
    next_action = fqe.next_action[policy, rows]
    critic, target = evaluate(
        (fqe.critic, (fqe.observation[rows], log.action[rows])),
        (fqe.critic.target, (fqe.next_observation[rows], next_action)),
    )
    if fqe.step < settings.first_steps:
        target_q, rate = fqe.returns[rows], settings.learning_rate
    else:
        # target_q = r + gamma (1 - terminal) Q'(s', pi(s')), within what rewards allow
        next_q = fqe.centre + fqe.unit * target.out[..., 0].double()
        target_q = log.reward[rows] + fqe.gamma * (1 - log.terminal[rows]) * next_q
        target_q = target_q.clamp(*fqe.bounds)
        rate = settings.learning_rate * (1 + cos(pi * (fqe.step - settings.first_steps) / settings.steps)) / 2
    # L = mean ((Q(s, a) - target_q) / unit)^2
    error = critic.out[..., 0] - ((target_q - fqe.centre) / fqe.unit).float()
    descend(fqe.critic, critic, (2 * error / error.shape[1])[..., None], rate, settings.tau)


def fqe_values(fqe: FqeState, policy: int, observation: Tensor, action: Tensor) -> Tensor:
    """Q of every critic of one policy, by position, at observations `[n, ·]` and actions `[n, ·]`: `[K, n]` f8."""
    some = slice(policy * fqe.settings.critics, (policy + 1) * fqe.settings.critics)
    critics = Parameters(fqe.critic.layout, fqe.critic.target.flat[some].clone())
    scaled = fqe.scale.apply(observation)
    values = [
        evaluate((critics, (part[None], act[None])))[0].out[..., 0].double()
        for part, act in zip(scaled.split(_ROWS), action.split(_ROWS), strict=True)
    ]
    return (fqe.centre + fqe.unit * torch.cat(values, dim=1)).clamp(*fqe.bounds)


def start_values(fqe: FqeState, act: Act, policy: int) -> Tensor:
    """What every critic of one policy, by position, says of it where the log's episodes start, `[K]` f8."""
    first = fqe.log.observation[fqe.log.first]
    return fqe_values(fqe, policy, first, act(first)).mean(dim=1)


def fqe_checkpoint(fqe: FqeState) -> tuple[dict[str, Tensor], dict[str, int]]:
    """What a checkpoint must hold; bootstraps and batches are drawn again from their streams."""
    adam = fqe.critic.adam
    tensors = {"flat": fqe.critic.flat, "target": fqe.critic.target.flat, "first": adam.first, "second": adam.second}
    return tensors, {"step": fqe.step, "adam": int(adam.steps)}


def restore_fqe(fqe: FqeState, tensors: dict[str, Tensor], numbers: dict[str, int]) -> None:
    """Put a checkpoint back into critics freshly started on the same log. KeyError, ValueError if it is of others."""
    for name, tensor in fqe_checkpoint(fqe)[0].items():
        if tensors[name].shape != tensor.shape:
            raise ValueError(f"{name} has another shape")
    fqe.critic.flat.copy_(tensors["flat"])
    fqe.critic.target.flat.copy_(tensors["target"])
    fqe.critic.adam.restore(tensors["first"], tensors["second"], numbers["adam"])
    fqe.step = numbers["step"]
