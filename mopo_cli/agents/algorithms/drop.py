"""DROP: SAC in the model, where a state-action pair costs the more the denser it is there than in the data.

Every elite k of the dynamics has a ratio tau_k(s, a) of its own, learned by GradientDICE for the policy as it is
(see `agents.dice`), and a row that network k generated is stored with tau_k. What is learned from is

    r - eta log(1e-8 + clip(tau, ratio-min, ratio-max))

on rows of the model; nothing is taken off those of the data. Where the policy goes less often than the data,
log tau < 0 and pays a bonus, down to a penalty of eta log(ratio-min). The authors' code also has the forms "tanh",
tanh(tau - 1), and "tanh-difference", tanh(tau) - tanh(1), which are bounded by themselves and not clipped.

(s, a) are drawn from the data and s0 are the same rows' states, s' is what network k expects, whether an episode
would end there or not, and the inputs of tau and f are scaled as the dynamics' are.
"""

from dataclasses import dataclass, replace
from functools import partial
from math import tanh
from typing import Literal

import torch
from torch import Tensor

from mopo_cli.agents.actor import Actor
from mopo_cli.agents.algorithm import Algorithm, Batch, Networks, Take, Work, agent_state, restore_agent, setting
from mopo_cli.agents.algorithms import sac as soft
from mopo_cli.agents.algorithms.sac import Sac, SacSettings
from mopo_cli.agents.dice import Dice, Ratio, ratio_sizes, standardise, start_dice, step_dice
from mopo_cli.agents.world import World
from mopo_cli.dynamics.branched_rollouts import RolloutOptions
from mopo_cli.dynamics.ensemble import Ensemble
from mopo_cli.dynamics.penalties import RATIO
from mopo_cli.engine.members import Member
from mopo_cli.engine.streams import Draws
from mopo_cli.nets.flops import backward_flops, mlp_flops

_QUANTILES = (0.1, 0.5, 0.9)
_RATIOS = tuple(f"ratio_p{100 * level:.0f}" for level in _QUANTILES)


@dataclass(frozen=True)
class DropSettings(SacSettings):
    """Hyper-parameters of SAC, and of the ratios and what they cost."""

    batch_size: int
    eta: float = setting(1.0, "weight of the ratio's penalty, taken off the model's reward", "DROP: 0.1 to 5", ge=0)
    ratio_form: Literal["log", "tanh", "tanh-difference"] = setting(
        "log", "penalty by the ratio t: log t, tanh(t - 1) or tanh t - tanh 1", "DROP; tanh: DROP code"
    )
    ratio_min: float = setting(
        0.01, "ratios are raised to this before their logarithm is taken", "DROP: 0.01 or 0.1", ge=0, le=1
    )
    ratio_max: float = setting(
        10.0, "ratios are lowered to this before their logarithm is taken", "DROP: 10 to 50", ge=1
    )
    dice_lr: float = setting(1e-4, "Adam step size of the ratios", "DROP code", gt=0)
    dice_norm: float = setting(0.1, "weight of the demand that a ratio be 1 on average", "DROP: 0.1 to 1", ge=0)
    dice_steps: int = setting(400, "gradient steps of the ratios before each rollout", "DROP code: 200 to 600", ge=0)
    dice_pretrain: int = setting(1000, "gradient steps of the ratios before all else", "DROP code: 100", ge=0)


