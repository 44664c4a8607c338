"""D4RL's files in the layouts of both versions, against what the episodes were that they were written from."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mopo_cli.data import d4rl_files
from mopo_cli.data.d4rl import load_d4rl
from mopo_cli.data.d4rl_files import D4rlFile, address, copies, downloads_dir, identify, published, table
from mopo_cli.data.registry import parse_dataset
from mopo_cli.data.scores import reference_scores
from mopo_cli.data.transitions import DatasetInfo, Transitions
from mopo_cli.data.validate import validate
from mopo_cli.errors import InputError, UsageError

OBS, ACT = 11, 3  # Hopper's


@dataclass
class Episode:
    """T steps: states `[T + 1, O]`, actions `[T, A]`, rewards `[T]`, and the marks of its last row."""

    states: NDArray[np.float64]
    actions: NDArray[np.float64]
    rewards: NDArray[np.float64]
    terminal: bool
    timeout: bool


def make(lengths: list[tuple[int, bool, bool]], obs: int = OBS, act: int = ACT, seed: int = 0) -> list[Episode]:
    """Episodes of (steps, terminal, timeout)."""
    rng = np.random.default_rng(seed)
    return [
        Episode(rng.normal(size=(n + 1, obs)), rng.uniform(-1, 1, (n, act)), rng.normal(size=n), terminal, timeout)
        for n, terminal, timeout in lengths
    ]


def write(path: Path, episodes: list[Episode], version: str, wide: type = np.float32, **more: Any) -> Path:
    """The episodes as D4RL lays them out: v2 with next_observations and infos, v0 without."""
    ends = [np.arange(len(e.rewards)) == len(e.rewards) - 1 for e in episodes]
    columns: dict[str, Any] = {
        "observations": np.concatenate([e.states[:-1] for e in episodes]).astype(wide),
        "actions": np.concatenate([e.actions for e in episodes]).astype(wide),
        "rewards": np.concatenate([e.rewards for e in episodes]).astype(wide),
        "terminals": np.concatenate([end & e.terminal for end, e in zip(ends, episodes, strict=True)]),
        "timeouts": np.concatenate([end & e.timeout for end, e in zip(ends, episodes, strict=True)]),
    }
    if version == "v2":
        columns["next_observations"] = np.concatenate([e.states[1:] for e in episodes]).astype(wide)
        columns["infos/qpos"] = np.zeros((len(columns["rewards"]), 6))
        columns["infos/action_log_probs"] = np.zeros(len(columns["rewards"]))
        columns["metadata/iteration"] = np.int64(3)
    with h5py.File(path, "w") as file:
        for name, column in {**columns, **more}.items():
            file[name] = column
    return path


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Loads a file as the published one of an id, and checks it as fetch-data does."""

    def load(path: Path, dataset_id: str) -> tuple[Transitions, DatasetInfo]:
        publish(path, dataset_id, monkeypatch)
        transitions, info = load_d4rl(path, dataset_id)
        validate(transitions, info)
        return transitions, info

    yield load


def publish(path: Path, dataset_id: str, monkeypatch: pytest.MonkeyPatch) -> D4rlFile:
    """Let ``path`` be the published file of ``dataset_id``."""
    content = path.read_bytes()
    file = D4rlFile(dataset_id, table()[dataset_id].url, len(content), hashlib.sha256(content).hexdigest())
    files = {**table(), dataset_id: file}
    monkeypatch.setattr(d4rl_files, "table", lambda: files)
    return file


def expect_v2(episodes: list[Episode]) -> list[tuple[Any, ...]]:
    """Every row, its own next state, its own marks."""
    rows = []
    for e in episodes:
        for t in range(len(e.rewards)):
            last = t == len(e.rewards) - 1
            rows.append(
                (e.states[t], e.actions[t], e.rewards[t], e.states[t + 1], last and e.terminal, last and e.timeout)
            )
    return rows


