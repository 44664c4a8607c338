"""Advantage-weighted regression on logged data, over a stack of members (Peng et al. 2019, algorithm 1).

V is fitted to the lambda-returns of the logged episodes, and the policy clones their actions weighted by
exp(A / temperature). Returns and weights of all rows are made anew at every refresh, by the V of that moment.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from mopo_cli.agents.actor import Actor
from mopo_cli.agents.algorithm import Algorithm, Batch, Networks, Take, Work, setting
from mopo_cli.agents.returns import lambda_returns, last_steps
from mopo_cli.agents.standardise import Standard, standard_of
from mopo_cli.agents.world import World
from mopo_cli.engine.members import Member
from mopo_cli.engine.parallel import spread
from mopo_cli.engine.rows import Transition
from mopo_cli.engine.streams import Draws, stream
from mopo_cli.nets.adam import Adam
from mopo_cli.nets.flops import backward_flops, mlp_flops
from mopo_cli.nets.init import initial, uniform
from mopo_cli.nets.perceptron import differentiate, evaluate, predict
from mopo_cli.nets.precision import Precision
from mopo_cli.nets.stacked import Layout, Parameters, mlp_layout

_BLOCK = 1 << 18  # rows valued at once
_LEAST_STD = 1e-5  # added to the advantages' deviation, as in AWR's code


@dataclass(frozen=True)
class AwrSettings:
    """Hyper-parameters; V is learned at the critics' rate.

    The policy is a Gaussian of fixed deviation, so its likelihood is a sum of squares and the deviation a factor
    of the loss, which Adam does not see; the bounds of its logarithm only go with the policy.
    """

    hidden: int
    layers: int
    actor_lr: float
    critic_lr: float
    gamma: float
    log_std_min: float
    log_std_max: float
    update_precision: Precision = field(default="fp32", kw_only=True)
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
class Awr:
    """S agents: actors and V `[S, ·]`, and of each row of the data its return and its weight, `[S, N]` both."""

    settings: AwrSettings
    logged: Logged
    standard: Standard
    actor_layout: Layout
    value_layout: Layout
    actor: Tensor
    value: Tensor
    returns: Tensor
    weights: Tensor
    actor_adam: Adam
    value_adam: Adam

    def __post_init__(self) -> None:
        self.acting = Parameters(self.actor_layout, self.actor, self.settings.update_precision)
        self.valuing = Parameters(self.value_layout, self.value, self.settings.update_precision)
        self.actor_gradient = Parameters(self.actor_layout, self.actor_adam.grad)
        self.value_gradient = Parameters(self.value_layout, self.value_adam.grad)

    def policy(self, m: int, flat: Tensor | None = None) -> Actor:
        """The policy of member m for observations as they are, by its present parameters or those in `flat`."""
        own = (self.actor if flat is None else flat)[m : m + 1]
        folded = self.standard.folded(self.actor_layout, own)
        return Actor(folded, self.actor_layout, self.settings.log_std_min, self.settings.log_std_max)

    def finite(self) -> Tensor:
        """Whether the actor and V of a member are finite, bool `[S]`."""
        return torch.isfinite(self.actor).all(dim=1) & torch.isfinite(self.value).all(dim=1)


def start_awr(logged: Transition, settings: AwrSettings, seeds: list[int], device: torch.device | str) -> Awr:
    """Build fresh agents for data `[N, ·]` in the order they were logged, the m-th from the streams of `seeds[m]`."""
    hidden, obs_dim, act_dim = (settings.hidden,) * settings.layers, logged.observation.shape[1], logged.action.shape[1]
    actor_layout = mlp_layout((obs_dim, *hidden, 2 * act_dim))
    value_layout = mlp_layout((obs_dim, *hidden, 1))
    actor = initial(actor_layout, [stream(s, "actor/weights") for s in seeds], uniform, uniform).to(device)
    value = initial(value_layout, [stream(s, "value/weights") for s in seeds], uniform, uniform).to(device)
    returns = torch.zeros(len(seeds), len(logged.reward), device=device)
    data, standard = Logged(logged, last_steps(logged)), standard_of(logged.observation)
    adams = Adam.like(actor), Adam.like(value)
    rows = returns, torch.zeros_like(returns)
    return Awr(settings, data, standard, actor_layout, value_layout, actor, value, *rows, *adams)


def refresh(awr: Awr) -> None:
    """Compute the returns and the weights of all rows by the present V, in place."""
    for m in range(len(awr.value)):
        returns, advantage = judge(awr, m)
        awr.returns[m] = returns
        awr.weights[m] = weights(advantage, awr.settings)


def judge(awr: Awr, m: int) -> tuple[Tensor, Tensor]:
    """The lambda-returns of all rows by the V of member m, and their advantages over it: `[N]` both."""
    steps, last, settings = awr.logged.steps, awr.logged.last, awr.settings
    value_of = Parameters(awr.value_layout, awr.standard.folded(awr.value_layout, awr.value[m : m + 1]))

    def value(observation: Tensor) -> Tensor:
        return torch.cat([predict(value_of, block)[:, 0] for block in observation.split(_BLOCK)])

    present = value(steps.observation)
    following = present.roll(-1)
    following[last] = value(steps.next_observation[last])
    following = torch.where(steps.terminal > 0, 0.0, following)
    returns = lambda_returns(steps.reward, following, last, settings.gamma, settings.return_lambda)
    return returns, returns - present


def weights(advantage: Tensor, settings: AwrSettings) -> Tensor:
    """min(exp(A / temperature), weight_max) of advantages `[N]`, which are standardised first (AWR's code)."""
    exact = advantage.double()
    standardised = (exact - exact.mean()) / (exact.std(correction=0) + _LEAST_STD)
    return (standardised / settings.awr_temperature).exp().clamp(max=settings.weight_max).float()


def update(awr: Awr, batch: Transition, index: Tensor, actor_scale: float = 1.0) -> dict[str, Tensor]:
    """One gradient step of every V and actor, in place; returns what one watches, each `[S]`.

    batch columns `[S, B, ·]` are the rows `index` `[S, B]` of the data; `actor_scale` is the factor of the
    actor's learning rate.
    """
    settings, rows = awr.settings, index.shape[1]
    wanted, weight = awr.returns.gather(1, index), awr.weights.gather(1, index)
    observation = awr.standard.apply(batch.observation)
    present, valued = evaluate((awr.acting, (observation,)), (awr.valuing, (observation,)))

    surplus = valued.out[..., 0] - wanted
    by_value = surplus[..., None] / rows  # half the mean squared error
    action = torch.tanh(present.out.chunk(2, dim=-1)[0])
    error = action - batch.action
    by_mean = 2 * weight[..., None] * error * (1 - action * action) / error[0].numel()
    by_out = torch.cat([by_mean, torch.zeros_like(by_mean)], dim=-1)

    def learn(job: int) -> None:
        u, actors = job // 2, job % 2
        if actors:
            differentiate(present, u, by_out, into=awr.actor_gradient)
            awr.actor_adam.step(u, awr.actor, actor_scale * settings.actor_lr)
        else:
            differentiate(valued, u, by_value, into=awr.value_gradient)
            awr.value_adam.step(u, awr.value, settings.critic_lr)

    awr.actor_adam.steps += 1
    awr.value_adam.steps += 1
    spread(learn, 2 * len(present.inputs))
    return {
        "value": valued.out.mean(dim=(1, 2)),
        "value_loss": surplus.square().mean(dim=1),
        "actor_loss": (weight[..., None] * error.square()).mean(dim=(1, 2)),
        "weight": weight.mean(dim=1),
    }


def _begin(world: World, members: tuple[Member, ...], settings: AwrSettings) -> Awr:
    seeds = [member.seed for member in members]
    return start_awr(world.rows.split(world.real), settings, seeds, world.real.device)


def _refresh(awr: Awr, _draws: Draws, _take: Take) -> None:
    refresh(awr)


def _step(awr: Awr, batch: Batch, _draws: Draws, actor_scale: float) -> dict[str, Tensor]:
    return update(awr, batch, batch.index, actor_scale)


def _operations(settings: AwrSettings, work: Work) -> int:
    """The products of `update`, both networks forward and back."""
    hidden = (settings.hidden,) * settings.layers
    actor, value = (work.obs_dim, *hidden, 2 * work.act_dim), (work.obs_dim, *hidden, 1)
    return work.batch * sum(mlp_flops(sizes) + backward_flops(sizes) for sizes in (actor, value))


def _refresh_operations(settings: AwrSettings, work: Work) -> int:
    """V judges all rows of the data; what follows the last of each episode is not counted."""
    return work.data * mlp_flops((work.obs_dim, *(settings.hidden,) * settings.layers, 1))


def _networks(settings: AwrSettings, work: Work) -> tuple[Networks, ...]:
    hidden = (settings.hidden,) * settings.layers
    return Networks((work.obs_dim, *hidden, 2 * work.act_dim), looks=1), Networks((work.obs_dim, *hidden, 1), looks=1)


def _held(_settings: AwrSettings, work: Work) -> int:
    """The return and the weight of every row of the data."""
    return 2 * work.data


ALGORITHM = Algorithm(
    AwrSettings,
    ("value", "value_loss", "actor_loss", "weight"),
    _begin,
    _step,
    _operations,
    _networks,
    _held,
    learns_from="real",
    refresh=_refresh,
    refresh_operations=_refresh_operations,
)
