"""Arrays of vector environments and replay buffers, whose first axis is time."""

from functools import cache
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from data.test_layouts import load, write
from data.test_layouts import padded as padded_by
from gymnasium.vector import AutoresetMode

from mopo_cli.data.files.layouts import open_log
from mopo_cli.data.transitions import COLUMNS
from mopo_cli.errors import InputError

Arrays = dict[str, Any]


@cache
def played(env_id: str, copies: int, steps: int, limit: int) -> Arrays:
    """What a vector environment gave, `[steps, copies, ...]`, with random actions and a time limit."""
    autoreset = {"autoreset_mode": AutoresetMode.SAME_STEP}
    environments = gym.make_vec(env_id, copies, "sync", vector_kwargs=autoreset, max_episode_steps=limit)
    environments.action_space.seed(0)
    observations, _ = environments.reset(seed=0)
    rows: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for _ in range(steps):
        actions = environments.action_space.sample()
        following, rewards, terminals, timeouts, infos = environments.step(actions)
        ended = terminals | timeouts
        last = [infos["final_obs"][i] if ended[i] else following[i] for i in range(copies)]
        step = (observations, actions, rewards, np.array(last), terminals, timeouts)
        names = ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts")
        for name, values in zip(names, step, strict=True):
            rows[name].append(values)
        observations = following
    return {name: np.array(values) for name, values in rows.items()}


def one_by_one(folder: Path, arrays: Arrays) -> Path:
    """The same in a file for each environment."""
    folder.mkdir()
    for i in range(arrays["actions"].shape[1]):
        write(folder / f"worker_{i}.npz", {name: values[:, i] for name, values in arrays.items()})
    return folder


@pytest.mark.parametrize(
    ("env_id", "copies", "limit", "without", "ending"),
    [
        ("Pendulum-v1", 4, 30, (), ".npz"),
        ("Pendulum-v1", 4, 30, ("next_observations",), ".h5"),
        ("Pendulum-v1", 6, 1000, ("next_observations", "timeouts"), ".npz"),
        ("InvertedPendulum-v5", 3, 1000, (), ".h5"),
        ("InvertedPendulum-v5", 3, 1000, ("next_observations", "timeouts"), ".npz"),
        ("HalfCheetah-v5", 5, 40, ("next_observations",), ".npz"),
        ("Hopper-v5", 1, 1000, ("next_observations", "timeouts"), ".npz"),
    ],
)
def test_each_environment_is_read_by_itself(
    tmp_path: Path, env_id: str, copies: int, limit: int, without: tuple[str, ...], ending: str
) -> None:
    arrays = played(env_id, copies, 130, limit)
    arrays = {name: values for name, values in arrays.items() if name not in without}
    transitions, source = load(write(tmp_path / f"vector{ending}", arrays))
    expected, _ = load(one_by_one(tmp_path / "logs", arrays))
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(transitions, name), getattr(expected, name), err_msg=name)
    assert f"130 steps of {copies} environment" in source


def test_what_a_buffer_was_never_filled_with_is_to_be_left_out(tmp_path: Path) -> None:
    """The last episode of Stable-Baselines3's ReplayBuffer goes on, so that no flag says where the padding begins."""
    names = {"observations": "observations", "actions": "actions", "rewards": "rewards", "terminals": "dones"}
    kept = {names[name]: played("Hopper-v5", 1, 230, 1000)[name].astype(np.float32) for name in names}
    assert kept["dones"].any() and not kept["dones"][-1]
    half = {name: np.concatenate([values, np.zeros((170, *values.shape[1:]))]) for name, values in kept.items()}
    with pytest.raises(InputError, match="or leave out what was never filled"):
        load(write(tmp_path / "half.npz", half))
    data, _ = load(write(tmp_path / "kept.npz", kept))
    np.testing.assert_array_equal(data.rewards, kept["rewards"][:-1, 0])  # the last row has no next observation


def test_the_last_states_are_no_steps(tmp_path: Path) -> None:
    arrays = dict(played("Pendulum-v1", 4, 60, 20))
    last = arrays.pop("next_observations")[-1:]
    longer = arrays | {"observations": np.concatenate([arrays["observations"], last])}
    transitions, _ = load(write(tmp_path / "longer.npz", longer))
    expected, _ = load(write(tmp_path / "vector.npz", arrays))
    np.testing.assert_array_equal(transitions.observations, expected.observations)
    np.testing.assert_array_equal(transitions.next_observations, expected.next_observations)


def test_several_files_of_several_environments(tmp_path: Path) -> None:
    arrays = played("Pendulum-v1", 3, 90, 20)
    (tmp_path / "parts").mkdir()
    cuts = (slice(0, 50), slice(50, 90))
    for i, cut in enumerate(cuts):
        write(tmp_path / "parts" / f"part_{i}.npz", {name: values[cut] for name, values in arrays.items()})
    transitions, _ = load(tmp_path / "parts")
    pieces = [arrays["observations"][cut, i] for cut in cuts for i in range(3)]
    np.testing.assert_array_equal(transitions.observations, np.concatenate(pieces))
    ends = np.cumsum([len(piece) for piece in pieces]) - 1
    assert (transitions.terminals | transitions.timeouts)[ends].all()  # no episode goes on in the next piece


def flattened(steps: int, column: int) -> Any:
    """Twenty episodes of as many steps that all climb alike, one higher than the one before by a drift."""
    draw = np.random.default_rng(column)
    climb = np.linspace(0, 5, steps)[None, :] + draw.normal(scale=0.2, size=(20, steps))
    return climb + np.linspace(0, 3, 20)[:, None] * column


