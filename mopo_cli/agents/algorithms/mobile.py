"""MOBILE: rewards lowered by how much the networks' ideas of the next value differ (Sun et al. 2023).

The model-Bellman inconsistency u(s, a) is the standard deviation over the elites k of E[min(Q1', Q2')(s', a')], the
expectation over s' from elite k and a' from the policy. It depends on the critics, so it is estimated anew at every
gradient step, for the model's rows of the batch; the data's rows have none.

The authors' code lets no target be below 0. That is right where no return is negative; where some are, all of what is
worse than nothing would be worth 0, and nothing could be learned of it. So there is a floor only where the data's
discounted returns, from every row to the end of its episode, are none of them negative.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mopo_cli.agents.actor import Actor, squash, squash_gradient
from mopo_cli.agents.algorithm import Algorithm, Batch, Choice, Work, agent_state, restore_agent, setting
from mopo_cli.agents.algorithms import sac
from mopo_cli.agents.returns import one_step_return, returns_to_end
from mopo_cli.agents.world import World
from mopo_cli.dynamics.ensemble import Ensemble
from mopo_cli.engine.members import Member
from mopo_cli.engine.parallel import spread
from mopo_cli.engine.streams import Draws
from mopo_cli.errors import SettingsError
from mopo_cli.nets.flops import mlp_flops
from mopo_cli.nets.perceptron import evaluate, forward
from mopo_cli.nets.stacked import units

# Next states that the policy and the critics look at together on CPU: their activations then stay in its cache.
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
class Mobile:
    """S agents, and the elites alone of the ensemble that each branches in.

    `lowest_return` is the least discounted return of the data, where the floor was left to them. `floor` says whether
    targets are at least 0.
    """

    sac: sac.Sac
    settings: MobileSettings
    elites: list[Ensemble]
    lowest_return: float | None = None

    @property
    def floor(self) -> bool:
        """Whether no target is below 0."""
        if self.lowest_return is None:
            return self.settings.target_floor == "zero"
        return self.lowest_return >= 0

    @property
    def actor(self) -> Tensor:
        """The parameters of the policies, `[S, ·]`."""
        return self.sac.actor

    def policy(self, m: int, flat: Tensor | None = None) -> Actor:
        """The policy of member m, with its present parameters or with those in `flat` `[S, size]`."""
        return self.sac.policy(m, flat)

    def finite(self) -> Tensor:
        """Whether the actor and both critics of a member are finite, bool `[S]`."""
        return self.sac.finite()


def inconsistency(mobile: Mobile, observation: Tensor, action: Tensor, noise: Tensor) -> Tensor:
    """The penalty u `[S, B]` of states and actions `[S, B, ·]`.

    noise `[S, K, M, B, obs_dim + act_dim]` is standard normal, for the M next states that each of K elites draws and
    the actions there. The variance has K - 1 in its denominator, as in the authors' code; a single elite has none.
    """
    members, elites, samples, rows, _ = noise.shape
    for_state, for_action = noise.split([observation.shape[2], action.shape[2]], dim=-1)
    mean, std = _predict(mobile, observation, action)
    following = torch.addcmul(mean[:, :, None], std[:, :, None], for_state)
    values = _lower_values(mobile.sac, following.flatten(1, 3), for_action.flatten(1, 3))
    expected = values.view(members, elites, samples, rows).mean(dim=2)
    return expected.std(dim=1, correction=min(1, elites - 1))


def _predict(mobile: Mobile, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each elite's next observation, `[S, K, B, obs_dim]`."""
    asked = zip(mobile.elites, observation, action, strict=True)
    mean, std = zip(*(elites.predict(*own) for elites, *own in asked), strict=True)
    return torch.stack(mean)[..., :-1] + observation[:, None], torch.stack(std)[..., :-1]


def _lower_values(agents: sac.Sac, observation: Tensor, noise: Tensor) -> Tensor:
    """The lower target value `[S, R]` of observations `[S, R, obs_dim]` at actions drawn with noise `[S, R, act_dim]`.

    On CPU in blocks of rows, which the threads share out; what a row is worth depends on its block alone.
    """
    settings, (members, rows, _) = agents.settings, observation.shape
    alone, twins = members // units(agents.actor), units(agents.target) // units(agents.actor)
    size = rows if observation.is_cuda else _CPU_ROWS
    blocks = [(u, slice(i, i + size)) for u in range(units(agents.actor)) for i in range(0, rows, size)]

    def look(block: int) -> Tensor:
        u, some = blocks[block]
        own = slice(u * alone, (u + 1) * alone)
        seen = observation[own, some]
        mean, log_std = forward(agents.acting, u, (seen,))[-1].chunk(2, dim=-1)
        std = log_std.clamp(settings.log_std_min, settings.log_std_max).exp()
        action = torch.tanh(mean + std * noise[own, some]).view(*seen.shape[:2], -1)
        values = [forward(agents.aiming, u * twins + i, (seen, action))[-1] for i in range(twins)]
        return torch.cat(values).view(alone, 2, -1).amin(dim=1)

    return torch.cat(spread(look, len(blocks)), dim=1).view(members, rows)


