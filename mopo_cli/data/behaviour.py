"""A behaviour in training: SAC acts in the real environment, learns from every step, and every step is logged.

Each episode starts from a seed that is a function of the behaviour's seed and the episode's number. So the start
of an episode is a place from which training goes on exactly, and the only kind of place that is ever saved.
"""

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mopo_cli.agents.algorithm import agent_state, restore_agent
from mopo_cli.agents.algorithms.sac import Sac
from mopo_cli.agents.online import Online, act, learn
from mopo_cli.data.generate import LOGGED_INFOS, info_columns, logged_infos
from mopo_cli.data.transitions import Bools, DatasetInfo, Floats, Transitions, denormalise_actions
from mopo_cli.engine.capture import check_shapes
from mopo_cli.engine.streams import stream
from mopo_cli.errors import DivergedError
from mopo_cli.evaluation.play import Environment, evaluate_returns


@dataclass
class Behaviour:
    """A learner at work. Its replay is the log; what is not learnt from is kept beside it."""

    online: Online
    info: DatasetInfo
    timeouts: Bools
    """`[capacity]`"""
    infos: Floats
    """`[capacity, 2]`, see LOGGED_INFOS"""
    start: "EpisodeStart"
    observation: Floats | None = None
    """`[O]` f4, None before an episode"""
    curve: dict[int, float] = field(default_factory=dict)
    """The mean return of each evaluation by the steps taken before it, and the policy `[1, ·]` that was evaluated:"""
    actors: dict[int, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class EpisodeStart:
    """The latest place to go on from: the number of the episode, the steps before it, and the agent as it was then."""

    episode: int
    steps: int
    sac: Sac


def start_behaviour(online: Online, info: DatasetInfo) -> Behaviour:
    """A behaviour that has done nothing yet; `info` tells the action bounds."""
    capacity = len(online.replay)
    timeouts, infos = np.zeros(capacity, np.bool_), np.empty((capacity, len(LOGGED_INFOS)), np.float32)
    return Behaviour(online, info, timeouts, infos, EpisodeStart(0, 0, deepcopy(online.sac)))


def take_step(behaviour: Behaviour, environment: Environment) -> None:
    """Act, log and learn once; an episode that ended is followed by the next.

    DivergedError where the action, or what the simulator made of it, is not finite.
    """
    online = behaviour.online
    if behaviour.observation is None:
        seed = named_seed(online.seed, "behaviour/episode", behaviour.start.episode)
        behaviour.observation = np.array(environment.reset(seed=seed)[0], np.float32)
    observation = torch.from_numpy(behaviour.observation)
    action = act(online, observation).cpu()
    outcome, reward, terminated, truncated, info = environment.step(own_units(action.numpy(), behaviour.info))
    following = np.array(outcome, np.float32)
    row = online.rows.pack(
        observation[None],
        action[None],
        torch.tensor([float(reward)]),
        torch.tensor([float(terminated)]),
        torch.from_numpy(following)[None],
        torch.empty(1, 0),
    )[0]
    if not torch.isfinite(row).all():
        raise _diverged(behaviour)
    behaviour.timeouts[online.steps] = truncated and not terminated
    behaviour.infos[online.steps] = logged_infos(info)
    learn(online, row)
    behaviour.observation = None if terminated or truncated else following
    if behaviour.observation is None:
        behaviour.start = EpisodeStart(behaviour.start.episode + 1, online.steps, deepcopy(online.sac))


def evaluate(behaviour: Behaviour, environments: list[Environment]) -> None:
    """Put the present policy into `actors`, and the mean return of one deterministic episode in each environment
    into `curve`. The starts are the same each time, and training is not touched. DivergedError for a NaN."""
    online = behaviour.online
    policy = online.sac.policy(0, online.sac.actor.flat.clone())

    def act(observations: Floats) -> Floats:
        greedy = policy.greedy(torch.from_numpy(observations).to(policy.flat.device))
        return own_units(greedy.cpu().numpy(), behaviour.info)

    results = evaluate_returns(act, environments, named_seed(online.seed, "behaviour/evaluation"))
    if not np.isfinite(results.returns).all():
        raise _diverged(behaviour)
    behaviour.curve[online.steps] = float(results.returns.mean())
    behaviour.actors[online.steps] = policy.flat


def _diverged(behaviour: Behaviour) -> DivergedError:
    name, online = behaviour.info.dataset_id, behaviour.online
    return DivergedError(
        f"{name}: the training of the behaviour diverged (NaN or infinity) after {online.steps:,} steps.",
        hint=f"mopo fetch-data --dataset {name} --seed {online.seed + 1}",
    )


def own_units(actions: Floats, info: DatasetInfo) -> Floats:
    """Actions `[…, A]` in [-1, 1] as the environment takes them, never beyond its bounds by rounding."""
    clipped: Floats = np.clip(denormalise_actions(actions, info), info.action_low, info.action_high)
    return clipped


def named_seed(seed: int, name: str, index: int = 0) -> int:
    """A seed for a simulator, as independent of all others as the streams are."""
    return stream(seed, name, index).initial_seed()


def log_of(behaviour: Behaviour, rows: int) -> Transitions:
    """The first `rows` steps as they were taken; a timeout ends them where they end inside an episode."""
    columns = behaviour.online.rows.split(behaviour.online.replay[:rows].cpu())
    terminals, timeouts = columns.terminal.numpy() > 0, behaviour.timeouts[:rows].copy()
    timeouts[-1:] = ~terminals[-1:]
    return Transitions(
        observations=columns.observation.numpy().copy(),
        actions=own_units(columns.action.numpy(), behaviour.info),
        rewards=columns.reward.numpy().copy(),
        next_observations=columns.next_observation.numpy().copy(),
        terminals=terminals,
        timeouts=timeouts,
        infos=info_columns(behaviour.infos[:rows]),
    )


def behaviour_state(behaviour: Behaviour) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What a checkpoint must hold to go on from the start of the present episode."""
    start = behaviour.start
    tensors, adam_steps = agent_state(start.sac)
    tensors |= {
        "replay": behaviour.online.replay[: start.steps],
        "timeouts": torch.from_numpy(behaviour.timeouts[: start.steps]),
        "infos": torch.from_numpy(behaviour.infos[: start.steps]),
    }
    tensors |= {f"actors/{steps}": actor for steps, actor in behaviour.actors.items()}
    curve = [[steps, value] for steps, value in sorted(behaviour.curve.items())]
    return tensors, {"steps": start.steps, "episode": start.episode, "adam": adam_steps, "curve": curve}


def restore_behaviour(behaviour: Behaviour, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
    """Put a checkpoint back into a freshly started behaviour of the same seed and settings that has room for it.

    KeyError or ValueError where the checkpoint is of something else.
    """
    online, steps = behaviour.online, numbers["steps"]
    actors = {f"actors/{steps}": online.sac.actor.flat for steps, _ in numbers["curve"]}
    logged = {"timeouts": torch.from_numpy(behaviour.timeouts), "infos": torch.from_numpy(behaviour.infos)}
    rows = {name: tensor[:steps] for name, tensor in {"replay": online.replay, **logged}.items()}
    expected = agent_state(online.sac)[0] | actors | rows
    check_shapes(tensors, {name: tensor.shape for name, tensor in expected.items()})
    restore_agent(online.sac, tensors, numbers["adam"])
    online.replay[:steps], online.steps = tensors["replay"], steps
    behaviour.timeouts[:steps] = tensors["timeouts"].cpu().numpy()
    behaviour.infos[:steps] = tensors["infos"].cpu().numpy()
    behaviour.start = EpisodeStart(numbers["episode"], steps, deepcopy(online.sac))
    behaviour.curve = dict(numbers["curve"])
    behaviour.actors = {steps: tensors[f"actors/{steps}"] for steps in behaviour.curve}
