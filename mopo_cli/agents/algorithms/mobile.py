"""MOBILE: rewards lowered by how much the networks' estimates of the next value differ (Sun et al. 2023).

The model-Bellman inconsistency u(s, a) is the standard deviation over the elites k of E[min(Q1', Q2')(s', a')], the
expectation over s' from elite k and a' from the policy. It depends on the critics, so it is estimated again at every
gradient step, for the model's rows of the batch; the data's rows have none.

The authors' code lets no target be below 0. That is right where no return is negative; where some are, every state of
negative value would get the target 0, and critics could not tell these states apart. So there is a floor only where
none of the data's discounted returns, from every row to the end of its episode, is negative.
"""

from dataclasses import dataclass
from math import inf
from typing import Literal

import torch
from torch import Tensor

from mopo_cli.agents.actor import sample_action
from mopo_cli.agents.algorithm import Algorithm, Batch, Choice, Work, setting
from mopo_cli.agents.algorithms import sac
from mopo_cli.agents.networks import actor_sizes, critic_sizes, min_q
from mopo_cli.agents.returns import returns_to_end
from mopo_cli.agents.world import World
from mopo_cli.dynamics.ensemble import Ensemble
from mopo_cli.engine.members import Member
from mopo_cli.engine.streams import Draws
from mopo_cli.errors import SettingsError
from mopo_cli.nets.perceptron import evaluate, map_members
from mopo_cli.nets.stacked import Parameters

# Next states that actor and critics are evaluated at together on CPU: their activations then stay in its cache.
_CPU_ROWS = 512


@dataclass(frozen=True)
class MobileSettings(sac.SacSettings):
    """Soft actor-critic's, the penalty's weight and samples, and the form of the target."""

    mobile_coefficient: float = setting(
        1.0, "weight of MOBILE's penalty u: the reward is r - coefficient * u", "MOBILE code", ge=0
    )
    mobile_samples: int = setting(10, "next states that each elite draws for MOBILE's penalty", "MOBILE code", ge=1)
    backup: Literal["soft", "deterministic"] = setting(
        "deterministic",
        "whether the critics' target counts the entropy: soft, or not",
        "OfflineRL-Kit; MOBILE code: soft",
    )
    target_floor: Literal["auto", "zero", "none"] = setting(
        "auto",
        "least value of the critics' target: zero, none, or auto: zero where no discounted return of the data is"
        " negative, else none",
        "MOBILE code: zero",
    )


@dataclass
class Mobile(sac.Sac):
    """S agents, and the elites alone of the ensemble that each branches in.

    `lowest_return` is the least discounted return of the data where `target_floor` is auto, else None.
    """

    settings: MobileSettings
    elites: list[Ensemble]
    lowest_return: float | None = None

    @property
    def has_floor(self) -> bool:
        """Whether no target is below 0."""
        if self.lowest_return is None:
            return self.settings.target_floor == "zero"
        return self.lowest_return >= 0


def inconsistency(mobile: Mobile, observation: Tensor, action: Tensor, noise: Tensor) -> Tensor:
    """The penalty u `[S, B]` of states and actions `[S, B, ·]`.

    noise `[S, K, M, B, frame + act_dim]` is standard normal, for the M next states that each of K elites draws and
    the actions there. The variance has K - 1 in its denominator, as in the authors' code; a single elite has none.
    """
    members, elites, samples, rows, _ = noise.shape
    frame = mobile.elites[0].frame
    state_noise, action_noise = noise.split([frame, action.shape[2]], dim=-1)
    mean, std = _predict(mobile, observation, action)
    next_observation = torch.addcmul(mean[:, :, None, :, :frame], std[:, :, None], state_noise)
    if frame < mean.shape[-1]:
        past = mean[:, :, None, :, frame:].expand(-1, -1, samples, -1, -1)
        next_observation = torch.cat([next_observation, past], dim=-1)
    values = _min_target_values(mobile, next_observation.flatten(1, 3), action_noise.flatten(1, 3))
    expected = values.view(members, elites, samples, rows).mean(dim=2)
    return expected.std(dim=1, correction=min(1, elites - 1))


