"""Logs in parts, files or groups, of which one lacks what others have, or is called otherwise."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from data.test_layouts import LONGEST, Episode, episodes, joined, load, write

from mopo_cli.data.files.local import load_local
from mopo_cli.data.files.missing import Remedy
from mopo_cli.data.files.read_columns import Reading
from mopo_cli.data.transitions import COLUMNS
from mopo_cli.errors import InputError


def tables(folder: Path, second: str) -> Path:
    """Three files of two steps and an end; the second has only these columns."""
    for i in range(3):
        cells = {
            "obs_0": f"{i}.1",
            "obs_1": "0.5",
            "action_0": "-0.9",
            "reward": "1.5",
            "terminal": "0",
            "episode": "4",
        }
        names = second.split(",") if i == 1 else list(cells)
        rows = [[*cells.values()], [*cells.values()], [*cells.values()]]
        rows[1][0], rows[1][2], rows[2][0], rows[2][4] = f"{i}.2", "0.8", f"{i}.4", "1"
        lines = [",".join(row[list(cells).index(name)] for name in names) for row in rows]
        (folder / f"w{i}.csv").write_text("\n".join([",".join(names), *lines, ""]))
    return folder


@pytest.mark.parametrize("lacks", ["terminal", "episode", "obs_1", "reward"])
@pytest.mark.parametrize("columns", [None, "obs=obs_*,action=action_0,reward=reward,terminal=terminal,episode=episode"])
def test_a_column_that_one_file_lacks_is_not_left_out_of_all(tmp_path: Path, lacks: str, columns: str | None) -> None:
    names = ["obs_0", "obs_1", "action_0", "reward", "terminal", "episode"]
    path = tables(tmp_path, ",".join(name for name in names if name != lacks))
    with pytest.raises(InputError, match=rf"w1\.csv has no column {lacks}, but others have\. Add it there, or say"):
        load(path, columns)


def test_a_column_that_only_a_later_file_has_is_asked_for(tmp_path: Path) -> None:
    path = tables(tmp_path, "obs_0,obs_1,action_0,reward,terminal,episode")
    for name in ("w0.csv", "w2.csv"):
        (path / name).write_text((path / name).read_text().replace("terminal", "other"))
    with pytest.raises(InputError, match=r"w0\.csv has no column terminal, but others have\."):
        load(path)
    data, _ = load(path, "obs=obs_0+obs_1,action=action_0,reward=reward,episode=episode")
    assert len(data) == 6 and not data.terminals.any()


def test_an_unused_column_may_be_in_some_files_only(tmp_path: Path) -> None:
    path = tables(tmp_path, "obs_1,reward,obs_0,action_0,terminal,episode")
    (path / "w2.csv").write_text((path / "w2.csv").read_text().replace("episode", "episode,note").replace(",4", ",4,9"))
    data, _ = load(path)
    np.testing.assert_array_equal(data.observations[3:6, 0], np.array([1.1, 1.2, 1.4], np.float32))
    assert data.terminals.sum() == 3


def groups(folder: Path, names: list[str], without: dict[str, str] | None = None) -> Path:
    """A group for each name, in this order; `without` says of a group what it lacks."""
    with h5py.File(folder / "log.h5", "w") as file:
        for name, episode in zip(names, episodes(), strict=False):
            for column in COLUMNS:
                if (without or {}).get(name) != column:
                    file[f"{name}/{column}"] = episode[column]
    return folder / "log.h5"


@pytest.mark.parametrize(
    "pattern", ["run{}.0", "episode_{}_v2", "{}_ep", "2024-03-01_{:02d}-00-00", "subject{}/trial_0", "x/{}/y"]
)
def test_groups_are_read_wherever_their_number_is(tmp_path: Path, pattern: str) -> None:
    data, source = load(groups(tmp_path, [pattern.format(i) for i in range(12)]))
    for column, expected in joined(episodes()).items():
        np.testing.assert_array_equal(getattr(data, column), expected, err_msg=column)
    assert "12 groups " in source


def test_groups_of_several_names_are_all_read(tmp_path: Path) -> None:
    names = ["train/demo_0", "train/demo_2", "train/demo_10", "valid/demo_0", "valid/demo_1"]
    data, source = load(groups(tmp_path, names))
    np.testing.assert_array_equal(data.observations, joined(episodes()[:5])["observations"])
    assert "5 groups train/demo_*, valid/demo_*, one per episode;" in source
    data, _ = load(groups(tmp_path, ["a3f", "b7c", "cde"]))
    np.testing.assert_array_equal(data.observations, joined(episodes()[:3])["observations"])


@pytest.mark.parametrize("lacks", ["actions", "observations", "rewards", "terminals", "timeouts"])
def test_a_group_that_lacks_a_column_is_named(tmp_path: Path, lacks: str) -> None:
    path = groups(tmp_path, ["demo_0", "demo_1", "demo_2"], {"demo_1": lacks})
    with pytest.raises(InputError, match=f"demo_1 has no column {lacks}, but others have"):
        load(path)


@pytest.mark.parametrize("lacks", ["actions_1", "rewards_1", "terminated_1"])
def test_an_array_that_lacks_among_numbered_ones_is_named(tmp_path: Path, lacks: str) -> None:
    with h5py.File(tmp_path / "log.h5", "w") as file:
        for i, episode in enumerate(episodes()[:3]):
            columns: dict[str, Any] = {name: episode[name] for name in ("observations", "actions", "rewards")}
            for name, values in (columns | {"terminated": episode["terminals"][-1]}).items():
                if f"{name}_{i}" != lacks:
                    file[f"{name}_{i}"] = values
    with pytest.raises(InputError, match=f"episode 1 has no column {lacks[:-2]}, but others have"):
        load(tmp_path / "log.h5")


def test_groups_of_other_widths_are_named(tmp_path: Path) -> None:
    path = groups(tmp_path, ["demo_0", "demo_1"], {"demo_1": "actions"})
    with h5py.File(path, "a") as file:
        file["demo_1/actions"] = np.zeros((9, 3), np.float32)
    with pytest.raises(InputError, match=r"demo_1/actions has \[3\] a row, but demo_0/actions has \[2\]\."):
        load(path)


def some_columns(folder: Path, names: dict[str, str]) -> tuple[Path, Episode]:
    with h5py.File(folder / "log.h5", "w") as file:
        for i, episode in enumerate(episodes()):
            for ours, name in names.items():
                file[f"data/run_{i}/{name}"] = episode[ours]
    return folder / "log.h5", joined(episodes())


def test_groups_whose_columns_have_other_names(tmp_path: Path) -> None:
    path, expected = some_columns(
        tmp_path, {"observations": "state", "next_observations": "after", "actions": "u", "rewards": "r"}
    )
    data, _ = load(path, "obs=state,next_obs=after,action=u,reward=r")
    np.testing.assert_array_equal(data.next_observations, expected["next_observations"])
    np.testing.assert_array_equal(data.rewards, expected["rewards"])
    assert (data.timeouts == expected["terminals"] | expected["timeouts"]).all()


def test_groups_without_rewards_have_those_that_are_given(tmp_path: Path) -> None:
    path, expected = some_columns(
        tmp_path, {"observations": "obs", "next_observations": "next_obs", "actions": "actions"}
    )
    data, _ = load_local([path], None, ["0"], Reading(without_rewards=True))
    np.testing.assert_array_equal(data.actions, expected["actions"])
    with pytest.raises(InputError, match=r"column rewards is missing; the file holds actions, next_obs, obs \(12 grou"):
        load(path)


@pytest.mark.parametrize("name", ["rewards", "terminals"])
@pytest.mark.parametrize("columns", [None, "obs=observations,action=actions,reward=rewards,terminal=terminals"])
def test_a_step_is_not_taken_from_the_row_before_it(tmp_path: Path, name: str, columns: str | None) -> None:
    """As logs have them that begin with the reward 0 of a reset."""
    with h5py.File(tmp_path / "log.h5", "w") as file:
        for i, episode in enumerate(episodes()):
            more = {"observations": np.zeros((1, 3), np.float32), name: np.zeros(1, episode[name].dtype)}
            for column in ("observations", "actions", "rewards", "terminals"):
                file[f"{i}/{column}"] = np.concatenate([more.get(column, episode[column][:0]), episode[column]])
    with pytest.raises(InputError, match=f"column {name} has one row more than there are steps in an episode"):
        load(tmp_path / "log.h5", columns)


def padded(folder: Path, filler: float, **more: Any) -> Path:
    """All but the longest of the episodes end in steps of this filler."""
    columns: dict[str, Any] = {}
    for name in ("observations", "next_observations", "actions", "rewards"):
        parts = [episode[name] for episode in episodes()]
        blank = np.full((len(parts), max(map(len, parts)), *parts[0].shape[1:]), filler, np.float32)
        for part, whole in zip(parts, blank, strict=True):
            whole[: len(part)] = part
        columns[name] = blank
    np.savez(folder / "padded.npz", allow_pickle=False, **(columns | more))
    return folder / "padded.npz"


@pytest.mark.parametrize("missing", ["refuse", "fill-forward", "drop-rows"])
def test_steps_of_nan_at_the_end_are_padding(tmp_path: Path, missing: Remedy) -> None:
    path = padded(tmp_path, np.nan)
    data, _ = load_local([path], None, ["0"], Reading(missing=missing))
    expected = joined(episodes())
    np.testing.assert_array_equal(data.observations, expected["observations"])
    np.testing.assert_array_equal(data.timeouts, expected["terminals"] | expected["timeouts"])


def test_steps_of_nothing_but_zeros_are_not_taken_for_steps(tmp_path: Path) -> None:
    some = r"last steps of 10 of 12 episodes or environments \(the first: 0\) are all alike in .* add len"
    for filler in (0.0, -1.0):
        with pytest.raises(InputError, match=some):
            load(padded(tmp_path, filler))
    data, _ = load(padded(tmp_path, 0.0, lengths=[len(episode["actions"]) for episode in episodes()]))
    np.testing.assert_array_equal(data.observations, joined(episodes())["observations"])


@pytest.mark.parametrize("after", ["zeros", "minus ones", "last row again", "last row again, ended"])
def test_after_the_first_end_of_an_episode_rows_that_are_alike_are_padding(tmp_path: Path, after: str) -> None:
    how = {"mode": "constant", "constant_values": -1.0 if after == "minus ones" else 0.0}
    columns = {}
    for name in COLUMNS:
        stays = after.startswith("last row again") and (
            name not in ("terminals", "timeouts") or after.endswith("ended")
        )
        parts = [episode[name] for episode in episodes()]
        widths = [[(0, LONGEST - len(part)), *[(0, 0)] * (part.ndim - 1)] for part in parts]
        flag = {"mode": "constant"} if name in ("terminals", "timeouts") else how
        pads: list[Any] = [{"mode": "edge"} if stays else flag] * len(parts)
        columns[name] = np.stack([np.pad(p, w, **pad) for p, w, pad in zip(parts, widths, pads, strict=True)])
    data, source = load(write(tmp_path / "padded.npz", columns))
    for name, expected in joined(episodes()).items():
        np.testing.assert_array_equal(getattr(data, name), expected, err_msg=name)
    assert "until terminals or timeouts says that they end" in source
    del columns["timeouts"]
    with pytest.raises(InputError, match="the last steps of 6 of 12 episodes"):  # those that end by time
        load(write(tmp_path / "padded.npz", columns))


@pytest.mark.parametrize("kind", [bool, int, np.float32, np.uint8])
def test_a_flag_of_an_episode_is_about_its_last_row(tmp_path: Path, kind: Any) -> None:
    some, expected = episodes(), joined(episodes())
    lengths = [len(episode["actions"]) for episode in some]
    flags = np.array([episode["terminals"][-1] for episode in some], kind)
    data, _ = load(padded(tmp_path, 0.0, lengths=lengths, terminals=flags))
    np.testing.assert_array_equal(data.terminals, expected["terminals"])
    with h5py.File(tmp_path / "log.h5", "w") as file:
        for i, episode in enumerate(some):
            for name in ("observations", "next_observations", "actions", "rewards"):
                file[f"{name}_{i}"] = episode[name]
            file[f"terminated_{i}"] = flags[i]
    np.testing.assert_array_equal(load(tmp_path / "log.h5")[0].terminals, expected["terminals"])


def test_padded_episodes_without_rewards_have_those_that_are_given(tmp_path: Path) -> None:
    path = padded(tmp_path, np.nan)
    with np.load(path) as stored:
        columns = {name: stored[name] for name in stored if name != "rewards"}
    np.savez(path, allow_pickle=False, **columns)
    data, _ = load_local([path], None, ["0"], Reading(without_rewards=True))
    np.testing.assert_array_equal(data.actions, joined(episodes())["actions"])
    with pytest.raises(InputError, match="column rewards is missing"):
        load(path)