@pytest.mark.parametrize("steps", [5, 10, 50])
@pytest.mark.parametrize("kind", ["recipe", "drift", "walk"])
def test_episodes_that_are_alike_stay_episodes(tmp_path: Path, kind: str, steps: int) -> None:
    draw = np.random.default_rng(0)
    columns = [flattened(steps, 0), flattened(steps, int(kind == "drift"))]
    observations = np.stack(columns, axis=2)
    if kind == "walk":
        observations = draw.normal(size=(20, steps, 2)).cumsum(axis=1)
    arrays = {
        "observations": observations.astype(np.float32),
        "actions": draw.uniform(-1, 1, (20, steps, 1)),
        "rewards": draw.normal(size=(20, steps)),
    }
    assert open_log([write(tmp_path / "episodes.npz", arrays)]).layout == "padded"


def test_lengths_say_that_rows_are_episodes(tmp_path: Path) -> None:
    for marked_by in ("lengths", "mask"):
        assert open_log([padded_by(tmp_path, marked_by)]).layout == "padded"


@pytest.mark.parametrize("lengths", [[60, 52, 47, 40, 33, 21], [21, 52, 60, 47, 33, 40]])
@pytest.mark.parametrize("first", ["time", "episodes"])
@pytest.mark.parametrize("marked_by", ["mask", "lengths"])
def test_padded_episodes_are_read_alike_whichever_axis_is_first(
    tmp_path: Path, lengths: list[int], first: str, marked_by: str
) -> None:
    """Also if they are sorted by length, so that their mask ends along both axes."""
    arrays = {name: values.copy() for name, values in played("Pendulum-v1", 6, 60, 1000).items()}
    mask = np.arange(60)[:, None] < np.array(lengths)
    arrays = {name: arrays[name] for name in ("observations", "actions", "rewards")}
    expected = [arrays["observations"][: steps - 1, i].copy() for i, steps in enumerate(lengths)]
    for values in arrays.values():
        values[~mask] = 0
    arrays |= {"mask": mask}
    if first == "episodes":
        arrays = {name: values.swapaxes(0, 1) for name, values in arrays.items()}
    if marked_by == "lengths":
        arrays = {name: values for name, values in arrays.items() if name != "mask"} | {"lengths": np.array(lengths)}
    path = write(tmp_path / "rollouts.npz", arrays)
    assert open_log([path]).layout == {"time": "vector", "episodes": "padded"}[first]
    transitions, source = load(path)
    assert ("the first axis being time" in source) == (first == "time")
    np.testing.assert_array_equal(transitions.observations, np.concatenate(expected))


@pytest.mark.parametrize("first", ["time", "episodes"])
def test_lengths_of_as_many_episodes_as_steps_leave_it_to_the_observations(tmp_path: Path, first: str) -> None:
    arrays = played("Pendulum-v1", 12, 12, 1000)
    arrays = {name: arrays[name] for name in ("observations", "actions", "rewards", "next_observations")}
    if first == "episodes":
        arrays = {name: values.swapaxes(0, 1) for name, values in arrays.items()}
    path = write(tmp_path / "square.npz", arrays | {"lengths": np.full(12, 12)})
    assert open_log([path]).layout == {"time": "vector", "episodes": "padded"}[first]


def test_the_user_has_the_last_word(tmp_path: Path) -> None:
    path = write(tmp_path / "vector.npz", played("Pendulum-v1", 4, 60, 20))
    assert open_log([path], "padded").layout == "padded"
    with pytest.raises(InputError, match=r"not laid out as vector: .*\[steps, environments, width\]"):
        open_log(
            [write(tmp_path / "rows.npz", {"observations": np.zeros((3, 2)), "actions": np.zeros((3, 1))})], "vector"
        )
    assert open_log([padded_by(tmp_path, "lengths")], "vector").layout == "vector"


@pytest.mark.parametrize("layout", ["vector", "padded"])
def test_where_nothing_tells_the_user_is_asked(tmp_path: Path, layout: str) -> None:
    """Three environments that never end, or sixty episodes of three steps."""
    arrays = played("Pendulum-v1", 3, 60, 1000)
    path = write(
        tmp_path / "few.npz", {name: arrays[name] for name in ("observations", "actions", "rewards", "terminals")}
    )
    with pytest.raises(InputError, match="60 steps of 3 environments side by side, or 60 episodes of 3 steps") as asked:
        open_log([path])
    assert f"--layout {layout}" in asked.value.hint
    transitions, _ = load(path, layout=layout)
    assert int((transitions.terminals | transitions.timeouts).sum()) == {"vector": 3, "padded": 60}[layout]


@pytest.mark.parametrize("first", ["some with one end", "some with several"])
def test_files_of_which_only_some_have_several_ends_in_a_row_are_read_alike(tmp_path: Path, first: str) -> None:
    """Environments first, with a terminal every 20 steps: two in a row of one file, one in those of the other."""
    arrays = dict(played("Pendulum-v1", 4, 60, 20))
    arrays |= {"terminals": arrays["timeouts"], "timeouts": arrays["terminals"]}
    by_environment = {name: values.swapaxes(0, 1) for name, values in arrays.items()}
    cuts = [slice(0, 40), slice(40, 60)]
    cuts = cuts[::-1] if first == "some with one end" else cuts
    (tmp_path / "chunks").mkdir()
    for i, cut in enumerate(cuts):
        write(tmp_path / "chunks" / f"chunk_{i}.npz", {name: values[:, cut] for name, values in by_environment.items()})
    transitions, _ = load(tmp_path / "chunks")
    pieces = [by_environment["terminals"][i, cut] for cut in cuts for i in range(4)]
    np.testing.assert_array_equal(transitions.terminals, np.concatenate(pieces))
    assert int(transitions.terminals.sum()) == 12
