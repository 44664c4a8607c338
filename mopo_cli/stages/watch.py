"""Policies in training, played in the real environment: by processes of their own where cores are free, else in turn.

What a policy reaches depends on it and the seed alone, so where it was played shows in the time only.
"""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing import get_all_start_methods, get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from threading import Thread
from typing import Any

import torch

from mopo_cli.agents.actor import Actor
from mopo_cli.data.transitions import Floats
from mopo_cli.evaluation.returns import Environment, close_environments, evaluate_returns, make_environments
from mopo_cli.nets.stacked import Layout
from mopo_cli.report.console import Report
from mopo_cli.stages.inputs import cpu_threads
from mopo_cli.stages.policies import greedy_policy
from mopo_cli.stages.runner import Options

# A member in training keeps about so many threads busy: two critics and an actor.
_THREADS_OF_MEMBER = 3
_MOST_PROCESSES = 16
_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True)
class Outcome:
    """Mean return and mean length of some episodes."""

    value: float
    length: float


@dataclass(frozen=True)
class Game:
    """What is played with a policy: so many episodes of an environment, its actions being within these bounds."""

    env_id: str
    env_kwargs: dict[str, Any]
    episodes: int
    action_low: Floats
    action_high: Floats

    def open(self, episodes: int) -> list[Environment]:
        """The environments for so many episodes."""
        return make_environments(self.env_id, episodes, self.env_kwargs)

    def play(self, environments: list[Environment], actor: Actor, seed: int) -> Outcome:
        """One episode in each."""
        found = evaluate_returns(greedy_policy(actor, self.action_low, self.action_high), environments, seed)
        return Outcome(float(found.returns.mean()), float(found.lengths.mean()))


@dataclass
class Watch:
    """Plays a game with one policy after another, or, with a pool, beside each other."""

    game: Game
    report: Report
    environments: list[Environment]
    pool: ProcessPoolExecutor | None = None

    def play(self, actor: Actor, seed: int) -> "Played":
        """Begin to play; the actor may learn on meanwhile."""
        if self.pool is None:
            return Played(self, actor, seed, self._here(actor, seed))
        kept = replace(actor, flat=actor.flat.cpu().clone())
        try:
            bounds = kept.log_std_min, kept.log_std_max
            return Played(self, kept, seed, self.pool.submit(_there, kept.flat.numpy(), kept.layout, *bounds, seed))
        except (OSError, BrokenProcessPool):
            return Played(self, kept, seed, self.without_pool(kept, seed))

    def without_pool(self, actor: Actor, seed: int) -> Outcome:
        """Play here, from now on, as a process has died."""
        if self.pool is not None:
            self.report.say("The process that evaluates has died (out of memory?); evaluation and training take turns.")
            self.pool.shutdown(wait=False)
            self.pool = None
        return self._here(actor, seed)

    def _here(self, actor: Actor, seed: int) -> Outcome:
        self.environments += self.game.open(self.game.episodes - len(self.environments))
        return self.game.play(self.environments, actor, seed)


@dataclass
class Played:
    """What comes of playing a policy, now or later."""

    watch: Watch
    actor: Actor
    seed: int
    outcome: "Outcome | Future[Outcome]"

    @property
    def known(self) -> bool:
        """Whether `result` need not wait."""
        return isinstance(self.outcome, Outcome) or self.outcome.done()

    def result(self) -> Outcome:
        """The outcome, waited for."""
        if isinstance(self.outcome, Future):
            try:
                self.outcome = self.outcome.result()
            except BrokenProcessPool:
                self.outcome = self.watch.without_pool(self.actor, self.seed)
        return self.outcome


@contextmanager
def open_watch(game: Game, processes: int, report: Report) -> Iterator[Watch]:
    """A `Watch` with so many processes, closed when the block ends; raises what `make_environments` does."""
    # One environment tells at once what is wrong with all.
    watch = Watch(game, report, game.open(1))
    try:
        if processes:
            watch.pool = _start_pool(game, processes)
        yield watch
    finally:
        close_environments(watch.environments)
        if watch.pool is not None:
            watch.pool.shutdown(cancel_futures=True)


def free_processes(options: Options, device: torch.device, members: int) -> int:
    """How many processes may evaluate while so many members train: as many as there are cores that these leave free."""
    busy = min(cpu_threads(options), _THREADS_OF_MEMBER * members) if device.type == "cpu" else 1
    return min(max(_cores() - busy, 0), _MOST_PROCESSES)


def _cores() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _CPU_QUOTA.read_text().split()
        return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):
        return cores


def _start_pool(game: Game, processes: int) -> ProcessPoolExecutor:
    # Forking this process would copy its threads' locks. A server that has imported what is needed is forked instead.
    method = "forkserver" if "forkserver" in get_all_start_methods() else "spawn"
    context: Any = get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload([__name__])
    pool = ProcessPoolExecutor(processes, context, initializer=_begin, initargs=(game,))
    Thread(target=_wake, args=(pool,), daemon=True).start()
    return pool


def _wake(pool: ProcessPoolExecutor) -> None:
    """Have a process ready when it is needed: the imports take seconds. What goes wrong is told when it is needed."""
    with suppress(OSError, RuntimeError):
        pool.submit(os.getpid)


_playing: list[tuple[Game, list[Environment]]] = []
"""Of such a process, what it plays."""


def _begin(game: Game) -> None:
    """Leave signals to the process that trains, and end when it does, however it ends."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
    Thread(target=_end_with_parent, daemon=True).start()
    _playing.append((game, game.open(game.episodes)))


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _there(flat: Floats, layout: Layout, log_std_min: float, log_std_max: float, seed: int) -> Outcome:
    ((game, environments),) = _playing
    return game.play(environments, Actor(torch.from_numpy(flat), layout, log_std_min, log_std_max), seed)
