"""Soft actor-critic over a stack of members (Haarnoja et al. 2018, arXiv 1812.05905, with automatic entropy tuning).

Every function takes and returns stacks: batches `[S, B, ·]`, one temperature per member, twin critics as 2S
networks. Losses are averaged over the batch and summed over members, so no member touches another.
"""

from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from mopo_cli.agents.actor import Squashed, squash, squash_gradient
from mopo_cli.agents.algorithm import Agent, AgentSettings, Algorithm, Batch, Networks, Work, start_from_shapes
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
from mopo_cli.engine.fused import fused
from mopo_cli.engine.rows import Transition
from mopo_cli.engine.streams import Draws
from mopo_cli.nets.adam import Adam
from mopo_cli.nets.network import Network, descend, descend_and_evaluate
from mopo_cli.nets.perceptron import Evaluated, Inputs, evaluate, gradient_by_inputs


@dataclass(frozen=True)
class SacSettings(AgentSettings):
    """Hyper-parameters; `target_entropy` in nats, learning rates per step, discount `gamma`, Polyak rate `tau`."""

    critic_lr: float
    alpha_lr: float
    gamma: float
    tau: float
    target_entropy: float
    alpha_max: float


@dataclass
class Sac(Agent):
    """S agents: actors, 2S twin critics with targets, and log temperatures `[S, 1]`, changed in place."""

    settings: SacSettings
    critic: Network
    log_alpha: Tensor
    alpha_adam: Adam

    @property
    def alpha(self) -> Tensor:
        """The temperatures `[S, 1]`, capped."""
        return _temperature(self.log_alpha, self.settings.alpha_max)


@fused
def _temperature(log_alpha: Tensor, alpha_max: float) -> Tensor:
    return log_alpha.exp().clamp(max=alpha_max)


def start_sac(obs_dim: int, act_dim: int, settings: SacSettings, seeds: list[int], device: torch.device | str) -> Sac:
    """Build fresh agents, the m-th from the streams of `seeds[m]`."""
    actor = start_single("actor", actor_sizes(settings, obs_dim, act_dim), settings, seeds, device)
    critic = start_twins(critic_sizes(settings, obs_dim, act_dim), settings, seeds, device)
    log_alpha = torch.zeros(len(seeds), 1, device=device)
    return Sac(settings, actor, critic, log_alpha, Adam.like(log_alpha))


def gradient_step(
    sac: Sac,
    batch: Transition,
    reward: Tensor,
    noise: Tensor,
    actor_scale: float = 1.0,
    *,
    soft: bool = True,
    floor: float = -inf,
) -> dict[str, Tensor]:
    """One gradient step of every critic, actor and temperature, in place; returns its metrics, each `[S]`.

    batch columns `[S, B, ·]`; reward `[S, B]` is the one to learn from (penalised or not); noise
    `[2, S, B, act_dim]` is standard normal, first for the next actions, then for the present ones;
    `actor_scale` is the factor of the actor's learning rate. The critics' target counts the entropy if it is
    `soft`, and is at least `floor`.
    """
    settings, alpha = sac.settings, sac.alpha
    observation, next_observation = batch.observation, batch.next_observation

    next_actor, actor, critic = evaluate(
        (sac.actor, (next_observation,)), (sac.actor, (observation,)), (sac.critic, (observation, batch.action))
    )
    sample = squash((next_actor.out, actor.out), noise, settings.log_std_min, settings.log_std_max)
    (next_action, action), (next_log_prob, log_prob) = sample.action, sample.log_prob

    (target,) = evaluate((sac.critic.target, (next_observation, next_action)))
    entropy_weight = alpha if soft else torch.zeros_like(alpha)
    target_q = _target_q(target.out, next_log_prob, entropy_weight, reward, batch.terminal, settings.gamma, floor)
    by_q, mean_q, critic_loss = _critic_gradient(critic.out, target_q)
    q_pi = descend_critics(sac, critic, by_q, (observation, action))

    descend_actor(sac, actor, sample, q_pi, alpha, actor_scale)
    entropy = descend_temperature(sac, log_prob)
    return {"q": mean_q, "critic_loss": critic_loss, "entropy": entropy, "alpha": alpha[:, 0]}


@fused
def _target_q(
    target_out: Tensor,
    next_log_prob: Tensor,
    alpha: Tensor,
    reward: Tensor,
    terminal: Tensor,
    gamma: float,
    floor: float,
) -> Tensor:
    """What critics learn, `[S, B]`."""
    # target_q = r + gamma (1 - terminal) (min(Q1', Q2')(s', a') - alpha log pi(a' | s'))  (eq. 3, clipped double Q)
    next_value = min_q(target_out) - alpha * next_log_prob
    return one_step_return(reward, terminal, next_value, gamma).clamp(min=floor)


