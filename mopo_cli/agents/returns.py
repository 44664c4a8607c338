"""Returns: of one step, of logged episodes, and the lambda-returns of their steps."""

import torch
from torch import Tensor

from mopo_cli.engine.fused import fused


@fused
def one_step_return(reward: Tensor, terminal: Tensor, next_value: Tensor, gamma: float) -> Tensor:
    """What critics learn, reward + gamma (1 - terminal) next_value, all `[S, B]`."""
    return torch.addcmul(reward, 1 - terminal, next_value, value=gamma)


def episode_returns(reward: Tensor, last: Tensor) -> Tensor:
    """Sums of the rewards `[N]` of each episode, undiscounted, f8 `[episodes]`; `last` `[N]` as in `World`."""
    sums = reward.double().cumsum(dim=0)[last]
    return torch.diff(sums, prepend=sums.new_zeros(1))


def returns_to_end(reward: Tensor, last: Tensor, gamma: float) -> Tensor:
    """What N logged steps, in order, return from each to the end of its episode, discounted, f8 `[N]`."""
    reward = reward.double()
    return lambda_returns(reward, torch.zeros_like(reward), last, gamma, 1.0)


def lambda_returns(reward: Tensor, next_value: Tensor, last: Tensor, gamma: float, weight: float) -> Tensor:
    """The returns of TD(lambda) of N logged steps `[N]`, lambda being `weight` (Sutton & Barto 2018, section 12.1).

    G(t) = r(t) + gamma ((1 - lambda) V(t+1) + lambda G(t+1)), and r(t) + gamma V(t+1) at the last step of an
    episode. `next_value` `[N]` are the values V(t+1) of the states that the steps led to, 0 where one is terminal.

    The recursion is G(t) = b(t) + c(t) G(t+1), with c = 0 at a last step. Every pass doubles how many steps ahead
    are summed up, so that there are as many passes as the logarithm of the longest episode.
    """
    returns = reward + gamma * torch.where(last, next_value, (1 - weight) * next_value)
    carried = gamma * weight * (~last).to(reward.dtype)
    reach = 1
    while reach < len(reward) and bool(carried.any()):
        # A product and then a sum: both at once would round otherwise at the end of a tensor than within.
        returns[:-reach] += carried[:-reach] * returns[reach:]
        carried = torch.cat([carried[:-reach] * carried[reach:], carried.new_zeros(reach)])
        reach *= 2
    return returns
