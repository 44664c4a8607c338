"""The floating-point operations of the stages' inner loops: torch counts them while one real step is taken on a CPU."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from mopo_cli.agents.algorithms import load
from mopo_cli.agents.loop import advance
from mopo_cli.agents.runs import Loop
from mopo_cli.agents.world import World
from mopo_cli.bench.workloads import Shapes, model_stack, policy_stack, rollouts
from mopo_cli.config.schema import TrainModel, TrainPolicy
from mopo_cli.dynamics.training import take_steps
from mopo_cli.engine.parallel import thread_count, use_threads
from mopo_cli.engine.streams import Draws, draws

_CPU = torch.device("cpu")
_ROWS = 20  # of data, where their number does not matter


def counted(work: Callable[[], object]) -> int:
    """The operations of all matrix products of `work`, two per multiply-add, as torch counts them.

    It counts the calling thread's alone, so work is not shared among threads meanwhile. Products by oneDNN are counted
    by a formula of our own.
    """
    packet, threads = getattr(torch.ops.mkldnn, "_linear_pointwise", None), thread_count()
    if threads > 1:
        use_threads(1)
    try:
        with FlopCounterMode(display=False, custom_mapping={} if packet is None else {packet: _linear}) as counter:
            work()
    finally:
        if threads > 1:
            use_threads(threads)
    return int(counter.get_total_flops())


def _linear(x: Any, weight: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    rows, inputs = x
    return int(2 * rows * inputs * weight[0])


def model_step_flops(model: TrainModel, obs_dim: int, act_dim: int) -> int:
    """One gradient step of one ensemble."""
    fit = model_stack(model, Shapes(obs_dim, act_dim, _ROWS), _CPU)
    return counted(lambda: take_steps(fit, 1))


def imagined_flops(model: TrainModel, policy: TrainPolicy, obs_dim: int, act_dim: int) -> int:
    """One generated transition: the policy's action, and a prediction of every network."""
    one = policy.model_copy(update={"rollout_batch": 1, "h": 1})
    return counted(rollouts(model, one, Shapes(obs_dim, act_dim, _ROWS), _CPU))


def update_flops(model: TrainModel, policy: TrainPolicy, obs_dim: int, act_dim: int) -> float:
    """One gradient step of one agent; where not all steps are alike, the mean of a cycle."""
    world, loop = _single(model, policy, Shapes(obs_dim, act_dim, _ROWS))
    loop.step = 1  # at step 0 there is a refresh
    return counted(lambda: [advance(loop, world) for _ in range(loop.cycle)]) / loop.cycle


def refresh_flops(model: TrainModel, policy: TrainPolicy, obs_dim: int, act_dim: int, rows: int) -> int:
    """What the algorithm of an agent does before each rollout, with so many rows of data.

    The gradient steps in it all launch the same, so that only the first one is taken.
    """
    _, loop = _single(model, policy, Shapes(obs_dim, act_dim, rows))
    steps: list[int] = []

    def take(step: Callable[[Draws], None], noise: Draws) -> None:
        steps.append(counted(partial(step, noise)) if not steps else steps[0])

    noise = draws((0,), "bench/refresh", 0, _CPU)
    # Both counters count the step.
    once = counted(lambda: loop.algorithm.refresh(loop.agent, noise, take))
    return once + sum(steps[1:])


def _single(model: TrainModel, policy: TrainPolicy, shapes: Shapes) -> tuple[World, Loop]:
    """One agent, which is trained in blocks of one step."""
    model_or_none = model if load(policy.algorithm).learns_from == "model" else None
    return policy_stack(policy.model_copy(update={"steps_per_epoch": 1}), shapes, 1, _CPU, model_or_none)
