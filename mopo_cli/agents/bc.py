"""Behaviour cloning: the actions of the data, by least squares, and nothing else (D4RL's and MOPO's baseline)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mopo_cli.agents.actor import Actor
from mopo_cli.agents.algorithm import Algorithm
from mopo_cli.engine.rows import Transition
from mopo_cli.engine.streams import stream
from mopo_cli.engine.workers import spread_evenly
from mopo_cli.nets.adam import Adam
from mopo_cli.nets.init import initial, uniform
from mopo_cli.nets.perceptron import differentiate, evaluate
from mopo_cli.nets.stacked import Layout, Parameters, mlp_layout


@dataclass(frozen=True)
class BcSettings:
    """Hyper-parameters; the log standard deviation is not learned, its bounds only go with the policy."""

    hidden: int
    layers: int
    actor_lr: float
    log_std_min: float
    log_std_max: float


@dataclass
class Bc:
    """The parameters of S policies `[S, ·]`, changed in place."""

    settings: BcSettings
    layout: Layout
    actor: Tensor
    adam: Adam

    def __post_init__(self) -> None:
        self.acting = Parameters(self.layout, self.actor)
        self.gradient = Parameters(self.layout, self.adam.grad)

    def policy(self, m: int, flat: Tensor | None = None) -> Actor:
        """The policy of member m, with its present parameters or with those in `flat` `[S, size]`."""
        own = (self.actor if flat is None else flat)[m : m + 1]
        return Actor(own, self.layout, self.settings.log_std_min, self.settings.log_std_max)

    def finite(self) -> Tensor:
        """Whether all parameters of a member are finite, bool `[S]`."""
        return torch.isfinite(self.actor).all(dim=1)


def start_bc(obs_dim: int, act_dim: int, settings: BcSettings, seeds: list[int], device: torch.device | str) -> Bc:
    """Build fresh policies, the m-th from the streams of `seeds[m]`."""
    layout = mlp_layout((obs_dim, *(settings.hidden,) * settings.layers, 2 * act_dim))
    actor = initial(layout, [stream(seed, "actor/weights") for seed in seeds], uniform, uniform).to(device)
    return Bc(settings, layout, actor, Adam.like(actor))


def update(bc: Bc, batch: Transition, _reward: Tensor, _noise: Tensor, actor_scale: float = 1.0) -> dict[str, Tensor]:
    """One gradient step on the mean squared error of the deterministic action, in place."""
    settings = bc.settings
    (acting,) = evaluate((bc.acting, (batch.observation,)))
    action = torch.tanh(acting.out.chunk(2, dim=-1)[0])
    error = action - batch.action
    by_mean = 2 * error * (1 - action * action) / error[0].numel()
    by_out = torch.cat([by_mean, torch.zeros_like(by_mean)], dim=-1)
    spread_evenly(lambda u: differentiate(acting, u, by_out, into=bc.gradient), len(acting.inputs))
    bc.adam.update(bc.actor, actor_scale * settings.actor_lr)
    return {"actor_loss": error.square().mean(dim=(1, 2))}


def bc_state(bc: Bc) -> tuple[dict[str, Tensor], list[int]]:
    """What a checkpoint must hold: tensors by name, and the steps that Adam has taken."""
    return {"actor": bc.actor, "actor/first": bc.adam.first, "actor/second": bc.adam.second}, [bc.adam.steps]


def restore_bc(bc: Bc, tensors: dict[str, Tensor], steps: list[int]) -> None:
    """Put what `bc_state` gave back into policies of the same settings."""
    bc.actor.copy_(tensors["actor"])
    bc.adam.restore(tensors["actor/first"], tensors["actor/second"], steps[0])


BC = Algorithm(BcSettings, ("actor_loss",), start_bc, update, bc_state, restore_bc)
