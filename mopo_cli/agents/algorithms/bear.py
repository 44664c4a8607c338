"""BEAR: the best policy by Q whose samples are within a threshold of the behaviour's (Kumar et al. 2019).

The networks are SAC's, its temperature is not used. The variant is the authors' own for D4RL, which d3rlpy documents:
a variational auto-encoder models the behaviour, and closeness is the root of MMD^2 of actions before tanh. There the
best by Q of 100 sampled actions acts in the end; here, as with every policy, it is tanh(mean).
"""

from dataclasses import dataclass
from functools import reduce
from typing import Literal

import torch
from torch import Tensor

from mopo_cli.agents.algorithm import Algorithm, Batch, Networks, Work, setting, start_from_shapes
from mopo_cli.agents.algorithms import sac
from mopo_cli.agents.algorithms.sac import Sac, SacSettings, start_sac
from mopo_cli.agents.divergences import squared_mmd
from mopo_cli.agents.networks import actor_sizes, critic_sizes, twin_values
from mopo_cli.agents.returns import one_step_return
from mopo_cli.agents.vae import LATENT, Vae, learn, start_vae, vae_sizes
from mopo_cli.engine.rows import Transition
from mopo_cli.engine.streams import Draws
from mopo_cli.nets.adam import Adam
from mopo_cli.nets.network import descend
from mopo_cli.nets.perceptron import evaluate
from mopo_cli.nets.stacked import Parameters

_CODE = "D4RL-Evaluations"
# Numbers of that code which are no settings there either.
_TARGET_SAMPLES, _MMD_SAMPLES = 10, 4
_LOWER = 0.75  # weight of the lower of both target critics; the rest is the higher one's
_LATENT_BOUND = 0.5  # of the latents that the behaviour is sampled with
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
    """S agents: SAC's, the log multipliers of their constraints `[S, 1]`, and models of the behaviour."""

    settings: BearSettings
    log_multiplier: Tensor
    multiplier_adam: Adam
    vae: Vae


@dataclass(frozen=True)
class Drawn:
    """Samples `pre_tanh` `[n, S, B, act_dim]` of a policy before tanh: `actor.Squashed` without tanh and log_prob."""

    pre_tanh: Tensor
    scaled_noise: Tensor  # std times the noise
    in_bounds: Tensor  # whether log std is within its bounds, [S, B, act_dim]


def start_bear(
    obs_dim: int, act_dim: int, settings: BearSettings, seeds: list[int], device: torch.device | str
) -> Bear:
    """Build fresh agents, the m-th from the streams of `seeds[m]`."""
    agents = start_sac(obs_dim, act_dim, settings, seeds, device)
    vae = start_vae(obs_dim, act_dim, settings, seeds, device)
    log_multiplier = torch.zeros(len(seeds), 1, device=device)
    return Bear(**vars(agents), log_multiplier=log_multiplier, multiplier_adam=Adam.like(log_multiplier), vae=vae)


def update(
    bear: Bear, batch: Transition, draws: Draws, actor_scale: float = 1.0, *, actor_uses_q: bool = True
) -> dict[str, Tensor]:
    """One gradient step of all networks and multipliers, in place; returns its metrics, each `[S]`.

    Without `actor_uses_q` the actor's loss is the divergence alone.
    """
    settings, vae, observation, next_observation = bear.settings, bear.vae, batch.observation, batch.next_observation
    rows, act_dim = batch.action.shape[1:]

    next_actor, actor, critic, encoded = evaluate(
        (bear.actor, (next_observation,)),
        (bear.actor, (observation,)),
        (bear.critic, (observation, batch.action)),
        (vae.encoder, (observation, batch.action)),
    )
    coding = draws.normal(1, rows, LATENT * act_dim)[0]
    vae_loss = learn(vae, encoded, observation, batch.action, coding, settings.behaviour_lr)

    next_action = torch.tanh(draw(settings, next_actor.out, draws.normal(_TARGET_SAMPLES, rows, act_dim)).pre_tanh)
    latent = draws.normal(_MMD_SAMPLES, rows, LATENT * act_dim).clamp(-_LATENT_BOUND, _LATENT_BOUND)
    target = at_samples(bear.critic.target, next_observation, next_action)
    target_q = one_step_return(batch.reward, batch.terminal, best_target(target), settings.gamma)

    sample = draw(settings, actor.out, draws.normal(_MMD_SAMPLES, rows, act_dim))
    action = torch.tanh(sample.pre_tanh[0])
    # Critics' loss: mean (Q(s, a) - target_q)^2 / 2  (BEAR, algorithm 1)
    q = twin_values(critic.out)
    error = q - target_q[:, None]
    q_pi = sac.descend_critics(bear, critic, error / rows, (observation, action))

    # Actor's loss: mean (multiplier (mmd(s) - threshold) - min(Q1, Q2)(s, a)), a the first sample  (eq. 1);
    # the multiplier's is minus that
    multiplier = bear.log_multiplier.exp()
    behaviour = at_samples(vae.decoder, observation, latent)
    squared, by_pre_tanh = squared_mmd(sample.pre_tanh, behaviour, settings.mmd_kernel, 2 * settings.mmd_sigma)
    mmd = torch.sqrt(squared + 1e-6)
    by_pre_tanh *= (multiplier / (2 * rows * mmd))[..., None]
    if actor_uses_q:
        by_pre_tanh[0] -= sac.min_q_gradient(q_pi, act_dim) / rows * (1 - action * action)
    descend(bear.actor, actor, draw_gradient(sample, by_pre_tanh), actor_scale * settings.actor_lr)
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
    """Samples of policies with output `out` `[S, B, 2 act_dim]`, by standard normal noise `[n, S, B, act_dim]`."""
    mean, raw_log_std = out.chunk(2, dim=-1)
    log_std = raw_log_std.clamp(settings.log_std_min, settings.log_std_max)
    scaled_noise = log_std.exp() * noise
    return Drawn(mean + scaled_noise, scaled_noise, raw_log_std == log_std)


