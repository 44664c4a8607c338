"""BEAR: as good by Q as can be, with samples as close to the behaviour's as a threshold says (Kumar et al. 2019).

The networks are SAC's, its temperature is not used. The variant is the authors' own for D4RL, which d3rlpy documents:
a variational auto-encoder models the behaviour, and closeness is the root of MMD^2 of actions before tanh. There the
best by Q of 100 sampled actions acts in the end; here, as with every policy, it is tanh(mean).
"""

from dataclasses import dataclass, fields
from functools import reduce
from typing import Literal

import torch
from torch import Tensor

from mopo_cli.agents.algorithm import Algorithm, Batch, Networks, Work, agent_state, restore_agent, setting
from mopo_cli.agents.algorithms.sac import (
    Sac,
    SacSettings,
    lower_slope,
    sac_sizes,
    start_sac,
    step_actor,
    step_critics,
)
from mopo_cli.agents.divergences import squared_mmd
from mopo_cli.agents.returns import one_step_return
from mopo_cli.agents.vae import LATENT, Vae, learn, start_vae, vae_sizes
from mopo_cli.agents.world import World
from mopo_cli.engine.members import Member
from mopo_cli.engine.rows import Transition
from mopo_cli.engine.streams import Draws
from mopo_cli.nets.adam import Adam
from mopo_cli.nets.flops import backward_flops, mlp_flops, slope_flops
from mopo_cli.nets.perceptron import evaluate
from mopo_cli.nets.stacked import Parameters

_CODE = "D4RL-Evaluations"
# Numbers of that code which are no settings there either.
_TARGET_SAMPLES, _MMD_SAMPLES = 10, 4
_LOWER = 0.75  # weight of the lower of both target critics; the higher has the rest
_LATENT_BOUND = 0.5  # of the latents that the behaviour is sampled by
_LOG_MULTIPLIER = -5.0, 10.0


@dataclass(frozen=True)
class BearSettings(SacSettings):
    """Hyper-parameters; those of SAC's temperature have no effect."""

    mmd_threshold: float = setting(
        0.05, "how far from the behaviour, as a root of MMD^2, the policy may be", _CODE, gt=0
    )
    mmd_kernel: Literal["laplacian", "gaussian"] = setting(
        "laplacian", "kernel of the MMD", f"{_CODE}; HalfCheetah: gaussian"
    )
    mmd_sigma: float = setting(20.0, "sigma of that kernel, exp(-d / (2 sigma))", _CODE, gt=0)
    multiplier_lr: float = setting(1e-3, "Adam step size of the constraint's log multiplier", _CODE, gt=0)
    warmup_steps: int = setting(
        40_000, "gradient steps before the first epoch in which the actor follows the divergence alone", _CODE, ge=0
    )
    behaviour_lr: float = setting(3e-4, "Adam step size of the behaviour model", _CODE, gt=0)
    behaviour_hidden: int = setting(750, "units per hidden layer of the behaviour model", _CODE, ge=1)


@dataclass
class Bear(Sac):
    """S agents: SAC's, models of the behaviour, and the log multipliers of their constraints `[S, 1]`."""

    settings: BearSettings
    vae: Vae
    log_multiplier: Tensor
    multiplier_adam: Adam

    def finite(self) -> Tensor:
        """Whether all that a member has learned is finite, bool `[S]`."""
        modelled = torch.isfinite(self.vae.encoder).all(dim=1) & torch.isfinite(self.vae.decoder).all(dim=1)
        return super().finite() & modelled


@dataclass(frozen=True)
class Drawn:
    """Samples `raw` `[n, S, B, act_dim]` of a policy before tanh."""

    raw: Tensor
    deviation: Tensor  # std times the noise
    within: Tensor  # where log std is within its bounds, [S, B, act_dim]


def start_bear(
    obs_dim: int, act_dim: int, settings: BearSettings, seeds: list[int], device: torch.device | str
) -> Bear:
    """Build fresh agents, the m-th from the streams of `seeds[m]`."""
    sac = start_sac(obs_dim, act_dim, settings, seeds, device)
    vae = start_vae(obs_dim, act_dim, settings.behaviour_hidden, seeds, device, settings.update_precision)
    shared = {part.name: getattr(sac, part.name) for part in fields(sac)}
    log_multiplier = torch.zeros(len(seeds), 1, device=device)
    return Bear(**shared, vae=vae, log_multiplier=log_multiplier, multiplier_adam=Adam.like(log_multiplier))


