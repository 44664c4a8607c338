"""All rates on one device in one run, each beside what the machine's matrix products of its shapes allow."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median

import torch

from mopo_cli.agents.algorithm import Algorithm
from mopo_cli.agents.algorithms import load
from mopo_cli.bench import operations
from mopo_cli.bench.rates import Products, Rate
from mopo_cli.bench.timing import Seconds, in_pairs, seconds_of
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
from mopo_cli.engine.capture import Recorder
from mopo_cli.evaluation.play import open_environments
from mopo_cli.nets.precision import Precision
from mopo_cli.nets.products import rounding
from mopo_cli.nets.stacked import DTYPES
from mopo_cli.stages.common.device import can_multiply

_IN: dict[Precision, str] = {"fp32": "", "tf32": " in tf32", "bf16": " in bf16"}
WARM_UP = "warm-up"
"""The name of the rate of the steps that come before policy updates, all phases together."""
_CHUNK = 1024  # rows that a rollout predicts at once on a CPU


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
    """Measure one rate after the other, ``budget`` seconds each or a little more; ``seeds`` is the larger stack's size.

    What is computed is measured by turns with matrix products in the shape of its hidden layers. The rate of those is
    given too, before the first that it is the ceiling of, in billions of floating-point operations. With a recorder,
    gradient steps are replayed (see `engine.capture`).
    """
    shown: set[str] = set()
    for speed, rate in _pairs(task, seeds, device, budget, record):
        if speed is not None and speed.name not in shown:
            shown.add(speed.name)
            yield speed
        yield rate


def _pairs(
    task: Task, seeds: int, device: torch.device, budget: float, record: Recorder | None
) -> Iterator[tuple[Rate | None, Rate]]:
    """Every rate, with that of the products beside it where something is computed."""
    shapes, model, policy = task.shapes, task.model, task.policy
    dims = shapes.obs_dim, shapes.act_dim
    at_once = policy.rollout_batch if device.type == "cuda" else min(policy.rollout_batch, _CHUNK)
    products = {
        f"{what}{_IN[precision]}": _products(f"{what}{_IN[precision]}", rows, width, device, precision)
        for precision in _precisions(device)
        for what, rows, width in (
            ("model training", model.batch_size, model.hidden),
            ("rollouts", at_once, model.hidden),
            ("policy updates", policy.batch_size, policy.hidden),
        )
    }
    step = operations.model_step_flops(model, *dims)
    per_step = model.batch_size * model.networks
    for precision in _precisions(device):
        settings = model.model_copy(update={"update_precision": precision})
        name, amount = training_name(settings), MODEL_STEPS * per_step
        work, engine = model_training(settings, shapes, device, record)
        seconds, others = in_pairs(work, products[name].work, budget, device)
        rate = Rate.of(name, "transitions x networks", amount, seconds, engine.why_eager)
        yield products[name].beside(rate, step // per_step, others)
    if policy.needs_model:
        flops = operations.imagined_flops(model, policy, *dims)
        made = policy.rollout_batch * policy.h
        for precision in _precisions(device):
            name = f"rollouts{_IN[precision]}"
            work = rollouts(model, policy, shapes, device, precision)
            seconds, others = in_pairs(work, products[name].work, budget, device)
            yield products[name].beside(Rate.of(name, "generated transitions", made, seconds), flops, others)
    for members in sorted({1, seeds}):
        for precision in _precisions(device):
            chosen = policy.model_copy(update={"update_precision": precision})
            yield _updates(updates_name(chosen, members), task, chosen, members, device, budget, record, products)
    if load(policy.algorithm).warm_up is not Algorithm.warm_up:
        yield None, _warm_up(task, seeds, device, budget, record)
    for method, other in task.methods.items():
        yield _updates(f"policy updates, {method}", task, other, 1, device, budget, record, products)
    if task.env_id is not None:
        yield None, _evaluation(task, task.env_id, device, budget)


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
    products: Mapping[str, Products],
) -> tuple[Rate, Rate]:
    """Gradient steps, each with its share of what the algorithm does before a rollout."""
    beside = products[f"policy updates{_IN[settings.update_precision]}"]
    model, shapes, dims = task.model, task.shapes, (task.shapes.obs_dim, task.shapes.act_dim)
    flops = operations.update_flops(model, settings, *dims)
    with taking(settings, shapes, members, device, model, record) as (loop, take, steps):
        loop.step = 0
        seconds, others = in_pairs(take, beside.work, budget, device)
        seconds *= 1 / steps
    refresh = operations.refresh_flops(model, settings, *dims, shapes.rows)
    if refresh:
        flops += refresh / settings.rollout_every
        again, other = refreshes(settings, shapes, members, device, model, record)
        seconds += seconds_of(again, budget, device) * (1 / settings.rollout_every)
        loop.engine.why_eager = loop.engine.why_eager or other.engine.why_eager
    return beside.beside(Rate.of(name, "updates", members, seconds, loop.engine.why_eager), flops, others)


def _warm_up(task: Task, seeds: int, device: torch.device, budget: float, record: Recorder | None) -> Rate:
    """The gradient steps of all phases of a warm-up, each phase measured by itself."""
    spent, total = Seconds(0.0), 0
    with taking(task.policy, task.shapes, seeds, device, task.model, record) as (loop, take, steps):
        for begin, count in warm_up_phases(loop, steps):

            def again(begin: int = begin) -> None:
                loop.step = begin
                take()

            spent, total = spent + seconds_of(again, budget, device) * (count / steps), total + count
        return Rate.of(WARM_UP, "updates", seeds * total, spent, loop.engine.why_eager)


def _products(what: str, rows: int, width: int, device: torch.device, precision: Precision) -> Products:
    work, count = product(rows, width, width, device, DTYPES[precision])

    def multiply() -> None:
        with rounding(precision):
            work()

    return Products(f"products of {what}", multiply, count * 2 * rows * width * width)


def _evaluation(task: Task, env_id: str, device: torch.device, budget: float) -> Rate:
    with ExitStack() as stack:
        environments = stack.enter_context(open_environments(env_id, EPISODES, dict(task.env_kwargs)))
        steps: list[int] = []
        work = evaluation(task.policy, task.shapes, environments, steps, device, task.model)
        seconds = seconds_of(work, budget, device)
        return Rate.of("evaluation", "environment steps", median(steps), seconds)
