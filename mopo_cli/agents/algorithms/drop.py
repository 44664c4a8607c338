"""DROP: SAC in the model, where a state-action pair costs the more the denser it is there than in the data.

Every elite k of the dynamics has a ratio tau_k(s, a) of its own, learned by GradientDICE for the policy as it is
(see `agents.dice`), and a row that network k generated is stored with tau_k. What is learned from is

    r - eta log(1e-8 + clip(tau, ratio-min, ratio-max))

on rows of the model; those of the data keep their reward. Where the policy goes less often than the data,
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

from mopo_cli.agents.algorithm import Algorithm, Batch, Networks, Take, Work, setting
from mopo_cli.agents.algorithms import sac
from mopo_cli.agents.algorithms.sac import Sac, SacSettings
from mopo_cli.agents.dice import Dice, Ratio, ratio_sizes, start_dice, step_dice
from mopo_cli.agents.world import World
from mopo_cli.dynamics.ensemble import Ensemble
from mopo_cli.dynamics.penalties import RATIO
from mopo_cli.engine.members import Member
from mopo_cli.engine.streams import Draws

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
class Drop(Sac):
    """S agents, and the ratios of each in the K elites of its ensemble: S K pairs, those of a member in a row.

    `elite_index` are, per member, the positions of the elites in its ensemble, `[K]`. `objective` `[S]` is
    GradientDICE's, averaged over the latest steps and the networks.
    """

    settings: DropSettings
    world: World
    elites: tuple[Ensemble, ...]
    elite_index: tuple[Tensor, ...]
    dice: Dice
    objective: Tensor

    def __post_init__(self) -> None:
        self.column = self.world.options.uncertainties.index(RATIO)
        # Not a field: tensors in fields are state.
        self.levels = torch.tensor(_QUANTILES, device=self.objective.device)

    def ratio(self, m: int, flat: Tensor) -> Ratio:
        """The ratios of member m, with the parameters that `flat` `[S, ·]` has after the policies'."""
        parameters, model = flat[m, self.actor.layout.size :], self.elites[m]
        scaler = model.input_mean, model.input_std
        return Ratio(parameters.view(len(model), -1), self.dice.tau.layout, *scaler, self.elite_index[m])


def start(world: World, members: tuple[Member, ...], settings: DropSettings) -> Drop:
    """Build fresh agents for members of the training loop, the m-th from the streams of its seed."""
    ensembles = [world.ensembles[member.model] for member in members]
    elites = tuple(ensemble.only_elites() for ensemble in ensembles)
    inputs, device = world.row_layout.obs_dim + world.row_layout.act_dim, world.real.device
    elite_index = tuple(torch.tensor(ensemble.elites, device=device) for ensemble in ensembles)
    dice = start_dice(inputs, len(elites[0]), [member.seed for member in members], device)
    agents, objective = sac.start(world, members, settings), torch.zeros(len(members), device=device)
    return Drop(**vars(agents), world=world, elites=elites, elite_index=elite_index, dice=dice, objective=objective)


def learn_ratios(drop: Drop, observation: Tensor, action: Tensor, draws: Draws) -> Tensor:
    """One step of GradientDICE at rows of the data, `[S, B, ·]`, in place; the objectives `[S]`."""
    settings, precision = drop.settings, drop.world.options.precision
    rows, act_dim = action.shape[1:]
    (noise,) = draws.normal(1, (1 + len(drop.elites[0])) * rows, act_dim)
    inputs = []
    for m, ensemble in enumerate(drop.elites):
        change, _ = ensemble.predict(observation[m], action[m], precision)
        next_observation = ensemble.next_observation(observation[m], action[m], change[..., :-1])  # [K, B, obs_dim]
        states = torch.cat([observation[m], *next_observation])
        actions = drop.policy(m).act(states, noise[m])
        pairs = torch.cat([observation[m], states]), torch.cat([action[m], actions])
        inputs.append(ensemble.inputs(*pairs))
    # Of every member: B rows at (s, a), B at (s0, a0), and K times B at (s', a').
    parts = torch.stack(inputs).unflatten(1, (-1, rows))
    inputs_sa, inputs_start, inputs_next = parts[:, 0], parts[:, 1], parts[:, 2:].flatten(0, 1)
    objective = step_dice(
        drop.dice, inputs_sa, inputs_start, inputs_next, settings.gamma, settings.dice_norm, settings.dice_lr
    )
    return objective.view(len(drop.elites), -1).mean(dim=1)


