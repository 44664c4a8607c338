"""D4RL's recipes: when a behaviour in training is medium or expert, and what is logged of it.

All levels of an environment come from one training by SAC (Fu et al. 2020, D4RL, app. C; trained with rlkit):

- medium: rows of the stochastic policy at the first evaluation that reaches about a third of the expert's return,
- medium-replay: every step of the training until then,
- expert: rows of the stochastic policy at the end of the training; medium-expert: half medium, half expert,
- full-replay: every step of the whole training.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mopo_cli.agents.algorithms.sac import SacSettings
from mopo_cli.data.behaviour import Behaviour, log_of, named_seed, own_units
from mopo_cli.data.generate import log_steps
from mopo_cli.data.scores import family_returns
from mopo_cli.data.spaces import Spaces
from mopo_cli.data.transitions import COLUMNS, Floats, Transitions
from mopo_cli.engine.streams import stream
from mopo_cli.errors import InputError
from mopo_cli.evaluation.play import Environment, evaluate_returns

# Which behaviours a level is about; "expert" is whatever the training ends with.
_PARTS = {
    "medium": ("medium",),
    "medium-replay": ("medium",),
    "medium-expert": ("medium", "expert"),
    "expert": ("expert",),
    "full-replay": ("expert",),
}


@dataclass(frozen=True)
class Recipe:
    """How a behaviour is trained and judged: SAC with rlkit's settings, one update per step.

    After `warmup` steps of uniform actions the policy acts. Evaluations are the mean of `episodes` deterministic
    episodes, the same starts each time: every 1000 steps at first, as small tasks are learnt within a few
    thousand, every 5000 later.
    """

    hidden: int = 256
    layers: int = 2
    learning_rate: float = 3e-4
    gamma: float = 0.99
    tau: float = 0.005
    log_std_min: float = -20.0
    log_std_max: float = 2.0
    batch_size: int = 256
    warmup: int = 1000
    episodes: int = 10
    early_every: int = 1000
    early_steps: int = 20_000
    every: int = 5000

    def is_due(self, steps: int) -> bool:
        """Whether the policy is evaluated after this many steps."""
        return steps % (self.early_every if steps <= self.early_steps else self.every) == 0

    def sac(self, act_dim: int) -> SacSettings:
        """The learner's settings; the temperature has no upper bound."""
        return SacSettings(
            hidden=self.hidden,
            layers=self.layers,
            actor_lr=self.learning_rate,
            critic_lr=self.learning_rate,
            alpha_lr=self.learning_rate,
            gamma=self.gamma,
            tau=self.tau,
            target_entropy=-float(act_dim),
            alpha_max=float("inf"),
            log_std_min=self.log_std_min,
            log_std_max=self.log_std_max,
        )


@dataclass(frozen=True)
class Threshold:
    """The return from which on a behaviour is medium, and where it comes from, in words."""

    value: float
    why: str


@dataclass(frozen=True)
class Goal:
    """What a training is for: a level, the most steps it may take, and the threshold where the level has one."""

    recipe: Recipe
    level: str
    limit: int
    medium: Threshold | None

    def curve(self, behaviour: Behaviour, until: int) -> list[tuple[int, float]]:
        """(steps, mean return) of the evaluations that count: those due, and the one at the limit."""
        counts = (s for s in sorted(behaviour.curve) if s <= until and (self.recipe.is_due(s) or s == self.limit))
        return [(steps, behaviour.curve[steps]) for steps in counts]

    def medium_steps(self, behaviour: Behaviour) -> int | None:
        """The steps of the first evaluation that reached the threshold, None where none did."""
        value = self.medium.value if self.medium else float("inf")
        return next((steps for steps, mean in self.curve(behaviour, self.limit) if mean >= value), None)

    def parts(self, behaviour: Behaviour) -> dict[str, int]:
        """The behaviours that the level is about, each by its steps, as far as the training has come to them."""
        steps = {"medium": self.medium_steps(behaviour), "expert": self.limit}
        return {part: at for part in _PARTS[self.level] if (at := steps[part]) in behaviour.actors}

    def is_met(self, behaviour: Behaviour) -> bool:
        """Whether the behaviour has done all that the level is made from."""
        parts = self.parts(behaviour)
        logged = not self.level.endswith("replay") or behaviour.online.steps >= max(parts.values(), default=0)
        return len(parts) == len(_PARTS[self.level]) and logged

    def check(self, behaviour: Behaviour) -> None:
        """InputError when the training is over and never was medium, or went past the limit without a look there."""
        name = behaviour.info.dataset_id
        if len(self.parts(behaviour)) == len(_PARTS[self.level]):
            return
        if self.limit not in behaviour.curve:
            raise InputError(
                f"{name}: the behaviour was already trained for {behaviour.online.steps:,} steps, and its state "
                f"after {self.limit:,} steps was not kept.",
                hint=f"a larger --behaviour-steps, a multiple of {self.recipe.every}, or --force to train it again",
            )
        assert self.medium is not None
        steps, best = max(self.curve(behaviour, self.limit), key=lambda point: point[1])
        raise InputError(
            f"{name}: within {self.limit:,} steps the behaviour returned at most {best:.1f} (after {steps:,} "
            f"steps), but medium is {self.medium.value:.1f}, {self.medium.why}.",
            hint=f"mopo fetch-data --dataset {name} --behaviour-steps {2 * self.limit} (it continues from there), "
            f"or a --medium-return of at most {best:.1f}",
        )


