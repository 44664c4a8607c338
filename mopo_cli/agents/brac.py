"""BRAC: SAC kept close to the behaviour policy, by a divergence in its entropy's place (Wu, Tucker & Nachum 2019).

The behaviour policy is learned first, by maximum likelihood, and then kept. The divergence of the policy from it is
added to the actor's loss, and as a value penalty (BRAC-v) also subtracted from the next state's value. There is no
other entropy term and no temperature: the authors' code has alpha_entropy 0, and KL contains the policy's entropy.
"""

from dataclasses import dataclass
from functools import partial, reduce
from typing import Literal

import torch
from torch import Tensor

from mopo_cli.agents.actor import squash, squash_gradient
from mopo_cli.agents.algorithm import Algorithm, Batch, Networks, Work, setting, start_from_shapes
from mopo_cli.agents.algorithms import sac
from mopo_cli.agents.algorithms.sac import Sac, SacSettings
from mopo_cli.agents.divergences import kl_divergence, squared_mmd
from mopo_cli.agents.networks import actor_sizes, start_single, twin_values
from mopo_cli.agents.returns import one_step_return
from mopo_cli.engine.rows import Transition
from mopo_cli.engine.streams import Draws
from mopo_cli.nets.network import Network, descend
from mopo_cli.nets.perceptron import evaluate

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
    """S agents: SAC's, and the behaviour policies, of the same shape as the actors."""

    settings: BracSettings
    behaviour: Network


def start_brac(
    obs_dim: int, act_dim: int, settings: BracSettings, seeds: list[int], device: torch.device | str
) -> Brac:
    """Build fresh agents, the m-th from the streams of `seeds[m]`."""
    agents = sac.start_sac(obs_dim, act_dim, settings, seeds, device)
    behaviour = start_single("behaviour", actor_sizes(settings, obs_dim, act_dim), settings, seeds, device)
    return Brac(**vars(agents), behaviour=behaviour)


def imitate(brac: Brac, observation: Tensor, action: Tensor) -> None:
    """One gradient step of all behaviour policies towards the actions of the data, by maximum likelihood, in place.

    observation `[S, B, obs_dim]`, action `[S, B, act_dim]`.
    """
    settings, rows = brac.settings, observation.shape[1]
    (behaviour,) = evaluate((brac.behaviour, (observation,)))
    mean, raw_log_std = behaviour.out.chunk(2, dim=-1)
    log_std = raw_log_std.clamp(settings.log_std_min, settings.log_std_max)
    inverse_std = torch.exp(-log_std)
    # Loss: -mean log b(a | s), log b = log N(atanh a; mean, std) - log(1 - a^2), whose last term has no gradient
    inside = action.clamp(-_INSIDE, _INSIDE)
    raw_action = (torch.log1p(inside) - torch.log1p(-inside)) / 2  # atanh, but the same bits in any stack
    score = (raw_action - mean) * inverse_std
    by_log_std = (1 - score * score) * (raw_log_std == log_std)
    by_out = torch.cat([-score * inverse_std, by_log_std], dim=-1) / rows
    descend(brac.behaviour, behaviour, by_out, settings.behaviour_lr)


