"""Implicit Q-learning over a stack of members (Kostrikov et al. 2021): only the data's own actions are evaluated.

V is an upper expectile of Q over the data's actions, Q is fitted to r + gamma V(s'), and the policy clones the
actions weighted by exp(beta (Q - V)). It is a Gaussian around tanh(mean) whose standard deviation depends on no state.
"""

from dataclasses import dataclass
from math import log, pi

import torch
from torch import Tensor

from mopo_cli.agents.algorithm import Agent, AgentSettings, Algorithm, Networks, Work, setting
from mopo_cli.agents.networks import (
    actor_sizes,
    as_outputs,
    critic_sizes,
    min_q,
    start_single,
    start_twins,
    twin_values,
    value_sizes,
)
from mopo_cli.agents.returns import episode_returns, one_step_return
from mopo_cli.agents.world import World
from mopo_cli.engine.members import Member
from mopo_cli.engine.rows import Transition
from mopo_cli.engine.streams import Draws
from mopo_cli.nets.network import Network, descend, descend_and_evaluate
from mopo_cli.nets.perceptron import evaluate
from mopo_cli.nets.stacked import Layers


@dataclass(frozen=True)
class IqlSettings(AgentSettings):
    """Hyper-parameters; V is learned at the critics' rate."""

    critic_lr: float
    gamma: float
    tau: float
    expectile: float = setting(0.7, "expectile of Q over the data's actions that V is", "IQL", gt=0, lt=1)
    inverse_temperature: float = setting(3.0, "factor of the advantage in the weights' exponent", "IQL", ge=0)
    weight_max: float = setting(100.0, "greatest weight of a row in the actor's regression", "IQL code", gt=0)
    return_range: float = setting(
        1000.0,
        "rewards are scaled so that the returns of the data's episodes span this much; 0: left as they are",
        "IQL code",
        ge=0,
    )


@dataclass
class Iql(Agent):
    """S agents: actors, V, and 2S twin critics with targets, changed in place.

    The log deviations are the biases of the second half of an actor's outputs, and the weights there are zero. Samples
    of a policy have the learned standard deviation before the tanh, and not after it as while learning.
    """

    settings: IqlSettings
    reward_scale: float
    value: Network
    critic: Network


def start_iql(
    obs_dim: int,
    act_dim: int,
    settings: IqlSettings,
    seeds: list[int],
    device: torch.device | str,
    reward_scale: float = 1.0,
) -> Iql:
    """Build fresh agents that multiply all rewards by `reward_scale`, the m-th from the streams of `seeds[m]`."""
    actor = start_single("actor", actor_sizes(settings, obs_dim, act_dim), settings, seeds, device)
    for name in (f"w{settings.layers}", f"b{settings.layers}"):
        actor.layout.views(actor.flat)[name][..., act_dim:] = 0
    value = start_single("value", value_sizes(settings, obs_dim), settings, seeds, device)
    critic = start_twins(critic_sizes(settings, obs_dim, act_dim), settings, seeds, device)
    return Iql(settings, actor, reward_scale, value, critic)


