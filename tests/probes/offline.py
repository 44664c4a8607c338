"""Logged episodes for the learners of data alone, and what has to be true of every such learner."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import relu

from mopo_cli.agents.algorithm import Algorithm, agent_state
from mopo_cli.agents.algorithms import NAMES
from mopo_cli.agents.loop import advance, loop_state, restore_loop
from mopo_cli.agents.runs import Loop, start_loop
from mopo_cli.agents.schedule import LoopSettings
from mopo_cli.agents.world import World
from mopo_cli.bench.operations import counted, update_flops
from mopo_cli.bench.workloads import Shapes, taking
from mopo_cli.config.learners import with_own
from mopo_cli.config.schema import TrainModel, TrainPolicy
from mopo_cli.engine.members import Member
from mopo_cli.engine.rows import Rows, Transition
from mopo_cli.engine.streams import stream
from mopo_cli.nets.stacked import Layout
from mopo_cli.tasks.termination import never

OBS, ACT, BATCH = 4, 2, 37
MEMBERS = tuple(Member(seed, "none", 1.0, 5, 0) for seed in (0, 3, 7))
LOOP = LoopSettings(14, 14, 1, 1, batch_size=BATCH, real_ratio=1.0)
Layer = dict[str, Tensor]


def normal(*shape: int, name: str = "x") -> Tensor:
    return torch.randn(shape, generator=stream(0, f"test/{name}"))


def make_batch(members: int, rows: int = BATCH, act_dim: int = ACT, seed: int = 0) -> Transition:
    """Rows that no two members have in common; observations are far from standard."""
    observation = 3 * normal(members, rows, OBS, name=f"s{seed}") + 1
    following = 3 * normal(members, rows, OBS, name=f"n{seed}") + 1
    action, reward = torch.tanh(normal(members, rows, act_dim, name=f"a{seed}")), normal(members, rows, name=f"r{seed}")
    terminal = (normal(members, rows, name=f"t{seed}") > 0.5).float()
    return Transition(observation, action, reward, terminal, following, torch.zeros(members, rows, 3))


def make_world(lengths: tuple[int, ...] = (9, 1, 30, 17, 2, 40, 1, 25), act_dim: int = ACT) -> World:
    """Episodes of these lengths in order; every other one ends as the task does, the rest by a time limit."""
    draw, rows = stream(0, "test/rows"), Rows(OBS, act_dim, 3)
    states, terminal = [], []
    for i, length in enumerate(lengths):
        states.append(2 * torch.randn(length + 1, OBS, generator=draw) - 1)
        terminal.append(torch.zeros(length))
        terminal[-1][-1] = float(i % 2)
    count = sum(lengths)
    action = 2 * torch.rand(count, act_dim, generator=draw) - 1
    reward = torch.randn(count, generator=draw) + 0.5
    observation, following = torch.cat([s[:-1] for s in states]), torch.cat([s[1:] for s in states])
    real = rows.pack(observation, action, reward, torch.cat(terminal), following, torch.zeros(count, 3))
    return World(rows, real, observation, never)


def bandit(
    act: Callable[[int, torch.Generator], Tensor], reward: Callable[[Tensor, Tensor], Tensor], count: int = 2000
) -> World:
    """Episodes of one step in the states -1 and 1, of as many numbers as that, and what was done and paid there."""
    draw, rows = stream(0, "test/bandit"), Rows(1, 1, 3)
    state, action = 1.0 - 2.0 * torch.randint(2, (count, 1), generator=draw), act(count, draw)
    real = rows.pack(state, action, reward(state, action)[:, 0], torch.ones(count), state, torch.zeros(count, 3))
    return World(rows, real, state, never)


def two_ways() -> World:
    """Half of the actions are at 0.6, half at -0.6, all +-0.05; those with the sign of the state pay 1, the rest 0."""

    def act(count: int, draw: torch.Generator) -> Tensor:
        coin = 1.0 - 2.0 * torch.randint(2, (count, 1), generator=draw)
        return 0.6 * coin + 0.05 * torch.randn(count, 1, generator=draw).clamp(-2, 2)

    return bandit(act, lambda state, action: (state * action > 0).float())


def train(
    world: World,
    settings: Any,
    algorithm: Algorithm,
    steps: int,
    members: tuple[Member, ...] = MEMBERS,
    loop: LoopSettings = LOOP,
) -> Loop:
    run = start_loop(world, members, settings, loop, algorithm)
    while run.step < steps:
        advance(run, world)
    return run


def equal_states(one: Any, other: Any, state: Any = agent_state) -> bool:
    (tensors, steps), (others, other_steps) = state(one), state(other)
    return steps == other_steps and all(torch.equal(tensor, others[name]) for name, tensor in tensors.items())


# What holds of every learner.


def check_alone_as_stacked(settings: Any, algorithm: Algorithm) -> None:
    """Bit for bit, for sizes at which the matrix kernels differ."""
    for rows, act_dim, hidden in ((7, 1, 17), (37, 2, 16), (64, 6, 32)):
        world, own = make_world(act_dim=act_dim), replace(settings, hidden=hidden)
        loop = replace(LOOP, batch_size=rows)
        stack = train(world, own, algorithm, 28, loop=loop)
        assert len({tuple(row.tolist()) for row in stack.agent.actor.flat}) == 3
        found = agent_state(stack.agent)[0]
        for m, member in enumerate(MEMBERS):
            alone = train(world, own, algorithm, 28, (member,), loop)
            for name, tensor in agent_state(alone.agent)[0].items():
                count = len(tensor)
                assert torch.equal(tensor, found[name][m * count : (m + 1) * count]), (m, name)
            assert torch.equal(alone.sums[0], stack.sums[m])


def check_threads_change_nothing(settings: Any, algorithm: Algorithm, use_threads: Callable[[int], None]) -> None:
    for members in (MEMBERS[:1], MEMBERS):
        ends = []
        for threads in (1, 2, 3):
            use_threads(threads)
            ends.append(train(make_world(), settings, algorithm, 14, members).agent)
        assert all(equal_states(ends[0], end) for end in ends[1:])


def check_whole_stacks_are_the_same(settings: Any, algorithm: Algorithm, patch: pytest.MonkeyPatch) -> None:
    """All members at once, as on CUDA: the same numbers but for rounding."""
    apart = train(make_world(), settings, algorithm, 14).agent
    with patch.context() as patched:
        patched.setattr(torch.Tensor, "is_cuda", property(lambda _: True))
        together = train(make_world(), settings, algorithm, 14).agent
        policy = together.policy(1)
    others, steps = agent_state(together)
    assert steps == agent_state(apart)[1]
    for name, tensor in agent_state(apart)[0].items():
        # Adam makes every first step as long as the rate: where a gradient is rounding alone, its sign is free.
        assert ((tensor - others[name]).abs() > 1e-4).float().mean() < 0.01, name
    where = make_world().start
    torch.testing.assert_close(apart.policy(1).greedy(where), policy.greedy(where), atol=1e-3, rtol=0)


def check_resumed_as_uninterrupted(settings: Any, algorithm: Algorithm) -> None:
    """Also where it stops within an epoch, between two rollouts: the same is told and the same is left."""
    world, loop = make_world(), replace(LOOP, steps_per_epoch=21, rollout_every=14, actor_schedule="cosine", epochs=3)

    def finish(run: Loop) -> list[dict[str, Tensor]]:
        told = []
        while run.step < 56:
            told.append(advance(run, world))
        return [means for means in told if means is not None]

    whole = start_loop(world, MEMBERS, settings, loop, algorithm)
    told = finish(whole)
    for stop_after in (7, 21, 35):
        stopped = train(world, settings, algorithm, stop_after, loop=loop)
        assert stopped.step == stop_after
        resumed = start_loop(world, MEMBERS, settings, loop, algorithm)
        restore_loop(resumed, world, *deepcopy(loop_state(stopped)))
        rest = finish(resumed)
        for means, found in zip(told[-len(rest) :], rest, strict=True):
            assert all(torch.equal(mean, found[name]) for name, mean in means.items())
        (tensors, numbers), (others, found_numbers) = loop_state(whole), loop_state(resumed)
        assert tensors.keys() == others.keys() and numbers == found_numbers
        assert all(torch.equal(tensor, others[name]) for name, tensor in tensors.items())


def check_nan_stays_in_its_member(settings: Any, algorithm: Algorithm) -> None:
    """One member's actor is spoilt; the others learn on as if nothing had happened."""
    world = make_world()
    healthy, broken = (train(world, settings, algorithm, 14) for _ in range(2))
    broken.agent.actor.flat[1, 3] = torch.nan
    for _ in range(2):
        advance(healthy, world), advance(broken, world)
    assert broken.agent.finite().tolist() == [True, False, True] and healthy.agent.finite().all()
    others, count = agent_state(broken.agent)[0], len(MEMBERS)
    for name, tensor in agent_state(healthy.agent)[0].items():
        one, other = (t.unflatten(0, (count, -1))[[0, 2]] for t in (tensor, others[name]))
        assert torch.equal(one, other) and one.isfinite().all(), name


