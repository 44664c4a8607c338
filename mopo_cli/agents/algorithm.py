"""What the training loop needs of an algorithm: each has one file, which registers such a value.

In every update `by_x` is the gradient of the loss by x, and has the shape of x (see nets/stacked.py).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from mopo_cli.agents.actor import Actor
from mopo_cli.agents.world import World
from mopo_cli.dynamics.branched_rollouts import RolloutOptions
from mopo_cli.engine.members import Member
from mopo_cli.engine.rows import Transition
from mopo_cli.engine.streams import Draws
from mopo_cli.nets.adam import Adam
from mopo_cli.nets.network import Network
from mopo_cli.nets.precision import Precision


@dataclass
class Learned:
    """What is learned for S members: fields that are networks, Adams, tensors or `Learned` themselves are its state.

    An Adam named x_adam belongs to the tensor x or log_x.
    """


@dataclass(frozen=True)
class AgentSettings:
    """What every algorithm's settings have: of the actor, and the precision of the products of hidden layers."""

    hidden: int
    layers: int
    actor_lr: float
    log_std_min: float
    log_std_max: float
    update_precision: Precision = field(default="fp32", kw_only=True)


@dataclass
class Agent(Learned):
    """S agents in training, whose actors output mean and log std of an action before its tanh."""

    settings: Any
    actor: Network

    def policy(self, m: int, flat: Tensor | None = None) -> Actor:
        """The policy of member m, with its present parameters or with those that `flat` `[S, ·]` begins with."""
        return Actor(self._policy(m, flat), self.actor.layout, self.settings.log_std_min, self.settings.log_std_max)

    def _policy(self, m: int, flat: Tensor | None) -> Tensor:
        return (self.actor.flat if flat is None else flat)[m : m + 1, : self.actor.layout.size]

    def finite(self) -> Tensor:
        """Whether all networks of a member, and tensors x with an x_adam, are finite, bool `[S]`.

        A log_x that is not finite makes the networks so at the next step, if it is used at all.
        """
        members, adams = len(self.actor.flat), {name for name, _ in parts(self, Adam)}
        values = [network.flat for _, network in parts(self, Network)]
        values += [tensor for name, tensor in parts(self, Tensor) if f"{name}_adam" in adams]
        return torch.stack([torch.isfinite(value).view(members, -1).all(dim=1) for value in values]).all(dim=0)


@dataclass(frozen=True)
class Batch(Transition):
    """The columns of a batch, `[S, B, ·]`, with the reward to learn from.

    The first `real_rows` are the data's, those numbered `index` `[S, real_rows]`; the others are the model's. `step` is
    how many gradient steps came before: in the warm-up, since its start; later, since its end.
    """

    real_rows: int
    index: Tensor
    step: int = 0


Take = Callable[[Callable[[Draws], None], Draws], None]
"""`take(step, draws)` has the step carried out by the engine, with these draws."""


@dataclass(frozen=True)
class Choice:
    """The value of a setting that an algorithm chose by the data: `why` continues "as ..."."""

    setting: str
    value: str
    why: str


@dataclass(frozen=True)
class Work:
    """The size of a gradient step: widths, rows of a batch and real ones among them, rows of the data, elites used.

    On a GPU the actions that are sampled for a batch are evaluated `at_once`, and not block by block.
    """

    obs_dim: int
    act_dim: int
    batch: int
    real_rows: int
    data: int
    elites: int
    at_once: bool = False


@dataclass(frozen=True)
class Networks:
    """Networks of a member that are alike: the widths of their layers, inputs and outputs included, and how many.

    Those that are `learned` have Adam's moments and a gradient beside their parameters. `evaluations` is how many times
    a gradient step holds, at its peak, the activations of all their layers for a batch.
    """

    sizes: tuple[int, ...]
    count: int = 1
    learned: bool = True
    evaluations: int = 0

    @property
    def parameters(self) -> int:
        """Of one of them."""
        return sum((inputs + 1) * outputs for inputs, outputs in pairwise(self.sizes))


def setting(default: Any, description: str, source: str = "", before: Any = None, **bounds: Any) -> Any:
    """A setting that this algorithm alone has: it becomes a flag, a YAML key and a line of the help.

    `before` is the behaviour from before it became a setting, if not its default; `bounds` are those of pydantic's
    Field, such as ge=0.
    """
    extra = {"source": source} | ({} if before is None else {"before": before})
    return field(default=default, metadata={"description": description, "extra": extra, "bounds": bounds})


def agent_state(agent: Learned) -> tuple[dict[str, Tensor], list[int]]:
    """What a checkpoint must hold of an agent: its tensors by name, Adam's among them, and the steps of each Adam."""
    tensors, adams = _state(agent)
    return tensors, [int(adam.steps) for adam in adams]


def restore_agent(agent: Learned, tensors: dict[str, Tensor], steps: list[int]) -> None:
    """Put a state from `agent_state` back into an agent of the same settings."""
    current, adams = _state(agent)
    for name, tensor in current.items():
        tensor.copy_(tensors[name])
    for adam, count in zip(adams, steps, strict=True):
        adam.steps.fill_(count)


