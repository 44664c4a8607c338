"""Rollouts of a stack of runs: from real states h steps in each member's model, into its pool."""

from dataclasses import replace

import torch
from torch import Tensor

from mopo_cli.agents.guard import add_to_guarded
from mopo_cli.agents.runs import Loop, PastRollout, RolloutTally
from mopo_cli.agents.world import World
from mopo_cli.dynamics.branched_rollouts import ENDS, branch, uniform_policy
from mopo_cli.dynamics.penalties import ORACLE
from mopo_cli.engine.streams import stream


def fill_pools(loop: Loop, world: World) -> None:
    """Branch rollouts of every member into its pool, and remember what made them while their rows may be in it."""
    index = loop.step // loop.settings.rollout_every
    positions, parameters = list(loop.pool.positions), loop.algorithm.rollout_parameters(loop.agent)
    loop.tallies = [branch_member(loop, world, m, index, parameters) for m in range(len(loop.members))]
    remember(loop, PastRollout(index, parameters.clone(), positions, [tally.rows for tally in loop.tallies]))


def remember(loop: Loop, past: PastRollout) -> None:
    """Keep what made rows of the pools, and no more what made rows that are not there any longer."""
    loop.past.append(past)
    while len(loop.past) > 1 and _covered(loop):
        loop.past.popleft()


def _covered(loop: Loop) -> bool:
    """Whether the rollouts after the first have filled every pool, so that nothing of it is left.

    A member that has diverged makes no rollouts any more, and nothing can be learned from its pool.
    """
    later = list(loop.past)[1:]
    finite = loop.agent.actor.finite(len(loop.members)).tolist()
    filled = [sum(past.rows[m] for past in later) >= capacity for m, capacity in enumerate(loop.pool.capacities)]
    return all(full or not alive for full, alive in zip(filled, finite, strict=True))


def branch_member(loop: Loop, world: World, m: int, index: int, parameters: Tensor) -> RolloutTally:
    """Write the `index`-th rollouts of member m, made with these policies' `parameters` `[S, ·]`, into its pool.

    A row that the guard ended has there what follows it in its reward, see `agents.guard`.
    """
    member = loop.members[m]
    device = world.start.device
    generator = stream(member.seed, "policy/rollout", index, device)
    chosen = torch.randint(len(world.start), (loop.settings.rollout_batch,), generator=generator, device=device)
    uniform = loop.settings.rollout_actions == "uniform"
    policy = uniform_policy(world.row_layout.act_dim) if uniform else loop.agent.policy(m, parameters).sample
    made, unknown, ended, ended_first_step = 0, 0, dict.fromkeys(ENDS, 0), dict.fromkeys(ENDS, 0)
    options = replace(world.options, needs_uncertainties=bool(loop.penalty[m].any()))
    options = options if member.penalty == ORACLE else replace(options, oracle=None)
    options = loop.algorithm.rollout_options(loop.agent, m, parameters, options)
    ensemble, start = world.ensembles[member.model], world.start[chosen]
    start_step = None if world.start_step is None else world.start_step[chosen]
    for step in branch(ensemble, world.rule, start, policy, member.h, generator, options, start_step):
        loop.pool.write(m, add_to_guarded(world.row_layout, step.rows, step.guarded_rows, loop.guarded_value))
        made += len(step.rows)
        unknown += step.unknown
        ends = step.ends()
        ended = {name: count + ends[name] for name, count in ended.items()}
        ended_first_step = ends if step.step == 0 else ended_first_step
    if not loop.pool.sizes[m]:
        # There is nothing to learn from: the member learns from a NaN, and is flagged for it as any other.
        loop.pool.write(m, torch.full((1, world.row_layout.width), torch.nan, device=device))
    total = loop.settings.rollout_batch
    shares, first = ({name: count / total for name, count in counts.items()} for counts in (ended, ended_first_step))
    return RolloutTally(made, unknown=unknown / max(made, 1), ended_first_step=first, **shares)
