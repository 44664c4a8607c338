import numpy as np

from mopo_cli.data.transitions import (
    DatasetInfo,
    Transitions,
    denormalise_actions,
    episode_ends,
    episode_lengths,
    episode_returns,
    episode_starts,
    normalise_actions,
)


def steps(rewards: list[float], terminals: list[int], timeouts: list[int]) -> Transitions:
    n = len(rewards)
    observations = np.zeros((n, 2), np.float32)
    return Transitions(
        observations,
        np.zeros((n, 1), np.float32),
        np.array(rewards, np.float32),
        observations,
        np.isin(np.arange(n), terminals),
        np.isin(np.arange(n), timeouts),
    )


def test_episodes_end_at_terminals_timeouts_and_the_last_row() -> None:
    t = steps([1, 2, 3, 4, 5, 6, 7], terminals=[1], timeouts=[4])
    assert episode_ends(t).tolist() == [1, 4, 6]
    assert episode_lengths(t).tolist() == [2, 3, 2]
    assert episode_starts(t).tolist() == [0, 2, 5]
    assert episode_returns(t).tolist() == [3, 12, 13]
    assert t.terminals.tolist().count(True) == 1, "the columns themselves stay as they are"


def test_a_last_row_that_ends_its_episode_is_not_counted_twice() -> None:
    t = steps([1, 1, 1], terminals=[0, 2], timeouts=[2])
    assert episode_ends(t).tolist() == [0, 2]
    assert episode_lengths(t).tolist() == [1, 2]


def test_returns_are_summed_in_double_precision() -> None:
    t = steps([16777216.0, 1.0, 1.0], terminals=[], timeouts=[])
    assert episode_returns(t).tolist() == [16777218.0]


def test_sizes() -> None:
    t = steps([0, 0, 0], [], [])
    assert (len(t), t.obs_dim, t.act_dim) == (3, 2, 1)


def test_actions_map_linearly_between_bounds_and_one() -> None:
    low, high = np.array([-2, 0], np.float32), np.array([2, 10], np.float32)
    info = DatasetInfo("set", None, "made up", low, high, "none")
    raw = np.array([[-2, 0], [0, 5], [2, 10], [1, 2.5]], np.float32)
    unit = np.array([[-1, -1], [0, 0], [1, 1], [0.5, -0.5]], np.float32)
    assert normalise_actions(raw, info).tolist() == unit.tolist()
    assert denormalise_actions(unit, info).tolist() == raw.tolist()
    assert normalise_actions(raw, info).dtype == denormalise_actions(unit, info).dtype == np.float32
