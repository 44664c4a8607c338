"""Soft actor-critic over a stack of members (Haarnoja et al. 2018, with automatic entropy tuning).

Every function takes and returns stacks: batches `[S, B, ·]`, one temperature per member, twin critics as 2S
networks. Losses are averaged over the batch and summed over members, so no member touches another.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mopo_cli.agents.actor import Actor, heads, squash
from mopo_cli.agents.algorithm import Algorithm
from mopo_cli.engine.rows import Transition
from mopo_cli.engine.streams import stream
from mopo_cli.nets.init import initial, uniform
from mopo_cli.nets.stacked import Adam, Layout, mlp, mlp_layout


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
    """The parameters of S agents: actors `[S, ·]`, twin critics and targets `[2S, ·]`, log temperatures `[S, 1]`."""

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


def twin_q(params: dict[str, Tensor], observation: Tensor, action: Tensor) -> Tensor:
    """Both critics of every member: `[S, B, obs_dim]`, `[S, B, act_dim]` -> `[S, 2, B]`."""
    x = torch.cat([observation, action], dim=-1)
    q = mlp(params, x.repeat_interleave(2, dim=0))
    return q.view(len(x), 2, -1)


def update(sac: Sac, batch: Transition, reward: Tensor, noise: Tensor, actor_scale: float = 1.0) -> dict[str, Tensor]:
    """One gradient step of every critic, actor and temperature, in place; returns what one watches, each `[S]`.

    batch columns `[S, B, ·]`; reward `[S, B]` is the one to learn from (penalised or not); noise
    `[2, S, B, act_dim]` is standard normal, first for the next actions, then for the present ones;
    `actor_scale` is the factor of the actor's learning rate.
    """
    settings, alpha = sac.settings, sac.alpha
    bounds = settings.log_std_min, settings.log_std_max
    with torch.no_grad():
        next_heads = heads(sac.actor_layout.views(sac.actor), batch.next_observation, *bounds)
        next_action, next_log_prob = squash(*next_heads, noise[0])
        next_q = twin_q(sac.critic_layout.views(sac.target), batch.next_observation, next_action).amin(dim=1)
        backup = reward + settings.gamma * (1 - batch.terminal) * (next_q - alpha * next_log_prob)

    critic = sac.critic_layout.leaves(sac.critic)
    q = twin_q(critic, batch.observation, batch.action)
    critic_losses = (q - backup[:, None]).square().mean(dim=-1)
    sac.critic_layout.gradient(0.5 * critic_losses.sum(), critic, out=sac.critic_adam.grad)
    sac.critic_adam.update(sac.critic, settings.critic_lr)

    actor = sac.actor_layout.leaves(sac.actor)
    action, log_prob = squash(*heads(actor, batch.observation, *bounds), noise[1])
    actor_q = twin_q(sac.critic_layout.views(sac.critic), batch.observation, action).amin(dim=1)
    actor_losses = (alpha * log_prob - actor_q).mean(dim=-1)
    sac.actor_layout.gradient(actor_losses.sum(), actor, out=sac.actor_adam.grad)
    sac.actor_adam.update(sac.actor, actor_scale * settings.actor_lr)

    entropy = -log_prob.detach().mean(dim=-1)
    torch.sub(entropy[:, None], settings.target_entropy, out=sac.alpha_adam.grad)
    sac.alpha_adam.update(sac.log_alpha, settings.alpha_lr)
    sac.target.lerp_(sac.critic, settings.tau)
    return {
        "q": q.detach().mean(dim=(1, 2)),
        "critic_loss": critic_losses.detach().mean(dim=1),
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
    sac.actor, sac.critic, sac.target = tensors["actor"], tensors["critic"], tensors["target"]
    sac.log_alpha = tensors["log_alpha"]
    sac.actor_adam, sac.critic_adam, sac.alpha_adam = (
        Adam(
            tensors[f"{name}/first"],
            tensors[f"{name}/second"],
            torch.zeros_like(tensors[f"{name}/first"]),
            taken,
        )
        for name, taken in zip(("actor", "critic", "alpha"), steps, strict=True)
    )


SAC = Algorithm(SacSettings, ("q", "critic_loss", "entropy", "alpha"), start_sac, update, sac_state, restore_sac)