def update(
    bear: Bear, batch: Transition, draws: Draws, actor_scale: float = 1.0, *, follow_critics: bool = True
) -> dict[str, Tensor]:
    """One gradient step of all networks and multipliers, in place; returns what one watches, each `[S]`.

    Where the actor does not follow the critics, it follows the divergence alone.
    """
    settings, vae, observation, following = bear.settings, bear.vae, batch.observation, batch.next_observation
    members, rows, obs_dim = observation.shape
    act_dim = batch.action.shape[-1]

    ahead, present, known, coded = evaluate(
        (bear.acting, (following,)),
        (bear.acting, (observation,)),
        (bear.judging, (observation, batch.action)),
        (vae.encoding, (observation, batch.action)),
    )
    coding = draws.normal(1, rows, LATENT * act_dim)[0]
    vae_loss = learn(vae, coded, observation, batch.action, coding, settings.behaviour_lr)

    next_action = torch.tanh(draw(settings, ahead.out, draws.normal(_TARGET_SAMPLES, rows, act_dim)).raw)
    latent = draws.normal(_MMD_SAMPLES, rows, LATENT * act_dim).clamp(-_LATENT_BOUND, _LATENT_BOUND)
    aimed = at_samples(bear.aiming, following, next_action)
    backup = one_step_return(batch.reward, batch.terminal, best_target(aimed), settings.gamma)

    drawn = draw(settings, present.out, draws.normal(_MMD_SAMPLES, rows, act_dim))
    action = torch.tanh(drawn.raw[0])
    q = known.out.view(members, 2, rows)
    error = q - backup[:, None]
    judged = step_critics(bear, known, error / rows, (observation, action))  # half the mean squared error

    # An actor's loss is the mean of multiplier (mmd - threshold) - min(q1, q2), a multiplier's is minus that.
    multiplier = bear.log_multiplier.exp()
    usual = at_samples(vae.decoding, observation, latent)
    squared, by_raw = squared_mmd(drawn.raw, usual, settings.mmd_kernel, 2 * settings.mmd_sigma)
    mmd = torch.sqrt(squared + 1e-6)
    by_raw *= (multiplier / (2 * rows * mmd))[..., None]
    if follow_critics:
        by_raw[0] -= lower_slope(judged, obs_dim) / rows * (1 - action * action)
    step_actor(bear, present, draw_gradient(drawn, by_raw), actor_scale)
    torch.mul(settings.mmd_threshold - mmd.mean(dim=1, keepdim=True), multiplier, out=bear.multiplier_adam.grad)
    bear.multiplier_adam.update(bear.log_multiplier, settings.multiplier_lr)
    bear.log_multiplier.clamp_(*_LOG_MULTIPLIER)
    return {
        "q": q.mean(dim=(1, 2)),
        "critic_loss": error.square().mean(dim=(1, 2)),
        "vae_loss": vae_loss,
        "mmd": mmd.mean(dim=1),
        "multiplier": multiplier[:, 0],
    }


def draw(settings: BearSettings, out: Tensor, noise: Tensor) -> Drawn:
    """Samples of the policies that say `out` `[S, B, 2 act_dim]`, by standard normal noise `[n, S, B, act_dim]`."""
    mean, raw = out.chunk(2, dim=-1)
    log_std = raw.clamp(settings.log_std_min, settings.log_std_max)
    deviation = log_std.exp() * noise
    return Drawn(mean + deviation, deviation, raw == log_std)


def draw_gradient(drawn: Drawn, by_raw: Tensor) -> Tensor:
    """The gradient by `out` of a loss whose gradient by the samples is `by_raw` `[n, S, B, act_dim]`."""
    # One adds in turn: a sum over the first dimension is not the same bits in any stack.
    by_mean, by_log_std = (reduce(torch.add, by.unbind()) for by in (by_raw, by_raw * drawn.deviation))
    return torch.cat([by_mean, by_log_std * drawn.within], dim=-1)