@dataclass
class Drop:
    """S agents, and the ratios of each in the K elites of its ensemble: S K pairs, those of a member in a row.

    `objective` `[S]` is GradientDICE's, averaged over the latest steps and the networks.
    """

    settings: DropSettings
    world: World
    elites: tuple[Ensemble, ...]
    networks: Tensor  # [S, K], the numbers of the elites in their ensembles
    sac: Sac
    dice: Dice
    objective: Tensor

    def __post_init__(self) -> None:
        self.column = self.world.how.uncertainties.index(RATIO)
        self.levels = torch.tensor(_QUANTILES, device=self.objective.device)

    @property
    def actor(self) -> Tensor:
        """The parameters of the policies, `[S, ·]`."""
        return self.sac.actor

    def policy(self, m: int, flat: Tensor | None = None) -> Actor:
        """The policy of member m, with its present parameters or with those that `flat` `[S, ·]` begins with."""
        return self.sac.policy(m, None if flat is None else flat[:, : self.actor.shape[1]])

    def ratio(self, m: int, flat: Tensor) -> Ratio:
        """The ratios of member m, with the parameters that `flat` `[S, ·]` has after the policies'."""
        own, model = flat[m, self.actor.shape[1] :], self.elites[m]
        scaler = model.input_mean, model.input_std
        return Ratio(own.view(len(model), -1), self.dice.layout, *scaler, self.networks[m])

    def finite(self) -> Tensor:
        """Whether all that a member has learned is finite, bool `[S]`."""
        members = len(self.actor)
        learned = torch.cat([part.view(members, -1) for part in (self.dice.tau, self.dice.f, self.dice.nu)], dim=1)
        return self.sac.finite() & torch.isfinite(learned).all(dim=1)


def start_drop(world: World, members: tuple[Member, ...], settings: DropSettings) -> Drop:
    """Build fresh agents for members of the training loop, the m-th from the streams of its seed."""
    ensembles = [world.ensembles[member.model] for member in members]
    elites = tuple(ensemble.only_elites() for ensemble in ensembles)
    inputs, device = world.rows.obs_dim + world.rows.act_dim, world.real.device
    networks = torch.tensor([ensemble.elites for ensemble in ensembles], device=device)
    dice = start_dice(inputs, len(elites[0]), [member.seed for member in members], device)
    agents = soft.begin(world, members, settings)
    return Drop(settings, world, elites, networks, agents, dice, torch.zeros(len(members), device=device))


def learn_ratios(drop: Drop, observation: Tensor, action: Tensor, draws: Draws) -> Tensor:
    """One step of GradientDICE at rows of the data, `[S, B, ·]`, in place; the objectives `[S]`."""
    settings, precision = drop.settings, drop.world.how.precision
    rows, act_dim = action.shape[1:]
    (noise,) = draws.normal(1, (1 + len(drop.elites[0])) * rows, act_dim)
    inputs = []
    for m, ensemble in enumerate(drop.elites):
        change, _ = ensemble.predict(observation[m], action[m], precision)
        following = observation[m] + change[..., :-1]  # [K, B, obs_dim]
        states = torch.cat([observation[m], *following])
        acted = drop.sac.policy(m).act(states, noise[m])
        pairs = torch.cat([observation[m], states]), torch.cat([action[m], acted])
        inputs.append(standardise(*pairs, ensemble.input_mean, ensemble.input_std))
    # Of every member: B rows at (s, a), B at (s0, a0), and K times B at (s', a').
    parts = torch.stack(inputs).unflatten(1, (-1, rows))
    at, first, ahead = parts[:, 0], parts[:, 1], parts[:, 2:].flatten(0, 1)
    found = step_dice(drop.dice, at, first, ahead, settings.gamma, settings.dice_norm, settings.dice_lr)
    return found.view(len(drop.elites), -1).mean(dim=1)


def refresh(drop: Drop, draws: Draws, take: Take) -> None:
    """Let the ratios follow the policies: `dice_steps` steps at rows drawn from the data."""
    drop.objective.zero_()
    for _ in range(drop.settings.dice_steps):
        take(partial(_follow, drop), draws)


def _follow(drop: Drop, draws: Draws) -> None:
    settings, world = drop.settings, drop.world
    rows = world.rows.split(world.real[draws.integers(len(world.real), settings.batch_size)])
    drop.objective += learn_ratios(drop, rows.observation, rows.action, draws) / settings.dice_steps


def penalty(ratio: Tensor, settings: DropSettings) -> tuple[Tensor, Tensor]:
    """What is taken off the reward for a ratio, without eta, and which ratios the clip changed; both as `ratio`."""
    if settings.ratio_form == "tanh":
        return torch.tanh(ratio - 1), torch.zeros_like(ratio)
    if settings.ratio_form == "tanh-difference":
        return torch.tanh(ratio) - tanh(1), torch.zeros_like(ratio)
    clipped = ratio.clamp(settings.ratio_min, settings.ratio_max)
    return torch.log(1e-8 + clipped), (clipped != ratio).to(ratio.dtype)