def expect_v0(episodes: list[Episode]) -> list[tuple[Any, ...]]:
    """Rows whose next state the file holds, and terminals; the record ends a row before a row that is left out."""
    rows = []
    for e in episodes:
        steps = len(e.rewards)
        for t in range(steps - 1):
            cut = t == steps - 2 and not e.terminal
            rows.append((e.states[t], e.actions[t], e.rewards[t], e.states[t + 1], False, cut))
        if e.terminal:
            rows.append((e.states[steps - 1], e.actions[-1], e.rewards[-1], e.states[steps - 1], True, False))
    return rows


def check(transitions: Transitions, rows: list[tuple[Any, ...]]) -> None:
    assert len(transitions) == len(rows)
    columns = [np.stack([np.asarray(row[i]) for row in rows]) for i in range(6)]
    names = ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts")
    for name, column in zip(names, columns, strict=True):
        dtype = np.bool_ if column.dtype == np.bool_ else np.float32
        actual = getattr(transitions, name)
        assert actual.dtype == dtype, name
        assert np.array_equal(actual, column.astype(dtype)), name
    assert not transitions.infos


ENDS = [(5, True, False), (3, False, True), (1, True, False), (4, True, False), (2, False, True), (6, False, False)]


@pytest.mark.parametrize("wide", [np.float32, np.float64])
@pytest.mark.parametrize("flags", [np.bool_, np.uint8, np.float32])
def test_v2_is_taken_as_it_is(load: Any, tmp_path: Path, wide: type, flags: type) -> None:
    episodes = make(ENDS)
    path = write(tmp_path / "x.hdf5", episodes, "v2", wide)
    with h5py.File(path, "a") as file:
        for name in ("terminals", "timeouts"):
            column = file[name][()].astype(flags)
            del file[name]
            file[name] = column
        column = file["rewards"][()][:, None]
        del file["rewards"]
        file["rewards"] = column
    transitions, info = load(path, "hopper-medium-v2")
    check(transitions, expect_v2(episodes))
    assert info.terminal_next_known
    assert info.source == (
        "D4RL hopper-medium-v2: http://rail.eecs.berkeley.edu/datasets/offline_rl/gym_mujoco_v2/hopper_medium-v2.hdf5 "
        f"sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}"
    )
    assert (info.dataset_id, info.env_id, info.termination) == ("hopper-medium-v2", "Hopper-v4", "hopper")
    assert (info.reference_min, info.reference_max, info.seed) == (-20.272305, 3234.3, None)
    assert (info.action_low.tolist(), info.action_high.tolist()) == ([-1] * 3, [1] * 3)
    assert info.env_kwargs == {}


@pytest.mark.parametrize("last", [(6, False, False), (1, False, False), (6, True, False), (6, False, True)])
@pytest.mark.parametrize("wide", [np.float32, np.float64])
def test_v0_is_shifted_inside_episodes(load: Any, tmp_path: Path, last: tuple[int, bool, bool], wide: type) -> None:
    episodes = make([*ENDS[:-1], (1, False, True), last])
    transitions, info = load(write(tmp_path / "x.hdf5", episodes, "v0", wide), "hopper-medium-replay-v0")
    check(transitions, expect_v0(episodes))
    assert not info.terminal_next_known
    assert (info.dataset_id, info.env_id) == ("hopper-medium-replay-v0", "Hopper-v4")
    assert "no next_observations column: taken from the next row, 4 rows" in info.source or last[1]


def test_v0_without_terminals_knows_all_it_holds(load: Any, tmp_path: Path) -> None:
    episodes = make([(5, False, True), (4, False, True)], obs=17, act=6)
    transitions, info = load(write(tmp_path / "x.hdf5", episodes, "v0"), "halfcheetah-random-v0")
    check(transitions, expect_v0(episodes))
    assert info.terminal_next_known and info.env_id == "HalfCheetah-v4"


STEPS = st.integers(1, 6)
ENDED = st.tuples(STEPS, st.booleans(), st.booleans()).filter(lambda e: e[1] or e[2])


