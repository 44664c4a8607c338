"""BRAC: SAC held to what acted in the data, by a divergence in its entropy's place (Wu, Tucker & Nachum 2019).

The behaviour policy is learned first, by maximum likelihood, and then kept. The divergence of the policy from it is
added to the actor's loss, and as a value penalty (BRAC-v) also taken off the next state's value. There is no other
entropy term and no temperature: the authors' code has alpha_entropy 0, and KL contains the policy's entropy anyway.
"""

from dataclasses import dataclass, fields
from functools import partial, reduce
from typing import Literal

import torch
from torch import Tensor

from mopo_cli.agents.actor import squash, squash_gradient
from mopo_cli.agents.algorithm import Algorithm, Batch, Networks, Work, setting
from mopo_cli.agents.algorithms import sac
from mopo_cli.agents.algorithms.sac import Sac, SacSettings
from mopo_cli.agents.divergences import kl_divergence, squared_mmd
from mopo_cli.agents.returns import one_step_return
from mopo_cli.agents.world import World
from mopo_cli.engine.members import Member
from mopo_cli.engine.parallel import spread_evenly
from mopo_cli.engine.rows import Transition
from mopo_cli.engine.streams import Draws, stream
from mopo_cli.nets.adam import Adam
from mopo_cli.nets.flops import mlp_flops
from mopo_cli.nets.init import initial, uniform
from mopo_cli.nets.perceptron import differentiate, evaluate
from mopo_cli.nets.stacked import Parameters

_CODE = "BRAC code"
# Of the MMD, as in that code: the kernel exp(-|a - b| / 20) of so many actions of either policy.
_MMD_SAMPLES, _MMD_WIDTH = 4, 20.0
_INSIDE = 1 - 1e-6  # actions of the data may be on the bounds, where atanh is infinite


@dataclass(frozen=True)
class BracSettings(SacSettings):
    """Hyper-parameters; those of SAC's temperature have no effect."""

    divergence: Literal["kl", "mmd"] = setting(
        "kl", "divergence from the behaviour policy: KL in closed form, or squared MMD by samples", _CODE
    )
    divergence_weight: float = setting(1.0, "weight of the divergence", "D4RL-Evaluations; 0.1: BRAC code", ge=0)
    behaviour_steps: int = setting(
        300_000, "gradient steps before the first epoch in which the behaviour policy is learned", _CODE, ge=1
    )
    behaviour_lr: float = setting(5e-4, "Adam step size of the behaviour model", _CODE, gt=0)
    warmup_steps: int = setting(
        20_000, "gradient steps before the first epoch in which the actor follows the divergence alone", _CODE, ge=0
    )


@dataclass
class Brac(Sac):
    """S agents: SAC's, and the behaviour policies `[S, ·]`, of the same shape as the actors."""

    settings: BracSettings
    behaviour: Tensor
    behaviour_adam: Adam

    def __post_init__(self) -> None:
        super().__post_init__()
        self.behaving = Parameters(self.actor_layout, self.behaviour, self.settings.update_precision)
        self.behaviour_gradient = Parameters(self.actor_layout, self.behaviour_adam.grad)

    def finite(self) -> Tensor:
        """Whether all that a member has learned is finite, bool `[S]`."""
        return super().finite() & torch.isfinite(self.behaviour).all(dim=1)


def start_brac(
    obs_dim: int, act_dim: int, settings: BracSettings, seeds: list[int], device: torch.device | str
) -> Brac:
    """Build fresh agents, the m-th from the streams of `seeds[m]`."""
    base = sac.start_sac(obs_dim, act_dim, settings, seeds, device)
    shared = {part.name: getattr(base, part.name) for part in fields(base)}
    draws = [stream(seed, "behaviour/weights") for seed in seeds]
    behaviour = initial(base.actor_layout, draws, uniform, uniform).to(device)
    return Brac(**shared, behaviour=behaviour, behaviour_adam=Adam.like(behaviour))


def imitate(brac: Brac, observation: Tensor, action: Tensor) -> None:
    """One gradient step of all behaviour policies towards the actions of the data, by maximum likelihood, in place."""
    settings, rows = brac.settings, observation.shape[1]
    (usual,) = evaluate((brac.behaving, (observation,)))
    mean, raw = usual.out.chunk(2, dim=-1)
    log_std = raw.clamp(settings.log_std_min, settings.log_std_max)
    inverse_std = torch.exp(-log_std)
    # Of log b(a) = log N(atanh a; mean, std) - log(1 - a^2), the latter is no matter of the networks.
    inside = action.clamp(-_INSIDE, _INSIDE)
    raw_action = (torch.log1p(inside) - torch.log1p(-inside)) / 2  # atanh, but the same bits in any stack
    score = (raw_action - mean) * inverse_std
    by_log_std = (1 - score * score) * (raw == log_std)
    by_out = torch.cat([-score * inverse_std, by_log_std], dim=-1) / rows

    def improve(u: int) -> None:
        differentiate(usual, u, by_out, into=brac.behaviour_gradient)
        brac.behaviour_adam.step(u, brac.behaviour, settings.behaviour_lr)

    brac.behaviour_adam.steps += 1
    spread_evenly(improve, len(usual.inputs))