def update(
    brac: Brac,
    batch: Transition,
    draws: Draws,
    actor_scale: float = 1.0,
    *,
    value_penalty: bool,
    actor_uses_q: bool = True,
) -> dict[str, Tensor]:
    """One gradient step of every critic and actor, in place; returns its metrics, each `[S]`.

    With the value penalty it is BRAC-v's, else BRAC-p's. Without `actor_uses_q` the actor's loss is the divergence
    alone.
    """
    settings, observation, next_observation = brac.settings, batch.observation, batch.next_observation
    rows, act_dim = batch.action.shape[1:]

    requests = [
        (brac.actor, (next_observation,)),
        (brac.actor, (observation,)),
        (brac.critic, (observation, batch.action)),
        (brac.behaviour, (observation,)),
    ]
    if value_penalty:
        requests.append((brac.behaviour, (next_observation,)))
    next_actor, actor, critic, behaviour, *next_behaviour = evaluate(*requests)
    noise = draws.normal(2, rows, act_dim)
    sample = squash((next_actor.out, actor.out), noise, settings.log_std_min, settings.log_std_max)
    next_action, action = sample.action

    # target_q = r + gamma (1 - terminal) (min(Q1', Q2')(s', a') - alpha D(s')), BRAC-p without D  (BRAC, section 3)
    next_value = sac.min_target_q(brac, next_observation, next_action)
    if value_penalty:
        next_divergence, _ = diverge(settings, next_actor.out, next_behaviour[0].out, draws)
        next_value = next_value - settings.divergence_weight * next_divergence
    target_q = one_step_return(batch.reward, batch.terminal, next_value, settings.gamma)
    # Critics' loss: mean (Q(s, a) - target_q)^2 / 2
    q = twin_values(critic.out)
    error = q - target_q[:, None]
    q_pi = sac.descend_critics(brac, critic, error / rows, (observation, action))

    # Actor's loss: mean (alpha D(pi, b)(s) - min(Q1, Q2)(s, a))  (BRAC, section 3)
    divergence, divergence_gradient = diverge(settings, actor.out, behaviour.out, draws)
    by_out = settings.divergence_weight * divergence_gradient / rows
    if actor_uses_q:
        by_action = sac.min_q_gradient(q_pi, act_dim) / -rows
        by_out = by_out + squash_gradient(sample, 1, by_action)
    descend(brac.actor, actor, by_out, actor_scale * settings.actor_lr)
    return {
        "q": q.mean(dim=(1, 2)),
        "critic_loss": error.square().mean(dim=(1, 2)),
        "divergence": divergence.mean(dim=1),
    }


def diverge(settings: BracSettings, out: Tensor, behaviour: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
    """The divergence `[S, B]` of policies with output `out` `[S, B, 2 act_dim]` from those with output `behaviour`.

    Also its gradient by `out`. KL is that of policy || behaviour; the MMD is of squashed actions.
    """
    bounds = settings.log_std_min, settings.log_std_max
    if settings.divergence == "kl":
        return kl_divergence(out, behaviour, *bounds)
    rows, act_dim = out.shape[1], out.shape[2] // 2
    noise = draws.normal(2 * _MMD_SAMPLES, rows, act_dim).unflatten(0, (2, _MMD_SAMPLES))
    both = torch.stack([out, behaviour])[:, None].expand(2, _MMD_SAMPLES, *out.shape)
    sample = squash(both, noise, *bounds)
    actions, behaviour_actions = sample.action
    divergence, by_action = squared_mmd(actions, behaviour_actions, "laplacian", _MMD_WIDTH)
    by_out = squash_gradient(sample, 0, by_action)
    return divergence, reduce(torch.add, by_out.unbind())


def warm(brac: Brac, batch: Batch, draws: Draws, *, value_penalty: bool) -> None:
    """One step of the behaviour policies until they are learned, then one of all else by the divergence alone."""
    if batch.step < brac.settings.behaviour_steps:
        imitate(brac, batch.observation, batch.action)
    else:
        update(brac, batch, draws, value_penalty=value_penalty, actor_uses_q=False)


def networks(settings: BracSettings, work: Work) -> tuple[Networks, ...]:
    """Soft actor-critic's, and the behaviour policy."""
    behaviour = Networks(actor_sizes(settings, work.obs_dim, work.act_dim), evaluations=1)
    return *sac.networks(settings, work), behaviour


def sampled_numbers(settings: BracSettings, work: Work) -> int:
    """For the MMD, both policies' samples by pairs, dimension by dimension: their distances, and how these change."""
    pairs = (2 * _MMD_SAMPLES) ** 2
    return work.batch * work.act_dim * 3 * pairs if settings.divergence == "mmd" else 0


def algorithm(*, value_penalty: bool) -> Algorithm:
    """BRAC with or without the value penalty."""
    return Algorithm(
        settings=BracSettings,
        metrics=("q", "critic_loss", "divergence"),
        start=start_from_shapes(start_brac),
        update=partial(update, value_penalty=value_penalty),
        networks=networks,
        sampled_numbers=sampled_numbers,
        learns_from="real",
        warm_up=lambda settings: (settings.behaviour_steps, settings.warmup_steps),
        warm=partial(warm, value_penalty=value_penalty),
    )
