"""What bound and rank share: a trained policy, played greedily in the model from where the data's episodes start."""

import torch
from torch import Tensor

from mopo_cli.agents.actor import Actor
from mopo_cli.data.transitions import episode_lengths, episode_starts
from mopo_cli.dynamics.episodes import ModelReturns, model_returns
from mopo_cli.engine.streams import stream
from mopo_cli.evaluation.play import time_limit
from mopo_cli.stages.common.inputs import Data
from mopo_cli.stages.common.open_world import OpenWorld

STARTS = 100  # rollouts per policy: of 1000 steps in 7 networks, about 10 s of one CPU core
_LONGEST = 1000


def longest_episode(data: Data) -> int:
    """Steps that an episode in the model may take.

    It is the time limit of the environment, or, where none is known, the longest episode of the data, at most 1000.
    """
    limit = time_limit(data.info.env_id, data.info.env_kwargs)
    return limit or min(int(episode_lengths(data.transitions).max()), _LONGEST)


def draw_starts(data: Data, seed: int) -> Tensor:
    """`STARTS` first states of the dataset's episodes, drawn with replacement, `[STARTS, obs_dim]`."""
    first = torch.from_numpy(episode_starts(data.transitions))
    drawn = torch.randint(len(first), (STARTS,), generator=stream(seed, "returns/start"))
    return data.observation[first[drawn].to(data.observation.device)]


def greedy_returns(
    opened: OpenWorld, actor: Actor, seed: int, start: Tensor, horizon: int, gamma: float
) -> ModelReturns:
    """What the policy of a seed returns by its deterministic actions in the ensemble that goes with that seed.

    Policies of one seed meet the same noise, so that they differ in what they do.
    """
    world = opened.world
    ensemble = world.ensembles[opened.model_of(seed)]
    generator = stream(seed, "returns/model", device=start.device)

    def act(observation: Tensor, _: torch.Generator) -> Tensor:
        return actor.greedy(observation)

    return model_returns(ensemble, world.rule, start, act, horizon, gamma, generator, world.options, world.least_reward)
