"""An environment whose observations are of several steps gives those that the data of the same episode have."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mopo_cli.data.environment_history import with_history
from mopo_cli.data.history import stack_history
from mopo_cli.data.transitions import DatasetInfo, Transitions
from mopo_cli.evaluation.play import evaluate_returns, open_environments


@pytest.mark.parametrize("history", [1, 2, 4])
def test_observations_are_those_of_the_data_of_the_same_episode(history: int) -> None:
    draw = np.random.default_rng(0)
    seen: list[NDArray[Any]] = []
    played: list[NDArray[Any]] = []

    def policy(observations: NDArray[np.float32]) -> NDArray[np.float32]:
        seen.append(observations[0])
        played.append(draw.uniform(-2, 2, (len(observations), 1)).astype("f4"))
        return played[-1]

    bounds = np.array([-2.0], "f4"), np.array([2.0], "f4")
    info = DatasetInfo("log", "Pendulum-v1", "a test", *bounds, "none", history=history)
    with open_environments("Pendulum-v1", 1) as environments:
        wrapped = with_history(environments, info)
        for seed in (1, 2):  # a reset forgets the episode before
            seen.clear(), played.clear()
            (steps,) = evaluate_returns(policy, wrapped, seed).lengths
            frames = np.array(seen)[:, :3]
            log = Transitions(
                observations=frames,
                actions=np.concatenate(played),
                rewards=np.zeros(steps, "f4"),
                next_observations=np.concatenate([frames[1:], frames[:1]]),
                terminals=np.arange(steps) == steps - 1,
                timeouts=np.zeros(steps, np.bool_),
            )
            assert steps == 200
            np.testing.assert_array_equal(stack_history(log, info, history)[0].observations, np.array(seen))
