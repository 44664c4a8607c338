"""Actions are outside of a log where it did nothing like them in similar states, though it may have elsewhere."""

import numpy as np
import pytest
import torch
from torch import Tensor

from mopo_cli.evaluation.fitted_q import Act, Log
from mopo_cli.evaluation.support import support_of


def log_of(count: int = 4_000) -> Log:
    """Two kinds of states, far apart: actions lie between 0 and 1 in the one, between -1 and 0 in the other."""
    rng = np.random.default_rng(0)
    side = np.where(rng.random(count) < 0.5, -1.0, 1.0)
    observation = torch.from_numpy(np.stack([10 * side, rng.normal(size=count)], axis=1)).float()
    action = torch.from_numpy((side * rng.random(count))[:, None]).float()
    nothing = torch.zeros(count)
    return Log(observation, action, nothing, nothing, observation, torch.arange(count) // 10)


def side(observation: Tensor) -> Tensor:
    return observation[:, :1].sign()


@pytest.mark.parametrize(
    ("act", "share"),
    [
        (lambda observation: 0.5 * side(observation), 0.0),
        (lambda observation: -0.5 * side(observation), 1.0),  # what the log did, but in the other states
        (lambda observation: torch.full((len(observation), 1), 0.5), 0.5),
        (lambda observation: 3.0 * side(observation), 1.0),
        (lambda observation: side(observation) * (1 + (observation[:, 1:] > 0)), 0.5),
    ],
)
def test_an_action_is_outside_where_similar_states_do_not_have_it(act: Act, share: float) -> None:
    assert support_of(log_of()).outside(act) == pytest.approx(share, abs=0.06)


def test_of_the_log_s_actions_one_in_a_hundred_is_outside() -> None:
    """The policy that did it, with other draws; by another share of the log than the support is of."""
    generator = torch.Generator().manual_seed(1)
    share = support_of(log_of()).outside(lambda seen: side(seen) * torch.rand(len(seen), 1, generator=generator))
    assert 0.001 < share < 0.03


def test_the_unit_of_an_observation_does_not_matter_and_few_rows_are_enough() -> None:
    log = log_of(400)
    units = torch.tensor([1e-6, 1e6])

    def act(observation: Tensor) -> Tensor:
        return torch.full((len(observation), 1), 0.5)

    columns = log.action, log.reward, log.terminal, log.next_observation, log.episode
    assert support_of(Log(log.observation * units, *columns)).outside(act) == support_of(log).outside(act)
    two = Log(*(column[:2] for column in (log.observation, *columns)))
    assert 0 <= support_of(two).outside(act) <= 1
