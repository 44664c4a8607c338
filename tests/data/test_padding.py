"""Arrays of episodes and environments, of which some end before the others."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.test_layouts import load, write
from data.test_vector_layout import played

from mopo_cli.data.files.layouts import open_log
from mopo_cli.data.transitions import COLUMNS, Transitions
from mopo_cli.errors import InputError

LENGTHS = (50, 41, 37, 30, 22, 17, 9)
ENDED = tuple(i % 2 == 0 for i in range(len(LENGTHS)))
Episode = dict[str, Any]


def episodes() -> list[Episode]:
    """Walks, every second of which ends in a terminal and the others by time."""
    draw = np.random.default_rng(0)
    made = []
    for steps, is_terminal in zip(LENGTHS, ENDED, strict=True):
        states = draw.normal(size=(steps + 1, 3)).cumsum(axis=0).astype(np.float32)
        last = np.arange(steps) == steps - 1
        made.append(
            {
                "states": states,
                "observations": states[:-1],
                "actions": draw.uniform(-1, 1, (steps, 2)).astype(np.float32),
                "rewards": draw.normal(size=steps).astype(np.float32),
                "terminals": last & is_terminal,
                "timeouts": last & (not is_terminal),
            }
        )
    return made


def padded(number: float, *, with_last: bool = False) -> Episode:
    """All of them, `[episodes, steps, ...]`, filled up with a number, flags with False."""
    arrays = {}
    for name in ("observations", "actions", "rewards", "terminals", "timeouts"):
        parts = [episode["states" if with_last and name == "observations" else name] for episode in episodes()]
        longest = max(map(len, parts))
        filling = 0 if parts[0].dtype == np.bool_ else number
        pads = [[(0, longest - len(part)), *[(0, 0)] * (part.ndim - 1)] for part in parts]
        arrays[name] = np.stack(
            [np.pad(part, pad, constant_values=filling) for part, pad in zip(parts, pads, strict=True)]
        )
    return arrays


def time_first(arrays: Episode) -> Episode:
    return {name: values.swapaxes(0, 1) for name, values in arrays.items()}


def check_rows(transitions: Transitions, with_last: bool) -> None:
    """All rows are there; without the last states, those that end by time are left out."""
    for name in ("observations", "actions", "rewards"):
        kept = [e[name][: None if with_last or ended else -1] for e, ended in zip(episodes(), ENDED, strict=True)]
        np.testing.assert_array_equal(getattr(transitions, name), np.concatenate(kept), err_msg=name)
    if with_last:
        following = np.concatenate([episode["states"][1:] for episode in episodes()])
        np.testing.assert_array_equal(transitions.next_observations, following)
    assert int(transitions.terminals.sum()) == sum(ENDED)
    assert int(transitions.timeouts.sum()) == len(ENDED) - sum(ENDED)


@pytest.mark.parametrize("with_last", [False, True])
@pytest.mark.parametrize("number", [0, -1, np.nan])
def test_padding_is_no_steps(tmp_path: Path, number: float, with_last: bool) -> None:
    transitions, _ = load(write(tmp_path / "padded.npz", padded(number, with_last=with_last)))
    check_rows(transitions, with_last)


@pytest.mark.parametrize("number", [0, np.nan])
@pytest.mark.parametrize("lengths", [{}, {"lengths": LENGTHS}])
def test_padding_where_time_comes_first(tmp_path: Path, number: float, lengths: Episode) -> None:
    path = write(tmp_path / "padded.npz", time_first(padded(number)) | lengths)
    assert open_log([path]).layout == "vector"
    check_rows(load(path)[0], with_last=False)


def test_a_flag_in_the_row_after_the_end_is_refused(tmp_path: Path) -> None:
    """As a rollout has it that says whether the environment was done before the step."""
    arrays = padded(0)
    before = arrays.pop("terminals") | arrays.pop("timeouts")
    arrays["dones"] = np.pad(before, ((0, 0), (1, 0)))[:, :-1]
    with pytest.raises(
        InputError, match=r"6 of 7 .* dones marks one of them and not the step before: add lengths \[7\]"
    ):
        load(write(tmp_path / "late.npz", arrays))


def test_the_part_of_a_buffer_that_is_not_filled(tmp_path: Path) -> None:
    arrays = played("Pendulum-v1", 4, 60, 25)
    filled = {name: np.concatenate([values, np.zeros_like(values[:20])]) for name, values in arrays.items()}
    with pytest.raises(InputError, match=r"4 of 4 .* no array says that it is padding: add lengths \[4\]"):
        load(write(tmp_path / "buffer.npz", filled))
    transitions, _ = load(write(tmp_path / "buffer.npz", filled | {"lengths": np.full(4, 60)}))
    expected, _ = load(write(tmp_path / "vector.npz", arrays))
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(transitions, name), getattr(expected, name), err_msg=name)


@pytest.mark.parametrize("without", [(), ("next_observations",)])
def test_environments_first_are_the_same_as_time_first(tmp_path: Path, without: tuple[str, ...]) -> None:
    """Without their last states, what follows a reset is no next state."""
    arrays = dict(played("InvertedPendulum-v5", 4, 130, 1000))
    for name in without:
        last = arrays.pop(name)[-1:]
        arrays["observations"] = np.concatenate([arrays["observations"], last])
    transitions, source = load(write(tmp_path / "environments.npz", time_first(arrays)))
    assert "4 environments of 130 steps" in source
    expected, _ = load(write(tmp_path / "vector.npz", arrays))
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(transitions, name), getattr(expected, name), err_msg=name)


def test_a_column_that_all_environments_share_hides_no_axis(tmp_path: Path) -> None:
    """A clock: whether its deviation is 0 is a matter of rounding."""
    arrays = dict(played("Pendulum-v1", 6, 100, 25))
    clock = np.broadcast_to((np.arange(100) % 25 / 25)[:, None, None], (100, 6, 1))
    arrays["observations"] = np.concatenate([arrays["observations"], clock], axis=2)
    del arrays["next_observations"]
    assert open_log([write(tmp_path / "clock.npz", arrays)]).layout == "vector"


@pytest.mark.parametrize("layout", ["vector", "padded"])
def test_next_observations_tell_the_axis_of_time(tmp_path: Path, layout: str) -> None:
    """Of states that jump about, or of few steps."""
    states = np.random.default_rng(0).normal(size=(6, 40, 3))
    arrays: Episode = {"actions": np.zeros((5, 40, 1)), "rewards": np.zeros((5, 40)), "terminals": np.zeros((5, 40))}
    arrays |= {"observations": states[:-1], "next_observations": states[1:]}
    path = write(tmp_path / "noise.npz", arrays if layout == "vector" else time_first(arrays))
    assert open_log([path]).layout == layout


def test_few_rough_steps_without_flags_are_asked_for(tmp_path: Path) -> None:
    """Neither axis goes on: five steps of thirty environments that all climb, each from another place."""
    draw = np.random.default_rng(0)
    observations = draw.normal(size=(1, 30, 2)) + np.arange(5)[:, None, None] * draw.choice([-1, 1], (1, 30, 2))
    arrays = {"observations": observations, "actions": draw.uniform(-1, 1, (5, 30, 1)), "rewards": np.ones((5, 30))}
    with pytest.raises(InputError, match="5 steps of 30 environments side by side, or 5 episodes of 30 steps"):
        open_log([write(tmp_path / "few.npz", arrays)])