def _predict(mobile: Mobile, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    """Each elite's expected next observation `[S, K, B, obs_dim]`, and the std of its frame `[S, K, B, frame]`."""
    expected, stds = [], []
    for ensemble, state, act in zip(mobile.elites, observation, action, strict=True):
        change, std = ensemble.predict(state, act)
        expected.append(ensemble.next_observation(state, act, change[..., :-1]))
        stds.append(std[..., :-1])
    return torch.stack(expected), torch.stack(stds)


def _min_target_values(mobile: Mobile, observation: Tensor, noise: Tensor) -> Tensor:
    """min(Q1', Q2') `[S, R]` at observations `[S, R, obs_dim]` and sampled actions, by noise `[S, R, act_dim]`."""
    settings = mobile.settings

    def min_target(actor: Parameters, target: Parameters, observation: Tensor, noise: Tensor) -> Tensor:
        (policy,) = evaluate((actor, (observation,)))
        mean, log_std = policy.out.chunk(2, dim=-1)
        action = sample_action(mean, log_std, noise, settings.log_std_min, settings.log_std_max)
        (q,) = evaluate((target, (observation, action)))
        return min_q(q.out)

    return map_members(min_target, (mobile.actor, mobile.critic.target), (observation, noise), _CPU_ROWS)


def update(mobile: Mobile, batch: Batch, draws: Draws, actor_scale: float) -> dict[str, Tensor]:
    """One gradient step of every critic, actor and temperature, in place; returns its metrics, each `[S]`.

    The target is r - c u + gamma (1 - terminal) (min(Q1', Q2')(s', a') - alpha log_prob), in a deterministic backup
    without the last term; all else is as in soft actor-critic.
    """
    settings, (rows, act_dim) = mobile.settings, batch.action.shape[1:]
    elites, model_rows = len(mobile.elites[0]), slice(batch.real_rows, None)
    width = mobile.elites[0].frame + act_dim
    (penalty_noise,) = draws.normal(1, elites, settings.mobile_samples, rows - batch.real_rows, width)
    u = inconsistency(mobile, batch.observation[:, model_rows], batch.action[:, model_rows], penalty_noise)
    reward = batch.reward.clone()
    reward[:, model_rows] -= settings.mobile_coefficient * u
    soft, floor = settings.backup == "soft", 0.0 if mobile.has_floor else -inf
    noise = draws.normal(2, rows, act_dim)
    metrics = sac.gradient_step(mobile, batch, reward, noise, actor_scale, soft=soft, floor=floor)
    return metrics | {"inconsistency": u.mean(dim=1)}


def start(world: World, members: tuple[Member, ...], settings: MobileSettings) -> Mobile:
    """Fresh agents; a floor that is left to the data is decided by all real rows.

    SettingsError for a floor of zero where no return is above it.
    """
    real = world.row_layout.split(world.real)
    if settings.target_floor == "zero" and (real.reward <= 0).all():
        raise SettingsError(
            "target-floor zero presumes that returns are not negative, but no reward of the data is positive.",
            hint="--target-floor auto",
        )
    returns = returns_to_end(real.reward, world.last, settings.gamma)
    lowest = float(returns.amin()) if settings.target_floor == "auto" else None
    elites = [world.ensembles[member.model].only_elites() for member in members]
    return Mobile(**vars(sac.start(world, members, settings)), elites=elites, lowest_return=lowest)


def choices(mobile: Mobile) -> tuple[Choice, ...]:
    """Whether there is a floor, where that was left to the data."""
    if mobile.lowest_return is None:
        return ()
    worst = f"the data's lowest discounted return is {mobile.lowest_return:.4g}"
    return (Choice("target_floor", "zero" if mobile.has_floor else "none", worst),)


def sampled_numbers(settings: MobileSettings, work: Work) -> int:
    """The next states that the elites draw for each of the model's rows, and their noise; at once, layer by layer."""
    actor, critic = (sizes(settings, work.obs_dim, work.act_dim) for sizes in (actor_sizes, critic_sizes))
    drawn = (work.batch - work.real_rows) * work.elites * settings.mobile_samples
    return drawn * (2 * critic[0] + (sum(actor) + 2 * sum(critic) if work.at_once else 0))


ALGORITHM = Algorithm(
    settings=MobileSettings,
    metrics=(*sac.METRICS, "inconsistency"),
    start=start,
    update=update,
    networks=sac.networks,
    sampled_numbers=sampled_numbers,
    learns_from="model",
    choices=choices,
)
