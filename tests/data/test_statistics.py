"""The statistics of data built to be known, and against plain loops."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from mopo_cli.data.statistics import BINS, Copy, DatasetStatistics, dataset_statistics
from mopo_cli.data.transitions import DatasetInfo, Transitions
from mopo_cli.data.validate import summarise

N = 600
ENDS = {99: "terminal", 349: "timeout", 549: "both"}  # and the last row is cut off


def data() -> Transitions:
    """obs: 0 free, 1 constant, 2 = obs[0], 3 = -obs[0], 4 linear in obs[5], 5 free, 6 fixed within an episode;
    actions: 0 in [-2, 2] with 30 % at the upper and 10 % at the lower bound, 1 in [0, 1], free, 2 constant."""
    draw = np.random.default_rng(3)
    obs = draw.standard_normal((N, 7)).astype(np.float32)
    obs[:, 1] = 0.1
    obs[:, 2], obs[:, 3], obs[:, 4] = obs[:, 0], -obs[:, 0], 1 - 3 * obs[:, 5]
    obs[:, 6] = np.repeat([1, 2, 1, 3], [100, 250, 200, 50])
    following = np.roll(obs, -1, axis=0)
    following[:, 6] = obs[:, 6]
    actions = draw.uniform((-1.9, 0, 0), (1.9, 1, 0), (N, 3)).astype(np.float32)
    rows = draw.permutation(N)
    actions[rows[:180], 0], actions[rows[180:240], 0] = 1.995, -2.0
    actions[:, 2] = 0.5
    rewards = np.repeat([1, -1, 0.5, 2], [100, 250, 200, 50]).astype(np.float32)
    terminals, timeouts = (
        np.isin(np.arange(N), [k for k, v in ENDS.items() if v in names])
        for names in (("terminal", "both"), ("timeout", "both"))
    )
    return Transitions(obs, actions, rewards, following, terminals, timeouts)


INFO = DatasetInfo(
    dataset_id="made up",
    env_id=None,
    source="made up",
    action_low=np.array([-2, 0, -1], np.float32),
    action_high=np.array([2, 1, 1], np.float32),
    termination="none",
)


@pytest.fixture(scope="module")
def statistics() -> DatasetStatistics:
    return dataset_statistics(data(), INFO)


def test_episodes_their_returns_lengths_and_ends(statistics: DatasetStatistics) -> None:
    assert statistics.summary == summarise(data())
    returns, lengths = [100.0, -250.0, 100.0, 100.0], [100, 250, 200, 50]
    for histogram, values in ((statistics.returns, returns), (statistics.lengths, lengths)):
        assert len(histogram.counts) == BINS and len(histogram.edges) == BINS + 1
        assert np.allclose(histogram.edges, np.linspace(min(values), max(values), BINS + 1))
        assert histogram.counts == np.histogram(values, BINS)[0].tolist()
    assert list(statistics.length_quantiles) == ["p0", "p10", "p50", "p90", "p100"]
    assert list(statistics.length_quantiles.values()) == pytest.approx([50, 65, 150, 235, 250])
    assert statistics.endings == {"terminal": 0.5, "timeout": 0.25, "neither": 0.25}
    assert statistics.terminal_share == 2 / N


def test_every_dimension_has_its_range(statistics: DatasetStatistics) -> None:
    t = data()
    columns = [*statistics.observations, *statistics.actions, statistics.rewards]
    names = [*(f"obs[{i}]" for i in range(7)), "action[0]", "action[1]", "action[2]", "reward"]
    assert [column.name for column in columns] == names
    for column, values in zip(columns, [*t.observations.T, *t.actions.T, t.rewards], strict=True):
        ordered = sorted(map(float, values))
        assert (column.min, column.max) == (ordered[0], ordered[-1])
        for point, share in ((column.p1, 0.01), (column.median, 0.5), (column.p99, 0.99)):
            whole, part = divmod(share * (N - 1), 1)
            low, high = ordered[int(whole)], ordered[int(whole) + 1]
            assert point == pytest.approx(low + part * (high - low), abs=1e-6)
        mean = sum(ordered) / N
        assert column.mean == pytest.approx(mean, abs=1e-9)
        assert column.std == pytest.approx((sum((v - mean) ** 2 for v in ordered) / N) ** 0.5, abs=1e-9)


def test_saturated_actions_have_the_share_they_were_given(statistics: DatasetStatistics) -> None:
    first, second, third = statistics.saturation
    assert (first.name, first.low, first.high) == ("action[0]", -2, 2)
    assert (first.at_low, first.at_high) == (pytest.approx(0.1), pytest.approx(0.3))
    free = data().actions[:, 1].astype(np.float64)
    assert (second.at_low, second.at_high) == ((free <= 0.01).mean(), (free >= 0.99).mean())
    assert second.counts == np.histogram(free, BINS, (0, 1))[0].tolist()
    assert first.counts[0] >= 60 and first.counts[-1] >= 180 and sum(first.counts) == N
    assert (third.at_low, third.at_high, third.counts[15]) == (0, 0, N)
    shares = [0.4, second.at_low + second.at_high, 0]
    assert statistics.saturated_share == pytest.approx(np.mean(shares))


def test_the_bounds_own_neighbourhood_is_one_percent_of_the_range() -> None:
    t = data()
    for value, counted in ((1.961, True), (1.959, False), (2.0, True), (-1.961, True), (-1.959, False)):
        actions = np.zeros_like(t.actions)
        actions[:6, 0] = value
        statistics = dataset_statistics(replace(t, actions=actions), INFO).saturation[0]
        assert statistics.at_high + statistics.at_low == (6 / N if counted else 0), value
        assert statistics.counts[-1 if value > 0 else 0] == 6


def test_constant_copied_and_unchanged_dimensions(statistics: DatasetStatistics) -> None:
    assert statistics.constant == ["obs[1]", "action[2]"]
    assert [replace(copy, correlation=round(copy.correlation, 6)) for copy in statistics.copies] == [
        Copy("obs[2]", "obs[0]", "equal", 1.0),
        Copy("obs[3]", "obs[0]", "negated", -1.0),
        Copy("obs[5]", "obs[4]", "correlated", -1.0),
    ]
    assert all(abs(copy.correlation) <= 1 for copy in statistics.copies)
    assert statistics.unchanged == ["obs[1]", "obs[6]"]


@pytest.mark.parametrize(("noise", "is_copy"), [(1e-4, True), (1e-3, False)])
def test_a_copy_is_one_to_a_millionth(noise: float, is_copy: bool) -> None:
    t = data()
    draw = np.random.default_rng(0)
    t.actions[:, 1] = t.observations[:, 5] + 5 * noise * draw.standard_normal(N)
    t.actions[:, 1] += 1000  # far from 0, where a mean taken in single precision would blur it
    t.observations[:, 5] += 1000
    r = np.corrcoef(t.actions[:, 1].astype(np.float64), t.observations[:, 5].astype(np.float64))[0, 1]
    assert (r > 1 - 1e-6) == is_copy
    statistics = {copy.name: copy for copy in dataset_statistics(t, INFO).copies}
    assert ("action[1]" in statistics) == is_copy
    if is_copy:
        assert statistics["action[1]"].of == "obs[4]" and statistics["action[1]"].correlation == pytest.approx(
            -r, abs=1e-6
        )


def test_a_filler_after_a_terminal_is_no_sign_of_change() -> None:
    t = data()
    t.next_observations[t.terminals, 6] += 1
    assert dataset_statistics(t, INFO).unchanged == ["obs[1]"]
    assert dataset_statistics(t, replace(INFO, terminal_next_known=False)).unchanged == ["obs[1]", "obs[6]"]


def test_numbers_that_leave_no_room_for_bins() -> None:
    t = data()
    for rewards in (np.zeros(N), np.where(np.arange(N) == 0, 1.0, 0.0) + 3e38):
        statistics = dataset_statistics(replace(t, rewards=rewards.astype(np.float32)), INFO)
        assert sum(statistics.returns.counts) == 4
        assert len(statistics.returns.edges) == len(statistics.returns.counts) + 1
    equal = dataset_statistics(replace(t, rewards=np.zeros(N, np.float32)), INFO).returns
    assert (equal.edges, equal.counts) == ([0.0, 0.0], [4])


def test_neighbours_repeat_and_json_has_types_for_all(statistics: DatasetStatistics) -> None:
    assert dataset_statistics(data(), INFO) == statistics
    other = dataset_statistics(data(), INFO, seed=1)
    assert other.neighbours == statistics.neighbours, "all rows are drawn, whatever the seed"
    assert json.loads(json.dumps(asdict(statistics), allow_nan=False)) == asdict(statistics)
    near = statistics.neighbours
    assert near is not None and (near.queries, near.references, near.dimensions) == (N, N, 8)
    assert sum(near.histogram.counts) == N
    quantiles = list(near.quantiles.values())
    assert list(near.quantiles) == ["p1", "p10", "p50", "p90", "p99"] and quantiles == sorted(quantiles)
    assert near.histogram.edges[0] <= quantiles[0] and quantiles[-1] <= near.histogram.edges[-1]


def test_repeated_rows_are_a_share(statistics: DatasetStatistics) -> None:
    t = data()
    assert statistics.repeated_share == 0
    for column in (t.observations, t.actions):
        column[300:330] = column[:30]
    statistics = dataset_statistics(t, INFO)
    assert statistics.repeated_share == 30 / N
    assert statistics.neighbours is not None and statistics.neighbours.quantiles["p1"] == 0


def test_the_fewest_rows_there_can_be() -> None:
    t = data()
    two = Transitions(**{name: getattr(t, name)[:2] for name in Transitions.__dataclass_fields__ if name != "infos"})
    statistics = dataset_statistics(two, INFO)
    assert (statistics.summary.episodes, statistics.neighbours) == (1, None)
    assert statistics.endings == {"terminal": 0, "timeout": 0, "neither": 1}
