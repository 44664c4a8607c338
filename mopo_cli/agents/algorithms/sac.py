"""Soft actor-critic over a stack of members (Haarnoja et al. 2018, with automatic entropy tuning).

Every function takes and returns stacks: batches `[S, B, ·]`, one temperature per member, twin critics as 2S
networks. Losses are averaged over the batch and summed over members, so no member touches another.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mopo_cli.agents.actor import Actor, squash, squash_gradient
from mopo_cli.agents.algorithm import Algorithm, Batch, Networks, Work
from mopo_cli.agents.returns import one_step_return
from mopo_cli.agents.world import World
from mopo_cli.engine.members import Member
from mopo_cli.engine.parallel import spread, spread_evenly
from mopo_cli.engine.rows import Transition
from mopo_cli.engine.streams import Draws, stream
from mopo_cli.nets.adam import Adam
from mopo_cli.nets.flops import backward_flops, mlp_flops, slope_flops
from mopo_cli.nets.init import initial, uniform
from mopo_cli.nets.perceptron import Evaluated, collect, differentiate, evaluate, forward, input_slope
from mopo_cli.nets.precision import Precision
from mopo_cli.nets.stacked import Layout, Parameters, mlp_layout, part, units


@dataclass(frozen=True)
class SacSettings:
    """Hyper-parameters; `target_entropy` in nats, learning rates per step, discount `gamma`, Polyak rate `tau`."""

    hidden: int
    layers: int
    actor_lr: float
    critic_lr: float
    alpha_lr: float
    gamma: float
    tau: float
    target_entropy: float
    alpha_max: float
    log_std_min: float
    log_std_max: float
    update_precision: Precision = field(default="fp32", kw_only=True)


@dataclass
class Sac:
    """S agents: actors `[S, ·]`, twin critics and targets `[2S, ·]`, log temperatures `[S, 1]`, changed in place."""

    settings: SacSettings
    actor_layout: Layout
    critic_layout: Layout
    actor: Tensor
    critic: Tensor
    target: Tensor
    log_alpha: Tensor
    actor_adam: Adam
    critic_adam: Adam
    alpha_adam: Adam

    def __post_init__(self) -> None:
        self.acting = Parameters(self.actor_layout, self.actor, self.settings.update_precision)
        self.judging = Parameters(self.critic_layout, self.critic, self.settings.update_precision)
        self.aiming = Parameters(self.critic_layout, self.target, self.settings.update_precision)
        self.actor_gradient = Parameters(self.actor_layout, self.actor_adam.grad)
        self.critic_gradient = Parameters(self.critic_layout, self.critic_adam.grad)

    @property
    def alpha(self) -> Tensor:
        """The temperatures `[S, 1]`, capped."""
        return self.log_alpha.exp().clamp(max=self.settings.alpha_max)

    def policy(self, m: int, flat: Tensor | None = None) -> Actor:
        """The policy of member m, with its present parameters or with those in `flat` `[S, size]`."""
        own = (self.actor if flat is None else flat)[m : m + 1]
        return Actor(own, self.actor_layout, self.settings.log_std_min, self.settings.log_std_max)

    def finite(self) -> Tensor:
        """Whether the actor and both critics of a member are finite, bool `[S]`."""
        critics = torch.isfinite(self.critic).all(dim=1).view(-1, 2).all(dim=1)
        return torch.isfinite(self.actor).all(dim=1) & critics


def start_sac(obs_dim: int, act_dim: int, settings: SacSettings, seeds: list[int], device: torch.device | str) -> Sac:
    """Build fresh agents, the m-th from the streams of `seeds[m]`."""
    hidden = (settings.hidden,) * settings.layers
    actor_layout = mlp_layout((obs_dim, *hidden, 2 * act_dim))
    critic_layout = mlp_layout((obs_dim + act_dim, *hidden, 1))
    actor = initial(actor_layout, [stream(s, "actor/weights") for s in seeds], uniform, uniform).to(device)
    twins = [stream(s, "critic/weights", twin) for s in seeds for twin in (0, 1)]
    critic = initial(critic_layout, twins, uniform, uniform).to(device)
    log_alpha = torch.zeros(len(seeds), 1, device=device)
    adams = Adam.like(actor), Adam.like(critic), Adam.like(log_alpha)
    return Sac(settings, actor_layout, critic_layout, actor, critic, critic.clone(), log_alpha, *adams)


def update(sac: Sac, batch: Transition, reward: Tensor, noise: Tensor, actor_scale: float = 1.0) -> dict[str, Tensor]:
    """One gradient step of every critic, actor and temperature, in place; returns what one watches, each `[S]`.

    batch columns `[S, B, ·]`; reward `[S, B]` is the one to learn from (penalised or not); noise
    `[2, S, B, act_dim]` is standard normal, first for the next actions, then for the present ones;
    `actor_scale` is the factor of the actor's learning rate.
    """
    settings, alpha = sac.settings, sac.alpha
    observation, following = batch.observation, batch.next_observation
    members, rows, obs_dim = observation.shape

    ahead, present, known = evaluate(
        (sac.acting, (following,)), (sac.acting, (observation,)), (sac.judging, (observation, batch.action))
    )
    drawn = squash(torch.stack([ahead.out, present.out]), noise, settings.log_std_min, settings.log_std_max)
    (next_action, action), (next_log_prob, log_prob) = drawn.action, drawn.log_prob

    next_value = lower_target(sac, following, next_action) - alpha * next_log_prob
    backup = one_step_return(reward, batch.terminal, next_value, settings.gamma)
    q = known.out.view(members, 2, rows)
    error = q - backup[:, None]
    judged = step_critics(sac, known, error / rows, (observation, action))  # half the mean squared error

    # An actor's loss is the mean of alpha log_prob - min(q1, q2).
    by_out = squash_gradient(drawn, 1, lower_slope(judged, obs_dim) / -rows, alpha[:, :, None] / rows)
    step_actor(sac, present, by_out, actor_scale)
    entropy = step_temperature(sac, log_prob)
    return {
        "q": q.mean(dim=(1, 2)),
        "critic_loss": error.square().mean(dim=(1, 2)),
        "entropy": entropy,
        "alpha": alpha[:, 0],
    }


def lower_target(sac: Sac, observation: Tensor, action: Tensor) -> Tensor:
    """The lower of both target critics' values `[S, B]`."""
    (aimed,) = evaluate((sac.aiming, (observation, action)))
    return aimed.out.view(len(observation), 2, -1).amin(dim=1)


