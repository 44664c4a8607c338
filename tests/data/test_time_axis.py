"""Arrays whose first axis may be time or not: what tells is in the padding, the flags and the observations."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.test_layouts import load, write
from data.test_vector_layout import played

from mopo_cli.data.files.layouts import open_log
from mopo_cli.errors import InputError

Arrays = dict[str, Any]
SORTED = (30, 29, 28, 27, 25, 24, 20, 16, 13, 12, 9, 4)


def episodes(lengths: tuple[int, ...], number: float | str = 0, terminal: int = 2) -> Arrays:
    """Walks `[episodes, steps, ...]`, each a little above the one before, filled up with a number or their last row.

    Every so many end in a terminal, the others by time.
    """
    draw = np.random.default_rng(3)
    count, longest = len(lengths), max(lengths)
    steps = draw.normal(size=(count, longest, 2))
    steps[:, 0] = np.arange(count)[:, None] * 3
    arrays: Arrays = {
        "observations": steps.cumsum(axis=1).astype(np.float32),
        "actions": draw.uniform(-1, 1, (count, longest, 1)),
        "rewards": draw.normal(size=(count, longest)),
    }
    for values in arrays.values():
        for row, length in zip(values, lengths, strict=True):
            row[length:] = row[length - 1] if number == "last" else float(number)
    last = np.arange(longest) == np.array(lengths)[:, None] - 1
    ended = np.arange(count)[:, None] % terminal == 0
    return arrays | {"terminals": last & ended, "timeouts": last & ~ended}


def time_first(arrays: Arrays) -> Arrays:
    return {name: values.swapaxes(0, 1) if values.ndim > 1 else values for name, values in arrays.items()}


def check_both(folder: Path, arrays: Arrays, lengths: tuple[int, ...]) -> None:
    """Whichever axis is first, the steps are those of the episodes, less the last of those that end by time."""
    flags = arrays.get("terminals", np.zeros(arrays["rewards"].shape))
    kept = [steps - (not flags[i].any()) for i, steps in enumerate(lengths)]
    expected = np.concatenate([arrays["observations"][i, :steps] for i, steps in enumerate(kept)])
    for name, stored in {"second": arrays, "first": time_first(arrays)}.items():
        transitions, _ = load(write(folder / f"{name}.npz", stored))
        np.testing.assert_array_equal(transitions.observations, expected, err_msg=f"time is the {name} axis")


def without(arrays: Arrays, *names: str) -> Arrays:
    return {name: values for name, values in arrays.items() if name not in names}


@pytest.mark.parametrize("lengths", [SORTED, SORTED[::-1]])
@pytest.mark.parametrize("number", [0, -1, "last"])
def test_padding_and_the_flags_before_it_tell(tmp_path: Path, number: float | str, lengths: tuple[int, ...]) -> None:
    check_both(tmp_path, episodes(lengths, number), lengths)


def test_nan_after_the_last_steps_tells(tmp_path: Path) -> None:
    lengths = (9, 40, 60)
    check_both(tmp_path, without(episodes(lengths, np.nan), "terminals", "timeouts"), lengths)


def test_what_lies_after_the_lengths_tells_where_there_are_as_many_episodes_as_steps(tmp_path: Path) -> None:
    lengths = (12, 12, 12, 11, 11, 10, 10, 9, 8, 8, 7, 5)
    arrays = without(episodes(lengths), "terminals", "timeouts") | {"lengths": np.array(lengths)}
    check_both(tmp_path, arrays, lengths)


def test_flags_in_last_steps_tell_where_a_mask_ends_along_both_axes(tmp_path: Path) -> None:
    mask = np.arange(30) < np.array(SORTED)[:, None]
    check_both(tmp_path, episodes(SORTED) | {"mask": mask}, SORTED)


def test_terminals_in_last_steps_tell_where_nothing_is_padded(tmp_path: Path) -> None:
    lengths = (40,) * 12
    check_both(tmp_path, without(episodes(lengths, terminal=3), "timeouts"), lengths)


def test_padding_does_not_go_on(tmp_path: Path) -> None:
    """Where all is 0, so are the next observations, and rows of padding lie side by side along both axes."""
    lengths = (*(2,) * 5, *(1,) * 35)
    arrays = episodes(lengths)
    following = np.random.default_rng(0).normal(size=(40, 2, 2)) * (arrays["rewards"] != 0)[..., None]
    following[:5, 0] = arrays["observations"][:5, 1]
    path = write(tmp_path / "second.npz", arrays | {"next_observations": following})
    assert open_log([path]).layout == "padded"


def test_jumps_after_flags_tell_environments_whose_observations_climb(tmp_path: Path) -> None:
    """Each environment is a little above the one before, so that observations go on along both axes."""
    draw = np.random.default_rng(0)
    ends = draw.random((60, 8)) < 0.1
    observations = np.zeros((60, 8, 1))
    for step in range(60):
        begins = np.ones(8, bool) if step == 0 else ends[step - 1]
        observations[step, :, 0] = np.where(begins, np.arange(8), observations[step - 1, :, 0] + 0.3)
    arrays = {
        "observations": observations,
        "actions": draw.uniform(-1, 1, (60, 8, 1)),
        "rewards": draw.normal(size=(60, 8)),
        "terminals": ends,
        "timeouts": np.zeros((60, 8), bool),
    }
    assert open_log([write(tmp_path / "first.npz", arrays)]).layout == "vector"
    assert open_log([write(tmp_path / "second.npz", time_first(arrays))]).layout == "padded"


@pytest.mark.parametrize(("steps", "environments"), [(3, 8), (60, 3)])
def test_few_rows_that_hardly_go_on_are_asked_about(tmp_path: Path, steps: int, environments: int) -> None:
    draw = np.random.default_rng(0)
    climb = np.linspace(0, 3, steps) * (steps > environments)
    observations = draw.normal(size=(steps, environments, 1)) + climb[:, None, None]
    arrays = {
        "observations": observations,
        "actions": draw.uniform(-1, 1, (steps, environments, 1)),
        "rewards": draw.normal(size=(steps, environments)),
        "terminals": np.zeros((steps, environments), bool),
    }
    with pytest.raises(InputError, match=f"{steps} steps of {environments} environments side by side, or {steps} epis"):
        open_log([write(tmp_path / "few.npz", arrays)])


def test_a_single_episode_of_few_steps_is_one(tmp_path: Path) -> None:
    arrays = {name: values.swapaxes(0, 1) for name, values in played("Pendulum-v1", 1, 2, 1000).items()}
    assert open_log([write(tmp_path / "one.npz", without(arrays, "next_observations"))]).layout == "padded"


def test_files_of_which_only_some_are_padded_are_read_alike(tmp_path: Path) -> None:
    """Environments that stop while others go on, in the second file."""
    draw = np.random.default_rng(0)
    arrays = {
        "observations": draw.normal(size=(80, 6, 2)).cumsum(axis=0) + draw.normal(size=(6, 2)) * 9,
        "actions": draw.uniform(-1, 1, (80, 6, 1)),
        "rewards": draw.normal(size=(80, 6)),
        "terminals": np.zeros((80, 6)),
    }
    lengths = np.array([40, 25, 33, 40, 21, 38])
    for name in without(arrays, "terminals"):
        arrays[name][40:][np.arange(40)[:, None] >= lengths] = np.nan
    (tmp_path / "parts").mkdir()
    for i in range(2):
        rows = slice(40 * i, 40 * i + 40)
        write(tmp_path / "parts" / f"part_{i}.npz", {name: values[rows] for name, values in arrays.items()})
    transitions, _ = load(tmp_path / "parts")
    kept = [*(arrays["observations"][:39, i] for i in range(6))]
    kept += [arrays["observations"][40 : 39 + steps, i] for i, steps in enumerate(lengths)]
    np.testing.assert_array_equal(transitions.observations, np.concatenate(kept).astype(np.float32))


def test_a_single_flag_in_the_last_place_may_be_chance(tmp_path: Path) -> None:
    """Of six environments only the last one ends, once: no sixty episodes of six steps, of which one ends."""
    arrays = {name: values.copy() for name, values in played("Pendulum-v1", 6, 60, 1000).items()}
    arrays = {name: arrays[name] for name in ("observations", "actions", "rewards", "terminals")}
    arrays["terminals"][17, 5] = True
    assert open_log([write(tmp_path / "vector.npz", arrays)]).layout == "vector"