def at_samples(networks: Parameters, x: Tensor, samples: Tensor) -> Tensor:
    """The values `[n, M, B, out]` of networks at `x` `[S, B, ·]` with each of the samples `[n, S, B, ·]`.

    On CPU sample by sample: what a layer says stays in the cache, and threads have pieces to share.
    """
    if not x.is_cuda:
        return torch.stack([told.out for told in evaluate(*((networks, (x, sample)) for sample in samples))])
    (told,) = evaluate((networks, (x.repeat(1, len(samples), 1), samples.transpose(0, 1).flatten(1, 2))))
    return torch.stack(told.out.chunk(len(samples), dim=1))


def best_target(value: Tensor) -> Tensor:
    """The best `[S, B]` of actions that twin critics value `[n, 2S, B, 1]`, by a mixture of lower and higher."""
    twins = value[..., 0].unflatten(1, (-1, 2))
    return torch.amax(_LOWER * twins.amin(dim=2) + (1 - _LOWER) * twins.amax(dim=2), dim=0)


def _begin(world: World, members: tuple[Member, ...], settings: BearSettings) -> Bear:
    seeds = [member.seed for member in members]
    return start_bear(world.rows.obs_dim, world.rows.act_dim, settings, seeds, world.real.device)


def _warm(bear: Bear, batch: Batch, draws: Draws) -> None:
    update(bear, batch, draws, follow_critics=False)


def operations(settings: BearSettings, work: Work) -> int:
    """The products of `update`.

    Beside SAC's, with ten target actions instead of one: the behaviour model forward and backward, through its
    latent, and four times its decoder.
    """
    actor, critic = sac_sizes(settings, work)
    encoder, decoder = vae_sizes(work.obs_dim, work.act_dim, settings.behaviour_hidden)
    target = mlp_flops(actor) + 2 * _TARGET_SAMPLES * mlp_flops(critic)
    critic_loss = 2 * (mlp_flops(critic) + backward_flops(critic))
    actor_loss = mlp_flops(actor) + backward_flops(actor) + 2 * (mlp_flops(critic) + slope_flops(critic, work.act_dim))
    through_latent = mlp_flops((LATENT * work.act_dim, settings.behaviour_hidden))
    vae_loss = sum(mlp_flops(sizes) + backward_flops(sizes) for sizes in (encoder, decoder)) + through_latent
    return work.batch * (target + critic_loss + actor_loss + vae_loss + _MMD_SAMPLES * mlp_flops(decoder))


def networks(settings: BearSettings, work: Work) -> tuple[Networks, ...]:
    """Soft actor-critic's, its targets asked about all target actions side by side, and the behaviour model."""
    actor, critic = sac_sizes(settings, work)
    encoder, decoder = vae_sizes(work.obs_dim, work.act_dim, settings.behaviour_hidden)
    targets = Networks(critic, 2, learned=False, looks=_TARGET_SAMPLES)
    return (
        Networks(actor, looks=2),
        Networks(critic, 2, looks=1),
        targets,
        Networks(encoder, looks=1),
        Networks(decoder, looks=1),
    )


def held(_settings: BearSettings, work: Work) -> int:
    """For the MMD, both policies' samples by pairs, dimension by dimension: their distances, and how these change."""
    return work.batch * work.act_dim * 3 * (2 * _MMD_SAMPLES) ** 2


def state(bear: Bear) -> tuple[dict[str, Tensor], list[int]]:
    """See `Algorithm`."""
    (tensors, taken), (modelled, more) = agent_state(bear), agent_state(bear.vae)
    return tensors | modelled, taken + more


def restore(bear: Bear, tensors: dict[str, Tensor], steps: list[int]) -> None:
    """See `Algorithm`."""
    own = len(agent_state(bear)[1])
    restore_agent(bear, tensors, steps[:own])
    restore_agent(bear.vae, tensors, steps[own:])


ALGORITHM = Algorithm(
    BearSettings,
    ("q", "critic_loss", "vae_loss", "mmd", "multiplier"),
    _begin,
    update,
    operations,
    networks,
    held,
    learns_from="real",
    warm_up=lambda settings: (settings.warmup_steps,),
    warm=_warm,
    state=state,
    restore=restore,
)
