"""Behaviour cloning: the actions of the data, by least squares, and nothing else (D4RL's and MOPO's baseline)."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from mopo_cli.agents.actor import Actor
from mopo_cli.agents.algorithm import Algorithm, Batch, Networks, Work
from mopo_cli.agents.world import World
from mopo_cli.engine.members import Member
from mopo_cli.engine.parallel import spread_evenly
from mopo_cli.engine.rows import Transition
from mopo_cli.engine.streams import Draws, stream
from mopo_cli.nets.adam import Adam
from mopo_cli.nets.flops import backward_flops, mlp_flops
from mopo_cli.nets.init import initial, uniform
from mopo_cli.nets.perceptron import differentiate, evaluate
from mopo_cli.nets.precision import Precision
from mopo_cli.nets.stacked import Layout, Parameters, mlp_layout


@dataclass(frozen=True)
class BcSettings:
    """Hyper-parameters; the log standard deviation is not learned, its bounds only go with the policy."""

    hidden: int
    layers: int
    actor_lr: float
    log_std_min: float
    log_std_max: float
    update_precision: Precision = field(default="fp32", kw_only=True)


@dataclass
class Bc:
    """The parameters of S policies `[S, ·]`, changed in place."""

    settings: BcSettings
    layout: Layout
    actor: Tensor
    actor_adam: Adam

    def __post_init__(self) -> None:
        self.acting = Parameters(self.layout, self.actor, self.settings.update_precision)
        self.gradient = Parameters(self.layout, self.actor_adam.grad)

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


def update(bc: Bc, batch: Transition, actor_scale: float = 1.0) -> dict[str, Tensor]:
    """One gradient step on the mean squared error of the deterministic action, in place."""
    settings = bc.settings
    (acting,) = evaluate((bc.acting, (batch.observation,)))
    action = torch.tanh(acting.out.chunk(2, dim=-1)[0])
    error = action - batch.action
    by_mean = 2 * error * (1 - action * action) / error[0].numel()
    by_out = torch.cat([by_mean, torch.zeros_like(by_mean)], dim=-1)
    spread_evenly(lambda u: differentiate(acting, u, by_out, into=bc.gradient), len(acting.inputs))
    bc.actor_adam.update(bc.actor, actor_scale * settings.actor_lr)
    return {"actor_loss": error.square().mean(dim=(1, 2))}


def _begin(world: World, members: tuple[Member, ...], settings: BcSettings) -> Bc:
    seeds = [member.seed for member in members]
    return start_bc(world.rows.obs_dim, world.rows.act_dim, settings, seeds, world.real.device)


def _step(bc: Bc, batch: Batch, _draws: Draws, actor_scale: float) -> dict[str, Tensor]:
    return update(bc, batch, actor_scale)


def _operations(settings: BcSettings, work: Work) -> int:
    actor = work.obs_dim, *(settings.hidden,) * settings.layers, 2 * work.act_dim
    return work.batch * (mlp_flops(actor) + backward_flops(actor))


def _networks(settings: BcSettings, work: Work) -> tuple[Networks, ...]:
    return (Networks((work.obs_dim, *(settings.hidden,) * settings.layers, 2 * work.act_dim), looks=1),)


ALGORITHM = Algorithm(BcSettings, ("actor_loss",), _begin, _step, _operations, _networks, learns_from="real")