def check_operations(name: str, **own: Any) -> None:
    """By formula as many as torch counts, per gradient step and member."""
    assert name in NAMES
    kind: Any = with_own(TrainPolicy, name)
    schedule = {"steps_per_epoch": 12, "rollout_every": 12, "real_ratio": 1}
    policy = kind(algorithm=name, penalty="none", hidden=24, layers=2, batch_size=32, **schedule, **own)
    shapes = Shapes(obs_dim=9, act_dim=4, rows=300)
    for members in (1, 3):
        with taking(policy, shapes, members, torch.device("cpu")) as (loop, take, steps):
            loop.step = 0
            take()  # what is done once per rollout is in the first call only
            assert steps == 12 and counted(take) == members * steps * update_flops(
                TrainModel(), policy, shapes.obs_dim, shapes.act_dim
            )


# The textbook, in float64 and by autograd.


def leaves(layout: Layout, flat: Tensor, index: int) -> Layer:
    return {name: view[index].double().requires_grad_() for name, view in layout.views(flat.clone()).items()}


def perceptron(params: Layer, *inputs: Tensor) -> Tensor:
    x = torch.cat(inputs, dim=1)
    for i in range(2):
        x = relu(x @ params[f"w{i}"] + params[f"b{i}"])
    return x @ params["w2"] + params["b2"]


