"""Policies in files, without a training: random actors with the bounds, offsets and ranges that a test needs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mopo_cli.agents.actor import Actor
from mopo_cli.engine.streams import stream
from mopo_cli.nets.init import initial, uniform
from mopo_cli.nets.scales import Standard
from mopo_cli.nets.stacked import mlp_layout
from mopo_cli.stages.common.policies import greedy_policy, save_policy

LOW, HIGH = [100.0, -3e-3], [250.0, 1e-3]
"""Bounds of two actions, far from [-1, 1] and from one another."""
RANGE = {"min": [-2.0, -20.0, 1.0], "p1": [-1.5, -15.0, 1.1], "p99": [1.5, 15.0, 1.9], "max": [2.0, 20.0, 2.0]}
ROWS = np.random.default_rng(0).uniform(RANGE["min"], RANGE["max"], (200, 3)).astype(np.float32)
"""Observations in that range."""
Rows = NDArray[Any]


def make_actor(seed: int = 0, obs_dim: int = 3, act_dim: int = 2, offset: tuple[float, ...] = ()) -> Actor:
    """A random actor of two hidden layers of 16."""
    layout = mlp_layout((obs_dim, 16, 16, 2 * act_dim))
    return Actor(initial(layout, [stream(seed, "test/actor")], uniform, uniform), layout, -5.0, 2.0, offset)


def standardised(actor: Actor, mean: list[float], divisor: list[float]) -> Actor:
    """The actor for observations as they are that does what `actor` does for standardised ones."""
    standard = Standard(torch.tensor(mean, dtype=torch.float64), torch.tensor(divisor, dtype=torch.float64))
    return Actor(standard.folded(actor.layout, actor.flat), actor.layout, actor.log_std_min, actor.log_std_max)


def policy_file(path: Path, actor: Actor, **meta: Any) -> Callable[[Rows], Rows]:
    """Write an actor's policy.safetensors; gives its actions as torch computes them, for rows in the user's units."""
    sizes = [shape for _, shape in actor.layout.shapes]
    about: dict[str, Any] = {
        "obs_dim": sizes[0][0],
        "act_dim": sizes[-1][1] // 2,
        "hidden": sizes[0][1],
        "layers": len(sizes) // 2 - 1,
        "action_low": LOW,
        "action_high": HIGH,
        "seed": 0,
        "inputs": {"dataset": "0" * 64},
        **({"observation_offset": list(actor.offset)} if actor.offset else {}),
        **meta,
    }
    save_policy(path, actor, about)
    act = greedy_policy(actor, about["action_low"], about["action_high"])
    return act if actor.offset else lambda rows: act(rows.astype(np.float32))


def far(rows: Rows) -> Rows:
    """The rows, and some a hundred times as far from their mean, which saturate tanh."""
    mean = rows.mean(axis=0)
    return np.concatenate([rows, mean + 100 * (rows[:20] - mean)])


def assert_same_actions(actions: Rows, wanted: Rows, share: float = 1e-6) -> None:
    """They differ by no more than this share of the range of actions."""
    span = np.abs(np.array(HIGH) - LOW)[: wanted.shape[-1]]
    assert actions.dtype == np.float32 and actions.shape == wanted.shape
    assert np.all(np.abs(actions.astype(np.float64) - wanted) <= share * span)
