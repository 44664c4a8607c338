"""The members of a stack trained side by side by processes, on a CPU with several cores.

Who is free takes the member that is furthest behind, with all that it has learned, and brings it some steps on. The
pools are in memory that all share. With fewer members than threads, several processes may take a member's steps
together (see `engine.team`). As a member learns what it would learn alone, where it was trained shows in the time only.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mopo_cli.agents.branching import remember
from mopo_cli.agents.loop import advance, learned, put_back
from mopo_cli.agents.runs import Loop, Past, RolloutTally, start_loop
from mopo_cli.agents.world import World
from mopo_cli.engine.processes import Helper, Helpers, can_fork, can_team, forked, shared_floats
from mopo_cli.engine.workers import thread_count

# A member is trained so many steps in one go, or a fifth of an epoch, in whole blocks: handing it on takes some ten
# milliseconds, and at the end of an epoch all wait for the last.
_STEPS, _LEGS = 200, 5

Arrays = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Stand:
    """Where a member stands: after `step` steps, with what it has learned, and so many rows in its pool."""

    step: int
    tensors: Arrays
    taken: list[int]
    position: int
    size: int


@dataclass(frozen=True)
class Rolled:
    """A member's rollouts: see `Past` and `RolloutTally`."""

    index: int
    rolling: NDArray[np.float32]
    position: int
    tally: RolloutTally


@dataclass(frozen=True)
class Leg:
    """Some steps of a member: where it stands after them, the rollouts before them, the means of an epoch's end."""

    stand: Stand
    rolled: Rolled | None
    means: Arrays | None


@dataclass
class Trip:
    """A member on its way: where it stands, to which step it was sent, and what came of it."""

    stand: Stand
    goal: int
    rolled: list[Rolled] = field(default_factory=list)
    means: Arrays | None = None

    def add(self, leg: Leg) -> None:
        """Go on from the end of a leg."""
        self.stand, self.means = leg.stand, leg.means
        self.rolled += [leg.rolled] if leg.rolled is not None else []


