"""Rewards by an expression, from a table to rollouts."""

from pathlib import Path

import numpy as np
import pytest

from mopo_cli.data.files.local import load_local
from mopo_cli.data.files.read_columns import Reading
from mopo_cli.data.given_reward import give_reward
from mopo_cli.data.transition_files import read_dataset, write_dataset
from mopo_cli.data.transitions import DatasetInfo, Transitions
from mopo_cli.errors import InputError

COLUMNS = "obs=temp+flow,action=valve,episode=e"


def table(folder: Path, reward: float | None = None) -> Path:
    draw = np.random.default_rng(0)
    rows = [(e, t, *draw.normal(size=2).round(3), draw.uniform(0, 50)) for e in range(3) for t in range(6)]
    lines = [",".join(map(str, [e, t, x, y, a, *([] if reward is None else [reward])])) for e, t, x, y, a in rows]
    path = folder / "log.csv"
    path.write_text("\n".join(["e,t,temp,flow,valve" + ",r" * (reward is not None), *lines]) + "\n")
    return path


def load(path: Path, columns: str = COLUMNS) -> tuple[Transitions, DatasetInfo]:
    return load_local([path], None, ["0" * 64], Reading(columns, without_rewards=True))


def test_the_reward_is_that_of_the_expression_in_the_units_of_the_log(tmp_path: Path) -> None:
    data, info = load(table(tmp_path))
    assert not data.rewards.any() and info.names == {"obs": ["temp", "flow"], "action": ["valve"]}
    text = "-abs(temp - 0.5) - 0.01 * valve**2 + next_obs['flow'] + 100 * step"
    given, about = give_reward(data, info, text)
    steps = np.tile(np.arange(1, 6), 3)
    by_hand = -np.abs(data.observations[:, 0] - 0.5) - 0.01 * data.actions[:, 0] ** 2
    np.testing.assert_allclose(given.rewards, by_hand + data.next_observations[:, 1] + 100 * steps, rtol=1e-5)
    assert about.reward == "-abs(obs[0] - 0.5) - 0.01 * action[0] ** 2 + next_obs[1] + 100 * step"
    assert about.doubts == ()
    write_dataset(tmp_path / "dataset.h5", given, about)
    again = read_dataset(tmp_path / "dataset.h5")[1]
    assert (again.reward, again.names) == (about.reward, info.names)


def test_how_far_it_is_from_the_rewards_of_the_log_is_told(tmp_path: Path) -> None:
    data, info = load(table(tmp_path, reward=1.5), f"{COLUMNS},reward=r")
    assert give_reward(data, info, "1.5 + 0 * temp")[1].doubts == info.doubts
    check = give_reward(data, info, "2.0 + 0 * temp")[1].doubts[-1]
    assert "differs from that of the log by 0.5 on average, at most by 0.5 (row 0: 2, not 1.5)" in check.warning


def test_a_reward_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    data, info = load(table(tmp_path))
    for text, message in (
        ("-abs(tmp)", "'tmp' .* is not known here; the columns are "),
        ("obs[2]", r"names obs\[2\], but obs here has 2 entries"),
        ("action[1]", r"names action\[1\], but action here has 1 entries"),
    ):
        with pytest.raises(InputError, match=message):
            give_reward(data, info, text)
