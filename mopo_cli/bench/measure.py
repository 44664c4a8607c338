"""All rates on one device in one run, each beside what the machine's matrix products of its shapes allow."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median

import torch

from mopo_cli.agents.algorithm import Algorithm
from mopo_cli.agents.algorithms import load
from mopo_cli.bench import operations
from mopo_cli.bench.workloads import (
    EPISODES,
    MODEL_STEPS,
    Shapes,
    evaluation,
    model_training,
    product,
    refreshes,
    rollouts,
    taking,
    warm_up_phases,
)
from mopo_cli.config.schema import TrainModel, TrainPolicy
from mopo_cli.engine.capture import Engine, Recorder
from mopo_cli.evaluation.play import open_environments
from mopo_cli.nets.precision import Precision
from mopo_cli.nets.products import rounding
from mopo_cli.nets.stacked import DTYPES
from mopo_cli.stages.common.inputs import can_multiply

_BILLION = 1e9
_IN: dict[Precision, str] = {"fp32": "", "tf32": " in tf32", "bf16": " in bf16"}
WARM_UP = "warm-up"
"""The name of the rate of the steps that come before policy updates, all phases together."""
_CHUNK = 1024  # rows that a rollout predicts at once on a CPU
_LEAST = 5  # calls that a median is of


@dataclass(frozen=True)
class Rate:
    """How fast one thing goes: ``per_second`` of ``unit``, and the ceiling, None where nothing is computed.

    ``ceiling`` is in the same unit: what the products alone would allow at the measured speed of products. ``note`` is
    what the user should know of it.
    """

    name: str
    unit: str
    per_second: float
    ceiling: float | None = None
    note: str | None = None

    @property
    def share(self) -> float | None:
        """Of the ceiling."""
        return None if self.ceiling is None else self.per_second / self.ceiling


@dataclass(frozen=True)
class Task:
    """What to measure for: a task's shapes, its environment if there is one here, and the settings of a run."""

    shapes: Shapes
    env_id: str | None
    env_kwargs: dict[str, object]
    model: TrainModel
    policy: TrainPolicy
    methods: dict[str, TrainPolicy] = field(default_factory=dict)
    """Further methods whose policy updates are measured, by name."""


