"""The conservative term of CQL and COMBO: critics are pushed down at actions that are sampled, and up at the data's.

At every state it takes the log-sum-exp of the critic's values at 3N actions: N uniform ones, N that the policy draws
there and N that it draws at the state that followed. Each value has the log-density of its action taken off, so that
exp(value) estimates the integral of exp Q over the actions, whoever drew them ("CQL(H)" of Kumar et al. 2020). Off go
the critic's values at the data's own actions.
"""

from dataclasses import dataclass
from math import log
from typing import Literal

import torch
from torch import Tensor

from mopo_cli.agents.actor import squash
from mopo_cli.agents.algorithm import Batch
from mopo_cli.agents.algorithms.sac import Sac
from mopo_cli.nets.perceptron import block_count, differentiate_blocks
from mopo_cli.nets.stacked import part

Lse = Literal["full", "paired"]
KINDS = 3


@dataclass(frozen=True)
class Proposals:
    """Actions `[S, R, 3N, act_dim]` sampled at R states `[S, R, obs_dim]`, and minus their log-densities `[S, R, 3N]`.

    The first N are uniform, the next are the policy's at the states that followed, the last its at the states.
    """

    state: Tensor
    action: Tensor
    rarity: Tensor


@dataclass(frozen=True)
class Judged:
    """What twin critics say: of a batch, `[S, 2, B]`, and of what was proposed at R states, `[S, 2, R, 3N]`."""

    known: Tensor
    proposed: Tensor


def propose(sac: Sac, state: Tensor, said: Tensor, noise: Tensor, uniform: Tensor) -> Proposals:
    """Sample actions at states `[S, R, obs_dim]`.

    The actors have `said` `[2, S, R, 2 act_dim]`, first of the states that followed, then of the states, and noise
    `[2, S, R, N, act_dim]` is standard normal, in that order; uniform `[S, R, N, act_dim]` is in [-1, 1].
    """
    settings, act_dim = sac.settings, uniform.shape[-1]
    drawn = squash(said[..., None, :], noise, settings.log_std_min, settings.log_std_max)
    action = torch.cat([uniform, *drawn.action], dim=2)
    even = torch.full_like(drawn.log_prob[0], act_dim * log(2))
    return Proposals(state, action, torch.cat([even, *-drawn.log_prob], dim=2))


def soft_maximum(value: Tensor, lse: Lse) -> Tensor:
    """The log-sum-exp `[…, R]` of values `[…, R, 3N]`: of all, or the mean of N that have one of each kind."""
    return _lists(value, lse).logsumexp(dim=-1).mean(dim=-1)


def soft_maximum_slope(value: Tensor, lse: Lse) -> Tensor:
    """The gradient of `soft_maximum` by its values, `[…, R, 3N]`: it adds up to one at every state."""
    lists = _lists(value, lse)
    return lists.softmax(dim=-1).div_(lists.shape[-2]).mT.reshape(value.shape)


def _lists(value: Tensor, lse: Lse) -> Tensor:
    return value.unflatten(-1, (KINDS, -1)).mT if lse == "paired" else value[..., None, :]


def differentiate_critics(
    sac: Sac, batch: Batch, backup: Tensor, proposals: Proposals, beta: float, lse: Lse
) -> Judged:
    """Put into `critic_gradient` that of every critic's loss; returns what the critics say.

    The loss is beta (E[soft_maximum] - E[Q(s, a)]) + E[(Q(s, a) - backup)^2]: the first expectation is over the
    states of the proposals, the second over the real rows of the batch, the third over all of it, with `backup`
    `[S, B]`.
    """
    members, rows = backup.shape
    states, count = proposals.rarity.shape[1:]
    into = block_count(states * count, backup)
    aim, rarity = (x.repeat_interleave(2, dim=0) for x in (backup, proposals.rarity))  # [2S, …], one per critic
    state, action, rarities = (x.chunk(into, dim=1) for x in (proposals.state, proposals.action, rarity))
    asked = [(s.repeat_interleave(count, dim=1), a.flatten(1, 2)) for s, a in zip(state, action, strict=True)]

    def by_known(u: int, q: Tensor) -> Tensor:
        grad = (q - part(aim, u)[..., None]) * (2 / rows)
        grad[..., : batch.real, :] -= beta / batch.real
        return grad

    def by_proposed(k: int, u: int, q: Tensor) -> Tensor:
        rarity = part(rarities[k], u)
        slope = soft_maximum_slope(q.view(rarity.shape) + rarity, lse)
        return slope.mul_(beta / states).view(q.shape)

    known, *proposed = differentiate_blocks(
        sac.judging,
        [(batch.observation, batch.action), *asked],
        lambda k, u, q: by_proposed(k - 1, u, q) if k else by_known(u, q),
        into=sac.critic_gradient,
    )
    return Judged(known.view(members, 2, rows), torch.cat(proposed, dim=1).view(members, 2, states, count))
