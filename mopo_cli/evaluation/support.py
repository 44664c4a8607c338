"""Which actions a log says something of: those that are like what was done in similar states."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mopo_cli.engine.streams import stream
from mopo_cli.evaluation.fitted_q import Act, Log
from mopo_cli.nets.scales import standard_units

_STATES = 2_000  # whose actions are compared
_LOGGED = 20_000  # rows that are looked through for similar states
_SIMILAR = 20  # logged rows that count as similar
_USUAL = 0.99  # of the logged actions are no farther than the limit from what similar states show
_BLOCK = 250  # states looked up at once


@dataclass(frozen=True)
class Support:
    """Some states of a log `[n, obs_dim]`, what it did in similar ones `[n, similar, act_dim]`, and what is far."""

    observation: Tensor
    actions: Tensor
    limit: float

    def outside(self, act: Act) -> float:
        """The share of the states in which the policy's action is farther than usual from all that was done nearby."""
        return float((_distance(self.actions, act(self.observation)) > self.limit).double().mean())


def support_of(log: Log) -> Support:
    """What a log of N transitions supports; the distance of states is that of standardised observations."""
    order = torch.randperm(len(log.reward), generator=stream(0, "support"))
    logged = order[:_LOGGED].to(log.reward.device)
    some = logged[:_STATES]
    states = standard_units(log.observation).apply(log.observation)
    actions = torch.cat([_nearby(states, logged, block) for block in some.split(_BLOCK)])
    similar = log.action[actions]
    usual = _distance(similar, log.action[some]).double().quantile(_USUAL)
    return Support(log.observation[some], similar, float(usual))


def _nearby(states: Tensor, logged: Tensor, some: Tensor) -> Tensor:
    """The rows `[n, similar]` among the logged ones whose states are nearest to each of some, but themselves."""
    distance = torch.cdist(states[some], states[logged]).masked_fill_(some[:, None] == logged, torch.inf)
    return logged[distance.topk(min(_SIMILAR, len(logged) - 1), largest=False).indices]


def _distance(similar: Tensor, action: Tensor) -> Tensor:
    """How far each action `[n, act_dim]` is from the nearest of those `[n, similar, act_dim]`."""
    nearest: Tensor = (similar - action[:, None]).norm(dim=-1).amin(dim=1)
    return nearest