def needs_medium(level: str) -> bool:
    """Whether a level has a threshold."""
    return "medium" in _PARTS[level]


def medium_threshold(env_id: str, environment: Environment, random_return: Callable[[], float]) -> Threshold:
    """A third of the way from random to expert: by D4RL's returns for the family, else by the return at which
    Gymnasium calls the environment solved and the measured `random_return`. InputError where neither is known."""
    if returns := family_returns(env_id):
        low, high = returns
        where = "in D4RL's table"
    elif environment.spec is not None and environment.spec.reward_threshold is not None:
        low, high = random_return(), float(environment.spec.reward_threshold)
        where = "measured, and the return at which it counts as solved"
    else:
        raise InputError(
            f"The return of a medium behaviour in {env_id} is not known: give it.",
            hint="--medium-return RETURN",
        )
    return Threshold(low + (high - low) / 3, f"a third of the way from {low:.1f} to {high:.1f} ({where})")


def random_return(environments: list[Environment], spaces: Spaces, seed: int) -> float:
    """The mean return of an episode of uniform random actions in each environment."""
    draw = np.random.default_rng([seed, 2])

    def act(observations: NDArray[np.float32]) -> NDArray[np.float32]:
        shape = (len(observations), spaces.act_dim)
        return draw.uniform(spaces.action_low, spaces.action_high, shape).astype(np.float32)

    return float(evaluate_returns(act, environments, named_seed(seed, "recipe/random")).returns.mean())


def make_transitions(
    goal: Goal, behaviour: Behaviour, environment: Environment, spaces: Spaces, n: int, tell: Callable[[int], None]
) -> Transitions:
    """The rows of a level whose goal is met: n by the policies, or as many as the training took until then.

    ``tell(m)`` is told of m more rows logged, and may raise to stop.
    """
    parts = goal.parts(behaviour)
    if goal.level.endswith("replay"):
        return log_of(behaviour, max(parts.values()))
    logs = []
    for place, (part, steps) in enumerate(parts.items()):
        rows = n // len(parts) + (place < n % len(parts))
        act = _sampler(behaviour, behaviour.actors[steps], f"recipe/{part}/action")
        seed = named_seed(behaviour.online.seed, f"recipe/{part}/episodes")
        logs.append(log_steps(environment, spaces, rows, seed, act, tell))
    return _join(logs)


def _sampler(behaviour: Behaviour, actor: Tensor, name: str) -> Callable[[Floats], Floats]:
    policy = behaviour.online.sac.policy(0, actor)
    draw = stream(behaviour.online.seed, name, device=actor.device)

    def act(observation: Floats) -> Floats:
        action = policy.sample(torch.from_numpy(observation)[None].to(actor.device), draw)
        return own_units(action[0].cpu().numpy(), behaviour.info)

    return act


def _join(parts: list[Transitions]) -> Transitions:
    columns: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS}
    shared = set.intersection(*(set(part.infos) for part in parts))
    return Transitions(**columns, infos={k: np.concatenate([part.infos[k] for part in parts]) for k in sorted(shared)})


def describe(goal: Goal, behaviour: Behaviour, env_id: str, versions: dict[str, str]) -> dict[str, Any]:
    """Fields of a DatasetInfo by name: `source` in words, `recipe` as JSON has it, the `behaviour`'s weights."""
    parts, seed = goal.parts(behaviour), behaviour.online.seed
    returns = " and ".join(f"{behaviour.curve[steps]:.1f} after {steps:,} steps" for steps in parts.values())
    settings = asdict(goal.recipe) | {"target_entropy": -behaviour.online.rows.act_dim}
    recipe = {
        "algorithm": "SAC with automatic temperature (Haarnoja et al. 2018)",
        "settings": settings,
        "level": goal.level,
        "seed": seed,
        "steps": max(parts.values()),
        "medium": None if goal.medium is None else {**asdict(goal.medium), "steps": parts["medium"]},
        "curve": [list(point) for point in goal.curve(behaviour, max(parts.values()))],
        "versions": versions,
    }
    return {
        "source": f"generated by SAC trained in {env_id} (gymnasium {gym.__version__}), seed {seed}, "
        f"which returned {returns}",
        "recipe": recipe,
        "behaviour": _weights(behaviour, parts),
    }


def _weights(behaviour: Behaviour, parts: dict[str, int]) -> dict[str, NDArray[Any]]:
    """The policies' matrices by layer; where there are two policies, the name begins with whose it is."""
    weights = {}
    for part, steps in parts.items():
        prefix = f"{part}_" if len(parts) > 1 else ""
        for name, matrix in behaviour.online.sac.actor.layout.views(behaviour.actors[steps]).items():
            weights[prefix + name] = matrix[0].cpu().numpy().copy()
    return weights
