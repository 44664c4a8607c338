"""MOPO's Algorithm 2 for a stack of runs: branch rollouts from real states into the pool, learn from both.

Progress is counted in gradient steps and made in blocks. All draws of a block come from streams named by
the block's number, so a run that is stopped after any block and resumed ends as an uninterrupted one.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mopo_cli.agents.algorithm import Batch, agent_state, restore_agent
from mopo_cli.agents.branching import branch_member, fill_pools
from mopo_cli.agents.runs import Loop, PastRollout
from mopo_cli.agents.world import World
from mopo_cli.engine.capture import Changes, State, check_shapes
from mopo_cli.engine.fused import fused
from mopo_cli.engine.streams import Draws, draws, stream

_REFRESH = ("refresh",)


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
        refresh(loop, world)
        if world.buffer is None and max(loop.pool.capacities):
            fill_pools(loop, world)
    _train_block(loop, world)
    loop.step += settings.block
    if loop.step % settings.steps_per_epoch:
        return None
    means = loop.sums / settings.steps_per_epoch
    loop.sums.zero_()
    return dict(zip(loop.metrics, means.unbind(dim=1), strict=True))


def refresh(loop: Loop, world: World) -> None:
    """Let the agents do their work that comes before rollouts, in place (see `Algorithm.refresh`)."""

    def take(step: Callable[[Draws], None], draws: Draws) -> None:
        loop.engine.take(step, (), draws, _REFRESH, changes)

    changes = _changes(loop)
    index = loop.step // loop.settings.rollout_every
    loop.algorithm.refresh(loop.agent, _member_draws(loop, world, "refresh", index), take)


def _warm_block(loop: Loop, world: World) -> None:
    rows, index = _draw_block(loop, world, loop.settings.batch_size)
    noise, changes = _member_draws(loop, world, "noise", loop.step // loop.settings.block), _changes(loop)
    for k in range(loop.settings.block):
        step = loop.warm_up + loop.step + k
        # The last phase fills its last block.
        key = "warm-up", min(bisect_right(loop.phases, step), len(loop.phases) - 1)
        loop.engine.forget_all_but({key})
        loop.engine.take(partial(_warm, loop, world, step), (rows[k], index[k]), noise, key, changes)


def _warm(loop: Loop, world: World, step: int, rows: Tensor, index: Tensor, noise: Draws) -> None:
    batch = Batch(**vars(world.row_layout.split(rows)), real_rows=index.shape[1], index=index, step=step)
    loop.algorithm.warm(loop.agent, batch, noise)


def _train_block(loop: Loop, world: World) -> None:
    settings = loop.settings
    rows, index = _draw_block(loop, world, settings.real_rows)
    _penalise(loop, world, rows)
    noise, changes = _member_draws(loop, world, "noise", loop.step // settings.block), _changes(loop)
    scale = settings.actor_scale(loop.step)
    loop.engine.forget_all_but({_REFRESH, *(("update", scale, phase) for phase in range(loop.cycle))})
    for k in range(settings.block):
        step = loop.step + k
        learn = partial(_learn, loop, world, step, scale)
        key = "update", scale, step % loop.cycle
        loop.engine.take(learn, (rows[k], index[k]), noise, key, changes)


def _penalise(loop: Loop, world: World, rows: Tensor) -> None:
    """Subtract lambda u(s, a) from the rewards of a block, in place (MOPO, algorithm 2); rows of the data have u = 0.

    Penalties and rewards, before that, are added to the metrics. For a whole block at once, as a step has enough small
    operations.
    """
    batch = world.row_layout.split(rows)  # columns [steps, S, B, ·]
    penalty = (batch.uncertainty * loop.penalty).sum(dim=-1)
    for name, column in (("penalty", penalty), ("reward", batch.reward)):
        # [S, steps] in a row's order, so that a member's sum is rounded as it is alone
        loop.sums[:, loop.metrics.index(name)] += column.mean(dim=-1).t().contiguous().sum(dim=-1)
    batch.reward.sub_(penalty)


def _learn(loop: Loop, world: World, step: int, scale: float, rows: Tensor, index: Tensor, noise: Draws) -> None:
    batch = Batch(**vars(world.row_layout.split(rows)), real_rows=index.shape[1], index=index, step=step)
    metrics = loop.algorithm.update(loop.agent, batch, noise, scale)
    _add(loop.sums, *(metrics[name] for name in loop.algorithm.metrics))


@fused
def _add(sums: Tensor, *metrics: Tensor) -> None:
    sums[:, : len(metrics)].add_(torch.stack(metrics, dim=1))


def _changes(loop: Loop) -> Changes:
    return Changes(partial(trained_state, loop), partial(restore_trained_state, loop))


def trained_state(loop: Loop) -> State:
    """All that gradient steps change."""
    tensors, adam_steps = agent_state(loop.agent)
    return tensors | {"sums": loop.sums}, adam_steps


def restore_trained_state(loop: Loop, state: State) -> None:
    """Put a state from `trained_state` back, in place."""
    tensors, adam_steps = state
    restore_agent(loop.agent, tensors, adam_steps)
    loop.sums.copy_(tensors["sums"])


def _member_draws(loop: Loop, world: World, name: str, index: int) -> Draws:
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


def loop_state(loop: Loop) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What a checkpoint must hold; the pools are made again by the parameters that filled them and their streams."""
    tensors, adam_steps = trained_state(loop)
    tensors |= {f"past/{past.index}": past.parameters for past in loop.past}
    numbers = {
        "step": loop.step,
        "adam": adam_steps,
        "past": [[past.index, past.positions, past.rows] for past in loop.past],
        "positions": loop.pool.positions,
        "sizes": loop.pool.sizes,
    }
    return tensors, numbers


def restore_loop(loop: Loop, world: World, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
    """Put a checkpoint back into a freshly started loop of the same world, members and settings.

    KeyError or ValueError where the checkpoint is of something else.
    """
    check_shapes(tensors, {name: tensor.shape for name, tensor in trained_state(loop)[0].items()})
    check_shapes(
        tensors, {f"past/{i}": loop.algorithm.rollout_parameters(loop.agent).shape for i, *_ in numbers["past"]}
    )
    restore_trained_state(loop, (tensors, numbers["adam"]))
    loop.step = numbers["step"]
    loop.past = deque(PastRollout(i, tensors[f"past/{i}"], positions, rows) for i, positions, rows in numbers["past"])
    loop.pool.sizes = list(numbers["sizes"])
    for past in loop.past:
        loop.pool.positions = list(past.positions)
        loop.tallies = [branch_member(loop, world, m, past.index, past.parameters) for m in range(len(loop.members))]
    loop.pool.positions, loop.pool.sizes = list(numbers["positions"]), list(numbers["sizes"])
