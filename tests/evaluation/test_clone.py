"""A clone of logged behaviour does on new episodes what behaviour did, and learns no noise by heart."""

import pytest
import torch
from torch import Tensor

from mopo_cli.evaluation.clone import clone_of
from mopo_cli.evaluation.fitted_q import Log

LONGEST = 20


def log_of(action_of: Tensor, noise: float, episodes: int, seed: int) -> Log:
    """Episodes of states drawn at random, in which behaviour is tanh(s . w) and noise."""
    generator = torch.Generator().manual_seed(seed)
    observation = torch.randn(episodes * LONGEST, 4, generator=generator)
    spread = noise * torch.randn(len(observation), 1, generator=generator)
    action = ((observation @ action_of).tanh()[:, None] + spread).clamp(-1, 1)
    zeros = torch.zeros(len(observation))
    return Log(observation, action, zeros, zeros, observation, torch.arange(episodes).repeat_interleave(LONGEST))


def error(log: Log, action: Tensor) -> float:
    return float((action - log.action).square().mean())


def test_behaviour_is_learned() -> None:
    weights = torch.tensor([1.0, -0.5, 0.3, 0.0])
    fresh = log_of(weights, 0.0, 50, seed=1)
    clone = clone_of(log_of(weights, 0.0, 100, seed=0), steps=1_500)
    assert error(fresh, clone.greedy(fresh.observation)) < 0.01 * error(fresh, fresh.action.mean())


@pytest.mark.parametrize("episodes", [10, 30])
def test_actions_at_random_have_their_mean_as_clone(episodes: int) -> None:
    """Five thousand steps would learn the noise of so few rows: on new ones an error of twice that of the mean."""
    fresh = log_of(torch.zeros(4), 0.3, 100, seed=1)
    clone = clone_of(log_of(torch.zeros(4), 0.3, episodes, seed=0))
    assert error(fresh, clone.greedy(fresh.observation)) < 1.25 * error(fresh, torch.zeros(1))


def test_of_one_episode_nothing_is_held_out() -> None:
    log = log_of(torch.tensor([1.0, 0.0, 0.0, 0.0]), 0.0, 1, seed=0)
    assert error(log, clone_of(log, steps=500).greedy(log.observation)) < 0.1 * error(log, log.action.mean())