# The last reward of the example is far from all others by chance: it ends the record, and not the task.
@example(ended=[(1, False, True)] * 2 + [(2, False, True)] + [(6, False, True)] * 2, last=(2, False, False))
@given(ended=st.lists(ENDED, min_size=2, max_size=8), last=st.tuples(STEPS, st.booleans(), st.booleans()))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("version", ["v0", "v2"])
def test_any_episodes(
    load: Any, tmp_path: Path, version: str, ended: list[tuple[int, bool, bool]], last: tuple[int, bool, bool]
) -> None:
    episodes = make([(9, True, False), *ended, last])
    transitions, info = load(write(tmp_path / "x.hdf5", episodes, version), f"hopper-random-{version}")
    check(transitions, expect_v2(episodes) if version == "v2" else expect_v0(episodes))
    assert info.terminal_next_known == (version == "v2")


def joined(tmp_path: Path, version: str, seams: int, length: int = 800) -> tuple[Path, list[Episode]]:
    """Recordings one after the other; that one ends and the next begins is marked in none."""
    halves = make([(length, False, False) for _ in range(seams)] + [(5, True, False)])
    return write(tmp_path / "x.hdf5", halves, version), halves


def test_an_unmarked_seam_becomes_a_timeout(load: Any, tmp_path: Path) -> None:
    path, halves = joined(tmp_path, "v2", 1)
    transitions, info = load(path, "hopper-medium-expert-v2")
    halves[0].timeout = True
    check(transitions, expect_v2(halves))
    assert "1 rows that the next row does not continue marked as timeouts, first row 799" in info.source


def test_many_seams_are_no_seams(load: Any, tmp_path: Path) -> None:
    path, _ = joined(tmp_path, "v2", 2)
    with pytest.raises(InputError, match=r"column next_observations differs .* in 2 of"):
        load(path, "hopper-medium-expert-v2")


@pytest.mark.parametrize(("dataset_id", "warned"), [("hopper-medium-expert-v0", True), ("hopper-medium-v0", False)])
def test_a_seam_that_cannot_be_seen_is_told(load: Any, tmp_path: Path, dataset_id: str, warned: bool) -> None:
    path = write(tmp_path / "x.hdf5", make(ENDS), "v0")
    assert ("where its halves meet" in load(path, dataset_id)[1].source) == warned


def ant(tmp_path: Path, version: str, forces: float) -> tuple[Path, list[Episode]]:
    episodes = make([(4, True, False), (3, False, True), (2, False, True)], obs=111, act=8)
    for e in episodes:
        e.states[:, 27:] = 0
    episodes[1].states[-1, 110] = forces
    return write(tmp_path / "ant.hdf5", episodes, version), episodes


@pytest.mark.parametrize("version", ["v0", "v2"])
def test_ant_loses_contact_forces_that_are_zero(load: Any, tmp_path: Path, version: str) -> None:
    path, episodes = ant(tmp_path, version, forces=0)
    transitions, info = load(path, f"ant-medium-{version}")
    for e in episodes:
        e.states = e.states[:, :27]
    check(transitions, expect_v2(episodes) if version == "v2" else expect_v0(episodes))
    assert (info.env_id, info.env_kwargs, info.termination) == ("Ant-v4", {}, "ant")
    assert (info.reference_min, info.reference_max) == (-325.6, 3879.7)
    assert "84 contact forces, all zero, left out" in info.source


def test_ant_keeps_contact_forces_that_are_not(load: Any, tmp_path: Path) -> None:
    path, episodes = ant(tmp_path, "v2", forces=0.5)
    transitions, info = load(path, "ant-medium-v2")
    check(transitions, expect_v2(episodes))
    assert info.env_kwargs == {"use_contact_forces": True} and "contact" not in info.source


def test_widths_of_another_body_are_refused(load: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "x.hdf5", make(ENDS), "v2")
    with pytest.raises(InputError, match=r"\(11, 3\) dimensions, but those of Walker2d-v4 have \(17, 6\)"):
        load(path, "walker2d-medium-v2")


