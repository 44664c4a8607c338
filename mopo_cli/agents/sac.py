"""Soft actor-critic over a stack of members (Haarnoja et al. 2018, with automatic entropy tuning).

Every function takes and returns stacks: batches `[S, B, ·]`, one temperature per member, twin critics as 2S
networks. Losses are averaged over the batch and summed over members, so no member touches another.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mopo_cli.agents.actor import Actor, squash, squash_gradient
from mopo_cli.agents.algorithm import Algorithm
from mopo_cli.engine.rows import Transition
from mopo_cli.engine.streams import stream
from mopo_cli.engine.workers import spread, spread_evenly
from mopo_cli.nets.adam import Adam
from mopo_cli.nets.init import initial, uniform
from mopo_cli.nets.perceptron import collect, differentiate, evaluate, forward, input_slope
from mopo_cli.nets.stacked import Layout, Parameters, mlp_layout, part


@dataclass(frozen=True)
class SacSettings:
    """Hyper-parameters; `target_entropy` in nats, learning rates per step, discount `gamma`, Polyak rate `tau`."""

    hidden: int
    layers: int
    actor_lr: float
    critic_lr: float
    alpha_lr: float
    gamma: float
    tau: float
    target_entropy: float
    alpha_max: float
    log_std_min: float
    log_std_max: float


@dataclass
class Sac:
    """S agents: actors `[S, ·]`, twin critics and targets `[2S, ·]`, log temperatures `[S, 1]`, changed in place."""

    settings: SacSettings
    actor_layout: Layout
    critic_layout: Layout
    actor: Tensor
    critic: Tensor
    target: Tensor
    log_alpha: Tensor
    actor_adam: Adam
    critic_adam: Adam
    alpha_adam: Adam

    def __post_init__(self) -> None:
        self.acting = Parameters(self.actor_layout, self.actor)
        self.judging = Parameters(self.critic_layout, self.critic)
        self.aiming = Parameters(self.critic_layout, self.target)
        self.actor_gradient = Parameters(self.actor_layout, self.actor_adam.grad)
        self.critic_gradient = Parameters(self.critic_layout, self.critic_adam.grad)

    @property
    def alpha(self) -> Tensor:
        """The temperatures `[S, 1]`, capped."""
        return self.log_alpha.exp().clamp(max=self.settings.alpha_max)

    def policy(self, m: int, flat: Tensor | None = None) -> Actor:
        """The policy of member m, with its present parameters or with those in `flat` `[S, size]`."""
        own = (self.actor if flat is None else flat)[m : m + 1]
        return Actor(own, self.actor_layout, self.settings.log_std_min, self.settings.log_std_max)

    def finite(self) -> Tensor:
        """Whether the actor and both critics of a member are finite, bool `[S]`."""
        critics = torch.isfinite(self.critic).all(dim=1).view(-1, 2).all(dim=1)
        return torch.isfinite(self.actor).all(dim=1) & critics


def start_sac(obs_dim: int, act_dim: int, settings: SacSettings, seeds: list[int], device: torch.device | str) -> Sac:
    """Build fresh agents, the m-th from the streams of `seeds[m]`."""
    hidden = (settings.hidden,) * settings.layers
    actor_layout = mlp_layout((obs_dim, *hidden, 2 * act_dim))
    critic_layout = mlp_layout((obs_dim + act_dim, *hidden, 1))
    actor = initial(actor_layout, [stream(s, "actor/weights") for s in seeds], uniform, uniform).to(device)
    twins = [stream(s, "critic/weights", twin) for s in seeds for twin in (0, 1)]
    critic = initial(critic_layout, twins, uniform, uniform).to(device)
    log_alpha = torch.zeros(len(seeds), 1, device=device)
    adams = Adam.like(actor), Adam.like(critic), Adam.like(log_alpha)
    return Sac(settings, actor_layout, critic_layout, actor, critic, critic.clone(), log_alpha, *adams)


def update(sac: Sac, batch: Transition, reward: Tensor, noise: Tensor, actor_scale: float = 1.0) -> dict[str, Tensor]:
    """One gradient step of every critic, actor and temperature, in place; returns what one watches, each `[S]`.

    batch columns `[S, B, ·]`; reward `[S, B]` is the one to learn from (penalised or not); noise
    `[2, S, B, act_dim]` is standard normal, first for the next actions, then for the present ones;
    `actor_scale` is the factor of the actor's learning rate.
    """
    settings, alpha = sac.settings, sac.alpha
    observation, following = batch.observation, batch.next_observation
    members, rows, obs_dim = observation.shape

    ahead, present, known = evaluate(
        (sac.acting, (following,)), (sac.acting, (observation,)), (sac.judging, (observation, batch.action))
    )
    drawn = squash(torch.stack([ahead.out, present.out]), noise, settings.log_std_min, settings.log_std_max)
    (next_action, action), (next_log_prob, log_prob) = drawn.action, drawn.log_prob

    (aimed,) = evaluate((sac.aiming, (following, next_action)))
    next_q = aimed.out.view(members, 2, rows).amin(dim=1)
    backup = reward + settings.gamma * (1 - batch.terminal) * (next_q - alpha * next_log_prob)
    q = known.out.view(members, 2, rows)
    error = q - backup[:, None]
    by_q = (error / rows).view(2 * members, rows, 1)  # a critic's loss is the mean of half its squared errors

    def improve(u: int) -> list[Tensor]:
        """Take one step of a critic, move its target, and ask it about the present actions."""
        differentiate(known, u, by_q, into=sac.critic_gradient)
        sac.critic_adam.step(u, sac.critic, settings.critic_lr)
        part(sac.target, u).lerp_(part(sac.critic, u), settings.tau)
        return forward(sac.judging, u, (observation, action))

    judged = collect(sac.judging, spread(improve, len(known.inputs)))
    sac.critic_adam.steps += 1

    # An actor's loss is the mean of alpha log_prob - min(q1, q2).
    first, second = judged.out.view(members, 2, rows, 1).unbind(dim=1)
    by_first = (first <= second) * (-1 / rows)
    by_lower = torch.stack([by_first, -1 / rows - by_first], dim=1).view(2 * members, rows, 1)
    by_action = input_slope(judged, by_lower, obs_dim).view(members, 2, rows, -1).sum(dim=1)
    by_out = squash_gradient(drawn, 1, by_action, alpha[:, :, None] / rows)

    def climb(u: int) -> None:
        differentiate(present, u, by_out, into=sac.actor_gradient)
        sac.actor_adam.step(u, sac.actor, actor_scale * settings.actor_lr)

    spread_evenly(climb, len(present.inputs))
    sac.actor_adam.steps += 1

    entropy = -log_prob.mean(dim=-1)
    torch.sub(entropy[:, None], settings.target_entropy, out=sac.alpha_adam.grad)
    sac.alpha_adam.update(sac.log_alpha, settings.alpha_lr)
    return {
        "q": q.mean(dim=(1, 2)),
        "critic_loss": error.square().mean(dim=(1, 2)),
        "entropy": entropy,
        "alpha": alpha[:, 0],
    }


def sac_state(sac: Sac) -> tuple[dict[str, Tensor], list[int]]:
    """What a checkpoint must hold of the agents: tensors by name, and the steps their three Adams have taken."""
    tensors = {"actor": sac.actor, "critic": sac.critic, "target": sac.target, "log_alpha": sac.log_alpha}
    adams = {"actor": sac.actor_adam, "critic": sac.critic_adam, "alpha": sac.alpha_adam}
    for name, adam in adams.items():
        tensors |= {f"{name}/first": adam.first, f"{name}/second": adam.second}
    return tensors, [adam.steps for adam in adams.values()]


def restore_sac(sac: Sac, tensors: dict[str, Tensor], steps: list[int]) -> None:
    """Put what `sac_state` gave back into agents of the same settings."""
    for name in ("actor", "critic", "target", "log_alpha"):
        getattr(sac, name).copy_(tensors[name])
    adams = {"actor": sac.actor_adam, "critic": sac.critic_adam, "alpha": sac.alpha_adam}
    for (name, adam), taken in zip(adams.items(), steps, strict=True):
        adam.restore(tensors[f"{name}/first"], tensors[f"{name}/second"], taken)


SAC = Algorithm(SacSettings, ("q", "critic_loss", "entropy", "alpha"), start_sac, update, sac_state, restore_sac)