def step_critics(sac: Sac, known: Evaluated, by_q: Tensor, asked: tuple[Tensor, ...]) -> Evaluated:
    """Take one step of all critics along a loss with gradient `by_q` `[S, 2, R]` by their values `known`.

    Then their targets move, and the critics are asked about the inputs `asked`, `[S, B, ·]`.
    """
    grad = by_q.reshape(len(sac.critic), -1, 1)
    return move_critics(sac, asked, lambda u: differentiate(known, u, grad, into=sac.critic_gradient))


def move_critics(sac: Sac, asked: tuple[Tensor, ...], gradient: Callable[[int], object] = lambda u: None) -> Evaluated:
    """`step_critics` along what is in `critic_gradient`, or along what `gradient(u)` puts there of every unit u."""

    def improve(u: int) -> list[Tensor]:
        gradient(u)
        sac.critic_adam.step(u, sac.critic, sac.settings.critic_lr)
        part(sac.target, u).lerp_(part(sac.critic, u), sac.settings.tau)
        return forward(sac.judging, u, asked)

    sac.critic_adam.steps += 1
    return collect(sac.judging, spread(improve, units(sac.critic)))


def lower_slope(judged: Evaluated, obs_dim: int) -> Tensor:
    """The slope of min(q1, q2) by the action, `[S, B, act_dim]`, of critics judged at (observation, action)."""
    first, second = judged.out.view(-1, 2, *judged.out.shape[1:]).unbind(dim=1)
    by_first = (first <= second).to(first.dtype)
    by_lower = torch.stack([by_first, 1 - by_first], dim=1).view(judged.out.shape)
    slopes = input_slope(judged, by_lower, obs_dim)
    return slopes.view(-1, 2, *slopes.shape[1:]).sum(dim=1)


def step_actor(sac: Sac, present: Evaluated, by_out: Tensor, actor_scale: float) -> None:
    """Take one step of all actors along a loss with gradient `by_out` `[S, B, 2 act_dim]` by what they say."""

    def climb(u: int) -> None:
        differentiate(present, u, by_out, into=sac.actor_gradient)
        sac.actor_adam.step(u, sac.actor, actor_scale * sac.settings.actor_lr)

    sac.actor_adam.steps += 1
    spread_evenly(climb, len(present.inputs))


def step_temperature(sac: Sac, log_prob: Tensor) -> Tensor:
    """Take one step of the temperatures towards the target entropy; log_prob `[S, B]` of the present actions.

    Returns the policies' entropies, `[S]`.
    """
    entropy = -log_prob.mean(dim=-1, keepdim=True)
    torch.sub(entropy, sac.settings.target_entropy, out=sac.alpha_adam.grad)
    sac.alpha_adam.update(sac.log_alpha, sac.settings.alpha_lr)
    return entropy[:, 0]


def step(sac: Sac, batch: Batch, draws: Draws, actor_scale: float) -> dict[str, Tensor]:
    """`update` with a batch of the training loop."""
    return update(sac, batch, batch.reward, draws.normal(2, *batch.action.shape[1:]), actor_scale)


def begin(world: World, members: tuple[Member, ...], settings: SacSettings) -> Sac:
    """`start_sac` for members of the training loop."""
    seeds = [member.seed for member in members]
    return start_sac(world.rows.obs_dim, world.rows.act_dim, settings, seeds, world.real.device)


def operations(settings: SacSettings, work: Work) -> int:
    """The products of `update`.

    The target needs the actor and two critics forward; the critics' loss both critics forward and backward; the
    actor's loss the actor forward and backward, and both critics forward and through to the action.
    """
    actor, critic = sac_sizes(settings, work)
    target = mlp_flops(actor) + 2 * mlp_flops(critic)
    critic_loss = 2 * (mlp_flops(critic) + backward_flops(critic))
    actor_loss = mlp_flops(actor) + backward_flops(actor) + 2 * (mlp_flops(critic) + slope_flops(critic, work.act_dim))
    return work.batch * (target + critic_loss + actor_loss)


def sac_sizes(settings: SacSettings, work: Work) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The widths of an actor's layers and of a critic's, from inputs to outputs."""
    hidden = (settings.hidden,) * settings.layers
    return (work.obs_dim, *hidden, 2 * work.act_dim), (work.obs_dim + work.act_dim, *hidden, 1)


def networks(settings: SacSettings, work: Work) -> tuple[Networks, ...]:
    """Actor, critics and targets: a step looks twice at the first, at the states that follow and at the batch's own.

    It also looks twice at the critics, before and after they are improved.
    """
    actor, critic = sac_sizes(settings, work)
    return Networks(actor, looks=2), Networks(critic, 2, looks=2), Networks(critic, 2, learned=False)


ALGORITHM = Algorithm(SacSettings, ("q", "critic_loss", "entropy", "alpha"), begin, step, operations, networks)