def update(
    brac: Brac,
    batch: Transition,
    draws: Draws,
    actor_scale: float = 1.0,
    *,
    value_penalty: bool,
    follow_critics: bool = True,
) -> dict[str, Tensor]:
    """One gradient step of every critic and actor, in place; returns what one watches, each `[S]`.

    With the value penalty it is BRAC-v's, else BRAC-p's. Where the actor does not follow the critics, it follows the
    divergence alone.
    """
    settings, observation, following = brac.settings, batch.observation, batch.next_observation
    members, rows, obs_dim = observation.shape

    ahead, present, known, usual, *usual_ahead = evaluate(
        (brac.acting, (following,)),
        (brac.acting, (observation,)),
        (brac.judging, (observation, batch.action)),
        (brac.behaving, (observation,)),
        *[(brac.behaving, (following,))] * value_penalty,
    )
    noise = draws.normal(2, *batch.action.shape[1:])
    drawn = squash(torch.stack([ahead.out, present.out]), noise, settings.log_std_min, settings.log_std_max)
    next_action, action = drawn.action

    next_value = sac.lower_target(brac, following, next_action)
    if value_penalty:
        far_ahead, _ = diverge(settings, ahead.out, usual_ahead[0].out, draws)
        next_value = next_value - settings.divergence_weight * far_ahead
    backup = one_step_return(batch.reward, batch.terminal, next_value, settings.gamma)
    q = known.out.view(members, 2, rows)
    error = q - backup[:, None]
    judged = sac.step_critics(brac, known, error / rows, (observation, action))  # half the mean squared error

    # An actor's loss is the mean of weight divergence - min(q1, q2).
    far, by_far = diverge(settings, present.out, usual.out, draws)
    by_out = settings.divergence_weight * by_far / rows
    if follow_critics:
        by_action = sac.lower_slope(judged, obs_dim) / -rows
        by_out = by_out + squash_gradient(drawn, 1, by_action, torch.zeros_like(by_action[..., :1]))
    sac.step_actor(brac, present, by_out, actor_scale)
    return {"q": q.mean(dim=(1, 2)), "critic_loss": error.square().mean(dim=(1, 2)), "divergence": far.mean(dim=1)}


def diverge(settings: BracSettings, out: Tensor, usual: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
    """How far the policies that say `out` `[S, B, 2 act_dim]` are from those that say `usual`: `[S, B]`.

    Also its gradient by `out`. KL is that of policy || behaviour; the MMD is of squashed actions.
    """
    bounds = settings.log_std_min, settings.log_std_max
    if settings.divergence == "kl":
        return kl_divergence(out, usual, *bounds)
    rows, act_dim = out.shape[1], out.shape[2] // 2
    noise = draws.normal(2 * _MMD_SAMPLES, rows, act_dim).unflatten(0, (2, _MMD_SAMPLES))
    said = torch.stack([out, usual])[:, None].expand(2, _MMD_SAMPLES, *out.shape)
    drawn = squash(said, noise, *bounds)
    own, other = drawn.action
    far, by_action = squared_mmd(own, other, "laplacian", _MMD_WIDTH)
    by_out = squash_gradient(drawn, 0, by_action, torch.zeros_like(by_action[..., :1]))
    return far, reduce(torch.add, by_out.unbind())


def _begin(world: World, members: tuple[Member, ...], settings: BracSettings) -> Brac:
    seeds = [member.seed for member in members]
    return start_brac(world.rows.obs_dim, world.rows.act_dim, settings, seeds, world.real.device)


def warm(brac: Brac, batch: Batch, draws: Draws, *, value_penalty: bool) -> None:
    """One step of the behaviour policies until they are learned, then one of all else by the divergence alone."""
    if batch.step < brac.settings.behaviour_steps:
        imitate(brac, batch.observation, batch.action)
    else:
        update(brac, batch, draws, value_penalty=value_penalty, follow_critics=False)


def operations(settings: BracSettings, work: Work, *, value_penalty: bool) -> int:
    """The products of `update`: SAC's, and the behaviour policy at one state or at both."""
    actor, _ = sac.sac_sizes(settings, work)
    return sac.operations(settings, work) + work.batch * (1 + value_penalty) * mlp_flops(actor)


def networks(settings: BracSettings, work: Work) -> tuple[Networks, ...]:
    """Soft actor-critic's, and the behaviour policy."""
    actor, _ = sac.sac_sizes(settings, work)
    return *sac.networks(settings, work), Networks(actor, looks=1)


def held(settings: BracSettings, work: Work) -> int:
    """For the MMD, both policies' samples by pairs, dimension by dimension: their distances, and how these change."""
    pairs = (2 * _MMD_SAMPLES) ** 2
    return work.batch * work.act_dim * 3 * pairs if settings.divergence == "mmd" else 0


def algorithm(*, value_penalty: bool) -> Algorithm:
    """BRAC with or without the value penalty."""
    return Algorithm(
        BracSettings,
        ("q", "critic_loss", "divergence"),
        _begin,
        partial(update, value_penalty=value_penalty),
        partial(operations, value_penalty=value_penalty),
        networks,
        held,
        learns_from="real",
        warm_up=lambda settings: (settings.behaviour_steps, settings.warmup_steps),
        warm=partial(warm, value_penalty=value_penalty),
    )
