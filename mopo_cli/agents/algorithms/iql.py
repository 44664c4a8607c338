"""Implicit Q-learning over a stack of members (Kostrikov et al. 2021): no action but the data's is ever judged.

V is an upper expectile of Q over the data's actions, Q is fitted to r + gamma V(s'), and the policy clones the
actions weighted by exp(beta (Q - V)). It is a Gaussian around tanh(mean) whose deviation depends on no state.
"""

from dataclasses import dataclass, field
from math import log, pi

import torch
from torch import Tensor

from mopo_cli.agents.actor import Actor
from mopo_cli.agents.algorithm import Algorithm, Batch, Networks, Work, setting
from mopo_cli.agents.returns import episode_returns, last_steps, one_step_return
from mopo_cli.agents.world import World
from mopo_cli.engine.members import Member
from mopo_cli.engine.parallel import spread, spread_evenly
from mopo_cli.engine.rows import Transition
from mopo_cli.engine.streams import Draws, stream
from mopo_cli.nets.adam import Adam
from mopo_cli.nets.flops import backward_flops, mlp_flops
from mopo_cli.nets.init import initial, uniform
from mopo_cli.nets.perceptron import Evaluated, collect, differentiate, evaluate, forward
from mopo_cli.nets.precision import Precision
from mopo_cli.nets.stacked import Layout, Parameters, mlp_layout, part, units


@dataclass(frozen=True)
class IqlSettings:
    """Hyper-parameters; V is learned at the critics' rate."""

    hidden: int
    layers: int
    actor_lr: float
    critic_lr: float
    gamma: float
    tau: float
    log_std_min: float
    log_std_max: float
    update_precision: Precision = field(default="fp32", kw_only=True)
    expectile: float = setting(0.7, "expectile of Q over the data's actions that V is", "IQL", gt=0, lt=1)
    inverse_temperature: float = setting(3.0, "factor of the advantage in the weights' exponent", "IQL", ge=0)
    weight_max: float = setting(100.0, "greatest weight of a row in the actor's regression", "IQL code", gt=0)
    return_range: float = setting(
        1000.0,
        "rewards are scaled so that the returns of the data's episodes span this much; 0: left as they are",
        "IQL code",
        ge=0,
    )


@dataclass
class Iql:
    """S agents: actors and V `[S, ·]`, twin critics and targets `[2S, ·]`, changed in place.

    The log deviations are the biases of the second half of an actor's outputs, and the weights there are zero.
    """

    settings: IqlSettings
    reward_scale: float
    actor_layout: Layout
    value_layout: Layout
    critic_layout: Layout
    actor: Tensor
    value: Tensor
    critic: Tensor
    target: Tensor
    actor_adam: Adam
    value_adam: Adam
    critic_adam: Adam

    def __post_init__(self) -> None:
        self.acting = Parameters(self.actor_layout, self.actor, self.settings.update_precision)
        self.valuing = Parameters(self.value_layout, self.value, self.settings.update_precision)
        self.judging = Parameters(self.critic_layout, self.critic, self.settings.update_precision)
        self.aiming = Parameters(self.critic_layout, self.target, self.settings.update_precision)
        self.actor_gradient = Parameters(self.actor_layout, self.actor_adam.grad)
        self.value_gradient = Parameters(self.value_layout, self.value_adam.grad)
        self.critic_gradient = Parameters(self.critic_layout, self.critic_adam.grad)

    def policy(self, m: int, flat: Tensor | None = None) -> Actor:
        """The policy of member m, with its present parameters or with those in `flat` `[S, size]`.

        Its samples have the learned deviation before the tanh, and not after it as while learning.
        """
        own = (self.actor if flat is None else flat)[m : m + 1]
        return Actor(own, self.actor_layout, self.settings.log_std_min, self.settings.log_std_max)

    def finite(self) -> Tensor:
        """Whether the actor, V and both critics of a member are finite, bool `[S]`."""
        critics = torch.isfinite(self.critic).all(dim=1).view(-1, 2).all(dim=1)
        return torch.isfinite(self.actor).all(dim=1) & torch.isfinite(self.value).all(dim=1) & critics


