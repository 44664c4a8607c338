"""A stack of runs in progress: what the training loop goes on from."""

from collections import deque
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from mopo_cli.agents.algorithm import Agent, Algorithm
from mopo_cli.agents.guard import guarded_value
from mopo_cli.agents.replay import Pool
from mopo_cli.agents.schedule import LoopSettings
from mopo_cli.agents.world import World
from mopo_cli.dynamics.penalties import penalty_weights
from mopo_cli.engine.capture import Engine, Recorder
from mopo_cli.engine.members import Member
from mopo_cli.nets.products import rounding

_ALWAYS = ("penalty", "reward")


@dataclass(frozen=True)
class RolloutTally:
    """What a member's latest rollouts did: rows made, and the shares of the start states whose branch ended early.

    A branch ends by the task's rule (terminated), halted by an uncertainty, by the guard, or dropped as not finite.
    `ended_first_step` are the same shares, by name, of the branches that ended in their first step. `unknown` is the
    share of rows for which the oracle gave no error.
    """

    rows: int
    terminated: float
    guarded: float
    dropped: float
    unknown: float = 0.0
    halted: float = 0.0
    ended_first_step: dict[str, float] = field(default_factory=dict)


@dataclass
class PastRollout:
    """One rollout whose rows may still be in the pool: the parameters `[S, ·]` that made it, the actors' first.

    Per member, `positions` says where its rows begin and `rows` how many they are.
    """

    index: int
    parameters: Tensor
    positions: list[int]
    rows: list[int]


@dataclass
class Loop:
    """A stack of runs in progress; `step` is below 0 while the agents warm up.

    `guarded_value` is added to the rewards of rows that the guard ended, as they are written into the pool.
    """

    settings: LoopSettings
    members: tuple[Member, ...]
    algorithm: Algorithm
    agent: Agent
    pool: Pool
    penalty: Tensor  # [S, 1, U]
    guarded_value: float = 0.0
    step: int = 0
    past: deque[PastRollout] = field(default_factory=deque)
    tallies: list[RolloutTally] = field(default_factory=list)
    cycle: int = 1
    phases: tuple[int, ...] = ()  # of the warm-up, by the steps that each ends after
    engine: Engine = field(default_factory=Engine)
    sums: Tensor = field(default_factory=lambda: torch.zeros(0))  # [S, len(metrics)]

    @property
    def warm_up(self) -> int:
        """Gradient steps of the warm-up, in whole blocks."""
        return -(-self.phases[-1] // self.settings.block) * self.settings.block if self.phases else 0

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

    With a recorder its gradient steps are replayed (see `engine.capture`). SettingsError where rollouts are made, the
    discount is 1 and a reward is negative (see `agents.guard`).
    """
    device = world.real.device
    agent = algorithm.start(world, members, learner)
    capacities = [settings.rollout_batch * m.h * settings.pool_epochs for m in members]
    if world.buffer is not None or settings.real_rows == settings.batch_size:
        capacities = [0] * len(members)
    pool = Pool(capacities, world.row_layout.width, device)
    names = world.options.uncertainties
    weights = torch.tensor([penalty_weights(m.penalty, m.lam, names) for m in members], device=device)
    loop = Loop(settings, members, algorithm, agent, pool, weights[:, None])
    # A learner without a discount, such as cloning, learns from no reward.
    if max(capacities) and (gamma := getattr(learner, "gamma", None)) is not None:
        loop.guarded_value = guarded_value(world.least_reward, gamma)
    loop.sums = torch.zeros(len(members), len(loop.metrics), device=device)
    loop.engine = Engine(record, partial(rounding, learner.update_precision))
    loop.cycle = algorithm.cycle(learner)
    loop.phases = tuple(accumulate(algorithm.warm_up(learner)))
    loop.step = -loop.warm_up
    return loop
