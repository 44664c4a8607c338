"""The members of a stack trained side by side by processes, on a CPU with several cores.

An idle process takes the member that is furthest behind and trains it for some steps. The members' state and pools are
in memory that all processes share. A member learns what it would learn alone: only the time depends on the process.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mopo_cli.agents.branching import remember
from mopo_cli.agents.loop import advance, restore_trained_state, trained_state
from mopo_cli.agents.runs import Loop, PastRollout, RolloutTally, start_loop
from mopo_cli.agents.world import World
from mopo_cli.engine.parallel import Helper, Helpers, can_fork, forked, shared_floats, thread_count

# A member is trained so many steps at a time, or a fifth of an epoch, in whole blocks: handing it on takes some ten
# milliseconds, and at the end of an epoch all processes wait for the last.
_STEPS, _TURNS = 200, 5

Arrays = dict[str, NDArray[np.float32]]
Rollouts = tuple[int, NDArray[np.float32], int, RolloutTally]
"""Of a member: index, parameters that made them, position in the pool (see `PastRollout`), and their tally."""


@dataclass(frozen=True)
class Progress:
    """How far a member is: gradient steps, the steps of its Adams, and the next row and the rows of its pool."""

    step: int
    adam_steps: list[int]
    position: int
    size: int


@dataclass(frozen=True)
class Crew:
    """Processes that train the members of `loop`, which is up to date whenever none of them is at work.

    `shared` are the tensors of `loop.trained_state` in shared memory, `[S * ·, …]`.
    """

    loop: Loop
    helpers: Helpers
    shared: dict[str, Tensor]

    def advance(self, stopping: Callable[[], bool], passed: Callable[[float], None]) -> dict[str, Tensor] | None:
        """Train all members to the end of the epoch, or of as many steps or fewer of the warm-up.

        If `stopping()`, they are only brought to the same step. `passed(steps)` is called as steps of the stack are
        taken. At the end of an epoch returns the same as `loop.advance`. LostError where a process has ended.
        """
        loop, count = self.loop, len(self.loop.members)
        until = (loop.step // loop.settings.steps_per_epoch + 1) * loop.settings.steps_per_epoch
        until = min(until, 0) if loop.step < 0 else until
        progress = self._share_out()
        goals, means = [loop.step] * count, [dict[str, Any]()] * count
        rollouts: list[list[Rollouts]] = [[] for _ in range(count)]
        at_work: dict[Helper, int] = {}
        while True:
            until = max(goals) if stopping() else until
            for helper in self.helpers.idle():
                waiting = [m for m in range(count) if goals[m] < until and m not in at_work.values()]
                if waiting:
                    m = min(waiting, key=goals.__getitem__)
                    goals[m] = _goal(loop, goals[m], until)
                    helper.send((m, goals[m], progress[m]))
                    at_work[helper] = m
            if not at_work:
                break
            for helper in self.helpers.ready():
                m = at_work.pop(helper)
                reached, made, means[m] = helper.receive()
                passed((reached.step - progress[m].step) / count)
                progress[m] = reached
                rollouts[m] += made
        self._collect(progress, rollouts)
        return _cat(means) if all(means) else None

    def _share_out(self) -> list[Progress]:
        tensors, adam_steps = trained_state(self.loop)
        for name, tensor in tensors.items():
            self.shared[name].copy_(tensor)
        pool = self.loop.pool
        return [
            Progress(self.loop.step, adam_steps, position, size)
            for position, size in zip(pool.positions, pool.sizes, strict=True)
        ]

    def _collect(self, progress: list[Progress], rollouts: list[list[Rollouts]]) -> None:
        """Put the members' common step, states, pools and rollouts into the loop."""
        loop = self.loop
        restore_trained_state(loop, (self.shared, progress[0].adam_steps))
        loop.step = progress[0].step
        loop.pool.positions, loop.pool.sizes = [one.position for one in progress], [one.size for one in progress]
        for made in zip(*rollouts, strict=True):
            indices, parameters, positions, tallies = zip(*made, strict=True)
            loop.tallies, rows = list(tallies), [tally.rows for tally in tallies]
            remember(loop, PastRollout(indices[0], torch.from_numpy(np.concatenate(parameters)), list(positions), rows))


def crew_size(members: int, device: torch.device, oracle: bool = False, threads: int | None = None) -> int:
    """How many processes should train so many members, with as many threads as this one or so many; 0: one alone.

    A simulator's threads cannot be forked, so members with the oracle penalty stay in this process.
    """
    processes = min(threads or thread_count(), members)
    return processes if processes > 1 and can_fork() and device.type == "cpu" and not oracle else 0


@contextmanager
def open_crew(loop: Loop, world: World, learner: Any) -> Iterator[Crew | None]:
    """A crew of at most as many processes as there are threads; None where one process trains the stack as fast.

    `loop` is fresh from `start_loop`, with `learner`, the algorithm's own settings.
    """
    processes = crew_size(len(loop.members), world.real.device, world.options.oracle is not None)
    if not processes:
        yield None
        return
    count = len(loop.members)
    shared = {name: shared_floats(*tensor.shape) for name, tensor in trained_state(loop)[0].items()}
    loop.pool.rows = shared_floats(*loop.pool.rows.shape)
    alone = [_single(loop, m, world, learner) for m in range(count)]

    def work(question: tuple[int, int, Progress]) -> tuple[Progress, list[Rollouts], Arrays]:
        m, goal, progress = question
        rows = {name: tensor.unflatten(0, (count, -1))[m] for name, tensor in shared.items()}
        return _train(alone[m], world, rows, goal, progress)

    with forked(processes, work, thread_count() // processes) as helpers:
        yield Crew(loop, helpers, shared)


def _single(loop: Loop, m: int, world: World, learner: Any) -> Loop:
    alone = start_loop(world, (loop.members[m],), learner, loop.settings, loop.algorithm)
    alone.pool.capacities, alone.pool.rows = [loop.pool.capacities[m]], loop.pool.rows[m : m + 1]
    return alone


def _goal(loop: Loop, step: int, until: int) -> int:
    """Up to which step a member is trained in one turn: rollouts are made only at the start of one."""
    settings = loop.settings
    blocks = max(1, min(_STEPS, settings.steps_per_epoch // _TURNS) // settings.block)
    return min(step + blocks * settings.block, (step // settings.rollout_every + 1) * settings.rollout_every, until)


def _train(
    alone: Loop, world: World, shared: dict[str, Tensor], goal: int, progress: Progress
) -> tuple[Progress, list[Rollouts], Arrays]:
    """Train a member to step `goal`: its progress, the rollouts made, and at an epoch's end its metrics' means."""
    restore_trained_state(alone, (shared, progress.adam_steps))
    alone.step, alone.pool.positions, alone.pool.sizes = progress.step, [progress.position], [progress.size]
    alone.past.clear()
    means = None
    while alone.step < goal:
        means = advance(alone, world)
    tensors, adam_steps = trained_state(alone)
    for name, tensor in tensors.items():
        shared[name].copy_(tensor)
    made = [(past.index, past.parameters.numpy(), past.positions[0], alone.tallies[0]) for past in alone.past]
    reached = Progress(alone.step, adam_steps, alone.pool.positions[0], alone.pool.sizes[0])
    return reached, made, {name: mean.numpy() for name, mean in (means or {}).items()}


def _cat(parts: list[Arrays]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.concatenate([part[name] for part in parts])) for name in parts[0]}
