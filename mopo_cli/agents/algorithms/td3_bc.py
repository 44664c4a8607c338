"""TD3+BC over a stack of members: TD3 whose actor also clones the data's actions (Fujimoto & Gu 2021).

The actor's loss is -lambda Q1(s, pi(s)) + (pi(s) - a)^2 with lambda = alpha / mean |Q1|, on standardised states.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from mopo_cli.agents.actor import Actor
from mopo_cli.agents.algorithm import Algorithm, Batch, Networks, Work, setting
from mopo_cli.agents.returns import one_step_return
from mopo_cli.agents.standardise import Standard, standard_of
from mopo_cli.agents.world import World
from mopo_cli.engine.members import Member
from mopo_cli.engine.parallel import spread, spread_evenly
from mopo_cli.engine.rows import Transition
from mopo_cli.engine.streams import Draws, stream
from mopo_cli.nets.adam import Adam
from mopo_cli.nets.flops import backward_flops, mlp_flops, slope_flops
from mopo_cli.nets.init import initial, uniform
from mopo_cli.nets.perceptron import Evaluated, differentiate, evaluate, input_slope
from mopo_cli.nets.precision import Precision
from mopo_cli.nets.stacked import Layout, Parameters, mlp_layout, part, units


@dataclass(frozen=True)
class Td3BcSettings:
    """Hyper-parameters; the log standard deviation is not learned, its bounds only go with the policy."""

    hidden: int
    layers: int
    actor_lr: float
    critic_lr: float
    gamma: float
    tau: float
    log_std_min: float
    log_std_max: float
    update_precision: Precision = field(default="fp32", kw_only=True)
    bc_alpha: float = setting(2.5, "weight of the critic beside the cloning of actions", "TD3+BC", ge=0)
    policy_delay: int = setting(2, "critics' steps to one of the actor and of the targets", "TD3", ge=1, le=1000)
    target_noise: float = setting(0.2, "standard deviation of the noise on the target's actions", "TD3", ge=0)
    target_noise_clip: float = setting(0.5, "greatest noise on the target's actions", "TD3", ge=0)


@dataclass
class Td3Bc:
    """S agents: actors and targets `[S, ·]`, twin critics and targets `[2S, ·]`, changed in place.

    `imitation` `[S]` is the mean squared error of the actions, as it was at the actors' latest step.
    """

    settings: Td3BcSettings
    standard: Standard
    actor_layout: Layout
    critic_layout: Layout
    actor: Tensor
    actor_target: Tensor
    critic: Tensor
    critic_target: Tensor
    imitation: Tensor
    actor_adam: Adam
    critic_adam: Adam

    def __post_init__(self) -> None:
        self.acting = Parameters(self.actor_layout, self.actor, self.settings.update_precision)
        self.acting_ahead = Parameters(self.actor_layout, self.actor_target, self.settings.update_precision)
        self.judging = Parameters(self.critic_layout, self.critic, self.settings.update_precision)
        self.judging_first = Parameters(self.critic_layout, self.critic[::2], self.settings.update_precision)
        self.aiming = Parameters(self.critic_layout, self.critic_target, self.settings.update_precision)
        self.actor_gradient = Parameters(self.actor_layout, self.actor_adam.grad)
        self.critic_gradient = Parameters(self.critic_layout, self.critic_adam.grad)

    def policy(self, m: int, flat: Tensor | None = None) -> Actor:
        """The policy of member m for observations as they are, by its present parameters or those in `flat`."""
        own = (self.actor if flat is None else flat)[m : m + 1]
        folded = self.standard.folded(self.actor_layout, own)
        return Actor(folded, self.actor_layout, self.settings.log_std_min, self.settings.log_std_max)

    def finite(self) -> Tensor:
        """Whether the actor and both critics of a member are finite, bool `[S]`."""
        critics = torch.isfinite(self.critic).all(dim=1).view(-1, 2).all(dim=1)
        return torch.isfinite(self.actor).all(dim=1) & critics


def start_td3_bc(
    standard: Standard, act_dim: int, settings: Td3BcSettings, seeds: list[int], device: torch.device | str
) -> Td3Bc:
    """Build fresh agents for observations of these means and deviations, the m-th from the streams of `seeds[m]`."""
    hidden, obs_dim = (settings.hidden,) * settings.layers, len(standard.mean)
    actor_layout = mlp_layout((obs_dim, *hidden, 2 * act_dim))
    critic_layout = mlp_layout((obs_dim + act_dim, *hidden, 1))
    actor = initial(actor_layout, [stream(s, "actor/weights") for s in seeds], uniform, uniform).to(device)
    twins = [stream(s, "critic/weights", twin) for s in seeds for twin in (0, 1)]
    critic = initial(critic_layout, twins, uniform, uniform).to(device)
    nothing, adams = torch.zeros(len(seeds), device=device), (Adam.like(actor), Adam.like(critic))
    networks = actor, actor.clone(), critic, critic.clone()
    return Td3Bc(settings, standard, actor_layout, critic_layout, *networks, nothing, *adams)


def update(td3: Td3Bc, batch: Transition, noise: Tensor, due: bool, actor_scale: float = 1.0) -> dict[str, Tensor]:
    """One gradient step of every critic, and where it is `due`, at every `policy_delay`-th, of actors and targets too.

    All are changed in place; batch columns `[S, B, ·]`, observations as they are; noise `[S, B, act_dim]` is standard
    normal; `actor_scale` is the factor of the actor's learning rate. Returns what one watches, each `[S]`.
    """
    settings = td3.settings
    observation, following = td3.standard.apply(batch.observation), td3.standard.apply(batch.next_observation)
    members, rows, _ = observation.shape

    asked = (td3.acting_ahead, (following,)), (td3.judging, (observation, batch.action)), (td3.acting, (observation,))
    ahead, known, *present = evaluate(*(asked if due else asked[:2]))
    blur = (settings.target_noise * noise).clamp(-settings.target_noise_clip, settings.target_noise_clip)
    next_action = (_action(ahead) + blur).clamp(-1, 1)
    (aimed,) = evaluate((td3.aiming, (following, next_action)))
    next_value = aimed.out.view(members, 2, rows).amin(dim=1)
    backup = one_step_return(batch.reward, batch.terminal, next_value, settings.gamma)
    q = known.out.view(members, 2, rows)
    error = q - backup[:, None]
    _step_critics(td3, known, 2 * error / rows)  # the mean squared error of each

    if due:
        _step_actor(td3, present[0], observation, batch.action, actor_scale)
        _move_targets(td3)
    return {
        "q": q.mean(dim=(1, 2)),
        "critic_loss": error.square().mean(dim=(1, 2)),
        "imitation": td3.imitation.clone(),
    }


def _action(acting: Evaluated) -> Tensor:
    return torch.tanh(acting.out.chunk(2, dim=-1)[0])


def _step_critics(td3: Td3Bc, known: Evaluated, by_q: Tensor) -> None:
    grad = by_q.reshape(len(td3.critic), -1, 1)

    def improve(u: int) -> None:
        differentiate(known, u, grad, into=td3.critic_gradient)
        td3.critic_adam.step(u, td3.critic, td3.settings.critic_lr)

    td3.critic_adam.steps += 1
    spread(improve, len(known.inputs))


def _step_actor(td3: Td3Bc, present: Evaluated, observation: Tensor, wanted: Tensor, actor_scale: float) -> None:
    """Along -lambda mean Q1(s, pi(s)) + mean (pi(s) - a)^2, with the critics just improved."""
    action = _action(present)
    (judged,) = evaluate((td3.judging_first, (observation, action)))
    weight = td3.settings.bc_alpha / judged.out.abs().mean(dim=1, keepdim=True)  # [S, 1, 1]
    slope = input_slope(judged, (-weight / action.shape[1]).expand_as(judged.out), observation.shape[2])
    error = action - wanted
    by_mean = (slope + 2 * error / error[0].numel()) * (1 - action * action)
    by_out = torch.cat([by_mean, torch.zeros_like(by_mean)], dim=-1)

    def climb(u: int) -> None:
        differentiate(present, u, by_out, into=td3.actor_gradient)
        td3.actor_adam.step(u, td3.actor, actor_scale * td3.settings.actor_lr)

    td3.actor_adam.steps += 1
    spread_evenly(climb, len(present.inputs))
    td3.imitation.copy_(error.square().mean(dim=(1, 2)))


def _move_targets(td3: Td3Bc) -> None:
    for target, network in ((td3.critic_target, td3.critic), (td3.actor_target, td3.actor)):
        for u in range(units(network)):
            part(target, u).lerp_(part(network, u), td3.settings.tau)


def _begin(world: World, members: tuple[Member, ...], settings: Td3BcSettings) -> Td3Bc:
    standard = standard_of(world.rows.split(world.real).observation)
    return start_td3_bc(standard, world.rows.act_dim, settings, [member.seed for member in members], world.real.device)


def _step(td3: Td3Bc, batch: Batch, draws: Draws, actor_scale: float) -> dict[str, Tensor]:
    due = (batch.step + 1) % td3.settings.policy_delay == 0
    return update(td3, batch, draws.normal(1, *batch.action.shape[1:])[0], due, actor_scale)


def _operations(settings: Td3BcSettings, work: Work) -> int:
    """The products of `update`, those of the actor's step at every `policy_delay`-th."""
    hidden = (settings.hidden,) * settings.layers
    actor, critic = (work.obs_dim, *hidden, 2 * work.act_dim), (work.obs_dim + work.act_dim, *hidden, 1)
    always = mlp_flops(actor) + 4 * mlp_flops(critic) + 2 * backward_flops(critic)
    delayed = mlp_flops(actor) + backward_flops(actor) + mlp_flops(critic) + slope_flops(critic, work.act_dim)
    return work.batch * always + work.batch * delayed // settings.policy_delay


def _networks(settings: Td3BcSettings, work: Work) -> tuple[Networks, ...]:
    hidden = (settings.hidden,) * settings.layers
    actor, critic = (work.obs_dim, *hidden, 2 * work.act_dim), (work.obs_dim + work.act_dim, *hidden, 1)
    learned = Networks(actor, looks=1), Networks(critic, 2, looks=1)
    return *learned, Networks(actor, learned=False, looks=1), Networks(critic, 2, learned=False, looks=1)


ALGORITHM = Algorithm(
    Td3BcSettings,
    ("q", "critic_loss", "imitation"),
    _begin,
    _step,
    _operations,
    _networks,
    cycle=lambda settings: int(settings.policy_delay),
    learns_from="real",
)
