"""What the training loop needs of a learner: one file per algorithm registers itself as such a value."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import Any, Literal, Protocol

from torch import Tensor

from mopo_cli.agents.actor import Actor
from mopo_cli.agents.world import World
from mopo_cli.dynamics.branched_rollouts import RolloutOptions
from mopo_cli.engine.members import Member
from mopo_cli.engine.rows import Transition
from mopo_cli.engine.streams import Draws
from mopo_cli.nets.adam import Adam


class Agent(Protocol):
    """S agents in training."""

    @property
    def actor(self) -> Tensor:
        """The parameters of their policies, `[S, ·]`."""
        ...

    def policy(self, m: int, flat: Tensor | None = None) -> Actor:
        """The policy of member m, with its present parameters or with those in `flat` `[S, size]`."""
        ...

    def finite(self) -> Tensor:
        """Whether all that a member has learned is finite, bool `[S]`."""
        ...


@dataclass(frozen=True)
class Batch(Transition):
    """The columns of a batch, `[S, B, ·]`, with the reward to learn from.

    The first `real` rows are the data's, those numbered `index` `[S, real]`; the model made the others. `step` is how
    many gradient steps were taken before: in the warm-up those of it, after it those since.
    """

    real: int
    index: Tensor
    step: int = 0


Take = Callable[[Callable[[Draws], None], Draws], None]
"""Has a step taken, with the draws it asks for."""


@dataclass(frozen=True)
class Choice:
    """What an algorithm took, by the data, for a setting that was left to them: `why` goes on from "as"."""

    setting: str
    value: str
    why: str


@dataclass(frozen=True)
class Work:
    """How much a gradient step has to do: widths, rows of a batch and real ones among them, rows of the data.

    `network` is what one row through one network of the dynamics costs, in operations; of these, `elites` are used.
    On a GPU the actions that are sampled for a batch are looked at all at once, `at_once`, and not block by block.
    """

    obs_dim: int
    act_dim: int
    batch: int
    real: int
    data: int
    network: int
    elites: int
    at_once: bool = False


@dataclass(frozen=True)
class Networks:
    """Networks of a member that are alike: the widths of their layers, inputs and outputs included, and how many.

    Those that are `learned` have Adam's moments and a gradient beside their parameters. `looks` is how often a gradient
    step holds, at its height, what all their layers say of a batch.
    """

    sizes: tuple[int, ...]
    count: int = 1
    learned: bool = True
    looks: int = 0

    @property
    def parameters(self) -> int:
        """Of one of them."""
        return sum((inputs + 1) * outputs for inputs, outputs in pairwise(self.sizes))


def setting(default: Any, description: str, source: str = "", before: Any = None, **bounds: Any) -> Any:
    """A field of an algorithm's settings that is its own: becomes a flag, a YAML key and a line of the help.

    `before` is what was done when it was no setting yet, if not its default; `bounds` are those of pydantic's Field,
    such as ge=0.
    """
    extra = {"source": source} | ({} if before is None else {"before": before})
    return field(default=default, metadata={"description": description, "extra": extra, "bounds": bounds})


def agent_state(agent: Any) -> tuple[dict[str, Tensor], list[int]]:
    """What a checkpoint must hold of an agent: its tensors and Adams by name, and the steps that these have taken."""
    tensors: dict[str, Tensor] = {}
    steps: list[int] = []
    for name, value in _parts(agent):
        if isinstance(value, Adam):
            own = name.removesuffix("_adam")
            tensors |= {f"{own}/first": value.first, f"{own}/second": value.second}
            steps.append(int(value.steps))
        else:
            tensors[name] = value
    return tensors, steps


def restore_agent(agent: Any, tensors: dict[str, Tensor], steps: list[int]) -> None:
    """Put what `agent_state` gave back into an agent of the same settings."""
    taken = iter(steps)
    for name, value in _parts(agent):
        if isinstance(value, Adam):
            own = name.removesuffix("_adam")
            value.restore(tensors[f"{own}/first"], tensors[f"{own}/second"], next(taken))
        else:
            value.copy_(tensors[name])


def _parts(agent: Any) -> list[tuple[str, Any]]:
    own = [(part.name, getattr(agent, part.name)) for part in fields(agent)]
    return [(name, value) for name, value in own if isinstance(value, Tensor | Adam)]


def _actors(agent: Agent) -> Tensor:
    return agent.actor


def _as_it_is(_agent: Any, _m: int, _flat: Tensor, how: RolloutOptions) -> RolloutOptions:
    return how


@dataclass(frozen=True)
class Algorithm:
    """A learner as plain functions.

    `settings` is the dataclass of its hyper-parameters, `update_precision` among them; `metrics` name what `update`
    tells, each `[S]`.

    - `start(world, members, settings)` builds fresh agents, the m-th from the streams of `members[m].seed`;
    - `update(agent, batch, draws, actor_scale)` takes one gradient step in place, `actor_scale` being the factor of
      the actor's learning rate;
    - `cycle(settings)` is after how many steps `update` does the same again, by `batch.step`: what it launches must
      depend on nothing else, and be launched on tensors that stay where they are (see `engine.capture`);
    - `operations(settings, work)` counts the floating-point operations of its matrix products, for one member;
    - `networks(settings, work)` are all those of one member, and `held(settings, work)` counts the numbers that a
      gradient step samples and holds for one member beside what these say: by both, memory is asked for;
    - `learns_from` tells of which rows: "any", those of the data alone ("real"), in each batch some of the data and
      some of the model ("both"), or also of fresh rollouts, as it asks the model itself ("model");
    - `warm_up(settings)` is how many gradient steps come first, on real rows, phase after phase, each by
      `warm(agent, batch, draws)`, which launches the same throughout a phase;
    - `refresh(agent, draws, take)` is called whenever rollouts are due, before them; gradient steps of its own, which
      all launch the same, it has taken by `take(step, draws)`. `refresh_operations(settings, work)` counts its
      products, for one member;
    - `uncertainties` are columns that model rows have for it, beside those of the penalties;
    - `rolling(agent)` `[S, ·]` are the parameters by which rollouts are made, the policies' first, and
      `imagining(agent, m, flat, how)` is how member m makes them, by parameters `flat` `[S, ·]`;
    - `choices(agent)` is what it took for settings that were left to the data;
    - `files(agent, m)` is what is published of member m beside its policy: tensors by the name of their file;
    - `state(agent)` gives what a checkpoint must hold, tensors by name and plain numbers; `restore` puts it back.
    """

    settings: type[Any]
    metrics: tuple[str, ...]
    start: Callable[[World, tuple[Member, ...], Any], Agent]
    update: Callable[[Any, Batch, Draws, float], dict[str, Tensor]]
    operations: Callable[[Any, Work], int]
    networks: Callable[[Any, Work], tuple[Networks, ...]] = lambda settings, work: ()
    held: Callable[[Any, Work], int] = lambda settings, work: 0
    cycle: Callable[[Any], int] = lambda settings: 1
    learns_from: Literal["any", "real", "both", "model"] = "any"
    warm_up: Callable[[Any], tuple[int, ...]] = lambda settings: ()
    warm: Callable[[Any, Batch, Draws], None] = lambda agent, batch, draws: None
    refresh: Callable[[Any, Draws, Take], None] = lambda agent, draws, take: None
    refresh_operations: Callable[[Any, Work], int] = lambda settings, work: 0
    uncertainties: tuple[str, ...] = ()
    rolling: Callable[[Any], Tensor] = _actors
    imagining: Callable[[Any, int, Tensor, RolloutOptions], RolloutOptions] = _as_it_is
    choices: Callable[[Any], tuple[Choice, ...]] = lambda agent: ()
    files: Callable[[Any, int], dict[str, dict[str, Tensor]]] = lambda agent, m: {}
    state: Callable[[Any], tuple[dict[str, Tensor], list[int]]] = agent_state
    restore: Callable[[Any, dict[str, Tensor], list[int]], None] = restore_agent
