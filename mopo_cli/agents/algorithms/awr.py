"""Advantage-weighted regression on logged data, over a stack of members (Peng et al. 2019, algorithm 1).

V is fitted to the lambda-returns of the logged episodes, and the policy clones their actions weighted by
exp(A / temperature). Returns and weights of all rows are made again at every refresh, by the V of that moment.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mopo_cli.agents.actor import mean_action, mean_gradient
from mopo_cli.agents.algorithm import AgentSettings, Algorithm, Batch, Networks, Work, setting
from mopo_cli.agents.networks import actor_sizes, start_single, value_sizes
from mopo_cli.agents.returns import lambda_returns
from mopo_cli.agents.standardise import StandardisedAgent, standard_of
from mopo_cli.agents.world import World
from mopo_cli.engine.members import Member
from mopo_cli.engine.rows import Transition
from mopo_cli.engine.streams import Draws
from mopo_cli.nets.network import Network, descend_side_by_side
from mopo_cli.nets.perceptron import evaluate, predict
from mopo_cli.nets.stacked import Parameters

_BLOCK = 1 << 18  # rows that V is evaluated at together
_LEAST_STD = 1e-5  # added to the advantages' deviation, as in AWR's code


@dataclass(frozen=True)
class AwrSettings(AgentSettings):
    """Hyper-parameters; V is learned at the critics' rate.

    The policy is a Gaussian of fixed standard deviation, so its likelihood is a sum of squares, and the deviation a
    factor of the loss, which Adam does not see. The bounds of its logarithm are stored with the policy.
    """

    critic_lr: float
    gamma: float
    awr_temperature: float = setting(
        1.0, "divisor of the advantage, in its standard deviations, in the weights' exponent", "AWR code", gt=0
    )
    weight_max: float = setting(20.0, "greatest weight of a row in the actor's regression", "AWR", gt=0)
    return_lambda: float = setting(0.95, "lambda of the returns that V is fitted to", "AWR", ge=0, le=1)


@dataclass(frozen=True)
class Logged:
    """The data `[N, ·]` in order, and which steps are the last of their episodes, bool `[N]`."""

    steps: Transition
    last: Tensor


@dataclass
class Awr(StandardisedAgent):
    """S agents: actors and V, and of each row of the data its return and its weight, `[S, N]` both."""

    settings: AwrSettings
    logged: Logged
    value: Network
    returns: Tensor
    weights: Tensor


def start_awr(data: Logged, settings: AwrSettings, seeds: list[int], device: torch.device | str) -> Awr:
    """Build fresh agents for these data, the m-th from the streams of `seeds[m]`."""
    observation, action = data.steps.observation, data.steps.action
    obs_dim, act_dim = observation.shape[1], action.shape[1]
    actor = start_single("actor", actor_sizes(settings, obs_dim, act_dim), settings, seeds, device)
    value = start_single("value", value_sizes(settings, obs_dim), settings, seeds, device)
    returns = torch.zeros(len(seeds), len(observation), device=device)
    return Awr(settings, actor, standard_of(observation), data, value, returns, torch.zeros_like(returns))


def refresh(awr: Awr) -> None:
    """Compute the returns and the weights of all rows by the present V, in place."""
    for m in range(len(awr.returns)):
        awr.returns[m], advantage = returns_and_advantages(awr, m)
        awr.weights[m] = weights(advantage, awr.settings)


def returns_and_advantages(awr: Awr, m: int) -> tuple[Tensor, Tensor]:
    """The lambda-returns of all rows by the V of member m, and their advantages over it: `[N]` both."""
    steps, last, settings = awr.logged.steps, awr.logged.last, awr.settings
    layout = awr.value.layout
    network = Parameters(layout, awr.standard.folded(layout, awr.value.flat[m : m + 1]))

    def values(observation: Tensor) -> Tensor:
        return torch.cat([predict(network, block)[:, 0] for block in observation.split(_BLOCK)])

    value = values(steps.observation)
    next_value = value.roll(-1)
    next_value[last] = values(steps.next_observation[last])
    next_value = torch.where(steps.terminal > 0, 0.0, next_value)
    returns = lambda_returns(steps.reward, next_value, last, settings.gamma, settings.return_lambda)
    return returns, returns - value


def weights(advantage: Tensor, settings: AwrSettings) -> Tensor:
    """min(exp(A / temperature), weight_max) of advantages `[N]`, which are standardised first (AWR's code)."""
    exact = advantage.double()
    standardised = (exact - exact.mean()) / (exact.std(correction=0) + _LEAST_STD)
    return (standardised / settings.awr_temperature).exp().clamp(max=settings.weight_max).float()


def gradient_step(awr: Awr, batch: Transition, index: Tensor, actor_scale: float = 1.0) -> dict[str, Tensor]:
    """One gradient step of every V and actor, in place; returns its metrics, each `[S]`.

    batch columns `[S, B, ·]` are the rows `index` `[S, B]` of the data; `actor_scale` is the factor of the
    actor's learning rate.
    """
    settings, rows = awr.settings, index.shape[1]
    returns, weight = awr.returns.gather(1, index), awr.weights.gather(1, index)
    observation = awr.standard.apply(batch.observation)
    actor, value = evaluate((awr.actor, (observation,)), (awr.value, (observation,)))

    # V's loss: mean (V(s) - G)^2 / 2 with the lambda-return G (AWR, algorithm 1)
    value_error = value.out[..., 0] - returns
    by_value = value_error[..., None] / rows
    # Actor's loss: mean exp(A / temperature) (tanh(mean(s)) - a)^2 (AWR, algorithm 1, std fixed)
    action = mean_action(actor.out)
    error = action - batch.action
    by_mean = 2 * weight[..., None] * error * (1 - action * action) / error[0].numel()
    descend_side_by_side(
        (awr.actor, actor, mean_gradient(by_mean), actor_scale * settings.actor_lr),
        (awr.value, value, by_value, settings.critic_lr),
    )
    return {
        "value": value.out.mean(dim=(1, 2)),
        "value_loss": value_error.square().mean(dim=1),
        "actor_loss": (weight[..., None] * error.square()).mean(dim=(1, 2)),
        "weight": weight.mean(dim=1),
    }


def start(world: World, members: tuple[Member, ...], settings: AwrSettings) -> Awr:
    """Fresh agents for the world's data."""
    seeds = [member.seed for member in members]
    return start_awr(Logged(world.row_layout.split(world.real), world.last), settings, seeds, world.real.device)


def update(awr: Awr, batch: Batch, _draws: Draws, actor_scale: float) -> dict[str, Tensor]:
    """`gradient_step` with a batch of the training loop."""
    return gradient_step(awr, batch, batch.index, actor_scale)


def _networks(settings: AwrSettings, work: Work) -> tuple[Networks, ...]:
    actor, value = actor_sizes(settings, work.obs_dim, work.act_dim), value_sizes(settings, work.obs_dim)
    return Networks(actor, evaluations=1), Networks(value, evaluations=1)


ALGORITHM = Algorithm(
    settings=AwrSettings,
    metrics=("value", "value_loss", "actor_loss", "weight"),
    start=start,
    update=update,
    networks=_networks,
    sampled_numbers=lambda settings, work: 2 * int(work.data),  # the return and the weight of every row of the data
    learns_from="real",
    refresh=lambda awr, draws, take: refresh(awr),
)