def draw_gradient(drawn: Drawn, by_pre_tanh: Tensor) -> Tensor:
    """The gradient by `out`, `[S, B, 2 act_dim]`, of a loss with the gradient `by_pre_tanh` `[n, S, B, act_dim]`."""
    # One adds in turn: a sum over the first dimension is not the same bits in any stack.
    by_mean, by_log_std = (reduce(torch.add, by.unbind()) for by in (by_pre_tanh, by_pre_tanh * drawn.scaled_noise))
    return torch.cat([by_mean, by_log_std * drawn.in_bounds], dim=-1)


def at_samples(networks: Parameters, x: Tensor, samples: Tensor) -> Tensor:
    """The values `[n, M, B, out]` of networks at `x` `[S, B, ·]` with each of the samples `[n, S, B, ·]`.

    On CPU sample by sample: the activations stay in the cache, and threads have pieces to share.
    """
    if not x.is_cuda:
        return torch.stack([values.out for values in evaluate(*((networks, (x, sample)) for sample in samples))])
    (values,) = evaluate((networks, (x.repeat(1, len(samples), 1), samples.transpose(0, 1).flatten(1, 2))))
    return torch.stack(values.out.chunk(len(samples), dim=1))


def best_target(value: Tensor) -> Tensor:
    """The highest value `[S, B]` of n actions, by a mixture of the lower and higher of twin critics `[n, 2S, B, 1]`.

    Soft clipped double Q, as in BCQ (Fujimoto et al. 2019, eq. 13).
    """
    twins = value[..., 0].unflatten(1, (-1, 2))
    return torch.amax(_LOWER * twins.amin(dim=2) + (1 - _LOWER) * twins.amax(dim=2), dim=0)


def _warm(bear: Bear, batch: Batch, draws: Draws) -> None:
    update(bear, batch, draws, actor_uses_q=False)


def networks(settings: BearSettings, work: Work) -> tuple[Networks, ...]:
    """Soft actor-critic's, its targets evaluated at all next actions side by side, and the behaviour model."""
    actor, critic = (sizes(settings, work.obs_dim, work.act_dim) for sizes in (actor_sizes, critic_sizes))
    encoder, decoder = vae_sizes(work.obs_dim, work.act_dim, settings.behaviour_hidden)
    targets = Networks(critic, 2, learned=False, evaluations=_TARGET_SAMPLES)
    learned = Networks(actor, evaluations=2), Networks(critic, 2, evaluations=1)
    return *learned, targets, Networks(encoder, evaluations=1), Networks(decoder, evaluations=1)


def sampled_numbers(_settings: BearSettings, work: Work) -> int:
    """For the MMD, both policies' samples by pairs, dimension by dimension: their distances, and how these change."""
    return work.batch * work.act_dim * 3 * (2 * _MMD_SAMPLES) ** 2


ALGORITHM = Algorithm(
    settings=BearSettings,
    metrics=("q", "critic_loss", "vae_loss", "mmd", "multiplier"),
    start=start_from_shapes(start_bear),
    update=update,
    networks=networks,
    sampled_numbers=sampled_numbers,
    learns_from="real",
    warm_up=lambda settings: (settings.warmup_steps,),
    warm=_warm,
)