def assert_gradient(layout: Layout, found: Tensor, index: int, loss: Tensor, params: Layer) -> None:
    """`found` `[M, size]` is at `index` the loss's gradient by `params`."""
    expected = torch.autograd.grad(loss, list(params.values()), allow_unused=True)
    for (name, param), wanted in zip(params.items(), expected, strict=True):
        wanted = torch.zeros_like(param) if wanted is None else wanted
        grad = layout.views(found)[name][index]
        torch.testing.assert_close(grad, wanted.float(), rtol=2e-4, atol=2e-6)
        assert name[0] == "b" or wanted.abs().max() > 1e-4


def doubles(batch: Transition, m: int) -> Transition:
    return Transition(*(getattr(batch, part.name)[m].double() for part in fields(batch)))


def expectile(values: np.ndarray, share: float) -> float:
    """The number e at which share E (x - e)+ = (1 - share) E (e - x)+, by bisection."""
    low, high = float(values.min()), float(values.max())
    for _ in range(60):
        middle = (low + high) / 2
        balance = share * np.maximum(values - middle, 0).mean() - (1 - share) * np.maximum(middle - values, 0).mean()
        low, high = (middle, high) if balance > 0 else (low, middle)
    return middle


def returns_by_definition(
    reward: np.ndarray, next_value: np.ndarray, lengths: tuple[int, ...], gamma: float, lam: float
) -> np.ndarray:
    """The mixture of all n-step returns of TD(lambda), episode by episode; next_value is 0 after a terminal."""
    found, first = [], 0
    for length in lengths:
        end = first + length
        for t in range(first, end):
            ahead = []
            for n in range(1, end - t + 1):
                discounted = sum(gamma**k * reward[t + k] for k in range(n))
                ahead.append(discounted + gamma**n * next_value[t + n - 1])
            parts = [(1 - lam) * lam ** (n - 1) * g for n, g in enumerate(ahead[:-1], 1)]
            found.append(sum(parts) + lam ** (len(ahead) - 1) * ahead[-1])
        first = end
    return np.array(found)
