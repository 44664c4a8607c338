"""What is measured: the stages' own inner loops, on random data of a task's shapes, so that nothing is fetched.

Every workload is a call that does a fixed amount of the real work; how good the data or the networks are does
not change how long it takes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from mopo_cli.agents.algorithms import load
from mopo_cli.agents.loop import advance as advance_loop
from mopo_cli.agents.loop import refresh
from mopo_cli.agents.parallel_members import crew_size, open_crew
from mopo_cli.agents.runs import Loop, start_loop
from mopo_cli.agents.world import World
from mopo_cli.config.schema import TrainModel, TrainPolicy
from mopo_cli.dynamics.branched_rollouts import RolloutOptions, branch
from mopo_cli.dynamics.fit import FitState, fitted, start_fit
from mopo_cli.dynamics.split import Examples
from mopo_cli.dynamics.training import advance, steps_per_epoch
from mopo_cli.engine.capture import Engine, Recorder
from mopo_cli.engine.members import Member
from mopo_cli.engine.parallel import spread, thread_count
from mopo_cli.engine.rows import RowLayout
from mopo_cli.engine.streams import stream
from mopo_cli.evaluation.play import Environment, evaluate_returns
from mopo_cli.nets import products
from mopo_cli.nets.precision import Precision
from mopo_cli.stages.common.learner import learner_settings, loop_settings
from mopo_cli.stages.common.open_world import uncertainty_names
from mopo_cli.stages.common.policies import greedy_policy
from mopo_cli.stages.train_model import fit_settings
from mopo_cli.tasks.termination import never

MODEL_STEPS = 50
"""Gradient steps of the ensemble in one call."""
EPISODES = 10
"""Episodes played side by side in one call."""
_ENDLESS = 1_000_000
ELITES = 5
"""Networks of an ensemble that generate, where it has as many."""
PRODUCTS = 20
"""Matrix products that a thread does in one call."""


@dataclass(frozen=True)
class Shapes:
    """A task's widths, and how many transitions its data have."""

    obs_dim: int
    act_dim: int
    rows: int


def product(
    batch: int, inputs: int, outputs: int, device: torch.device, dtype: torch.dtype = torch.float32
) -> tuple[Callable[[], object], int]:
    """Products `[batch, inputs] @ [inputs, outputs]`, `PRODUCTS` of them by each thread; also how many these are."""
    count = thread_count()
    left = torch.randn(count, batch, inputs, device=device).to(dtype)
    right = torch.randn(count, inputs, outputs, device=device).to(dtype)
    multiply = torch.mm if left.is_cuda else products.product

    def many(thread: int) -> None:
        for _ in range(PRODUCTS):
            multiply(left[thread], right[thread])

    return lambda: spread(many, count), PRODUCTS * count


def model_training(
    settings: TrainModel, shapes: Shapes, device: torch.device, record: Recorder | None = None
) -> tuple[Callable[[], object], Engine]:
    """`MODEL_STEPS` gradient steps of one ensemble, however long it has trained; also the engine that takes them."""
    fit = model_stack(settings, shapes, device, record)

    def work() -> None:
        left = MODEL_STEPS
        while left:
            done = fit.step
            report = advance(fit, left)
            left -= steps_per_epoch(fit) - done if report else fit.step - done

    return work, fit.engine


def model_stack(settings: TrainModel, shapes: Shapes, device: torch.device, record: Recorder | None = None) -> FitState:
    """One ensemble that never stops training."""
    data = Examples.of(*_transitions(shapes, device))
    endless = settings.model_copy(update={"patience": 1 << 30, "max_epochs": None})
    return start_fit(data, fit_settings(endless), (0,), record)


def rollouts(
    model: TrainModel, settings: TrainPolicy, shapes: Shapes, device: torch.device, precision: Precision = "fp32"
) -> Callable[[], object]:
    """A policy's rollouts from `rollout_batch` states, h steps each.

    No rollout ends early, so that a call generates ``rollout_batch * h`` transitions.
    """
    world, loop = policy_stack(settings, shapes, 1, device, model)
    policy, (ensemble,), options = loop.agent.policy(0), world.ensembles, replace(world.options, precision=precision)
    start = world.start[torch.randint(len(world.start), (settings.rollout_batch,)).to(device)]

    def draw() -> torch.Generator:
        return stream(0, "bench", 0, device)

    def work() -> None:
        for imagined in branch(ensemble, never, start, policy.sample, settings.h, draw(), options):
            if len(imagined.rows) < settings.rollout_batch:
                raise RuntimeError("a rollout of the benchmark ended early")

    return work


