"""Logged episodes for the learners of data alone, and the textbook in float64."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from probes.agents import normal
from probes.environments import Probe
from probes.single_steps import single_steps
from torch import Tensor
from torch.nn.functional import relu

from mopo_cli.agents.algorithm import Algorithm
from mopo_cli.agents.loop import advance
from mopo_cli.agents.runs import Loop, start_loop
from mopo_cli.agents.schedule import LoopSettings
from mopo_cli.agents.world import World
from mopo_cli.engine.members import Member
from mopo_cli.engine.rows import RowLayout, Transition
from mopo_cli.engine.streams import stream
from mopo_cli.nets.stacked import Layout
from mopo_cli.tasks.termination import never

OBS, ACT, BATCH = 4, 2, 37
MEMBERS = tuple(Member(seed, "none", 1.0, 5, 0) for seed in (0, 3, 7))
LOOP = LoopSettings(14, 14, 1, 1, batch_size=BATCH, real_ratio=1.0)
Layer = dict[str, Tensor]


def make_batch(members: int, rows: int = BATCH, act_dim: int = ACT, seed: int = 0) -> Transition:
    """Rows that no two members have in common; observations are far from standard."""
    observation = 3 * normal(members, rows, OBS, name=f"s{seed}") + 1
    following = 3 * normal(members, rows, OBS, name=f"n{seed}") + 1
    action, reward = torch.tanh(normal(members, rows, act_dim, name=f"a{seed}")), normal(members, rows, name=f"r{seed}")
    terminal = (normal(members, rows, name=f"t{seed}") > 0.5).float()
    return Transition(observation, action, reward, terminal, following, torch.zeros(members, rows, 3))


def make_world(lengths: tuple[int, ...] = (9, 1, 30, 17, 2, 40, 1, 25), act_dim: int = ACT) -> World:
    """Episodes of these lengths in order; every other one ends as the task does, the rest by a time limit."""
    draw, rows = stream(0, "test/rows"), RowLayout(OBS, act_dim, 3)
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
    last = torch.zeros(count, dtype=torch.bool)
    last[torch.tensor(lengths).cumsum(dim=0) - 1] = True
    return World(rows, real, observation, last, never)


def bandit(
    act: Callable[[int, torch.Generator], Tensor], reward: Callable[[Tensor, Tensor], Tensor], count: int = 2000
) -> World:
    """Episodes of one step in the states -1 and 1, of as many numbers as that, and what was done and paid there."""
    draw, rows = stream(0, "test/bandit"), RowLayout(1, 1, 3)
    state, action = 1.0 - 2.0 * torch.randint(2, (count, 1), generator=draw), act(count, draw)
    real = rows.pack(state, action, reward(state, action)[:, 0], torch.ones(count), state, torch.zeros(count, 3))
    return World(rows, real, state, single_steps(real), never)


def tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array.astype(np.float32))


def world_of(probe: Probe) -> World:
    data = {name: tensor(column) for name, column in probe.dataset.items()}
    rows = RowLayout(data["observations"].shape[1], data["actions"].shape[1], 3)
    packed = rows.pack(
        data["observations"],
        data["actions"],
        data["rewards"],
        data["terminals"],
        data["next_observations"],
        torch.zeros(len(data["rewards"]), 3),
    )
    ends = (probe.dataset["terminals"] > 0) | (probe.dataset["timeouts"] > 0)
    return World(rows, packed, data["observations"], torch.from_numpy(ends), never)


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


# The textbook, in float64 and by autograd.


def leaves(layout: Layout, flat: Tensor, index: int) -> Layer:
    return {name: view[index].double().requires_grad_() for name, view in layout.views(flat.clone()).items()}


def perceptron(params: Layer, *inputs: Tensor) -> Tensor:
    x = torch.cat(inputs, dim=1)
    for i in range(2):
        x = relu(x @ params[f"w{i}"] + params[f"b{i}"])
    return x @ params["w2"] + params["b2"]


def assert_gradient(layout: Layout, result: Tensor, index: int, loss: Tensor, params: Layer) -> None:
    """`found` `[M, size]` is at `index` the loss's gradient by `params`."""
    expected = torch.autograd.grad(loss, list(params.values()), allow_unused=True)
    for (name, param), wanted in zip(params.items(), expected, strict=True):
        wanted = torch.zeros_like(param) if wanted is None else wanted
        grad = layout.views(result)[name][index]
        torch.testing.assert_close(grad, wanted.float(), rtol=1e-4, atol=1e-6)
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
    result, first = [], 0
    for length in lengths:
        end = first + length
        for t in range(first, end):
            ahead = []
            for n in range(1, end - t + 1):
                discounted = sum(gamma**k * reward[t + k] for k in range(n))
                ahead.append(discounted + gamma**n * next_value[t + n - 1])
            parts = [(1 - lam) * lam ** (n - 1) * g for n, g in enumerate(ahead[:-1], 1)]
            result.append(sum(parts) + lam ** (len(ahead) - 1) * ahead[-1])
        first = end
    return np.array(result)