def measure(
    task: Task, seeds: int, device: torch.device, budget: float, record: Recorder | None = None
) -> Iterator[Rate]:
    """Measure one rate after the other, ``budget`` seconds each; ``seeds`` is the size of the larger stack.

    The products come first, each in the shape of the hidden layers of one workload; their rates are in
    billions of floating-point operations. With a recorder, gradient steps are replayed (see `engine.capture`).
    """
    shapes, model, policy = task.shapes, task.model, task.policy
    dims = shapes.obs_dim, shapes.act_dim
    at_once = policy.rollout_batch if device.type == "cuda" else min(policy.rollout_batch, _CHUNK)
    speeds = {
        f"{what}{_IN[precision]}": _speed(f"of {what}{_IN[precision]}", rows, width, device, budget, precision)
        for precision in _precisions(device)
        for what, rows, width in (
            ("model training", model.batch_size, model.hidden),
            ("rollouts", at_once, model.hidden),
            ("policy updates", policy.batch_size, policy.hidden),
        )
    }
    yield from speeds.values()

    def rate(
        name: str,
        unit: str,
        work: Callable[[], object],
        amount: float,
        flops: int,
        speed: Rate,
        engine: Engine | None = None,
    ) -> Rate:
        seconds = median_seconds(work, budget, device)
        doubt = engine.doubt if engine is not None else None
        return Rate(name, unit, amount / seconds, speed.per_second * _BILLION / flops, doubt)

    step = operations.model_step_flops(model, *dims)
    per_step = model.batch_size * model.networks
    for precision in _precisions(device):
        settings = model.model_copy(update={"update_precision": precision})
        name, amount = training_name(settings), MODEL_STEPS * per_step
        work, engine = model_training(settings, shapes, device, record)
        yield rate(name, "transitions x networks", work, amount, step // per_step, speeds[name], engine)
    if policy.needs_model:
        flops = operations.imagined_flops(model, policy, *dims)
        made = policy.rollout_batch * policy.h
        for precision in _precisions(device):
            name = f"rollouts{_IN[precision]}"
            work = rollouts(model, policy, shapes, device, precision)
            yield rate(name, "generated transitions", work, made, flops, speeds[name])
    for members in sorted({1, seeds}):
        for precision in _precisions(device):
            chosen = policy.model_copy(update={"update_precision": precision})
            yield _updates(updates_name(chosen, members), task, chosen, members, device, budget, record, speeds)
    if load(policy.algorithm).warm_up is not Algorithm.warm_up:
        yield _warm_up(task, seeds, device, budget, record)
    for method, other in task.methods.items():
        yield _updates(f"policy updates, {method}", task, other, 1, device, budget, record, speeds)
    if task.env_id is not None:
        yield _evaluation(task, task.env_id, device, budget)


def median_seconds(work: Callable[[], object], budget: float, device: torch.device) -> float:
    """Median seconds of one call of ``work``: at least five calls, and more until ``budget`` seconds have passed.

    One call before them warms up and is not counted. On a GPU every call is waited for.
    """
    _timed(work, device)
    seconds: list[float] = []
    while len(seconds) < _LEAST or sum(seconds) < budget:
        seconds.append(_timed(work, device))
    return median(seconds)


def _timed(work: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def _precisions(device: torch.device) -> list[Precision]:
    """Those that products can be made in there."""
    return [precision for precision in _IN if can_multiply(precision, device)]


def rollouts_name(settings: TrainPolicy) -> str:
    """The name of the rate of rollouts with these settings."""
    return f"rollouts{_IN[settings.rollout_precision]}"


def updates_name(settings: TrainPolicy, members: int) -> str:
    """The name of the rate of policy updates with these settings, so many seeds side by side."""
    return f"policy updates{_IN[settings.update_precision]}" + (f", {members} seeds" if members > 1 else "")


def training_name(settings: TrainModel) -> str:
    """The name of the rate of model training with these settings."""
    return f"model training{_IN[settings.update_precision]}"


def _updates(
    name: str,
    task: Task,
    settings: TrainPolicy,
    members: int,
    device: torch.device,
    budget: float,
    record: Recorder | None,
    speeds: Mapping[str, Rate],
) -> Rate:
    """Gradient steps, each with its share of what the algorithm does before a rollout."""
    speed = speeds[f"policy updates{_IN[settings.update_precision]}"]
    model, shapes, dims = task.model, task.shapes, (task.shapes.obs_dim, task.shapes.act_dim)
    flops = operations.update_flops(model, settings, *dims)
    with taking(settings, shapes, members, device, model, record) as (loop, take, steps):
        loop.step = 0
        seconds = median_seconds(take, budget, device) / steps
    refresh = operations.refresh_flops(model, settings, *dims, shapes.rows)
    if refresh:
        flops += refresh / settings.rollout_every
        again, other = refreshes(settings, shapes, members, device, model, record)
        seconds += median_seconds(again, budget, device) / settings.rollout_every
        loop.engine.doubt = loop.engine.doubt or other.engine.doubt
    return Rate(name, "updates", members / seconds, speed.per_second * _BILLION / flops, loop.engine.doubt)


def _warm_up(task: Task, seeds: int, device: torch.device, budget: float, record: Recorder | None) -> Rate:
    """The gradient steps of all phases of a warm-up, each phase measured by itself."""
    spent, total = 0.0, 0
    with taking(task.policy, task.shapes, seeds, device, task.model, record) as (loop, take, steps):
        for begin, count in warm_up_phases(loop, steps):

            def again(begin: int = begin) -> None:
                loop.step = begin
                take()

            spent, total = spent + count * median_seconds(again, budget, device) / steps, total + count
        return Rate(WARM_UP, "updates", seeds * total / spent, note=loop.engine.doubt)


def _speed(what: str, rows: int, width: int, device: torch.device, budget: float, precision: Precision) -> Rate:
    work, products = product(rows, width, width, device, DTYPES[precision])
    flops = products * 2 * rows * width * width
    with rounding(precision):
        seconds = median_seconds(work, budget, device)
    return Rate(f"products {what}", "billion operations", flops / _BILLION / seconds)


def _evaluation(task: Task, env_id: str, device: torch.device, budget: float) -> Rate:
    with ExitStack() as stack:
        environments = stack.enter_context(open_environments(env_id, EPISODES, dict(task.env_kwargs)))
        steps: list[int] = []
        work = evaluation(task.policy, task.shapes, environments, steps, device, task.model)
        seconds = median_seconds(work, budget, device)
        return Rate("evaluation", "environment steps", median(steps) / seconds)