def _state(agent: Learned) -> tuple[dict[str, Tensor], list[Adam]]:
    tensors: dict[str, Tensor] = {}
    adams: list[tuple[str, Adam]] = []
    with_target = sum(network.target_or_none is not None for _, network in parts(agent, Network))
    for name, value in parts(agent, (Network, Adam, Tensor)):
        if isinstance(value, Network):
            tensors[name] = value.flat
            if value.target_or_none is not None:
                tensors["target" if with_target == 1 else f"{name}_target"] = value.target.flat
            adams.append((name, value.adam))
        elif isinstance(value, Adam):
            adams.append((name.removesuffix("_adam"), value))
        else:
            tensors[name] = value
    for name, adam in adams:
        tensors |= {f"{name}/first": adam.first, f"{name}/second": adam.second}
    return tensors, [adam for _, adam in adams]


def parts(agent: Learned, kinds: Any) -> Iterator[tuple[str, Any]]:
    """The fields of these kinds, by name: the agent's, then those of what is `Learned` in it."""
    values = [(each.name, getattr(agent, each.name)) for each in fields(agent)]
    yield from ((name, value) for name, value in values if isinstance(value, kinds))
    for _, value in values:
        if isinstance(value, Learned):
            yield from parts(value, kinds)


Start = Callable[[World, tuple[Member, ...], Any], Agent]


def start_from_shapes(start: Callable[[int, int, Any, list[int], torch.device], Agent]) -> Start:
    """The `start` of an algorithm that needs of the world its shapes and its device: obs_dim, act_dim, …, seeds, …"""

    def begin(world: World, members: tuple[Member, ...], settings: Any) -> Agent:
        seeds, layout = [member.seed for member in members], world.row_layout
        return start(layout.obs_dim, layout.act_dim, settings, seeds, world.real.device)

    return begin


@dataclass(frozen=True)
class Algorithm:
    """A learner as plain functions.

    `settings` is the dataclass of its hyper-parameters, `update_precision` among them; `metrics` are the names of the
    results of `update`, each `[S]`: of these critic_loss is the mean squared error of the critics' values, without the
    factors and further terms of their loss.

    - `start(world, members, settings)` builds fresh agents, the m-th from the streams of `members[m].seed`;
    - `update(agent, batch, draws, actor_scale)` takes one gradient step in place, `actor_scale` being the factor of
      the actor's learning rate;
    - `cycle(settings)`: `update` launches the same operations at every `batch.step` with the same remainder modulo this
      number. They depend on nothing else, and work on tensors that stay where they are (see `engine.capture`);
    - `networks(settings, work)` are all those of one member, and `sampled_numbers(settings, work)` counts what a
      gradient step samples and keeps for one member beside their activations: both are for estimates of memory;
    - `learns_from` says which rows: "any", those of the data alone ("real"), in each batch some of the data and some
      of the model ("both"), or also of fresh rollouts, as it uses the model itself ("model");
    - `warm_up(settings)` is how many gradient steps come first, on real rows, phase after phase, each by
      `warm(agent, batch, draws)`, which launches the same throughout a phase;
    - `refresh(agent, draws, take)` is called before rollouts, whenever these are due; its gradient steps, which all
      launch the same, go through `take(step, draws)`;
    - `uncertainties` are columns that it needs in model rows, beside those of the penalties;
    - `rollout_parameters(agent)` `[S, ·]` are the parameters that rollouts are made with, the policies' first, and
      `rollout_options(agent, m, flat, options)` are the world's options as member m changes them, with these
      parameters `flat` `[S, ·]`;
    - `choices(agent)` are the values of settings that it chose by the data;
    - `files(agent, m)` is what is published of member m beside its policy: tensors by the name of their file.
    """

    settings: type[Any]
    metrics: tuple[str, ...]
    start: Start
    update: Callable[[Any, Batch, Draws, float], dict[str, Tensor]]
    networks: Callable[[Any, Work], tuple[Networks, ...]] = lambda settings, work: ()
    sampled_numbers: Callable[[Any, Work], int] = lambda settings, work: 0
    cycle: Callable[[Any], int] = lambda settings: 1
    learns_from: Literal["any", "real", "both", "model"] = "any"
    warm_up: Callable[[Any], tuple[int, ...]] = lambda settings: ()
    warm: Callable[[Any, Batch, Draws], None] = lambda agent, batch, draws: None
    refresh: Callable[[Any, Draws, Take], None] = lambda agent, draws, take: None
    uncertainties: tuple[str, ...] = ()
    rollout_parameters: Callable[[Any], Tensor] = lambda agent: agent.actor.flat
    rollout_options: Callable[[Any, int, Tensor, RolloutOptions], RolloutOptions] = lambda agent, m, flat, same: same
    choices: Callable[[Any], tuple[Choice, ...]] = lambda agent: ()
    files: Callable[[Any, int], dict[str, dict[str, Tensor]]] = lambda agent, m: {}