def update(mobile: Mobile, batch: Batch, draws: Draws, actor_scale: float) -> dict[str, Tensor]:
    """One gradient step of every critic, actor and temperature, in place; returns what one watches, each `[S]`.

    The target is r - c u + gamma (1 - terminal) (min(Q1', Q2')(s', a') - alpha log_prob), in a deterministic backup
    without the last term; all else is as in soft actor-critic.
    """
    agents, settings, alpha = mobile.sac, mobile.settings, mobile.sac.alpha
    observation, following = batch.observation, batch.next_observation
    (members, rows, obs_dim), act_dim = observation.shape, batch.action.shape[-1]
    elites, imagined = len(mobile.elites[0]), slice(batch.real, None)
    noise = draws.normal(1, elites, settings.mobile_samples, rows - batch.real, obs_dim + act_dim)[0]
    u = inconsistency(mobile, observation[:, imagined], batch.action[:, imagined], noise)
    reward = batch.reward.clone()
    reward[:, imagined] -= settings.mobile_coefficient * u

    ahead, present, known = evaluate(
        (agents.acting, (following,)), (agents.acting, (observation,)), (agents.judging, (observation, batch.action))
    )
    both = draws.normal(2, rows, act_dim)
    drawn = squash(torch.stack([ahead.out, present.out]), both, settings.log_std_min, settings.log_std_max)
    (next_action, action), (next_log_prob, log_prob) = drawn.action, drawn.log_prob

    next_value = sac.lower_target(agents, following, next_action)
    if settings.backup == "soft":
        next_value = next_value - alpha * next_log_prob
    target = one_step_return(reward, batch.terminal, next_value, settings.gamma)
    if mobile.floor:
        target = target.clamp(min=0)
    q = known.out.view(members, 2, rows)
    error = q - target[:, None]
    judged = sac.step_critics(agents, known, error / rows, (observation, action))

    by_out = squash_gradient(drawn, 1, sac.lower_slope(judged, obs_dim) / -rows, alpha[:, :, None] / rows)
    sac.step_actor(agents, present, by_out, actor_scale)
    entropy = sac.step_temperature(agents, log_prob)
    return {
        "q": q.mean(dim=(1, 2)),
        "critic_loss": error.square().mean(dim=(1, 2)),
        "entropy": entropy,
        "alpha": alpha[:, 0],
        "inconsistency": u.mean(dim=1),
    }


def begin(world: World, members: tuple[Member, ...], settings: MobileSettings) -> Mobile:
    """Fresh agents; where the floor is left to the data, one look at all real rows decides on it.

    SettingsError for a floor of zero where no return is above it.
    """
    real = world.rows.split(world.real)
    if settings.target_floor == "zero" and (real.reward <= 0).all():
        raise SettingsError(
            "target-floor zero presumes that returns are not negative, but no reward of the data is positive.",
            hint="--target-floor auto",
        )
    lowest = float(returns_to_end(real, settings.gamma).amin()) if settings.target_floor == "auto" else None
    elites = [world.ensembles[member.model].only_elites() for member in members]
    return Mobile(sac.begin(world, members, settings), settings, elites, lowest)


def choices(mobile: Mobile) -> tuple[Choice, ...]:
    """Whether there is a floor, where that was left to the data."""
    if mobile.lowest_return is None:
        return ()
    worst = f"the data's lowest discounted return is {mobile.lowest_return:.4g}"
    return (Choice("target_floor", "zero" if mobile.floor else "none", worst),)


def operations(settings: MobileSettings, work: Work) -> int:
    """Soft actor-critic's, and for each of the model's rows the elites and, M times each, an actor and two critics."""
    actor, critic = sac.sac_sizes(settings, work)
    look = mlp_flops(actor) + 2 * mlp_flops(critic)
    imagined = work.batch - work.real
    return sac.operations(settings, work) + imagined * work.elites * (work.network + settings.mobile_samples * look)


def held(settings: MobileSettings, work: Work) -> int:
    """The next states that the elites draw for each of the model's rows, and their noise; at once, layer by layer."""
    actor, critic = sac.sac_sizes(settings, work)
    drawn = (work.batch - work.real) * work.elites * settings.mobile_samples
    return drawn * (2 * critic[0] + (sum(actor) + 2 * sum(critic) if work.at_once else 0))


ALGORITHM = Algorithm(
    MobileSettings,
    (*sac.ALGORITHM.metrics, "inconsistency"),
    begin,
    update,
    operations,
    sac.networks,
    held,
    learns_from="model",
    choices=choices,
    state=lambda mobile: agent_state(mobile.sac),
    restore=lambda mobile, tensors, steps: restore_agent(mobile.sac, tensors, steps),
)
