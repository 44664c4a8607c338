"""Untrained ensembles to learn in, and what they predict in numpy."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from probes.single_steps import single_steps
from torch import Tensor

from mopo_cli.agents.algorithm import Algorithm
from mopo_cli.agents.loop import advance
from mopo_cli.agents.runs import Loop, start_loop
from mopo_cli.agents.schedule import LoopSettings
from mopo_cli.agents.world import World
from mopo_cli.dynamics.branched_rollouts import RELEASED, RolloutOptions
from mopo_cli.dynamics.ensemble import Ensemble
from mopo_cli.engine.members import Member
from mopo_cli.engine.rows import RowLayout
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
    how = RolloutOptions(uncertainties=(*RELEASED.uncertainties, *algorithm.uncertainties))
    draw, rows = stream(0, "test/rows"), RowLayout(OBS, act_dim, len(how.uncertainties))
    observation = torch.randn(count, OBS, generator=draw)
    action = 2 * torch.rand(count, act_dim, generator=draw) - 1
    reward, terminal = torch.randn(count, generator=draw), torch.rand(count, generator=draw) < 0.1
    nothing = torch.zeros(count, rows.uncertainties)
    real = rows.pack(observation, action, reward, terminal, observation + 0.1, nothing)
    models = tuple(make_ensemble(seed, OBS, act_dim) for seed in (0, 1))
    return World(rows, real, observation, single_steps(real), never, models, options=how)


def predictions(ensemble: Ensemble, k: int, observation: Array, action: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of what network k says of the change of state, and of the reward."""
    params = {name: view[k].double().numpy() for name, view in ensemble.layout.views(ensemble.flat).items()}
    x = np.hstack([observation, action])
    x = (x - ensemble.input_mean.double().numpy()) / ensemble.input_std.double().numpy()
    layers = sum(name[1:].isdigit() for name in params) // 2
    for i in range(layers):
        x = x @ params[f"w{i}"] + params[f"b{i}"]
        x = x / (1 + np.exp(-x))
    raw = x @ params["w_logvar"] + params["b_logvar"]
    raw = params["max_logvar"] - np.logaddexp(0, params["max_logvar"] - raw)
    raw = params["min_logvar"] + np.logaddexp(0, raw - params["min_logvar"])
    return x @ params["w_mean"] + params["b_mean"], np.exp(raw / 2)


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


def numbers(*tensors: Tensor) -> list[Array]:
    """As numpy has them, in double precision."""
    return [tensor.double().numpy() for tensor in tensors]
