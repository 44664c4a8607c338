"""MOPO's Algorithm 2 for a stack of runs: branch rollouts from real states into the pool, learn from both.

Progress is counted in gradient steps and made in blocks. All draws of a block come from streams named by
the block's number, so a run stopped after any block and taken up again goes on as if nothing had happened.
"""

from collections import deque
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mopo_cli.agents.algorithm import Agent, Algorithm, Batch
from mopo_cli.agents.replay import Pool
from mopo_cli.agents.schedule import LoopSettings
from mopo_cli.agents.world import World
from mopo_cli.dynamics.imagine import branch, uniform_policy
from mopo_cli.dynamics.penalties import ORACLE, penalty_weights
from mopo_cli.engine.capture import Changes, Engine, Recorder, State
from mopo_cli.engine.members import Member
from mopo_cli.engine.streams import Draws, draws, stream

_ALWAYS = ("penalty", "reward")


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
    """One rollout whose rows may still be in the pool: the parameters `[S, ·]` that made it, the actors' first.

    Per member, `positions` says where its rows begin and `rows` how many they are.
    """

    index: int
    rolling: Tensor
    positions: list[int]
    rows: list[int]


@dataclass
class Loop:
    """A stack of runs in progress; `step` is below 0 while the agents warm up."""

    settings: LoopSettings
    members: tuple[Member, ...]
    algorithm: Algorithm
    agent: Agent
    pool: Pool
    penalty: Tensor  # [S, 1, U]
    step: int = 0
    past: deque[Past] = field(default_factory=deque)
    tallies: list[RolloutTally] = field(default_factory=list)
    cycle: int = 1
    warm_up: int = 0
    engine: Engine = field(default_factory=Engine)
    sums: Tensor = field(default_factory=lambda: torch.zeros(0))  # [S, len(metrics)]

    @property
    def metrics(self) -> tuple[str, ...]:
        """What is averaged over the steps of an epoch."""
        return (*self.algorithm.metrics, *_ALWAYS)


