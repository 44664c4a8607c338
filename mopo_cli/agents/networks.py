"""The networks that algorithms have in common: actors, values V and twin critics, all of ReLU layers alike."""

from typing import Any

import torch
from torch import Tensor

from mopo_cli.engine.streams import stream
from mopo_cli.nets.network import Network, start_network

Sizes = tuple[int, ...]
"""The widths of a network's layers, from inputs to outputs."""


def actor_sizes(settings: Any, obs_dim: int, act_dim: int) -> Sizes:
    """Of an actor, whose outputs are mean and log std of an action."""
    return obs_dim, *(settings.hidden,) * settings.layers, 2 * act_dim


def value_sizes(settings: Any, obs_dim: int) -> Sizes:
    """Of V(s)."""
    return obs_dim, *(settings.hidden,) * settings.layers, 1


def critic_sizes(settings: Any, obs_dim: int, act_dim: int) -> Sizes:
    """Of Q(s, a)."""
    return obs_dim + act_dim, *(settings.hidden,) * settings.layers, 1


def start_single(
    name: str, sizes: Sizes, settings: Any, seeds: list[int], device: torch.device | str, *, target: bool = False
) -> Network:
    """S fresh networks, the m-th from the stream of `seeds[m]` that is called after it."""
    generators = [stream(seed, f"{name}/weights") for seed in seeds]
    return start_network(sizes, generators, device, settings.update_precision, target=target)


def start_twins(sizes: Sizes, settings: Any, seeds: list[int], device: torch.device | str) -> Network:
    """2S fresh critics with targets, the twins of a member next to one another."""
    generators = [stream(seed, "critic/weights", twin) for seed in seeds for twin in (0, 1)]
    return start_network(sizes, generators, device, settings.update_precision, target=True)


def twin_values(out: Tensor) -> Tensor:
    """The values `[S, 2, B]` of twin critics with outputs `[2S, B, 1]`."""
    return out.view(len(out) // 2, 2, -1)


def min_q(out: Tensor) -> Tensor:
    """min(Q1, Q2) `[S, B]` of twin critics with outputs `[2S, B, 1]` (clipped double Q, Fujimoto et al. 2018)."""
    first, second = twin_values(out).unbind(dim=1)
    return torch.minimum(first, second)


def as_outputs(by_q: Tensor) -> Tensor:
    """A gradient by the values of twin critics, `[S, 2, B]`, as that by their outputs, `[2S, B, 1]`."""
    return by_q.reshape(2 * len(by_q), -1, 1)
