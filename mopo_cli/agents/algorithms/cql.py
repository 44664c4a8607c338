"""CQL over a stack of members: soft actor-critic on logged data with critics kept low (Kumar et al. 2020).

Each critic's loss is, with L(s) the log-sum-exp over sampled actions (see agents/conservative.py) and D the data,

    beta (E_s~D[L(s)] - E_s,a~D[Q(s, a)]) + E_s,a,s'~D[(Q(s, a) - backup)^2].

The paper halves the square (eq. 4). Its released code and those that follow it do not, and beta is known from them.
"""

from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor

from mopo_cli.agents.actor import squash, squash_gradient
from mopo_cli.agents.algorithm import Algorithm, Batch, Networks, Work, setting
from mopo_cli.agents.algorithms import sac
from mopo_cli.agents.algorithms.sac import Sac, SacSettings
from mopo_cli.agents.conservative import KINDS, differentiate_critics, propose, soft_maximum
from mopo_cli.agents.returns import one_step_return
from mopo_cli.engine.streams import Draws
from mopo_cli.nets.flops import backward_flops, mlp_flops
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


def update(
    cql: Sac, batch: Batch, noise: Tensor, uniform: Tensor, rho: slice = slice(None), actor_scale: float = 1.0
) -> dict[str, Tensor]:
    """One gradient step of every critic, actor and temperature, in place; returns what one watches, each `[S]`.

    batch columns `[S, B, ·]`; noise `[2, S, B, 1 + N, act_dim]` is standard normal, first for the next states;
    uniform `[S, R, N, act_dim]` is in [-1, 1]; `rho` are the R rows at whose states actions are sampled;
    `actor_scale` is the factor of the actor's learning rate.

    "conservative" is the term with its weight, "regulariser" the plain E[Q(s, a)] over rho and the N actions of the
    policy there, less that over the real rows; both are means of the two critics before the step.
    """
    settings, alpha = cast(CqlSettings, cql.settings), cql.alpha
    observation, following = batch.observation, batch.next_observation
    rows, obs_dim = observation.shape[1:]

    ahead, present = evaluate((cql.acting, (following,)), (cql.acting, (observation,)))
    said = torch.stack([ahead.out, present.out])
    drawn = squash(said, noise[..., 0, :], settings.log_std_min, settings.log_std_max)
    (next_action, action), (next_log_prob, log_prob) = drawn.action, drawn.log_prob

    next_value = sac.lower_target(cql, following, next_action)
    if settings.backup == "soft":
        next_value = next_value - alpha * next_log_prob
    backup = one_step_return(batch.reward, batch.terminal, next_value, settings.gamma)

    proposals = propose(cql, observation[:, rho], said[:, :, rho], noise[:, :, rho, 1:], uniform)
    judged = differentiate_critics(cql, batch, backup, proposals, settings.beta, settings.lse)
    now = sac.move_critics(cql, (observation, action))

    by_out = squash_gradient(drawn, 1, sac.lower_slope(now, obs_dim) / -rows, alpha[:, :, None] / rows)
    sac.step_actor(cql, present, by_out, actor_scale)
    entropy = sac.step_temperature(cql, log_prob)

    q, proposed = judged.known, judged.proposed
    of_data, of_policy = q[:, :, : batch.real].mean(dim=(1, 2)), proposed[..., -settings.actions :].mean(dim=(1, 2, 3))
    low = soft_maximum(proposed + proposals.rarity[:, None], settings.lse).mean(dim=(1, 2))
    return {
        "q": q.mean(dim=(1, 2)),
        "critic_loss": (q - backup[:, None]).square().mean(dim=(1, 2)),
        "conservative": settings.beta * (low - of_data),
        "regulariser": of_policy - of_data,
        "entropy": entropy,
        "alpha": alpha[:, 0],
    }


def step(cql: Sac, batch: Batch, draws: Draws, actor_scale: float, rho: slice = slice(None)) -> dict[str, Tensor]:
    """`update` with a batch of the training loop."""
    count = cast(CqlSettings, cql.settings).actions
    _, rows, act_dim = batch.action.shape
    noise = draws.normal(2, rows, 1 + count, act_dim)
    uniform = draws.uniform(len(range(rows)[rho]), count, act_dim)
    return update(cql, batch, noise, uniform, rho, actor_scale)


def operations(settings: CqlSettings, work: Work, states: int | None = None) -> int:
    """Soft actor-critic's, and both critics forward and backward at all actions sampled at `states` or all rows."""
    _, critic = sac.sac_sizes(settings, work)
    sampled = KINDS * settings.actions * (work.batch if states is None else states)
    return sac.operations(settings, work) + 2 * sampled * (mlp_flops(critic) + backward_flops(critic))


def held(settings: CqlSettings, work: Work, states: int | None = None) -> int:
    """Of every action: noise, itself twice, its state. Of every block of them: the gradient of both critics.

    At once, what the layers of both say of every action.
    """
    _, sizes = sac.sac_sizes(settings, work)
    critics = Networks(sizes, 2)
    sampled = KINDS * settings.actions * (work.batch if states is None else states)
    blocks = 0 if work.at_once else block_count(sampled, torch.empty(0))
    said = critics.count * sum(critics.sizes) if work.at_once else 0
    return sampled * (sizes[0] + 3 * work.act_dim + said) + blocks * critics.count * critics.parameters


METRICS = ("q", "critic_loss", "conservative", "regulariser", "entropy", "alpha")
ALGORITHM = Algorithm(CqlSettings, METRICS, sac.begin, step, operations, sac.networks, held, learns_from="real")
