"""Episodes in logged rows: where they end, what they return, and lambda-returns against their definition."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from probes.agents import normal
from probes.gpu import launches
from probes.offline import make_world, returns_by_definition

from mopo_cli.agents.returns import episode_returns, lambda_returns, last_steps
from mopo_cli.engine.rows import Transition

LENGTHS = (9, 1, 30, 17, 2, 40, 1, 25)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=9), st.floats(0, 1), st.floats(0, 1), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_lambda_returns_are_the_mixture_of_all_n_step_returns(
    lengths: list[int], gamma: float, lam: float, seed: int
) -> None:
    rng, count = np.random.default_rng(seed), sum(lengths)
    reward, next_value = rng.normal(size=(2, count))
    last = np.zeros(count, bool)
    last[np.cumsum(lengths) - 1] = True
    wanted = returns_by_definition(reward, next_value, tuple(lengths), gamma, lam)
    rewards, values, ends = (torch.from_numpy(array) for array in (reward, next_value, last))
    np.testing.assert_allclose(lambda_returns(rewards, values, ends, gamma, lam), wanted, atol=1e-10)


@pytest.mark.parametrize("length", [1, 1000, 50_000])
def test_lambda_returns_of_many_rows_are_those_of_a_slow_loop(length: int) -> None:
    """In so few operations that none of them is about a single row, and with what was given left as it was."""
    count = 50_000
    reward, next_value = normal(count, name="r"), normal(count, name="v")
    last = torch.zeros(count, dtype=torch.bool)
    last[length - 1 :: length] = True
    kept = reward.clone(), next_value.clone(), last.clone()
    assert launches(partial(lambda_returns, reward, next_value, last, 0.99, 0.95)) < 250
    result = lambda_returns(reward, next_value, last, 0.99, 0.95)
    assert torch.equal(kept[0], reward) and torch.equal(kept[1], next_value) and torch.equal(kept[2], last)
    after, wanted, rows = 0.0, np.zeros(count), torch.stack([reward, next_value, last.float()], dim=1).tolist()
    for t, (r, v, end) in reversed(list(enumerate(rows))):
        after = r + 0.99 * (v if end else 0.05 * v + 0.95 * after)
        wanted[t] = after
    np.testing.assert_allclose(result, wanted, atol=2e-4)


def test_episodes_end_where_they_were_cut_and_where_the_task_ended() -> None:
    """The time limit's rows name the state they led to, and the next row begins elsewhere."""
    ends, world = np.cumsum(LENGTHS) - 1, make_world(LENGTHS)
    logged = world.rows.split(world.real)
    result = last_steps(logged)
    assert result.nonzero()[:, 0].tolist() == ends.tolist()
    sums = [part.sum() for part in np.split(logged.reward.double().numpy(), ends[:-1] + 1)]
    np.testing.assert_allclose(episode_returns(logged.reward, result), sums, rtol=1e-12)
    assert last_steps(Transition(*(column[:1] for column in vars(logged).values()))).tolist() == [True]
    # Where it ends as the task does, the row that follows may be anything.
    same = replace(logged, next_observation=logged.observation.roll(-1, dims=0))
    assert last_steps(same).nonzero()[:, 0].tolist() == sorted({*ends[1::2], ends[-1]})
    rounded = replace(logged, next_observation=logged.next_observation * (1 + 2e-7))
    assert torch.equal(last_steps(rounded), result), "another last bit is no other state"
