"""MOPO's Algorithm 2 for a stack of runs: branch rollouts from real states into the pool, learn from both.

Progress is counted in gradient steps and made in blocks. All draws of a block come from streams named by
the block's number, so a run stopped after any block and taken up again goes on as if nothing had happened.
"""

from collections import deque
from dataclasses import dataclass, field, replace
from math import cos, gcd, pi
from typing import Any

import torch
from torch import Tensor

from mopo_cli.agents.algorithm import Agent, Algorithm
from mopo_cli.agents.replay import Pool
from mopo_cli.agents.sac import SAC
from mopo_cli.dynamics.ensemble import Ensemble
from mopo_cli.dynamics.imagine import RELEASED, Imagining, TerminationRule, branch, uniform_policy
from mopo_cli.dynamics.penalties import ORACLE, penalty_weights
from mopo_cli.engine.members import Member
from mopo_cli.engine.rows import Rows
from mopo_cli.engine.streams import stream

_ALWAYS = ("penalty", "reward")


@dataclass(frozen=True)
class LoopSettings:
    """The schedule: steps, rollouts, batches. `rollout_every` and `steps_per_epoch` are gradient steps.

    In rollouts acts the policy in training, or, where `rollout_actions` is "uniform", noise over [-1, 1].
    `actor_schedule` "cosine" lets the actor's learning rate fall to 0 over `epochs`, once per epoch.
    """

    steps_per_epoch: int
    rollout_every: int
    rollout_batch: int
    pool_epochs: int
    batch_size: int
    real_ratio: float
    rollout_actions: str = "policy"
    actor_schedule: str = "constant"
    epochs: int = 1

    @property
    def block(self) -> int:
        """Steps in a block, at most 100, such that rollouts and the ends of epochs fall between blocks."""
        common = gcd(self.steps_per_epoch, self.rollout_every)
        return max(size for size in range(1, 101) if common % size == 0)

    @property
    def real_rows(self) -> int:
        """Real rows in a batch, rounded down as in MOPO's code: 12 of 256."""
        return int(self.batch_size * self.real_ratio)

    def actor_scale(self, step: int) -> float:
        """The factor of the actor's learning rate at a gradient step."""
        passed = (step // self.steps_per_epoch) / self.epochs
        return 1.0 if self.actor_schedule == "constant" else (1 + cos(pi * passed)) / 2


@dataclass(frozen=True)
class World:
    """What the learner may look at: real rows `[N, width]`, and ensembles to branch in or a fixed buffer of model rows.

    `start` `[N, obs_dim]` are the states that rollouts branch from, `how` is what is told of each step.
    """

    rows: Rows
    real: Tensor
    start: Tensor
    rule: TerminationRule
    ensembles: tuple[Ensemble, ...] = ()
    buffer: Tensor | None = None
    how: Imagining = RELEASED


@dataclass(frozen=True)
class RolloutTally:
    """What a member's latest rollouts did: rows made, and the shares of the start states whose branch ended early.

    A branch ends by the task's rule (terminated), by the guard, or dropped as not finite. `unknown` is the share
    of rows that the oracle knew nothing of.
    """

    rows: int
    terminated: float
    guarded: float
    dropped: float
    unknown: float = 0.0


@dataclass
class Past:
    """One rollout whose rows may still be in the pool: the actors `[S, ·]` that made it.

    Per member, `positions` says where its rows begin and `rows` how many they are.
    """

    index: int
    actor: Tensor
    positions: list[int]
    rows: list[int]


@dataclass
class Loop:
    """A stack of runs in progress."""

    settings: LoopSettings
    members: tuple[Member, ...]
    algorithm: Algorithm
    agent: Agent
    pool: Pool
    penalty: Tensor  # [S, 1, U]
    step: int = 0
    past: deque[Past] = field(default_factory=deque)
    tallies: list[RolloutTally] = field(default_factory=list)
    sums: Tensor = field(default_factory=lambda: torch.zeros(0))  # [S, len(metrics)]

    @property
    def metrics(self) -> tuple[str, ...]:
        """What is averaged over the steps of an epoch."""
        return (*self.algorithm.metrics, *_ALWAYS)


def start_loop(
    world: World, members: tuple[Member, ...], learner: Any, settings: LoopSettings, algorithm: Algorithm = SAC
) -> Loop:
    """Build the stack with fresh agents and empty pools; `learner` are the algorithm's own settings."""
    device = world.real.device
    agent = algorithm.start(world.rows.obs_dim, world.rows.act_dim, learner, [m.seed for m in members], device)
    capacities = [settings.rollout_batch * m.h * settings.pool_epochs for m in members]
    if world.buffer is not None or settings.real_rows == settings.batch_size:
        capacities = [0] * len(members)
    pool = Pool(capacities, world.rows.width, device)
    names = world.how.uncertainties
    weights = torch.tensor([penalty_weights(m.penalty, m.lam, names) for m in members], device=device)
    loop = Loop(settings, members, algorithm, agent, pool, weights[:, None])
    loop.sums = torch.zeros(len(members), len(loop.metrics), device=device)
    return loop


def advance(loop: Loop, world: World) -> dict[str, Tensor] | None:
    """Train one block in place, branching first where a rollout is due.

    At the end of an epoch returns the means of the loop's metrics over it, each `[S]`.
    """
    if world.buffer is None and max(loop.pool.capacities) and loop.step % loop.settings.rollout_every == 0:
        _branch(loop, world)
    _train_block(loop, world)
    loop.step += loop.settings.block
    if loop.step % loop.settings.steps_per_epoch:
        return None
    means = loop.sums / loop.settings.steps_per_epoch
    loop.sums = torch.zeros_like(loop.sums)
    return dict(zip(loop.metrics, means.unbind(dim=1), strict=True))


def _train_block(loop: Loop, world: World) -> None:
    settings = loop.settings
    rows, noise = _draw_block(loop, world)
    scale = settings.actor_scale(loop.step)
    for k in range(settings.block):
        batch = world.rows.split(rows[k])
        penalty = (batch.uncertainty * loop.penalty).sum(dim=-1)
        info = loop.algorithm.update(loop.agent, batch, batch.reward - penalty, noise[k], scale)
        info |= {"penalty": penalty.mean(dim=1), "reward": batch.reward.mean(dim=1)}
        loop.sums += torch.stack([info[name] for name in loop.metrics], dim=1)


def _draw_block(loop: Loop, world: World) -> tuple[Tensor, Tensor]:
    """The batches of a block, `[steps, S, B, width]`, and its noise, `[steps, 2, S, B, act_dim]`."""
    settings, device = loop.settings, world.real.device
    steps, index = settings.block, loop.step // settings.block
    real_rows, model_rows = settings.real_rows, settings.batch_size - settings.real_rows
    real, model, noise = [], [], []
    for m, member in enumerate(loop.members):
        source = len(world.buffer) if world.buffer is not None else loop.pool.sizes[m]
        draw = stream(member.seed, "policy/batch", index, device)
        real.append(torch.randint(len(world.real), (steps, real_rows), generator=draw, device=device))
        model.append(torch.randint(max(source, 1), (steps, model_rows), generator=draw, device=device))
        shape = (steps, 2, settings.batch_size, world.rows.act_dim)
        noise.append(torch.randn(shape, generator=stream(member.seed, "policy/noise", index, device), device=device))
    rows = world.real[torch.stack(real, dim=1)]
    if model_rows:
        chosen = torch.stack(model, dim=1)  # [steps, S, model_rows]
        imagined = loop.pool.gather(chosen) if world.buffer is None else world.buffer[chosen]
        rows = torch.cat([rows, imagined], dim=2)
    return rows, torch.stack(noise, dim=2)


def _branch(loop: Loop, world: World) -> None:
    index = loop.step // loop.settings.rollout_every
    positions = list(loop.pool.positions)
    loop.tallies = [_branch_member(loop, world, m, index, loop.agent.actor) for m in range(len(loop.members))]
    loop.past.append(Past(index, loop.agent.actor.clone(), positions, [tally.rows for tally in loop.tallies]))
    while len(loop.past) > 1 and _covered(loop, skip=1):
        loop.past.popleft()


def _covered(loop: Loop, skip: int) -> bool:
    """Whether the rollouts after the first `skip` have filled every pool, so that nothing older is left in it.

    A member that has diverged imagines nothing any more, and nothing can be learned from its pool.
    """
    later = list(loop.past)[skip:]
    finite = torch.isfinite(loop.agent.actor).all(dim=1).tolist()
    filled = [sum(past.rows[m] for past in later) >= capacity for m, capacity in enumerate(loop.pool.capacities)]
    return all(full or not alive for full, alive in zip(filled, finite, strict=True))


def _branch_member(loop: Loop, world: World, m: int, index: int, actor: Tensor) -> RolloutTally:
    member = loop.members[m]
    device = world.start.device
    generator = stream(member.seed, "policy/rollout", index, device)
    chosen = torch.randint(len(world.start), (loop.settings.rollout_batch,), generator=generator, device=device)
    uniform = loop.settings.rollout_actions == "uniform"
    policy = uniform_policy(world.rows.act_dim) if uniform else loop.agent.policy(m, actor).sample
    made = terminated = guarded = dropped = unknown = 0
    how = replace(world.how, uncertain=bool(loop.penalty[m].any()))
    how = how if member.penalty == ORACLE else replace(how, oracle=None)
    ensemble, start = world.ensembles[member.model], world.start[chosen]
    for imagined in branch(ensemble, world.rule, start, policy, member.h, generator, how):
        loop.pool.write(m, imagined.rows)
        made += len(imagined.rows)
        terminated += imagined.terminated
        guarded += imagined.guarded
        dropped += imagined.dropped
        unknown += imagined.unknown
    if not loop.pool.sizes[m]:
        # There is nothing to learn from: the member learns from a NaN, and is flagged for it as any other.
        loop.pool.write(m, torch.full((1, world.rows.width), torch.nan, device=device))
    total = loop.settings.rollout_batch
    return RolloutTally(made, terminated / total, guarded / total, dropped / total, unknown / max(made, 1))


def loop_state(loop: Loop) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What a checkpoint must hold; the pools are made again by the actors that filled them and their streams."""
    tensors, taken = loop.algorithm.state(loop.agent)
    tensors |= {"sums": loop.sums}
    tensors |= {f"past/{past.index}": past.actor for past in loop.past}
    numbers = {
        "step": loop.step,
        "adam": taken,
        "past": [[past.index, past.positions, past.rows] for past in loop.past],
        "positions": loop.pool.positions,
        "sizes": loop.pool.sizes,
    }
    return tensors, numbers


def restore_loop(loop: Loop, world: World, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
    """Put a checkpoint back into a freshly started loop of the same world, members and settings."""
    loop.algorithm.restore(loop.agent, tensors, numbers["adam"])
    loop.step, loop.sums = numbers["step"], tensors["sums"]
    loop.past = deque(Past(i, tensors[f"past/{i}"], positions, rows) for i, positions, rows in numbers["past"])
    loop.pool.sizes = list(numbers["sizes"])
    for past in loop.past:
        loop.pool.positions = list(past.positions)
        loop.tallies = [_branch_member(loop, world, m, past.index, past.actor) for m in range(len(loop.members))]
    loop.pool.positions, loop.pool.sizes = list(numbers["positions"]), list(numbers["sizes"])