def update(drop: Drop, batch: Batch, draws: Draws, actor_scale: float) -> dict[str, Tensor]:
    """One gradient step of SAC, in place, with the model's rewards altered; what one watches, each `[S]`.

    Told of the ratios of the batch's model rows: quantiles, and the share of them that was clipped.
    """
    ratio = batch.uncertainty[:, batch.real :, drop.column]
    cost, clipped = penalty(ratio, drop.settings)
    real, imagined = batch.reward[:, : batch.real], batch.reward[:, batch.real :] - drop.settings.eta * cost
    reward = torch.cat([real, imagined], dim=1)
    told = soft.update(drop.sac, batch, reward, draws.normal(2, *batch.action.shape[1:]), actor_scale)
    told |= dict(zip(_RATIOS, torch.quantile(ratio, drop.levels, dim=1), strict=True))
    return told | {"clipped": clipped.mean(dim=1), "dice_loss": drop.objective}


def refresh_operations(settings: DropSettings, work: Work) -> int:
    """The products of `refresh`.

    At each row the elites say what follows, the policy acts there and in the row's own state, and the networks for tau
    are asked about one pair and those for f about three, forward and back.
    """
    actor, _ = soft.sac_sizes(settings, work)
    sizes = ratio_sizes(work.obs_dim + work.act_dim)
    pair = 4 * (mlp_flops(sizes) + backward_flops(sizes))
    row = work.elites * (work.network + mlp_flops(actor) + pair) + mlp_flops(actor)
    return settings.dice_steps * work.batch * row


def networks(settings: DropSettings, work: Work) -> tuple[Networks, ...]:
    """Soft actor-critic's, and for every elite those for tau and f, which have steps of their own."""
    return *soft.networks(settings, work), Networks(ratio_sizes(work.obs_dim + work.act_dim), 2 * work.elites)


def _warm(drop: Drop, batch: Batch, draws: Draws) -> None:
    learn_ratios(drop, batch.observation, batch.action, draws)


def _rolling(drop: Drop) -> Tensor:
    """Who acts and what the ratios are: the parameters of both, `[S, ·]`."""
    return torch.cat([drop.actor, drop.dice.tau.view(len(drop.actor), -1)], dim=1)


def _imagining(drop: Drop, m: int, flat: Tensor, how: RolloutOptions) -> RolloutOptions:
    return replace(how, ratio=drop.ratio(m, flat))


def _files(drop: Drop, m: int) -> dict[str, dict[str, Tensor]]:
    own = drop.ratio(m, _rolling(drop))
    more = {"input_mean": own.input_mean, "input_std": own.input_std, "networks": own.networks}
    return {"ratio": own.layout.views(own.flat) | more}


def _state(drop: Drop) -> tuple[dict[str, Tensor], list[int]]:
    (of_sac, taken), (of_dice, more) = agent_state(drop.sac), agent_state(drop.dice)
    return of_sac | of_dice | {"objective": drop.objective}, taken + more


def _restore(drop: Drop, tensors: dict[str, Tensor], steps: list[int]) -> None:
    count = len(agent_state(drop.sac)[1])
    restore_agent(drop.sac, tensors, steps[:count])
    restore_agent(drop.dice, tensors, steps[count:])
    drop.objective.copy_(tensors["objective"])


ALGORITHM = Algorithm(
    DropSettings,
    ("q", "critic_loss", "entropy", "alpha", *_RATIOS, "clipped", "dice_loss"),
    start_drop,
    update,
    soft.operations,
    networks,
    learns_from="model",
    warm_up=lambda settings: (settings.dice_pretrain,),
    warm=_warm,
    refresh=refresh,
    refresh_operations=refresh_operations,
    uncertainties=(RATIO,),
    rolling=_rolling,
    imagining=_imagining,
    files=_files,
    state=_state,
    restore=_restore,
)
