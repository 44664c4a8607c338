"""The ring buffers against the obvious model: a bounded deque per member."""

from collections import deque

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mopo_cli.agents.replay import Pool

writes = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 25)), max_size=12)
capacities = st.lists(st.integers(1, 11), min_size=3, max_size=3)


def readable(pool: Pool, member: int) -> list[float]:
    """What can be drawn from a member: its rows 0 … size - 1, by `gather`, checked to be whole."""
    size = pool.sizes[member]
    index = torch.zeros(len(pool.sizes), size, dtype=torch.int64)
    index[member] = torch.arange(size)
    rows = pool.gather(index)[member]
    assert rows.shape == (size, 2) and torch.equal(rows[:, 1], -rows[:, 0])
    return rows[:, 0].tolist()


@settings(max_examples=60, deadline=None)
@given(capacities, writes)
def test_each_member_keeps_its_latest_rows_and_nothing_else(
    capacities: list[int], writes: list[tuple[int, int]]
) -> None:
    pool = Pool(capacities, 2)
    models: list[deque[float]] = [deque(maxlen=capacity) for capacity in capacities]
    pool.rows.fill_(float("nan"))  # what was never written must never be read
    written = 0
    for member, count in writes:
        values = torch.arange(written + 1.0, written + 1 + count)
        written += count
        pool.write(member, torch.stack([values, -values], dim=1))
        models[member].extend(values.tolist())
        for m, model in enumerate(models):
            assert pool.sizes[m] == len(model)
            assert sorted(readable(pool, m)) == list(model)
            oldest = pool.positions[m] if pool.sizes[m] == capacities[m] else 0
            values_now = readable(pool, m)
            assert values_now[oldest:] + values_now[:oldest] == list(model), "in the order of a ring"


def test_several_batches_are_read_at_once() -> None:
    pool = Pool([4, 2, 3], 2)
    for m in range(3):
        values = torch.arange(10.0 * m, 10.0 * m + pool.capacities[m])
        pool.write(m, torch.stack([values, -values], dim=1))
    index = torch.tensor([[[3, 0], [1, 1], [2, 0]], [[1, 2], [0, 0], [1, 1]]])
    rows = pool.gather(index)
    assert rows.shape == (2, 3, 2, 2) and torch.equal(rows[..., 1], -rows[..., 0])
    assert rows[..., 0].tolist() == [[[3, 0], [11, 11], [22, 20]], [[1, 2], [10, 10], [21, 21]]]


def test_an_empty_pool_has_nothing_to_read() -> None:
    pool = Pool([5, 5], 2)
    assert pool.sizes == [0, 0]
    pool.write(1, torch.zeros(0, 2))
    assert pool.sizes == pool.positions == [0, 0]
