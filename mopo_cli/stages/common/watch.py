"""Policies in training, evaluated in the real environment: by other processes where cores are free, else in turn.

What a policy reaches depends on it and the seed alone, so where it was played shows in the time only.
"""

import os
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any

import torch

from mopo_cli.agents.actor import Actor
from mopo_cli.data.environment_history import with_history
from mopo_cli.data.transitions import Floats
from mopo_cli.evaluation.play import Environment, close_environments, evaluate_returns, make_environments
from mopo_cli.nets import libraries
from mopo_cli.report.console import Report
from mopo_cli.stages.common.device import cpu_threads
from mopo_cli.stages.common.options import Options
from mopo_cli.stages.common.policies import greedy_policy
from mopo_cli.store.machine import cpu_count

# A member in training keeps about so many threads busy: two critics and an actor.
_THREADS_OF_MEMBER = 3
_MOST_PROCESSES = 16
# Ten episodes after every thousand gradient steps take a seventh of the time of these.
_CREW_PER_PROCESS = 4
# A scheduler may send its signals to every process; the imports of what plays take seconds.
_SERVE = (
    "from mopo_cli.errors import ignore_stop_signals; ignore_stop_signals(); "
    "import sys; from mopo_cli.stages.common.watch import serve; serve(int(sys.argv[1]))"
)


@dataclass(frozen=True)
class Outcome:
    """Mean return and mean length of some episodes."""

    value: float
    length: float


@dataclass(frozen=True)
class Game:
    """What is played with a policy: so many episodes of an environment, its actions being within these bounds.

    `offset` is taken off observations before the policy sees them, see `DatasetInfo`.
    """

    env_id: str
    env_kwargs: dict[str, Any]
    episodes: int
    action_low: Floats
    action_high: Floats
    entries: tuple[str, ...] = ()
    """Of Dict observations, see `DatasetInfo.obs_entries`."""
    offset: tuple[float, ...] = ()
    history: int = 1
    """Of how many steps an observation is, see `DatasetInfo.history`."""

    def open(self, episodes: int) -> list[Environment]:
        """The environments for so many episodes."""
        return with_history(make_environments(self.env_id, episodes, self.env_kwargs, self.entries), self)

    def play(self, environments: list[Environment], actor: Actor, seed: int) -> Outcome:
        """One episode in each."""
        policy = greedy_policy(replace(actor, offset=self.offset), self.action_low, self.action_high)
        result = evaluate_returns(policy, environments, seed, exact=bool(self.offset))
        return Outcome(float(result.returns.mean()), float(result.lengths.mean()))


@dataclass
class Player:
    """A process that plays; it is starting or at `work`, or neither."""

    process: "subprocess.Popen[bytes]"
    connection: Connection
    work: "Played | None" = None
    ready: bool = False

    @property
    def idle(self) -> bool:
        """Whether it is free to play."""
        return self.ready and self.work is None


@dataclass
class Watch:
    """Plays a game with one policy after another; at most `processes` of them beside each other, 0: here, in turn."""

    game: Game
    report: Report
    environments: list[Environment]
    processes: int
    players: list[Player] = field(default_factory=list)
    waiting: deque["Played"] = field(default_factory=deque)

    def play(self, actor: Actor, seed: int) -> "Played":
        """Begin to play; the actor may learn on meanwhile."""
        played = Played(self, replace(actor, flat=actor.flat.cpu().clone()), seed)
        if self.processes:
            self.waiting.append(played)
            self.hand_over()
        else:
            played.result()
        return played

    def hand_over(self, block: bool = False) -> None:
        """Take what has been played, if need be wait for something, and hand out what waits for being played."""
        try:
            busy = {player.connection: player for player in self.players if not player.idle}
            for connection in wait(list(busy), None if block else 0) if busy else []:
                _take(busy[connection])  # type: ignore[index]
            idle = [player for player in self.players if player.idle]
            while self.waiting and idle:
                _give(idle.pop(), self.waiting.popleft())
            if self.waiting and len(self.players) < self.processes and all(player.ready for player in self.players):
                self.players.append(_start(self.game))
        except (OSError, EOFError):
            self.report.say("A process that evaluates has ended (out of memory?); evaluation and training take turns.")
            self.close_players()
            self.processes = 0

    def here(self, actor: Actor, seed: int) -> Outcome:
        """Play in this process."""
        self.environments += self.game.open(self.game.episodes - len(self.environments))
        return self.game.play(self.environments, actor, seed)

    def close_players(self) -> None:
        """End all processes at once; what they are at is lost."""
        for player in self.players:
            player.process.kill()
            player.connection.close()
            player.process.wait()
        self.players.clear()
        self.waiting.clear()


@dataclass
class Played:
    """What comes of playing a policy, now or later."""

    watch: Watch
    actor: Actor
    seed: int
    outcome: Outcome | None = None

    @property
    def done(self) -> bool:
        """Whether `result` need not wait for another process."""
        if self.outcome is None and self.watch.processes:
            self.watch.hand_over()
        return self.outcome is not None or not self.watch.processes

    def result(self) -> Outcome:
        """The outcome, waited for."""
        while self.outcome is None and self.watch.processes:
            self.watch.hand_over(block=True)
        if self.outcome is None:
            self.outcome = self.watch.here(self.actor, self.seed)
        return self.outcome


@contextmanager
def open_watch(game: Game, processes: int, report: Report) -> Iterator[Watch]:
    """A `Watch` with so many processes, closed when the block ends; raises what `make_environments` does."""
    # One environment tells at once what is wrong with all.
    watch = Watch(game, report, game.open(1), processes)
    try:
        if processes:
            with suppress(OSError):
                watch.players.append(_start(game))  # now, as its imports take seconds
        yield watch
    finally:
        watch.close_players()
        close_environments(watch.environments)


def free_processes(options: Options, device: torch.device, members: int, crew: int = 0) -> int:
    """How many processes may evaluate while so many members train: as many as there are cores that these leave free.

    Beside a `crew` of so many processes some may in any case: these do not wait for each other, so that no core is
    ever idle, as all but one are while evaluation and training take turns.
    """
    if os.name != "posix":
        return 0
    busy = min(cpu_threads(options), _THREADS_OF_MEMBER * members) if device.type == "cpu" else 1
    return min(max(cpu_count() - busy, -(-crew // _CREW_PER_PROCESS)), _MOST_PROCESSES)


def _start(game: Game) -> Player:
    ours, theirs = Pipe()
    # In a new session, so that signals reach the process that trains, which then ends this one.
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVE, str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    theirs.close()
    ours.send((game, libraries.in_use()))
    return Player(process, ours)


def _give(player: Player, played: Played) -> None:
    player.work, actor = played, played.actor
    player.connection.send((actor.flat.numpy(), actor.layout, actor.log_std_min, actor.log_std_max, played.seed))


def _take(player: Player) -> None:
    outcome = player.connection.recv()
    if player.work is not None:
        player.work.outcome = outcome
    player.work, player.ready = None, True


def serve(descriptor: int) -> None:
    """Be a process that plays: take a `Game`, then policies, until the other end of the connection is closed."""
    torch.set_num_threads(1)
    connection = Connection(descriptor)
    with suppress(EOFError, OSError):
        game, choice = connection.recv()
        libraries.use(choice)
        environments = game.open(game.episodes)
        connection.send(None)
        while True:
            flat, layout, low, high, seed = connection.recv()
            connection.send(game.play(environments, Actor(torch.from_numpy(flat), layout, low, high), seed))