def start_iql(
    obs_dim: int,
    act_dim: int,
    settings: IqlSettings,
    seeds: list[int],
    device: torch.device | str,
    reward_scale: float = 1.0,
) -> Iql:
    """Build fresh agents that multiply all rewards by `reward_scale`, the m-th from the streams of `seeds[m]`."""
    hidden = (settings.hidden,) * settings.layers
    actor_layout = mlp_layout((obs_dim, *hidden, 2 * act_dim))
    value_layout = mlp_layout((obs_dim, *hidden, 1))
    critic_layout = mlp_layout((obs_dim + act_dim, *hidden, 1))
    actor = initial(actor_layout, [stream(s, "actor/weights") for s in seeds], uniform, uniform)
    for name in (f"w{settings.layers}", f"b{settings.layers}"):
        actor_layout.views(actor)[name][..., act_dim:] = 0
    value = initial(value_layout, [stream(s, "value/weights") for s in seeds], uniform, uniform)
    twins = [stream(s, "critic/weights", twin) for s in seeds for twin in (0, 1)]
    critic = initial(critic_layout, twins, uniform, uniform)
    actor, value, critic = (network.to(device) for network in (actor, value, critic))
    layouts, networks = (actor_layout, value_layout, critic_layout), (actor, value, critic, critic.clone())
    adams = Adam.like(actor), Adam.like(value), Adam.like(critic)
    return Iql(settings, reward_scale, *layouts, *networks, *adams)


def update(iql: Iql, batch: Transition, actor_scale: float = 1.0) -> dict[str, Tensor]:
    """One gradient step of every V, actor and critic, in place; returns what one watches, each `[S]`.

    batch columns `[S, B, ·]`; `actor_scale` is the factor of the actor's learning rate. V comes first, and the
    others look at the new one (IQL's code).
    """
    settings, observation, following = iql.settings, batch.observation, batch.next_observation
    members, rows, _ = observation.shape

    aimed, valued, known, present = evaluate(
        (iql.aiming, (observation, batch.action)),
        (iql.valuing, (observation,)),
        (iql.judging, (observation, batch.action)),
        (iql.acting, (observation,)),
    )
    # V's loss is the mean of |expectile - (Q < V)| (Q - V)^2.
    above = aimed.out.view(members, 2, rows).amin(dim=1) - valued.out[..., 0]
    share = torch.abs(settings.expectile - (above <= 0).to(above.dtype))
    asked = torch.cat([observation, following], dim=1)
    value, next_value = _step_value(iql, valued, -2 * share * above / rows, asked).split(rows, dim=1)

    backup = one_step_return(iql.reward_scale * batch.reward, batch.terminal, next_value, settings.gamma)
    q = known.out.view(members, 2, rows)
    error = q - backup[:, None]
    _step_critics(iql, known, 2 * error / rows)  # the mean squared error of each

    advantage = above + valued.out[..., 0] - value
    weight = (settings.inverse_temperature * advantage).exp().clamp(max=settings.weight_max)
    log_prob, by_out = log_likelihood(present.out, batch.action, settings.log_std_min, settings.log_std_max)
    _step_actor(iql, present, by_out * (-weight / rows)[..., None], actor_scale)
    return {
        "q": q.mean(dim=(1, 2)),
        "critic_loss": error.square().mean(dim=(1, 2)),
        "value_loss": (share * above.square()).mean(dim=1),
        "actor_loss": -(weight * log_prob).mean(dim=1),
        "weight": weight.mean(dim=1),
    }


def log_likelihood(out: Tensor, action: Tensor, log_std_min: float, log_std_max: float) -> tuple[Tensor, Tensor]:
    """Of actions `[…, act_dim]` under the Gaussian around tanh(mean), where a network says `out`: mean and log std.

    Returns the log-likelihoods `[…]` and their gradients by the network's output `[…, 2 act_dim]`.
    """
    mean, raw = out.chunk(2, dim=-1)
    centre, log_std = torch.tanh(mean), raw.clamp(log_std_min, log_std_max)
    score = (action - centre) * torch.exp(-log_std)
    by_mean = score * torch.exp(-log_std) * (1 - centre * centre)
    by_log_std = (score * score - 1) * (raw == log_std)
    log_prob = (-0.5 * score * score - log_std - 0.5 * log(2 * pi)).sum(dim=-1)
    return log_prob, torch.cat([by_mean, by_log_std], dim=-1)