def refresh(drop: Drop, draws: Draws, take: Take) -> None:
    """Let the ratios follow the policies: `dice_steps` steps at rows drawn from the data."""
    drop.objective.zero_()
    for _ in range(drop.settings.dice_steps):
        take(partial(_follow, drop), draws)


def _follow(drop: Drop, draws: Draws) -> None:
    settings, world = drop.settings, drop.world
    rows = world.row_layout.split(world.real[draws.integers(len(world.real), settings.batch_size)])
    drop.objective += learn_ratios(drop, rows.observation, rows.action, draws) / settings.dice_steps


def penalty(ratio: Tensor, settings: DropSettings) -> tuple[Tensor, Tensor]:
    """The penalty of a ratio, without eta, and which ratios the clip changed; both of the shape of `ratio`."""
    if settings.ratio_form == "tanh":
        return torch.tanh(ratio - 1), torch.zeros_like(ratio)
    if settings.ratio_form == "tanh-difference":
        return torch.tanh(ratio) - tanh(1), torch.zeros_like(ratio)
    clipped = ratio.clamp(settings.ratio_min, settings.ratio_max)
    return torch.log(1e-8 + clipped), (clipped != ratio).to(ratio.dtype)


def update(drop: Drop, batch: Batch, draws: Draws, actor_scale: float) -> dict[str, Tensor]:
    """One gradient step of SAC, in place, with the model's rewards lowered; returns its metrics, each `[S]`.

    Among them are, of the ratios of the batch's model rows, quantiles and the share that was clipped.
    """
    ratio = batch.uncertainty[:, batch.real_rows :, drop.column]
    cost, clipped = penalty(ratio, drop.settings)
    real, model = batch.reward.tensor_split([batch.real_rows], dim=1)
    reward = torch.cat([real, model - drop.settings.eta * cost], dim=1)
    metrics = sac.gradient_step(drop, batch, reward, draws.normal(2, *batch.action.shape[1:]), actor_scale)
    metrics |= dict(zip(_RATIOS, torch.quantile(ratio, drop.levels, dim=1), strict=True))
    return metrics | {"clipped": clipped.mean(dim=1), "dice_loss": drop.objective}


def networks(settings: DropSettings, work: Work) -> tuple[Networks, ...]:
    """Soft actor-critic's, and for every elite those for tau and f, which have steps of their own."""
    return *sac.networks(settings, work), Networks(ratio_sizes(work.obs_dim + work.act_dim), 2 * work.elites)


def _warm(drop: Drop, batch: Batch, draws: Draws) -> None:
    learn_ratios(drop, batch.observation, batch.action, draws)


def _rollout_parameters(drop: Drop) -> Tensor:
    """The parameters of policies and ratios, `[S, ·]`."""
    return torch.cat([drop.actor.flat, drop.dice.tau.flat.view(len(drop.actor.flat), -1)], dim=1)


def _files(drop: Drop, m: int) -> dict[str, dict[str, Tensor]]:
    ratio = drop.ratio(m, _rollout_parameters(drop))
    mean, std = ratio.input_mean, ratio.input_std
    if (standard := drop.world.standard) is not None:
        mean, std = standard.folded_scaler(mean, std)
    scaler = {"input_mean": mean, "input_std": std, "networks": ratio.elite_index}
    return {"ratio": ratio.layout.views(ratio.flat) | scaler}


ALGORITHM = Algorithm(
    settings=DropSettings,
    metrics=("q", "critic_loss", "entropy", "alpha", *_RATIOS, "clipped", "dice_loss"),
    start=start,
    update=update,
    networks=networks,
    learns_from="model",
    warm_up=lambda settings: (settings.dice_pretrain,),
    warm=_warm,
    refresh=refresh,
    uncertainties=(RATIO,),
    rollout_parameters=_rollout_parameters,
    rollout_options=lambda drop, m, flat, options: replace(options, ratio=drop.ratio(m, flat)),
    files=_files,
)