@contextmanager
def taking(
    settings: TrainPolicy,
    shapes: Shapes,
    members: int,
    device: torch.device,
    model: TrainModel | None = None,
    record: Recorder | None = None,
) -> Iterator[tuple[Loop, Callable[[], object], int]]:
    """A stack of agents, a call that takes its next gradient steps, and how many of each agent a call takes.

    They are taken as `train-policy` takes them, by processes side by side where it would use some, with batches drawn
    and without rollouts. The work before rollouts is done at step 0 only, see `refreshes`. A model is for algorithms
    that use one themselves.
    """
    world, loop = policy_stack(settings, shapes, members, device, model)
    loop.engine.record = record
    if crew_size(members, device):
        # Two turns of each agent in an epoch, so that the processes can share out any number of agents.
        loop.settings = replace(loop.settings, steps_per_epoch=2 * loop.settings.block)
    with open_crew(loop, world, _learner(settings, shapes)) as crew:
        if crew is None:
            yield loop, lambda: advance_loop(loop, world), loop.settings.block
        else:
            yield loop, lambda: crew.advance(lambda: False, lambda steps: None), loop.settings.steps_per_epoch


def refreshes(
    settings: TrainPolicy,
    shapes: Shapes,
    members: int,
    device: torch.device,
    model: TrainModel,
    record: Recorder | None = None,
) -> tuple[Callable[[], object], Loop]:
    """What the algorithm of a stack of agents does before each rollout; also their loop."""
    world, loop = policy_stack(settings, shapes, members, device, model)
    loop.step, loop.engine.record = 0, record
    return lambda: refresh(loop, world), loop


def warm_up_phases(loop: Loop, steps: int) -> list[tuple[int, int]]:
    """Of each phase of a stack's warm-up, a step from which `steps` of its steps can be taken, and how many it has."""
    phases = [(begin, end) for begin, end in pairwise((0, *loop.phases)) if begin < end]
    return [(-max(1, (loop.warm_up - begin) // steps) * steps, end - begin) for begin, end in phases]


def evaluation(
    settings: TrainPolicy,
    shapes: Shapes,
    environments: list[Environment],
    steps: list[int],
    device: torch.device,
    model: TrainModel | None = None,
) -> Callable[[], object]:
    """One episode in each environment, of an untrained policy; ``steps`` gets how many steps each call took."""
    _, loop = policy_stack(settings, shapes, 1, device, model)
    actor = loop.agent.policy(0)
    space = environments[0].action_space
    policy = greedy_policy(actor, space.low, space.high)  # type: ignore[attr-defined]

    def work() -> None:
        steps.append(int(evaluate_returns(policy, environments, 0).lengths.sum()))

    return work


def policy_stack(
    settings: TrainPolicy, shapes: Shapes, members: int, device: torch.device, model: TrainModel | None = None
) -> tuple[World, Loop]:
    """A stack of fresh agents that never branch, in a world of random data and, given a model, of an ensemble."""
    algorithm = load(settings.algorithm)
    options = RolloutOptions(uncertainties=uncertainty_names(settings, [settings.penalty]))
    rows = RowLayout(shapes.obs_dim, shapes.act_dim, len(options.uncertainties))
    observation, action, reward, next_observation = _transitions(shapes, device)
    never_ended = torch.zeros(shapes.rows, device=device)
    uncertainty = torch.rand(shapes.rows, rows.uncertainties, device=device)
    packed = rows.pack(observation, action, reward, never_ended, next_observation, uncertainty)
    last = torch.arange(shapes.rows, device=device) == shapes.rows - 1
    world = World(rows, packed, observation, last, never, buffer=packed, options=options)
    if model is not None:
        data = Examples.of(observation, action, reward, next_observation)
        ensemble = fitted(start_fit(data, fit_settings(model), (0,)), 0)
        world = replace(world, ensembles=(replace(ensemble, elites=ensemble.elites[:ELITES]),))
    stack = tuple(Member(seed, settings.penalty, settings.lam, settings.h, 0) for seed in range(members))
    schedule = replace(loop_settings(settings), rollout_every=_ENDLESS * settings.steps_per_epoch)
    return world, start_loop(world, stack, _learner(settings, shapes), schedule, algorithm)


def _learner(settings: TrainPolicy, shapes: Shapes) -> Any:
    return learner_settings(load(settings.algorithm).settings, settings, shapes.act_dim)


def _transitions(shapes: Shapes, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    draw = stream(0, "bench/data")
    observation = torch.randn(shapes.rows, shapes.obs_dim, generator=draw)
    action = 2 * torch.rand(shapes.rows, shapes.act_dim, generator=draw) - 1
    reward = torch.randn(shapes.rows, generator=draw)
    next_observation = observation.roll(-1, dims=0)  # as in a log, where each row goes on from the one before
    return observation.to(device), action.to(device), reward.to(device), next_observation.to(device)
