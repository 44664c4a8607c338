"""Observations of several steps: what they are made of, that nothing else is in them, and how they are stored."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from probes.histories import HIGH, LOW, log_of

from mopo_cli.data.history import frame_width, newest_frames, stack_history, stacked_width
from mopo_cli.data.restated import in_user_units
from mopo_cli.data.transition_files import read_dataset, write_dataset
from mopo_cli.data.transitions import DatasetInfo, Transitions, steps_before
from mopo_cli.data.validate import discontinuities
from mopo_cli.errors import InputError

LENGTHS = (1, 7, 3, 2, 12, 1)


def test_a_log_of_two_episodes_by_hand() -> None:
    column = np.array([[1.0], [2.0], [3.0], [10.0], [20.0]], "f4")
    following = np.array([[2.0], [3.0], [4.0], [20.0], [30.0]], "f4")
    action = np.array([[5.0], [0.0], [10.0], [7.5], [2.5]], "f4")  # 0, -1, 1, 0.5, -0.5 between the bounds
    none, end = np.zeros(5, np.bool_), np.array([False, False, True, False, True])
    bounds = np.array([0.0], "f4"), np.array([10.0], "f4")
    log = Transitions(column, action, np.zeros(5, "f4"), following, end, none)
    info = DatasetInfo("log", None, "a test", *bounds, "none", names={"obs": ["temp"], "action": ["valve"]})
    stacked, about = stack_history(log, info, 3)
    assert stacked.observations.tolist() == [
        [1, 1, 1, 0, 0],
        [2, 1, 1, 0, 0],
        [3, 2, 1, -1, 0],
        [10, 10, 10, 0, 0],
        [20, 10, 10, 0.5, 0],
    ]
    assert stacked.next_observations.tolist() == [
        [2, 1, 1, 0, 0],
        [3, 2, 1, -1, 0],
        [4, 3, 2, 1, -1],
        [20, 10, 10, 0.5, 0],
        [30, 20, 10, -0.5, 0.5],
    ]
    assert stacked.observations.dtype == stacked.next_observations.dtype == np.float32
    assert about.history == 3
    past = ["temp 1 step ago", "temp 2 steps ago", "valve 1 step ago", "valve 2 steps ago"]
    assert about.names == {"obs": ["temp", *past], "action": ["valve"]}


@pytest.mark.parametrize("history", [2, 4, 9])
def test_the_newest_frames_are_the_log_and_no_row_has_anything_of_another_episode(history: int) -> None:
    log, info = log_of(LENGTHS)
    stacked, about = stack_history(log, info, history)
    assert stacked.obs_dim == stacked_width(3, 2, history) and frame_width(stacked.obs_dim, 2, history) == 3
    plain, plainly = newest_frames(stacked, about)
    for name in ("observations", "next_observations", "actions", "rewards", "terminals", "timeouts"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(log, name))
    assert plainly.history == 1
    before, unit = steps_before(log), 2 * (log.actions - LOW) / (HIGH - LOW) - 1
    for column, late in ((stacked.observations, 0), (stacked.next_observations, 1)):
        frames = column[:, : 3 * history].reshape(-1, history, 3)
        actions = column[:, 3 * history :].reshape(-1, history - 1, 2)
        np.testing.assert_array_equal(frames[:, :, 0], np.repeat(log.observations[:, :1], history, axis=1))
        for k in range(history):
            np.testing.assert_array_equal(frames[:, k, 1], np.maximum(before + late - k, 0))
        for k in range(1, history):
            for row in range(len(log)):
                taken = row + late - k >= row - before[row]
                expected = unit[row + late - k] if taken else np.zeros(2)
                np.testing.assert_allclose(actions[row, k - 1], expected, atol=1e-6)
    assert not len(discontinuities(stacked))


def test_a_dataset_says_its_history_where_it_has_one(tmp_path: Path) -> None:
    log, info = log_of(LENGTHS)
    info = replace(info, observation_offset=np.array([1.7e9, 0.0, 5.0]))
    path = tmp_path / "dataset.h5"
    write_dataset(path, log, info)
    with h5py.File(path) as file:
        assert "history" not in file.attrs
    write_dataset(path, *stack_history(log, info, 3))
    stacked, about = read_dataset(path)
    assert (about.history, stacked.obs_dim) == (3, 13)
    assert about.observation_offset is not None
    assert about.observation_offset.tolist() == [1.7e9, 0, 5] * 3 + [0] * 4
    plain, plainly = newest_frames(stacked, about)
    np.testing.assert_array_equal(plain.observations, log.observations)
    assert plainly.observation_offset is not None and plainly.observation_offset.tolist() == [1.7e9, 0, 5]


@pytest.mark.parametrize("history", [0, -1, 2, 14])
def test_a_history_that_does_not_fit_the_observations_is_refused(tmp_path: Path, history: int) -> None:
    log, info = stack_history(*log_of(LENGTHS), 3)
    write_dataset(tmp_path / "dataset.h5", log, replace(info, history=history))
    with pytest.raises(InputError, match="history"):
        read_dataset(tmp_path / "dataset.h5")


@pytest.mark.parametrize("offset", [None, [1000.0, 0.0, 5.0]])
def test_rules_see_the_newest_frame(offset: list[float] | None) -> None:
    log, info = log_of(LENGTHS)
    info = replace(info, observation_offset=None if offset is None else np.array(offset))
    stacked, about = stack_history(log, info, 3)
    seen = []
    judge = in_user_units(lambda *columns: seen.append(columns) or columns[0][:, 0] > 0, about)
    columns = stacked.observations, stacked.actions, stacked.next_observations
    judge(*map(torch.from_numpy, columns))
    ((observation, _, following),) = seen
    np.testing.assert_allclose(observation, log.observations + np.array(offset or 0.0))
    np.testing.assert_allclose(following, log.next_observations + np.array(offset or 0.0))