def start_loop(
    world: World,
    members: tuple[Member, ...],
    learner: Any,
    settings: LoopSettings,
    algorithm: Algorithm,
    record: Recorder | None = None,
) -> Loop:
    """Build the stack with fresh agents and empty pools; `learner` are the algorithm's own settings.

    With a recorder its gradient steps are replayed (see `engine.capture`).
    """
    device = world.real.device
    agent = algorithm.start(world, members, learner)
    capacities = [settings.rollout_batch * m.h * settings.pool_epochs for m in members]
    if world.buffer is not None or settings.real_rows == settings.batch_size:
        capacities = [0] * len(members)
    pool = Pool(capacities, world.rows.width, device)
    names = world.how.uncertainties
    weights = torch.tensor([penalty_weights(m.penalty, m.lam, names) for m in members], device=device)
    warm_up = -(-algorithm.warm_up(learner) // settings.block) * settings.block
    loop = Loop(settings, members, algorithm, agent, pool, weights[:, None], -warm_up)
    loop.sums = torch.zeros(len(members), len(loop.metrics), device=device)
    loop.engine.record, loop.cycle, loop.warm_up = record, algorithm.cycle(learner), warm_up
    return loop


def advance(loop: Loop, world: World) -> dict[str, Tensor] | None:
    """Train one block in place, refreshing the agents and branching first where that is due.

    At the end of an epoch returns the means of the loop's metrics over it, each `[S]`.
    """
    settings = loop.settings
    if loop.step < 0:
        _warm_block(loop, world)
        loop.step += settings.block
        return None
    if loop.step % settings.rollout_every == 0:
        loop.algorithm.refresh(loop.agent, _draws(loop, world, "refresh", loop.step // settings.rollout_every))
        if world.buffer is None and max(loop.pool.capacities):
            _branch(loop, world)
    _train_block(loop, world)
    loop.step += settings.block
    if loop.step % settings.steps_per_epoch:
        return None
    means = loop.sums / settings.steps_per_epoch
    loop.sums.zero_()
    return dict(zip(loop.metrics, means.unbind(dim=1), strict=True))


def _warm_block(loop: Loop, world: World) -> None:
    rows, index = _draw_block(loop, world, loop.settings.batch_size)
    noise = _draws(loop, world, "noise", loop.step // loop.settings.block)
    for k in range(loop.settings.block):
        columns, step = vars(world.rows.split(rows[k])), loop.warm_up + loop.step + k
        loop.algorithm.warm(loop.agent, Batch(**columns, real=index.shape[2], index=index[k], step=step), noise)


def _train_block(loop: Loop, world: World) -> None:
    settings = loop.settings
    rows, index = _draw_block(loop, world, settings.real_rows)
    noise = _draws(loop, world, "noise", loop.step // settings.block)
    scale = settings.actor_scale(loop.step)
    loop.engine.keep({(scale, phase) for phase in range(loop.cycle)})
    changes = Changes(partial(_learned, loop), partial(_put_back, loop))
    for k in range(settings.block):
        step = loop.step + k
        learn = partial(_learn, loop, world, step, scale)
        loop.engine.take(learn, rows[k], index[k], noise, (scale, step % loop.cycle), changes)


def _learn(loop: Loop, world: World, step: int, scale: float, rows: Tensor, index: Tensor, noise: Draws) -> None:
    drawn = world.rows.split(rows)
    penalty = (drawn.uncertainty * loop.penalty).sum(dim=-1)
    columns = {**vars(drawn), "reward": drawn.reward - penalty}
    info = loop.algorithm.update(
        loop.agent, Batch(**columns, real=index.shape[1], index=index, step=step), noise, scale
    )
    info |= {"penalty": penalty.mean(dim=1), "reward": drawn.reward.mean(dim=1)}
    loop.sums += torch.stack([info[name] for name in loop.metrics], dim=1)


def _learned(loop: Loop) -> State:
    """All that gradient steps change."""
    tensors, taken = loop.algorithm.state(loop.agent)
    return tensors | {"sums": loop.sums}, taken


def _put_back(loop: Loop, learned: State) -> None:
    tensors, taken = learned
    loop.algorithm.restore(loop.agent, tensors, taken)
    loop.sums.copy_(tensors["sums"])


def _draws(loop: Loop, world: World, name: str, index: int) -> Draws:
    return draws((member.seed for member in loop.members), f"policy/{name}", index, world.real.device)


def _draw_block(loop: Loop, world: World, real_rows: int) -> tuple[Tensor, Tensor]:
    """The batches of a block, `[steps, S, B, width]`, and which rows of the data they begin with, `[…, real_rows]`."""
    settings, device = loop.settings, world.real.device
    steps, block, model_rows = settings.block, loop.step // settings.block, settings.batch_size - real_rows
    real, model = [], []
    for m, member in enumerate(loop.members):
        source = len(world.buffer) if world.buffer is not None else loop.pool.sizes[m]
        draw = stream(member.seed, "policy/batch", block, device)
        real.append(torch.randint(len(world.real), (steps, real_rows), generator=draw, device=device))
        model.append(torch.randint(max(source, 1), (steps, model_rows), generator=draw, device=device))
    index = torch.stack(real, dim=1)
    rows = world.real[index]
    if model_rows:
        chosen = torch.stack(model, dim=1)  # [steps, S, model_rows]
        imagined = loop.pool.gather(chosen) if world.buffer is None else world.buffer[chosen]
        rows = torch.cat([rows, imagined], dim=2)
    return rows, index


def _branch(loop: Loop, world: World) -> None:
    index = loop.step // loop.settings.rollout_every
    positions, rolling = list(loop.pool.positions), loop.algorithm.rolling(loop.agent)
    loop.tallies = [_branch_member(loop, world, m, index, rolling) for m in range(len(loop.members))]
    loop.past.append(Past(index, rolling.clone(), positions, [tally.rows for tally in loop.tallies]))
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


def _branch_member(loop: Loop, world: World, m: int, index: int, rolling: Tensor) -> RolloutTally:
    member = loop.members[m]
    device = world.start.device
    generator = stream(member.seed, "policy/rollout", index, device)
    chosen = torch.randint(len(world.start), (loop.settings.rollout_batch,), generator=generator, device=device)
    uniform = loop.settings.rollout_actions == "uniform"
    policy = uniform_policy(world.rows.act_dim) if uniform else loop.agent.policy(m, rolling).sample
    made = terminated = guarded = dropped = unknown = 0
    how = replace(world.how, uncertain=bool(loop.penalty[m].any()))
    how = how if member.penalty == ORACLE else replace(how, oracle=None)
    how = loop.algorithm.imagining(loop.agent, m, rolling, how)
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
    """What a checkpoint must hold; the pools are made again by the parameters that filled them and their streams."""
    tensors, taken = _learned(loop)
    tensors |= {f"past/{past.index}": past.rolling for past in loop.past}
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
    _put_back(loop, (tensors, numbers["adam"]))
    loop.step = numbers["step"]
    loop.past = deque(Past(i, tensors[f"past/{i}"], positions, rows) for i, positions, rows in numbers["past"])
    loop.pool.sizes = list(numbers["sizes"])
    for past in loop.past:
        loop.pool.positions = list(past.positions)
        loop.tallies = [_branch_member(loop, world, m, past.index, past.rolling) for m in range(len(loop.members))]
    loop.pool.positions, loop.pool.sizes = list(numbers["positions"]), list(numbers["sizes"])
