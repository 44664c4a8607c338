"""What Algorithm 2's loop needs of a learner: one file per algorithm registers itself as such a value."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from mopo_cli.agents.actor import Actor
from mopo_cli.engine.rows import Transition


class Agent(Protocol):
    """S agents in training; `actor` `[S, ·]` are the parameters of their policies."""

    actor: Tensor

    def policy(self, m: int, flat: Tensor | None = None) -> Actor:
        """The policy of member m, with its present parameters or with those in `flat` `[S, size]`."""
        ...

    def finite(self) -> Tensor:
        """Whether all that a member has learned is finite, bool `[S]`."""
        ...


@dataclass(frozen=True)
class Algorithm:
    """A learner as plain functions.

    `settings` is the dataclass of its hyper-parameters, `metrics` name what `update` tells, each `[S]`.

    - `start(obs_dim, act_dim, settings, seeds, device)` builds fresh agents, the m-th from the streams of `seeds[m]`;
    - `update(agent, batch, reward, noise, actor_scale)` takes one gradient step in place: batch columns
      `[S, B, ·]`, the reward to learn from `[S, B]`, `noise` `[2, S, B, act_dim]` standard normal, and the
      factor of the actor's learning rate;
    - `state(agent)` gives what a checkpoint must hold, tensors by name and plain numbers, and `restore` puts it back.
    """

    settings: type
    metrics: tuple[str, ...]
    start: Callable[[int, int, Any, list[int], torch.device | str], Agent]
    update: Callable[[Any, Transition, Tensor, Tensor, float], dict[str, Tensor]]
    state: Callable[[Any], tuple[dict[str, Tensor], list[int]]]
    restore: Callable[[Any, dict[str, Tensor], list[int]], None]