@fused
def _critic_gradient(out: Tensor, target_q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient by the critics' values, `[S, 2, B]`, and the means of values and of squared errors, each `[S]`."""
    # J_Q = mean (Q(s, a) - target_q)^2 / 2  (eq. 5)
    q = twin_values(out)
    error = q - target_q[:, None]
    return error / q.shape[2], q.mean(dim=(1, 2)), error.square().mean(dim=(1, 2))


def min_target_q(sac: Sac, observation: Tensor, action: Tensor) -> Tensor:
    """min(Q1', Q2') `[S, B]` of the target critics at observations `[S, B, obs_dim]` and actions `[S, B, act_dim]`."""
    (target,) = evaluate((sac.critic.target, (observation, action)))
    return min_q(target.out)


def descend_critics(sac: Sac, critic: Evaluated, by_q: Tensor, inputs: Inputs) -> Evaluated:
    """One step of all critics down a loss with gradient `by_q` `[S, 2, B]` by their values; their targets follow.

    Returns the improved critics' values at `inputs`, `[S, B, ·]`.
    """
    settings = sac.settings
    return descend_and_evaluate(sac.critic, critic, as_outputs(by_q), settings.critic_lr, inputs, settings.tau)


def min_q_gradient(critic: Evaluated, act_dim: int) -> Tensor:
    """The gradient of min(Q1, Q2) by the action, `[S, B, act_dim]`, of critics evaluated at (observation, action)."""
    # [2S, B, act_dim], 0 where the other critic is lower
    by_action = gradient_by_inputs(critic, _argmin_mask(critic.out), slice(-act_dim, None))
    first, second = by_action.view(-1, 2, *by_action.shape[1:]).unbind(dim=1)
    return first + second


@fused
def _argmin_mask(out: Tensor) -> Tensor:
    """1 where a critic is the lower of its pair, else 0: `[2S, B, 1]`, as `out`."""
    first, second = out.view(-1, 2, *out.shape[1:]).unbind(dim=1)
    is_first = (first <= second).to(first.dtype)
    return torch.stack([is_first, 1 - is_first], dim=1).view(out.shape)


def descend_actor(
    sac: Sac, actor: Evaluated, sample: Squashed, q_pi: Evaluated, alpha: Tensor, actor_scale: float
) -> None:
    """One step of all actors, where `sample` `[2, S, B, ·]` has their actions second and `q_pi` the critics there."""
    rows, act_dim = sample.action.shape[2:]
    # J_pi = mean (alpha log pi(a | s) - min(Q1, Q2)(s, a)), a ~ pi(s)  (eq. 7 and 9)
    by_action = min_q_gradient(q_pi, act_dim) / -rows
    by_out = squash_gradient(sample, 1, by_action, alpha[:, :, None] / rows)
    descend(sac.actor, actor, by_out, actor_scale * sac.settings.actor_lr)


def descend_temperature(sac: Sac, log_prob: Tensor) -> Tensor:
    """One step of the temperatures towards the target entropy; log_prob `[S, B]` is that of the policies' actions.

    Returns the policies' entropies, `[S]`.
    """
    entropy = _temperature_gradient(log_prob, sac.settings.target_entropy, sac.alpha_adam.grad)
    sac.alpha_adam.update(sac.log_alpha, sac.settings.alpha_lr)
    return entropy[:, 0]


@fused
def _temperature_gradient(log_prob: Tensor, target_entropy: float, by_log_alpha: Tensor) -> Tensor:
    """Put the gradient by log(alpha) into `by_log_alpha` `[S, 1]`; returns the entropy `[S, 1]`."""
    entropy = -log_prob.mean(dim=-1, keepdim=True)
    # J(alpha) = log(alpha) (entropy - target entropy): eq. 18 with log(alpha) for alpha, as in its code
    torch.ops.aten.sub.out(entropy, target_entropy, out=by_log_alpha)
    return entropy


def update(sac: Sac, batch: Batch, draws: Draws, actor_scale: float) -> dict[str, Tensor]:
    """`gradient_step` with a batch of the training loop."""
    return gradient_step(sac, batch, batch.reward, draws.normal(2, *batch.action.shape[1:]), actor_scale)


def networks(settings: SacSettings, work: Work) -> tuple[Networks, ...]:
    """Actor, critics and targets. A step evaluates the first at next and present states, the second before and after
    they are improved.
    """
    actor, critic = (sizes(settings, work.obs_dim, work.act_dim) for sizes in (actor_sizes, critic_sizes))
    return Networks(actor, evaluations=2), Networks(critic, 2, evaluations=2), Networks(critic, 2, learned=False)


METRICS = ("q", "critic_loss", "entropy", "alpha")
start = start_from_shapes(start_sac)
ALGORITHM = Algorithm(settings=SacSettings, metrics=METRICS, start=start, update=update, networks=networks)