def test_the_table_holds_what_d4rl_has() -> None:
    v0 = ("random", "medium", "medium-replay", "medium-expert", "expert")
    bodies = ("hopper", "halfcheetah", "walker2d", "ant")
    expected = {f"{body}-{level}-v0" for body in bodies for level in v0}
    expected |= {f"{body}-{level}-v2" for body in bodies for level in (*v0, "full-replay")}
    assert set(table()) == expected
    for dataset_id, file in table().items():
        assert parse_dataset(dataset_id).dataset_id == dataset_id == file.dataset_id
        assert reference_scores(parse_dataset(dataset_id).env_id)
        assert re.fullmatch(r"[0-9a-f]{64}", file.sha256) and file.size > 8e6
        assert identify(file.sha256) == dataset_id
        folder = "gym_mujoco_v2" if dataset_id.endswith("v2") else "gym_mujoco"
        assert file.url.startswith(f"http://rail.eecs.berkeley.edu/datasets/offline_rl/{folder}/")
    for attribute in ("url", "sha256", "size", "name"):
        assert len({getattr(file, attribute) for file in table().values()}) == len(table())
    assert identify("0" * 64) is None


@pytest.mark.parametrize(
    ("dataset_id", "name"),
    [
        ("hopper-medium-v2", "hopper_medium-v2.hdf5"),
        ("walker2d-medium-replay-v0", "walker_mixed.hdf5"),
        ("halfcheetah-medium-replay-v0", "halfcheetah_mixed.hdf5"),
        ("ant-full-replay-v2", "ant_full_replay-v2.hdf5"),
    ],
)
def test_files_bear_their_own_names(dataset_id: str, name: str) -> None:
    assert published(dataset_id).name == name


def test_what_d4rl_lacks_is_told_with_what_it_has() -> None:
    with pytest.raises(InputError) as caught:
        published(parse_dataset("hopper-full-replay-v0").dataset_id)
    assert caught.value.message == (
        "D4RL has no hopper-full-replay-v0; its hopper sets of this version are hopper-expert-v0, "
        "hopper-medium-expert-v0, hopper-medium-replay-v0, hopper-medium-v0, hopper-random-v0."
    )
    assert caught.value.hint == "mopo fetch-data --dataset hopper-full-replay-v2"


def test_a_mirror_holds_what_comes_after_offline_rl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MOPO_D4RL_MIRROR", raising=False)
    file = published("hopper-medium-v2")
    assert address(file, None) == file.url
    wanted = "https://my.server/a/b/gym_mujoco_v2/hopper_medium-v2.hdf5"
    assert address(file, "https://my.server/a/b") == address(file, "https://my.server/a/b/") == wanted
    monkeypatch.setenv("MOPO_D4RL_MIRROR", "http://other:8000")
    assert address(file, None) == "http://other:8000/gym_mujoco_v2/hopper_medium-v2.hdf5"
    assert address(file, "https://my.server/a/b") == wanted
    monkeypatch.setenv("MOPO_D4RL_MIRROR", "")
    assert address(file, None) == file.url


@pytest.mark.parametrize(
    "mirror",
    [
        *("my.server", "/data", "file:///data", "ftp://my.server", "http://", "http://[::"),
        *("https://me:secret@my.server", "http://my.server/?file=", "http://my.server/#x"),
    ],
)
@pytest.mark.parametrize("source", ["--mirror", "MOPO_D4RL_MIRROR"])
def test_a_mirror_that_is_none(monkeypatch: pytest.MonkeyPatch, mirror: str, source: str) -> None:
    flag = mirror if source == "--mirror" else None
    monkeypatch.setenv("MOPO_D4RL_MIRROR", mirror)
    with pytest.raises(UsageError, match=f"^{source} must be an http:// or https:// address") as caught:
        address(published("hopper-medium-v2"), flag)
    assert "secret" not in caught.value.message


def test_copies_are_looked_for_in_three_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "x.hdf5", make(ENDS), "v2")
    file = publish(path, "hopper-medium-v2", monkeypatch)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "own"))
    folders = [downloads_dir(), tmp_path / "own", tmp_path / "home" / ".d4rl" / "datasets"]
    assert list(copies(file)) == []
    good = path.read_bytes()
    for folder, content in zip(folders, (good[:-1], good[:-1] + b"\1", good), strict=True):
        folder.mkdir(parents=True)
        (folder / "hopper_medium-v2.hdf5").write_bytes(content)
    assert list(copies(file)) == [
        (folder / "hopper_medium-v2.hdf5", good_one) for folder, good_one in zip(folders, (0, 0, 1), strict=True)
    ]