def _step_value(iql: Iql, valued: Evaluated, by_value: Tensor, asked: Tensor) -> Tensor:
    """Take one step of all V, and ask them about the observations `asked` `[S, R, obs_dim]`: `[S, R]`."""
    grad = by_value[..., None]

    def improve(u: int) -> list[Tensor]:
        differentiate(valued, u, grad, into=iql.value_gradient)
        iql.value_adam.step(u, iql.value, iql.settings.critic_lr)
        return forward(iql.valuing, u, (asked,))

    iql.value_adam.steps += 1
    values = collect(iql.valuing, spread(improve, units(iql.value)))
    return values.out[..., 0]


def _step_critics(iql: Iql, known: Evaluated, by_q: Tensor) -> None:
    grad = by_q.reshape(len(iql.critic), -1, 1)

    def improve(u: int) -> None:
        differentiate(known, u, grad, into=iql.critic_gradient)
        iql.critic_adam.step(u, iql.critic, iql.settings.critic_lr)
        part(iql.target, u).lerp_(part(iql.critic, u), iql.settings.tau)

    iql.critic_adam.steps += 1
    spread(improve, len(known.inputs))


def _step_actor(iql: Iql, present: Evaluated, by_out: Tensor, actor_scale: float) -> None:
    act_dim = by_out.shape[-1] // 2

    def climb(u: int) -> None:
        differentiate(present, u, by_out, into=iql.actor_gradient)
        weight, _ = iql.actor_gradient.layers[u][-1]
        weight[..., act_dim:].zero_()  # the deviation depends on no state
        iql.actor_adam.step(u, iql.actor, actor_scale * iql.settings.actor_lr)

    iql.actor_adam.steps += 1
    spread_evenly(climb, len(present.inputs))


def _begin(world: World, members: tuple[Member, ...], settings: IqlSettings) -> Iql:
    seeds = [member.seed for member in members]
    scale = _reward_scale(world, settings.return_range)
    return start_iql(world.rows.obs_dim, world.rows.act_dim, settings, seeds, world.real.device, scale)


def _reward_scale(world: World, return_range: float) -> float:
    logged = world.rows.split(world.real)
    returns = episode_returns(logged.reward, last_steps(logged))
    spread_out = float(returns.max() - returns.min())
    return return_range / spread_out if return_range and spread_out else 1.0


def _step(iql: Iql, batch: Batch, _draws: Draws, actor_scale: float) -> dict[str, Tensor]:
    return update(iql, batch, actor_scale)


def _operations(settings: IqlSettings, work: Work) -> int:
    """The products of `update`: all networks forward and back, target critics forward, V at s and s' once more."""
    hidden = (settings.hidden,) * settings.layers
    actor, value = (work.obs_dim, *hidden, 2 * work.act_dim), (work.obs_dim, *hidden, 1)
    critic = work.obs_dim + work.act_dim, *hidden, 1
    critics = 4 * mlp_flops(critic) + 2 * backward_flops(critic)
    return work.batch * (
        critics + 3 * mlp_flops(value) + backward_flops(value) + mlp_flops(actor) + backward_flops(actor)
    )


def _networks(settings: IqlSettings, work: Work) -> tuple[Networks, ...]:
    """V is looked at three times: at the batch's states, and once improved, there and at those that follow."""
    hidden = (settings.hidden,) * settings.layers
    actor, value = (work.obs_dim, *hidden, 2 * work.act_dim), (work.obs_dim, *hidden, 1)
    critic = work.obs_dim + work.act_dim, *hidden, 1
    critics = Networks(critic, 2, looks=1), Networks(critic, 2, learned=False, looks=1)
    return Networks(actor, looks=1), Networks(value, looks=3), *critics


ALGORITHM = Algorithm(
    IqlSettings,
    ("q", "critic_loss", "value_loss", "actor_loss", "weight"),
    _begin,
    _step,
    _operations,
    _networks,
    learns_from="real",
)
