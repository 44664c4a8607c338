"""TD3+BC over a stack of members: TD3 whose actor also clones the data's actions (Fujimoto & Gu 2021).

The actor's loss is -lambda Q1(s, pi(s)) + (pi(s) - a)^2 with lambda = alpha / mean |Q1|, on standardised states.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from mopo_cli.agents.actor import mean_action, mean_gradient
from mopo_cli.agents.algorithm import AgentSettings, Algorithm, Batch, Networks, Work, setting
from mopo_cli.agents.networks import (
    actor_sizes,
    as_outputs,
    critic_sizes,
    min_q,
    start_single,
    start_twins,
    twin_values,
)
from mopo_cli.agents.returns import one_step_return
from mopo_cli.agents.standardise import StandardisedAgent, standard_of
from mopo_cli.agents.world import World
from mopo_cli.engine.members import Member
from mopo_cli.engine.rows import Transition
from mopo_cli.engine.streams import Draws
from mopo_cli.nets.network import Network, descend
from mopo_cli.nets.perceptron import evaluate, gradient_by_inputs
from mopo_cli.nets.scales import Standard
from mopo_cli.nets.stacked import Parameters


@dataclass(frozen=True)
class Td3BcSettings(AgentSettings):
    """Hyper-parameters; the bounds of the log standard deviation, which is not learned, are stored with the policy."""

    critic_lr: float
    gamma: float
    tau: float
    bc_alpha: float = setting(2.5, "weight of the critic beside the cloning of actions", "TD3+BC", ge=0)
    policy_delay: int = setting(2, "critics' steps to one of the actor and of the targets", "TD3", ge=1, le=1000)
    target_noise: float = setting(0.2, "standard deviation of the noise on the target's actions", "TD3", ge=0)
    target_noise_clip: float = setting(0.5, "greatest noise on the target's actions", "TD3", ge=0)


@dataclass
class Td3Bc(StandardisedAgent):
    """S agents: actors and 2S twin critics, all with targets, changed in place.

    `imitation` `[S]` is the mean squared error of the actions, as it was at the actors' latest step.
    """

    settings: Td3BcSettings
    critic: Network
    imitation: Tensor

    @cached_property
    def first_critic(self) -> Parameters:
        """The first critic of each pair, `[S, size]`: views."""
        return Parameters(self.critic.layout, self.critic.flat[::2], self.settings.update_precision)


def start_td3_bc(
    standard: Standard, act_dim: int, settings: Td3BcSettings, seeds: list[int], device: torch.device | str
) -> Td3Bc:
    """Build fresh agents for observations of these means and deviations, the m-th from the streams of `seeds[m]`."""
    obs_dim = len(standard.mean)
    actor = start_single("actor", actor_sizes(settings, obs_dim, act_dim), settings, seeds, device, target=True)
    critic = start_twins(critic_sizes(settings, obs_dim, act_dim), settings, seeds, device)
    return Td3Bc(settings, actor, standard, critic, torch.zeros(len(seeds), device=device))


def gradient_step(
    td3: Td3Bc, batch: Transition, noise: Tensor, due: bool, actor_scale: float = 1.0
) -> dict[str, Tensor]:
    """One gradient step of every critic, and where it is `due`, at every `policy_delay`-th, of actors and targets too.

    All are changed in place; batch columns `[S, B, ·]`, observations as they are; noise `[S, B, act_dim]` is standard
    normal; `actor_scale` is the factor of the actor's learning rate. Returns its metrics, each `[S]`.
    """
    settings = td3.settings
    observation = td3.standard.apply(batch.observation)
    next_observation = td3.standard.apply(batch.next_observation)

    next_actor, critic = evaluate((td3.actor.target, (next_observation,)), (td3.critic, (observation, batch.action)))
    # target_q = r + gamma (1 - terminal) min(Q1', Q2')(s', pi'(s') + clipped noise)  (TD3, algorithm 1)
    smoothing = (settings.target_noise * noise).clamp(-settings.target_noise_clip, settings.target_noise_clip)
    next_action = (mean_action(next_actor.out) + smoothing).clamp(-1, 1)
    (target,) = evaluate((td3.critic.target, (next_observation, next_action)))
    target_q = one_step_return(batch.reward, batch.terminal, min_q(target.out), settings.gamma)
    # Critics' loss: mean (Q(s, a) - target_q)^2
    q = twin_values(critic.out)
    error = q - target_q[:, None]
    by_q = as_outputs(2 * error / q.shape[2])
    descend(td3.critic, critic, by_q, settings.critic_lr, settings.tau if due else None)

    if due:
        _descend_actor(td3, observation, batch.action, actor_scale)
    return {
        "q": q.mean(dim=(1, 2)),
        "critic_loss": error.square().mean(dim=(1, 2)),
        "imitation": td3.imitation.clone(),
    }


def _descend_actor(td3: Td3Bc, observation: Tensor, logged: Tensor, actor_scale: float) -> None:
    """One step of actors and their targets, with the critics just improved; `logged` are the data's actions."""
    settings = td3.settings
    (actor,) = evaluate((td3.actor, (observation,)))
    action = mean_action(actor.out)
    (q_pi,) = evaluate((td3.first_critic, (observation, action)))
    # Actor's loss: -lambda mean Q1(s, pi(s)) + mean (pi(s) - a)^2, lambda = alpha / mean |Q1|  (TD3+BC, section 5)
    weight = settings.bc_alpha / q_pi.out.abs().mean(dim=1, keepdim=True)  # [S, 1, 1]
    by_q = (-weight / action.shape[1]).expand_as(q_pi.out)
    error = action - logged
    by_action = gradient_by_inputs(q_pi, by_q, slice(-action.shape[2], None)) + 2 * error / error[0].numel()
    by_mean = by_action * (1 - action * action)
    descend(td3.actor, actor, mean_gradient(by_mean), actor_scale * settings.actor_lr, settings.tau)
    td3.imitation.copy_(error.square().mean(dim=(1, 2)))


def start(world: World, members: tuple[Member, ...], settings: Td3BcSettings) -> Td3Bc:
    """Fresh agents, whose observations are standardised by the data."""
    layout, seeds = world.row_layout, [member.seed for member in members]
    standard = standard_of(layout.split(world.real).observation)
    return start_td3_bc(standard, layout.act_dim, settings, seeds, world.real.device)


def update(td3: Td3Bc, batch: Batch, draws: Draws, actor_scale: float) -> dict[str, Tensor]:
    """`gradient_step` with a batch of the training loop."""
    due = (batch.step + 1) % td3.settings.policy_delay == 0
    return gradient_step(td3, batch, draws.normal(1, *batch.action.shape[1:])[0], due, actor_scale)


def _networks(settings: Td3BcSettings, work: Work) -> tuple[Networks, ...]:
    actor, critic = (sizes(settings, work.obs_dim, work.act_dim) for sizes in (actor_sizes, critic_sizes))
    learned = Networks(actor, evaluations=1), Networks(critic, 2, evaluations=1)
    return *learned, Networks(actor, learned=False, evaluations=1), Networks(critic, 2, learned=False, evaluations=1)


ALGORITHM = Algorithm(
    settings=Td3BcSettings,
    metrics=("q", "critic_loss", "imitation"),
    start=start,
    update=update,
    networks=_networks,
    cycle=lambda settings: int(settings.policy_delay),
    learns_from="real",
)
