"""The same episodes in every layout give the same transitions, bit for bit."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mopo_cli.data.files.layouts import LAYOUTS, open_log
from mopo_cli.data.files.local import load_local
from mopo_cli.data.files.log_files import by_number, log_files
from mopo_cli.data.files.read_columns import Reading
from mopo_cli.data.transitions import COLUMNS, Transitions
from mopo_cli.errors import InputError

LENGTHS = (5, 9, 3, 7, 4, 6, 8, 5, 5, 6, 4, 9)  # twelve, so that names sorted as text would come in another order
LONGEST = max(LENGTHS)

Episode = dict[str, Any]


def episodes() -> list[Episode]:
    """Every third ends in a terminal, the others by time."""
    draw = np.random.default_rng(0)
    made = []
    for i, steps in enumerate(LENGTHS):
        states = draw.normal(size=(steps + 1, 3)).astype(np.float32)
        last = np.arange(steps) == steps - 1
        made.append(
            {
                "observations": states[:-1],
                "next_observations": states[1:],
                "actions": draw.uniform(-1, 1, (steps, 2)).astype(np.float32),
                "rewards": draw.normal(size=steps).astype(np.float32),
                "terminals": last & (i % 3 == 0),
                "timeouts": last & (i % 3 != 0),
            }
        )
    return made


def joined(some: list[Episode]) -> Episode:
    return {name: np.concatenate([episode[name] for episode in some]) for name in COLUMNS}


def write(path: Path, columns: dict[str, Any]) -> Path:
    if path.suffix == ".npz":
        np.savez(path, allow_pickle=False, **columns)
    else:
        with h5py.File(path, "w") as file:
            for name, values in columns.items():
                file[name] = values
    return path


def rows(folder: Path) -> Path:
    return write(folder / "rows.h5", joined(episodes()))


def groups(folder: Path) -> Path:
    named = {"rewards": "rewards", "actions": "actions", "terminals": "dones", "timeouts": "truncations"}
    columns = {f"data/demo_{i}/{named[name]}": e[name] for i, e in enumerate(episodes()) for name in named}
    for i, episode in enumerate(episodes()):
        for short, ours in (("obs", "observations"), ("next_obs", "next_observations")):
            columns |= {f"data/demo_{i}/{short}/arm": episode[ours][:, :1]}
            columns |= {f"data/demo_{i}/{short}/object": episode[ours][:, 1:]}
    return write(folder / "groups.hdf5", columns | {"mask/train": np.arange(4)})


def groups_with_a_last_state(folder: Path, apart: bool = False) -> Path:
    columns: dict[str, Any] = {}
    for i, episode in enumerate(episodes()):
        states = np.concatenate([episode["observations"], episode["next_observations"][-1:]])
        columns |= {f"episode_{i}/obs/{j}": state for j, state in enumerate(states.T)} if apart else {}
        columns |= {} if apart else {f"episode_{i}/observations": states}
        for name in ("actions", "rewards", "terminals"):
            columns[f"episode_{i}/{name}"] = episode[name]
    return write(folder / "last.h5", columns)


def numbered(folder: Path) -> Path:
    columns = {"num_episodes": len(LENGTHS)}
    for i, episode in enumerate(episodes()):
        columns |= {f"{name}_{i}": episode[name] for name in ("observations", "actions", "next_observations")}
        columns[f"rewards_{i}"] = episode["rewards"][:, None]
        columns[f"terminated_{i}"] = episode["terminals"][-1]
    return write(folder / "numbered.h5", columns)


def padded(folder: Path, marked_by: str = "lengths", last_state: bool = False) -> Path:
    columns: dict[str, Any] = {}
    for name in COLUMNS:
        parts = [episode[name] for episode in episodes()]
        if last_state and name == "observations":
            parts = [np.concatenate([e[name], e["next_observations"][-1:]]) for e in episodes()]
        room = LONGEST + (last_state and name == "observations")
        columns[name] = np.stack([np.pad(x, [(0, room - len(x)), *[(0, 0)] * (x.ndim - 1)]) for x in parts])
    if last_state:
        del columns["next_observations"]
    if marked_by == "lengths":
        columns["lengths"] = np.array(LENGTHS)
    else:
        columns["mask"] = np.arange(LONGEST) < np.array(LENGTHS)[:, None]
    return write(folder / "padded.npz", columns)


def files(folder: Path) -> Path:
    """Some episodes in each; the last of each file is not marked."""
    (folder / "logs").mkdir()
    for i in range(11):
        some = joined(episodes()[i : i + 1 + (i == 10)])
        some["timeouts"][-1] = False
        write(folder / "logs" / f"worker_{i}.npz", some)
    return folder / "logs"


WRITERS: dict[str, tuple[Callable[..., Path], dict[str, Any]]] = {
    "rows": (rows, {}),
    "groups": (groups, {}),
    "groups with a last state": (groups_with_a_last_state, {}),
    "groups with a last state in each column": (groups_with_a_last_state, {"apart": True}),
    "numbered": (numbered, {}),
    "padded by lengths": (padded, {}),
    "padded by a mask": (padded, {"marked_by": "mask"}),
    "padded with a last state": (padded, {"last_state": True}),
    "files": (files, {}),
}


def load(path: Path, columns: str | None = None, layout: str | None = None) -> tuple[Transitions, str]:
    paths = log_files(path)
    transitions, info = load_local(paths, None, ["0" * 64] * len(paths), Reading(columns, layout), path.name)
    return transitions, info.source


@pytest.mark.parametrize("name", WRITERS)
def test_the_same_episodes_in_every_layout(tmp_path: Path, name: str) -> None:
    writer, how = WRITERS[name]
    transitions, _ = load(writer(tmp_path, **how))
    for column, expected in joined(episodes()).items():
        np.testing.assert_array_equal(getattr(transitions, column), expected, err_msg=column)


@pytest.mark.parametrize(
    ("writer", "understood"),
    [
        (groups, "12 groups data/demo_*, one per episode; observations = obs/arm + obs/object;"),
        (numbered, "numbered arrays, 12 of each, one per episode"),
        (padded, "12 episodes padded to 9 steps, their lengths in lengths"),
        (files, "11 files of logs, sha256 of their sha256"),
        (files, "11 files, worker_0.npz to worker_10.npz"),
    ],
)
def test_what_was_understood_is_in_the_source(tmp_path: Path, writer: Callable[[Path], Path], understood: str) -> None:
    assert understood in load(writer(tmp_path))[1]


def test_columns_of_groups_are_named_as_in_one_group(tmp_path: Path) -> None:
    transitions, _ = load(groups(tmp_path), "obs=obs/object,action=actions,reward=rewards,terminal=dones")
    np.testing.assert_array_equal(transitions.observations[:4], joined(episodes())["observations"][:4, 1:])
    assert transitions.terminals.sum() == 4 and (transitions.terminals | transitions.timeouts).sum() == len(LENGTHS)


def test_a_layout_can_be_forced_and_is_refused_where_it_does_not_fit(tmp_path: Path) -> None:
    assert "data/demo_0/actions" in open_log([groups(tmp_path)], "rows").names
    with pytest.raises(InputError, match=r"rows\.h5 is not laid out as groups: HDF5 with one group per episode"):
        open_log([rows(tmp_path)], "groups")
    assert all(layout.about for layout in LAYOUTS.values())


def test_equal_labels_in_two_files_are_two_episodes(tmp_path: Path) -> None:
    for i in range(2):
        rows = f"{i}.1,-0.9,0,7\n{i}.2,0.8,0,7\n{i}.4,0.1,0,7\n"
        (tmp_path / f"w{i}.csv").write_text("obs_0,action_0,reward,episode\n" + rows)
    transitions, _ = load(tmp_path / "w*.csv")
    assert transitions.timeouts.tolist() == [False, True, False, True]
    assert transitions.next_observations[:, 0].tolist() == pytest.approx([0.2, 0.4, 1.2, 1.4])


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"actions": np.zeros((4, 3), np.float32)}, r"b\.npz: column actions has \[3\] a row, but \[2\] in a\.npz"),
        ({"rewards": None}, r"b\.npz has no column rewards, but others have"),
    ],
)
def test_files_that_do_not_go_together_are_refused(tmp_path: Path, second: Episode, message: str) -> None:
    write(tmp_path / "a.npz", episodes()[0])
    write(tmp_path / "b.npz", {k: v for k, v in (episodes()[4] | second).items() if v is not None})
    with pytest.raises(InputError, match=message):
        load(tmp_path)


def test_lengths_and_masks_that_are_none_are_refused(tmp_path: Path) -> None:
    path = padded(tmp_path)
    with np.load(path) as stored:
        columns = dict(stored)
    write(path, columns | {"lengths": np.full(len(LENGTHS), LONGEST + 1)})
    with pytest.raises(InputError, match="lengths must hold numbers from 1 to 9"):
        load(path)
    del columns["lengths"]
    write(path, columns | {"mask": np.arange(LONGEST)[::-1] < np.array(LENGTHS)[:, None]})
    with pytest.raises(InputError, match="mask must be 1 for the steps of an episode and 0 after them"):
        load(path)


def test_a_column_of_other_length_than_its_episode_is_refused(tmp_path: Path) -> None:
    path = groups_with_a_last_state(tmp_path)
    with h5py.File(path, "a") as file:
        del file["episode_3/rewards"]
        file["episode_3/rewards"] = np.zeros(LENGTHS[3] + 4, np.float32)
    with pytest.raises(InputError, match="episode_3/rewards has 11 rows, but the actions beside it have 7"):
        load(path)


def test_the_files_of_a_folder_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    names = ["log_10.csv", "log_2.csv", "log_1.CSV", ".hidden.csv", "~$log_2.csv", "notes.txt"]
    for name in names:
        (tmp_path / name).touch()
    assert [path.name for path in log_files(tmp_path)] == ["log_1.CSV", "log_2.csv", "log_10.csv"]
    assert sorted(["a10", "a9b1", "a9"], key=by_number) == ["a9", "a9b1", "a10"]
    with pytest.raises(InputError, match=r"holds no file of logs \(\.h5, "):
        (tmp_path / "empty").mkdir()
        log_files(tmp_path / "empty")
    with pytest.raises(InputError, match=r"No file matches the pattern .*other_\*\.csv\."):
        log_files(tmp_path / "other_*.csv")


def test_a_log_that_is_there_twice_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mopo: Callable[[str], Any]
) -> None:
    rows = "episode,obs,act,reward\n" + "".join(f"0,{i % 7},{i % 3 - 1},{i}\n" for i in range(40))
    (tmp_path / "log.csv").write_text(rows)
    (tmp_path / "log.csv.gz").write_bytes(gzip.compress(rows.encode()))
    with pytest.raises(InputError, match=r"log\.csv and .*log\.csv\.gz are the same log twice:"):
        log_files(tmp_path)
    assert log_files(tmp_path / "*.gz") == [tmp_path / "log.csv.gz"]
    (tmp_path / "log.csv.gz").unlink()
    (tmp_path / "log (1).csv").write_text(rows)
    monkeypatch.chdir(tmp_path)
    outcome = mopo("fetch-data --dataset ./*.csv --check")
    assert outcome.code == 4
    assert "log (1).csv and " in outcome.err
    assert "are the same log twice:" in " ".join(outcome.err.split())


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*/log.csv", ["run_2/log.csv", "run_10/log.csv"]),
        ("**/*.csv", ["run_2/log.csv", "run_10/log.csv"]),
        ("run_?/*.csv", ["run_2/log.csv"]),
        ("run_[0-9][0-9]/log.csv", ["run_10/log.csv"]),
        ("run_2/.*.csv", ["run_2/._log.csv"]),
        ("odd[1].csv", ["odd[1].csv"]),
    ],
)
def test_the_files_of_a_pattern(tmp_path: Path, pattern: str, names: list[str]) -> None:
    for folder in ("run_10", "run_2"):
        (tmp_path / folder).mkdir()
        for name in ("log.csv", "._log.csv"):
            (tmp_path / folder / name).touch()
    (tmp_path / "odd[1].csv").touch()
    wanted = [tmp_path / name for name in names]
    assert [path for path in log_files(tmp_path / pattern) if "[" not in path.name or "[" in pattern] == wanted
    with pytest.raises(InputError) as caught:
        (tmp_path / "above").mkdir()
        (tmp_path / "above" / "run").mkdir()
        log_files(tmp_path / "above")
    assert caught.value.hint == f"mopo fetch-data --dataset '{tmp_path}/above/**/*.csv'   # files in its folders"
