"""What episodes return, and lambda-returns against their definition."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from probes.agents import normal
from probes.gpu import launches
from probes.offline import make_world, returns_by_definition

from mopo_cli.agents.returns import episode_returns, lambda_returns

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


def test_returns_of_episodes_are_the_sums_of_their_rewards() -> None:
    ends, world = np.cumsum(LENGTHS) - 1, make_world(LENGTHS)
    reward = world.row_layout.split(world.real).reward
    sums = [part.sum() for part in np.split(reward.double().numpy(), ends[:-1] + 1)]
    np.testing.assert_allclose(episode_returns(reward, world.last), sums, rtol=1e-12)
