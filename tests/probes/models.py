"""Untrained ensembles to learn in, what they predict in numpy, and what has to be true of learners that ask them."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mopo_cli.agents.algorithm import Algorithm, agent_state
from mopo_cli.agents.loop import advance, loop_state, restore_loop
from mopo_cli.agents.runs import Loop, start_loop
from mopo_cli.agents.schedule import LoopSettings
from mopo_cli.agents.world import World
from mopo_cli.bench.operations import counted, update_flops
from mopo_cli.bench.workloads import Shapes, taking
from mopo_cli.config.learners import with_own
from mopo_cli.config.schema import TrainModel, TrainPolicy
from mopo_cli.dynamics.ensemble import Ensemble
from mopo_cli.dynamics.imagine import Imagining
from mopo_cli.dynamics.penalties import PENALTIES
from mopo_cli.engine.members import Member
from mopo_cli.engine.rows import Rows
from mopo_cli.engine.streams import stream
from mopo_cli.nets.gaussian import gaussian_layout
from mopo_cli.nets.init import initial, truncated_normal, zeros
from mopo_cli.tasks.termination import never

OBS, ACT, ELITES = 4, 2, (0, 2, 3)
LOOP = LoopSettings(10, 5, 60, 2, batch_size=37, real_ratio=0.2)
MEMBERS = (Member(0, "none", 0.0, 3, 0), Member(3, "none", 0.0, 2, 1), Member(7, "none", 0.0, 3, 0))
Array = NDArray[np.float64]


def make_ensemble(seed: int = 0, obs_dim: int = OBS, act_dim: int = ACT) -> Ensemble:
    """Four networks of two layers, three of them elites, with inputs to be scaled."""
    layout = gaussian_layout(obs_dim + act_dim, obs_dim + 1, 16, 2)
    flat = initial(layout, [stream(seed, "test/model", k) for k in range(4)], truncated_normal, zeros)
    views = layout.views(flat)
    views["w_mean"] *= 4
    views["max_logvar"] += 0.5
    views["min_logvar"] -= 3.0
    draw = stream(seed, "test/scaler")
    mean, std = torch.randn(obs_dim + act_dim, generator=draw), 0.5 + torch.rand(obs_dim + act_dim, generator=draw)
    return Ensemble(flat, layout, mean, std, obs_dim, ELITES)


def make_world(algorithm: Algorithm, act_dim: int = ACT, count: int = 300) -> World:
    """Random real rows, two ensembles to branch in, and no rule that ends a rollout."""
    how = Imagining(uncertainties=(*PENALTIES, *algorithm.uncertainties))
    draw, rows = stream(0, "test/rows"), Rows(OBS, act_dim, len(how.uncertainties))
    observation = torch.randn(count, OBS, generator=draw)
    action = 2 * torch.rand(count, act_dim, generator=draw) - 1
    reward, terminal = torch.randn(count, generator=draw), torch.rand(count, generator=draw) < 0.1
    nothing = torch.zeros(count, rows.uncertainties)
    real = rows.pack(observation, action, reward, terminal, observation + 0.1, nothing)
    models = tuple(make_ensemble(seed, OBS, act_dim) for seed in (0, 1))
    return World(rows, real, observation, never, models, how=how)


def predictions(ensemble: Ensemble, k: int, observation: Array, action: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of what network k says of the change of state, and of the reward."""
    own = {name: view[k].double().numpy() for name, view in ensemble.layout.views(ensemble.flat).items()}
    x = np.hstack([observation, action])
    x = (x - ensemble.input_mean.double().numpy()) / ensemble.input_std.double().numpy()
    layers = sum(name[1:].isdigit() for name in own) // 2
    for i in range(layers):
        x = x @ own[f"w{i}"] + own[f"b{i}"]
        x = x / (1 + np.exp(-x))
    raw = x @ own["w_logvar"] + own["b_logvar"]
    raw = own["max_logvar"] - np.logaddexp(0, own["max_logvar"] - raw)
    raw = own["min_logvar"] + np.logaddexp(0, raw - own["min_logvar"])
    return x @ own["w_mean"] + own["b_mean"], np.exp(raw / 2)


def train(
    world: World,
    settings: Any,
    algorithm: Algorithm,
    blocks: int,
    members: tuple[Member, ...] = MEMBERS,
    loop: LoopSettings = LOOP,
) -> Loop:
    run = start_loop(world, members, settings, loop, algorithm)
    for _ in range(blocks):
        advance(run, world)
    return run