@dataclass(frozen=True)
class Crew:
    """Processes that train the members of `loop`, which holds what they learned whenever none is on its way."""

    loop: Loop
    helpers: Helpers

    def advance(self, stopping: Callable[[], bool], passed: Callable[[float], None]) -> dict[str, Tensor] | None:
        """Train all members to the end of the epoch, or of as many steps or fewer of the warm-up.

        If `stopping()`, they are only brought to the same step. `passed` is told of steps of the stack as they are
        taken. At the end of an epoch returns what `loop.advance` does. Raises LostError where a process has ended.
        """
        loop = self.loop
        until = (loop.step // loop.settings.steps_per_epoch + 1) * loop.settings.steps_per_epoch
        until = min(until, 0) if loop.step < 0 else until
        trips = [Trip(stand, stand.step) for stand in _split(loop)]
        away: dict[Helper, int] = {}
        while True:
            until = max(trip.goal for trip in trips) if stopping() else until
            for helper in self.helpers.idle():
                waiting = [m for m, trip in enumerate(trips) if trip.goal < until and m not in away.values()]
                if waiting:
                    m = min(waiting, key=lambda m: trips[m].goal)
                    trips[m].goal = _goal(loop, trips[m].goal, until)
                    helper.ask((m, trips[m].goal, trips[m].stand))
                    away[helper] = m
            if not away:
                return _join(loop, trips)
            for helper in self.helpers.answered():
                trip = trips[away.pop(helper)]
                before = trip.stand.step
                trip.add(_whole(helper.answer()))
                passed((trip.stand.step - before) / len(trips))


@dataclass(frozen=True)
class CrewSize:
    """So many helpers, none where one process trains the stack as fast, each of so many processes."""

    helpers: int
    together: int = 1

    @property
    def processes(self) -> int:
        """How many there are."""
        return self.helpers * self.together

    @property
    def apart(self) -> int:
        """How many there are of which some go on while others are held up."""
        return self.processes if self.helpers > 1 else 0


def crew_size(members: int, shares: int, device: torch.device, oracle: bool = False) -> CrewSize:
    """Who should train so many members, where the gradient steps of one can be shared out among `shares` processes.

    A simulator's threads cannot be forked, so those who ask the oracle stay together.
    """
    helpers = min(thread_count(), members)
    together = min(thread_count() // helpers, shares) if can_team() else 1
    able = can_fork() and device.type == "cpu" and not oracle
    return CrewSize(helpers, together) if able and helpers * together > 1 else CrewSize(0)


@contextmanager
def open_crew(loop: Loop, world: World, learner: Any) -> Iterator[Crew | None]:
    """A crew of at most as many processes as there are threads; None where one process trains the stack as fast.

    `loop` is fresh from `start_loop`, with `learner`, the algorithm's own settings.
    """
    size = crew_size(len(loop.members), loop.algorithm.shares, world.real.device, world.how.oracle is not None)
    if not size.processes:
        yield None
        return
    loop.pool.rows = shared_floats(*loop.pool.rows.shape)
    alone = [_single(loop, m, world, learner) for m in range(len(loop.members))]

    def work(question: tuple[int, int, Stand]) -> Leg:
        m, goal, stand = question
        return _leg(alone[m], world, goal, stand)

    with forked(size.helpers, work, thread_count() // size.processes, size.together) as helpers:
        yield Crew(loop, helpers)


def _single(loop: Loop, m: int, world: World, learner: Any) -> Loop:
    alone = start_loop(world, (loop.members[m],), learner, loop.settings, loop.algorithm)
    alone.pool.capacities, alone.pool.rows = [loop.pool.capacities[m]], loop.pool.rows[m : m + 1]
    return alone


def _goal(loop: Loop, step: int, until: int) -> int:
    """Where a leg from a step ends: rollouts are made only where one begins."""
    settings = loop.settings
    blocks = max(1, min(_STEPS, settings.steps_per_epoch // _LEGS) // settings.block)
    return min(step + blocks * settings.block, (step // settings.rollout_every + 1) * settings.rollout_every, until)


def _leg(alone: Loop, world: World, goal: int, stand: Stand) -> Leg:
    put_back(alone, ({name: torch.from_numpy(array) for name, array in stand.tensors.items()}, stand.taken))
    alone.step, alone.pool.positions, alone.pool.sizes = stand.step, [stand.position], [stand.size]
    alone.past.clear()
    means = None
    while alone.step < goal:
        means = advance(alone, world)
    (after,), rolled = _split(alone), None
    if alone.past:
        (past,), (tally,) = alone.past, alone.tallies
        rolled = Rolled(past.index, past.rolling.numpy(), past.positions[0], tally)
    return Leg(after, rolled, None if means is None else {name: mean.numpy() for name, mean in means.items()})


def _whole(legs: list[Leg]) -> Leg:
    """One leg of those that the processes of a team tell of, who each trained every so-manieth network of the agent."""
    own, tensors = legs[0], dict(legs[0].stand.tensors)
    for name, whole in tensors.items():
        if len(legs) > 1 and len(whole) > 1:
            tensors[name] = np.stack([legs[u % len(legs)].stand.tensors[name][u] for u in range(len(whole))])
    return replace(own, stand=replace(own.stand, tensors=tensors))


def _split(loop: Loop) -> list[Stand]:
    tensors, taken = learned(loop)
    count, pool = len(loop.members), loop.pool
    parts = {name: tensor.unflatten(0, (count, -1)).numpy() for name, tensor in tensors.items()}
    return [
        Stand(loop.step, {name: part[m] for name, part in parts.items()}, taken, pool.positions[m], pool.sizes[m])
        for m in range(count)
    ]


def _join(loop: Loop, trips: list[Trip]) -> dict[str, Tensor] | None:
    """Let the loop stand where all its members do."""
    stands = [trip.stand for trip in trips]
    loop.step = stands[0].step
    loop.pool.positions, loop.pool.sizes = [own.position for own in stands], [own.size for own in stands]
    put_back(loop, (_cat([own.tensors for own in stands]), stands[0].taken))
    for own in zip(*(trip.rolled for trip in trips), strict=True):
        rolling = torch.from_numpy(np.concatenate([rolled.rolling for rolled in own]))
        loop.tallies = [rolled.tally for rolled in own]
        rows = [tally.rows for tally in loop.tallies]
        remember(loop, Past(own[0].index, rolling, [rolled.position for rolled in own], rows))
    means = [trip.means for trip in trips if trip.means is not None]
    return _cat(means) if len(means) == len(trips) else None


def _cat(parts: list[Arrays]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.concatenate([own[name] for own in parts])) for name in parts[0]}
