"""The conservative term of CQL and COMBO: critics are pushed down at actions that are sampled, and up at the data's.

At every state it takes the log-sum-exp of the critic's values at 3N actions: N uniform ones, N that the policy draws
there and N that it draws at the next state. The log-density of its action is subtracted from each value, so that
exp(value) estimates the integral of exp Q over the actions, whichever density they are from ("CQL(H)" of Kumar et al.
2020). The critic's values at the data's own actions are subtracted.
"""

from dataclasses import dataclass
from math import log
from typing import Literal

import torch
from torch import Tensor

from mopo_cli.agents.actor import squash
from mopo_cli.agents.algorithm import Batch
from mopo_cli.agents.algorithms.sac import SacSettings
from mopo_cli.agents.networks import twin_values
from mopo_cli.nets.network import Network
from mopo_cli.nets.perceptron import Term, block_count, differentiate_terms

Lse = Literal["full", "paired"]
KINDS = 3


@dataclass(frozen=True)
class Proposals:
    """Actions `[S, R, 3N, act_dim]` sampled at R states `[S, R, obs_dim]`, and minus their log-densities `[S, R, 3N]`.

    The first N are uniform, the next are the policy's at the states that followed, the last its at the states.
    """

    state: Tensor
    action: Tensor
    neg_log_density: Tensor


def propose(settings: SacSettings, state: Tensor, out: Tensor, noise: Tensor, uniform: Tensor) -> Proposals:
    """Sample actions at states `[S, R, obs_dim]`.

    The actors' outputs are `out` `[2, S, R, 2 act_dim]`, first at the next states, then at the states, and noise
    `[2, S, R, N, act_dim]` is standard normal, in that order; uniform `[S, R, N, act_dim]` is in [-1, 1].
    """
    act_dim = uniform.shape[-1]
    sample = squash(out[..., None, :], noise, settings.log_std_min, settings.log_std_max)
    action = torch.cat([uniform, *sample.action], dim=2)
    uniform_neg_log_density = torch.full_like(sample.log_prob[0], act_dim * log(2))
    return Proposals(state, action, torch.cat([uniform_neg_log_density, *-sample.log_prob], dim=2))


def log_sum_exp(value: Tensor, lse: Lse) -> Tensor:
    """The log-sum-exp `[…, R]` of values `[…, R, 3N]`: of all, or the mean of N that have one of each kind."""
    return _lists(value, lse).logsumexp(dim=-1).mean(dim=-1)


def log_sum_exp_gradient(value: Tensor, lse: Lse) -> Tensor:
    """The gradient of `log_sum_exp` by its values, `[…, R, 3N]`: it adds up to one at every state."""
    lists = _lists(value, lse)
    return lists.softmax(dim=-1).div_(lists.shape[-2]).mT.reshape(value.shape)


def _lists(value: Tensor, lse: Lse) -> Tensor:
    return value.unflatten(-1, (KINDS, -1)).mT if lse == "paired" else value[..., None, :]


def differentiate_critics(
    critic: Network, batch: Batch, target_q: Tensor, proposals: Proposals, beta: float, lse: Lse
) -> tuple[Tensor, Tensor]:
    """Put the gradient of every critic's loss into `critic.gradient`, `[2S, size]`.

    The loss is beta (E[log_sum_exp] - E[Q(s, a)]) + E[(Q(s, a) - target_q)^2]: the first expectation is over the
    states of the proposals, the second over the real rows of the batch, the third over all of it, with `target_q`
    `[S, B]`. Returns the critics' values of the batch, `[S, 2, B]`, and of the R proposals, `[S, 2, R, 3N]`.
    """
    members, rows = target_q.shape
    states, count = proposals.neg_log_density.shape[1:]
    blocks = block_count(states * count, target_q)
    # [2S, …], one per critic
    target, neg_log_density = (x.repeat_interleave(2, dim=0) for x in (target_q, proposals.neg_log_density))

    def by_q(q: Tensor, target: Tensor) -> Tensor:
        grad = (q - target[..., None]) * (2 / rows)
        grad[..., : batch.real_rows, :] -= beta / batch.real_rows
        return grad

    def by_proposed_q(q: Tensor, neg_log_density: Tensor) -> Tensor:
        gradient = log_sum_exp_gradient(q.view(neg_log_density.shape) + neg_log_density, lse)
        return gradient.mul_(beta / states).view(q.shape)

    columns = (x.chunk(blocks, dim=1) for x in (proposals.state, proposals.action, neg_log_density))
    proposed = [
        Term((state.repeat_interleave(count, dim=1), action.flatten(1, 2)), (neg_log_densities,), by_proposed_q)
        for state, action, neg_log_densities in zip(*columns, strict=True)
    ]
    of_batch = Term((batch.observation, batch.action), (target,), by_q)
    q, *proposed_q = differentiate_terms(critic, [of_batch, *proposed], into=critic.gradient)
    return twin_values(q), torch.cat(proposed_q, dim=1).view(members, 2, states, count)
