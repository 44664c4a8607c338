"""Behaviour cloning: the actions of the data, by least squares, and nothing else (D4RL's and MOPO's baseline)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mopo_cli.agents.actor import mean_action, mean_gradient
from mopo_cli.agents.algorithm import Agent, AgentSettings, Algorithm, Networks, Work, start_from_shapes
from mopo_cli.agents.networks import actor_sizes, start_single
from mopo_cli.engine.rows import Transition
from mopo_cli.engine.streams import Draws
from mopo_cli.nets.network import descend
from mopo_cli.nets.perceptron import evaluate


@dataclass(frozen=True)
class BcSettings(AgentSettings):
    """Hyper-parameters; the bounds of the log standard deviation, which is not learned, are stored with the policy."""


@dataclass
class Bc(Agent):
    """S policies."""

    settings: BcSettings


def start_bc(obs_dim: int, act_dim: int, settings: BcSettings, seeds: list[int], device: torch.device | str) -> Bc:
    """Build fresh policies, the m-th from the streams of `seeds[m]`."""
    return Bc(settings, start_single("actor", actor_sizes(settings, obs_dim, act_dim), settings, seeds, device))


def update(bc: Bc, batch: Transition, _draws: Draws, actor_scale: float = 1.0) -> dict[str, Tensor]:
    """One gradient step on the mean squared error of the deterministic action, in place; returns its metric, `[S]`.

    batch columns `[S, B, ·]`; `actor_scale` is the factor of the learning rate.
    """
    (actor,) = evaluate((bc.actor, (batch.observation,)))
    action = mean_action(actor.out)
    error = action - batch.action
    # Loss: mean (tanh(mean(s)) - a)^2
    by_mean = 2 * error * (1 - action * action) / error[0].numel()
    descend(bc.actor, actor, mean_gradient(by_mean), actor_scale * bc.settings.actor_lr)
    return {"actor_loss": error.square().mean(dim=(1, 2))}


def _networks(settings: BcSettings, work: Work) -> tuple[Networks, ...]:
    return (Networks(actor_sizes(settings, work.obs_dim, work.act_dim), evaluations=1),)


ALGORITHM = Algorithm(
    settings=BcSettings,
    metrics=("actor_loss",),
    start=start_from_shapes(start_bc),
    update=update,
    networks=_networks,
    learns_from="real",
)
