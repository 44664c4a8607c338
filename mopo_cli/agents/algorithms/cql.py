"""CQL over a stack of members: soft actor-critic on logged data with critics kept low (Kumar et al. 2020).

Each critic's loss is, with L(s) the log-sum-exp over sampled actions (see agents/conservative.py) and D the data,

    beta (E_s~D[L(s)] - E_s,a~D[Q(s, a)]) + E_s,a,s'~D[(Q(s, a) - target_q)^2].

The paper halves the square (eq. 4). Its released code and those that follow it do not, and beta is theirs.
"""

from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor

from mopo_cli.agents.actor import squash
from mopo_cli.agents.algorithm import Algorithm, Batch, Networks, Work, setting
from mopo_cli.agents.algorithms import sac
from mopo_cli.agents.algorithms.sac import Sac, SacSettings
from mopo_cli.agents.conservative import KINDS, differentiate_critics, log_sum_exp, propose
from mopo_cli.agents.networks import critic_sizes
from mopo_cli.agents.returns import one_step_return
from mopo_cli.engine.streams import Draws
from mopo_cli.nets.network import step_and_evaluate
from mopo_cli.nets.perceptron import block_count, evaluate


@dataclass(frozen=True)
class CqlSettings(SacSettings):
    """Soft actor-critic's, and how the critics are kept low."""

    beta: float = setting(5.0, "weight of the conservative term beside the critics' squared error", "CQL code", ge=0)
    lse: Literal["full", "paired"] = setting(
        "full",
        "log-sum-exp of the conservative term: over all sampled actions, or as OfflineRL-Kit over one of each kind",
        "CQL code",
    )
    actions: int = setting(10, "sampled actions of each of three kinds in the conservative term", "CQL code", ge=1)
    backup: Literal["soft", "deterministic"] = setting(
        "deterministic", "whether the critics' target counts the entropy: soft, or not", "CQL code"
    )


def gradient_step(
    cql: Sac, batch: Batch, noise: Tensor, uniform: Tensor, first: int = 0, actor_scale: float = 1.0
) -> dict[str, Tensor]:
    """One gradient step of every critic, actor and temperature, in place; returns its metrics, each `[S]`.

    batch columns `[S, B, ·]`; noise `[2, S, B, 1 + N, act_dim]` is standard normal, first for the next states;
    uniform `[S, R, N, act_dim]` is in [-1, 1]; actions are sampled at the states of the R rows from `first` on, which
    are those of rho; `actor_scale` is the factor of the actor's learning rate.

    "conservative" is the term with its weight, "regulariser" the plain E[Q(s, a)] over rho and the N actions of the
    policy there, less that over the real rows; both are means of the two critics before the step.
    """
    settings, alpha = cast(CqlSettings, cql.settings), cql.alpha
    observation, next_observation = batch.observation, batch.next_observation

    next_actor, actor = evaluate((cql.actor, (next_observation,)), (cql.actor, (observation,)))
    out = torch.stack([next_actor.out, actor.out])
    sample = squash(out, noise[..., 0, :], settings.log_std_min, settings.log_std_max)
    (next_action, action), (next_log_prob, log_prob) = sample.action, sample.log_prob

    next_value = sac.min_target_q(cql, next_observation, next_action)
    if settings.backup == "soft":
        next_value = next_value - alpha * next_log_prob
    target_q = one_step_return(batch.reward, batch.terminal, next_value, settings.gamma)

    # Critics' loss: beta (mean log sum exp Q(s, .) - mean Q(s, a)) + mean (Q(s, a) - target_q)^2  (CQL, eq. 4)
    proposals = propose(settings, observation[:, first:], out[:, :, first:], noise[:, :, first:, 1:], uniform)
    q, proposed_q = differentiate_critics(cql.critic, batch, target_q, proposals, settings.beta, settings.lse)
    q_pi = step_and_evaluate(cql.critic, settings.critic_lr, (observation, action), settings.tau)

    sac.descend_actor(cql, actor, sample, q_pi, alpha, actor_scale)
    entropy = sac.descend_temperature(cql, log_prob)

    of_data = q[:, :, : batch.real_rows].mean(dim=(1, 2))
    of_policy = proposed_q[..., -settings.actions :].mean(dim=(1, 2, 3))
    low = log_sum_exp(proposed_q + proposals.neg_log_density[:, None], settings.lse).mean(dim=(1, 2))
    return {
        "q": q.mean(dim=(1, 2)),
        "critic_loss": (q - target_q[:, None]).square().mean(dim=(1, 2)),
        "conservative": settings.beta * (low - of_data),
        "regulariser": of_policy - of_data,
        "entropy": entropy,
        "alpha": alpha[:, 0],
    }


def update(cql: Sac, batch: Batch, draws: Draws, actor_scale: float, first: int = 0) -> dict[str, Tensor]:
    """`gradient_step` with a batch of the training loop."""
    count = cast(CqlSettings, cql.settings).actions
    _, rows, act_dim = batch.action.shape
    noise = draws.normal(2, rows, 1 + count, act_dim)
    uniform = draws.uniform(rows - first, count, act_dim)
    return gradient_step(cql, batch, noise, uniform, first, actor_scale)


def sampled_numbers(settings: CqlSettings, work: Work, first: int = 0) -> int:
    """What a step samples and keeps: per sampled action its noise, two copies of it and its state.

    Per block of them one gradient of both critics; on a GPU also the critics' activations at every action.
    """
    sizes = critic_sizes(settings, work.obs_dim, work.act_dim)
    critics = Networks(sizes, 2)
    sampled = KINDS * settings.actions * (work.batch - first)
    blocks = 0 if work.at_once else block_count(sampled, torch.empty(0))
    activations = critics.count * sum(critics.sizes) if work.at_once else 0
    return sampled * (sizes[0] + 3 * work.act_dim + activations) + blocks * critics.count * critics.parameters


METRICS = ("q", "critic_loss", "conservative", "regulariser", "entropy", "alpha")
ALGORITHM = Algorithm(
    settings=CqlSettings,
    metrics=METRICS,
    start=sac.start,
    update=update,
    networks=sac.networks,
    sampled_numbers=sampled_numbers,
    learns_from="real",
)