def assert_equal_loops(one: Loop, other: Loop) -> None:
    (tensors, numbers), (found, found_numbers) = loop_state(one), loop_state(other)
    assert tensors.keys() == found.keys() and numbers == found_numbers
    for name, tensor in tensors.items():
        assert torch.equal(tensor, found[name]), name
    for m, size in enumerate(one.pool.sizes):
        assert torch.equal(one.pool.rows[m, :size], other.pool.rows[m, :size])


# What holds of every learner.


def check_alone_as_stacked(settings: Any, algorithm: Algorithm) -> None:
    """Bit for bit, for sizes at which the matrix kernels differ, members with other models and horizons beside it."""
    for rows, act_dim, hidden in ((8, 1, 17), (37, 2, 16), (64, 6, 32)):
        world, own = make_world(algorithm, act_dim), replace(settings, hidden=hidden)
        loop = replace(LOOP, batch_size=rows)
        stack = train(world, own, algorithm, 3, loop=loop)
        assert len({tuple(row.tolist()) for row in stack.agent.actor.flat}) == 3
        found = agent_state(stack.agent)[0]
        for m, member in enumerate(MEMBERS):
            alone = train(world, own, algorithm, 3, (member,), loop)
            for name, tensor in agent_state(alone.agent)[0].items():
                count = len(tensor)
                assert torch.equal(tensor, found[name][m * count : (m + 1) * count]), (m, name)
            size = alone.pool.sizes[0]
            assert size and torch.equal(alone.pool.rows[0, :size], stack.pool.rows[m, :size])
            assert torch.equal(alone.sums[0], stack.sums[m])


def check_threads_change_nothing(settings: Any, algorithm: Algorithm, use_threads: Callable[[int], None]) -> None:
    for members in (MEMBERS[:1], MEMBERS):
        ends = []
        for threads in (1, 2, 3):
            use_threads(threads)
            ends.append(train(make_world(algorithm), settings, algorithm, 2, members))
        assert_equal_loops(ends[0], ends[1]), assert_equal_loops(ends[0], ends[2])


def check_resumed_as_uninterrupted(settings: Any, algorithm: Algorithm) -> None:
    """Also where it stops within an epoch, and where the pool holds rows of several rollouts."""
    world, loop = make_world(algorithm), replace(LOOP, steps_per_epoch=20, rollout_every=10)
    assert loop.block == 10
    whole = train(world, settings, algorithm, 6, loop=loop)
    for stop_after in (1, 3):
        stopped = train(world, settings, algorithm, stop_after, loop=loop)
        resumed = start_loop(make_world(algorithm), MEMBERS, settings, loop, algorithm)
        restore_loop(resumed, world, *deepcopy(loop_state(stopped)))
        while resumed.step < whole.step:
            advance(resumed, world)
        assert_equal_loops(whole, resumed)


def check_nan_stays_in_its_member(settings: Any, algorithm: Algorithm) -> None:
    """One member's actor is spoilt; the others learn on as if nothing had happened."""
    world = make_world(algorithm)
    healthy, broken = (train(world, settings, algorithm, 1) for _ in range(2))
    broken.agent.actor.flat[1, 3] = torch.nan
    for _ in range(2):
        advance(healthy, world), advance(broken, world)
    assert broken.agent.finite().tolist() == [True, False, True] and healthy.agent.finite().all()
    others = agent_state(broken.agent)[0]
    for name, tensor in agent_state(healthy.agent)[0].items():
        one, other = (t.unflatten(0, (len(MEMBERS), -1))[[0, 2]] for t in (tensor, others[name]))
        assert torch.equal(one, other) and one.isfinite().all(), name


def check_operations(name: str, **own: Any) -> None:
    """By formula as many as torch counts, per gradient step and member."""
    kind: Any = with_own(TrainPolicy, name)
    sizes = {"hidden": 24, "layers": 2, "batch_size": 32, "steps_per_epoch": 4}
    policy = kind(algorithm=name, penalty="none", real_ratio=0.1, **sizes, **own)
    model = TrainModel(networks=6, hidden=12, layers=3, weight_decay=(0.1,) * 4)
    shapes = Shapes(obs_dim=9, act_dim=4, rows=300)
    for members in (1, 3):
        with taking(policy, shapes, members, torch.device("cpu"), model) as (loop, take, steps):
            loop.step = 0
            take()  # what is done once per rollout is in the first call only
            assert counted(take) == members * steps * update_flops(model, policy, shapes.obs_dim, shapes.act_dim)


def numbers(*tensors: Tensor) -> list[Array]:
    """As numpy has them, in double precision."""
    return [tensor.double().numpy() for tensor in tensors]