def update(iql: Iql, batch: Transition, _draws: Draws, actor_scale: float = 1.0) -> dict[str, Tensor]:
    """One gradient step of every V, actor and critic, in place; returns its metrics, each `[S]`.

    batch columns `[S, B, ·]`; `actor_scale` is the factor of the actor's learning rate. V comes first, and the
    others see the new one (IQL's code).
    """
    settings, observation, next_observation = iql.settings, batch.observation, batch.next_observation
    rows, act_dim = batch.action.shape[1:]

    target, old_value, critic, actor = evaluate(
        (iql.critic.target, (observation, batch.action)),
        (iql.value, (observation,)),
        (iql.critic, (observation, batch.action)),
        (iql.actor, (observation,)),
    )
    # L_V = mean |expectile - 1(A < 0)| A^2, A = min(Q1', Q2')(s, a) - V(s)  (eq. 5)
    target_q_sa = min_q(target.out)  # [S, B]
    old_advantage = target_q_sa - old_value.out[..., 0]
    expectile_weight = torch.abs(settings.expectile - (old_advantage < 0).to(old_advantage.dtype))
    by_value = (-2 * expectile_weight * old_advantage / rows)[..., None]
    both = torch.cat([observation, next_observation], dim=1)
    new_value = descend_and_evaluate(iql.value, old_value, by_value, settings.critic_lr, (both,))
    value, next_value = new_value.out[..., 0].split(rows, dim=1)

    # L_Q = mean (Q(s, a) - r - gamma (1 - terminal) V(s'))^2  (eq. 6)
    target_q = one_step_return(iql.reward_scale * batch.reward, batch.terminal, next_value, settings.gamma)
    q = twin_values(critic.out)
    error = q - target_q[:, None]
    descend(iql.critic, critic, as_outputs(2 * error / rows), settings.critic_lr, settings.tau)

    # L_pi = -mean exp(beta A) log pi(a | s), A by the new V  (eq. 7)
    advantage = target_q_sa - value
    weight = (settings.inverse_temperature * advantage).exp().clamp(max=settings.weight_max)
    log_prob, by_out = log_likelihood(actor.out, batch.action, settings.log_std_min, settings.log_std_max)
    by_out = by_out * (-weight / rows)[..., None]

    def no_gradient_of_log_std(gradient: Layers) -> None:
        gradient[-1][0][..., act_dim:].zero_()  # the log std depends on no state

    descend(iql.actor, actor, by_out, actor_scale * settings.actor_lr, adjust=no_gradient_of_log_std)
    return {
        "q": q.mean(dim=(1, 2)),
        "critic_loss": error.square().mean(dim=(1, 2)),
        "value_loss": (expectile_weight * old_advantage.square()).mean(dim=1),
        "actor_loss": -(weight * log_prob).mean(dim=1),
        "weight": weight.mean(dim=1),
    }


def log_likelihood(out: Tensor, action: Tensor, log_std_min: float, log_std_max: float) -> tuple[Tensor, Tensor]:
    """Of actions `[…, act_dim]` under the Gaussian around tanh(mean) of a network's output `out`: mean and log std.

    Returns the log-likelihoods `[…]` and their gradients by the network's output `[…, 2 act_dim]`.
    """
    mean, raw_log_std = out.chunk(2, dim=-1)
    centre, log_std = torch.tanh(mean), raw_log_std.clamp(log_std_min, log_std_max)
    score = (action - centre) * torch.exp(-log_std)
    by_mean = score * torch.exp(-log_std) * (1 - centre * centre)
    by_log_std = (score * score - 1) * (raw_log_std == log_std)
    log_prob = (-0.5 * score * score - log_std - 0.5 * log(2 * pi)).sum(dim=-1)
    return log_prob, torch.cat([by_mean, by_log_std], dim=-1)


def start(world: World, members: tuple[Member, ...], settings: IqlSettings) -> Iql:
    """Fresh agents, whose rewards are scaled by the returns of the data's episodes."""
    seeds = [member.seed for member in members]
    returns = episode_returns(world.row_layout.split(world.real).reward, world.last)
    span = float(returns.max() - returns.min())
    scale = settings.return_range / span if settings.return_range and span else 1.0
    return start_iql(world.row_layout.obs_dim, world.row_layout.act_dim, settings, seeds, world.real.device, scale)


def _networks(settings: IqlSettings, work: Work) -> tuple[Networks, ...]:
    """V is evaluated three times: at the batch's states, and once improved, there and at the next states."""
    actor, critic = (sizes(settings, work.obs_dim, work.act_dim) for sizes in (actor_sizes, critic_sizes))
    critics = Networks(critic, 2, evaluations=1), Networks(critic, 2, learned=False, evaluations=1)
    return Networks(actor, evaluations=1), Networks(value_sizes(settings, work.obs_dim), evaluations=3), *critics


ALGORITHM = Algorithm(
    settings=IqlSettings,
    metrics=("q", "critic_loss", "value_loss", "actor_loss", "weight"),
    start=start,
    update=update,
    networks=_networks,
    learns_from="real",
)
