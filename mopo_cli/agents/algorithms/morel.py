"""MOReL: a model that stops where its networks contradict each other (Kidambi et al. 2020), planned in by SAC.

A state and action are unknown where two networks' expected next states lie further apart than a threshold, which
the data set. They lead to HALT, a state that is never left and pays r_min - kappa, less than all of the data, at every
step. So the branch ends there, and its last reward is the value of HALT,

    (r_min - kappa) / (1 - gamma)

with terminal = 1. It stands in for r(s, a) + gamma V(HALT), as the model's reward of an unknown pair is not trusted.
The two differ by r(s, a) - (r_min - kappa), once. (`agents.guard` keeps r: there only the next state is implausible.)

Libraries that pay r_min - kappa once (halt-value once) make HALT worth less than nothing only where returns are
positive; where they are negative, it is the best place to go. The paper plans in this pessimistic model by natural
policy gradient, in episodes of 500 steps and more from the data's initial states; here the planner is soft actor-critic
on branches of h steps from any of the data's states, as of all methods here.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from mopo_cli.agents.algorithm import Algorithm, Batch, setting
from mopo_cli.agents.algorithms import sac
from mopo_cli.agents.guard import absorbing_value
from mopo_cli.agents.world import World
from mopo_cli.dynamics.branched_rollouts import RolloutOptions
from mopo_cli.dynamics.ensemble import Ensemble
from mopo_cli.dynamics.penalties import uncertainties
from mopo_cli.engine.members import Member
from mopo_cli.engine.streams import Draws
from mopo_cli.nets.perceptron import map_rows

DISCREPANCY = "discrepancy"
# Rows of the data evaluated together: on CPU the networks' activations stay in its cache.
_CPU_ROWS, _GPU_ROWS = 1024, 65536


@dataclass(frozen=True)
class MorelSettings(sac.SacSettings):
    """Soft actor-critic's, and what is unknown and how much it costs."""

    pessimism: float = setting(
        3.0,
        "MOReL halts where two networks differ by more than the most that they do on the data divided by this",
        "MOReL code for D4RL's hopper; 0.5 for Hopper-v3",
        gt=0,
    )
    halt_penalty: float = setting(
        50.0, "how far the reward of halting is below the lowest of the data", "Unifloral: 30 to 200", ge=0
    )
    halt_value: Literal["absorbing", "once"] = setting(
        "absorbing",
        "whether halting pays its reward at every step forever, or once, which rewards it where returns are negative",
        "MOReL; once: offline RL libraries such as Unifloral",
        before="once",
    )


@dataclass(frozen=True)
class Halt:
    """When rollouts halt and what that pays: the `threshold` `[S]` of the discrepancy, and the `reward` `[]`.

    The discrepancy is in `column` of a row's uncertainties. The reward includes all that HALT would pay later.
    """

    threshold: Tensor
    column: int
    reward: Tensor


@dataclass
class Morel(sac.Sac):
    """S agents, and where their rollouts halt."""

    halt: Halt


def greatest_discrepancy(ensemble: Ensemble, observation: Tensor, action: Tensor, options: RolloutOptions) -> Tensor:
    """The most that any two networks' expected next states differ on rows `[N, ·]`, measured as in rollouts: `[]`."""
    size = _GPU_ROWS if observation.is_cuda else _CPU_ROWS

    def greatest(rows: slice) -> Tensor:
        mean, std = ensemble.predict(observation[rows], action[rows], options.precision)
        return uncertainties(mean, std, options.form, ensemble.elites, (DISCREPANCY,)).amax()

    return torch.stack(map_rows(greatest, len(observation), size)).amax()


def start(world: World, members: tuple[Member, ...], settings: MorelSettings) -> Morel:
    """Fresh agents; the thresholds are computed once from all real rows, by the ensemble that a member branches in.

    SettingsError where HALT is absorbing and the discount is 1.
    """
    real = world.row_layout.split(world.real)
    used = {member.model for member in members}
    most = {k: greatest_discrepancy(world.ensembles[k], real.observation, real.action, world.options) for k in used}
    threshold = torch.stack([most[member.model] for member in members]) / settings.pessimism
    column = world.options.uncertainties.index(DISCREPANCY)
    reward = world.least_reward - settings.halt_penalty
    if settings.halt_value == "absorbing":
        reward = absorbing_value(reward, settings.gamma)
    halt = Halt(threshold, column, real.reward.new_tensor(reward))
    return Morel(**vars(sac.start(world, members, settings)), halt=halt)


def halting_options(morel: Morel, m: int, _flat: Tensor, options: RolloutOptions) -> RolloutOptions:
    """Rollouts of member m end where the discrepancy is above the threshold."""
    return replace(options, needs_uncertainties=True, halt=(DISCREPANCY, morel.halt.threshold[m].item()))


def update(morel: Morel, batch: Batch, draws: Draws, actor_scale: float) -> dict[str, Tensor]:
    """Soft actor-critic's step, the rows that halted having the HALT reward; they are terminal by their rollout."""
    halt = morel.halt
    halted = batch.uncertainty[..., halt.column] > halt.threshold[:, None]
    reward = torch.where(halted, halt.reward, batch.reward)
    metrics = sac.gradient_step(morel, batch, reward, draws.normal(2, *batch.action.shape[1:]), actor_scale)
    return metrics | {"halted": halted[:, batch.real_rows :].float().mean(dim=1), "threshold": halt.threshold}


ALGORITHM = Algorithm(
    settings=MorelSettings,
    metrics=(*sac.METRICS, "halted", "threshold"),
    start=start,
    update=update,
    networks=sac.networks,
    learns_from="model",
    uncertainties=(DISCREPANCY,),
    rollout_options=halting_options,
)
