"""The layout of arrays of a vector environment, `[steps, environments, width]`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mopo_cli.data.files.layout import Columns, Layout, Log
from mopo_cli.data.files.layout_episodes import Episode, Place, Shape, log_of
from mopo_cli.data.files.layout_padded import says_lengths, steps_of
from mopo_cli.data.files.layout_rows import Arrays, open_arrays
from mopo_cli.data.files.resolve_columns import conventional
from mopo_cli.errors import InputError

ENVIRONMENT = "(environment)"
"""The column of the environments' numbers, which this layout makes."""
# The mean difference of neighbours, in standard deviations: 1.13 where they are independent draws.
_INDEPENDENT = 0.75
_RATHER = 1.0
_GOES_ON = 0.5
# Of so few neighbours, those that climb steadily look like independent draws.
_FEW = 4


@dataclass(frozen=True)
class _ByEnvironment:
    """Arrays `[steps, environments, ...]`, read as `[environments, steps, ...]`."""

    arrays: Arrays

    @property
    def path(self) -> Path:
        return self.arrays.path

    def read(self, names: Sequence[str], text: Sequence[str] = ()) -> Columns:
        columns = self.arrays.read(names, text)
        return {name: array.swapaxes(0, 1) if array.ndim > 1 else array for name, array in columns.items()}


def _open_vector(path: Path) -> Log | None:
    """A file whose actions are `[steps, environments, width]`: one environment's rows after the other's."""
    if (arrays := open_arrays(path)) is None or (room := _room(arrays)) is None:
        return None
    steps, environments = room
    by_environment, shapes = _ByEnvironment(arrays), arrays.shapes()
    inside = {name: shape for name, shape in shapes.items() if _fits(shape, room)}
    swapped = shapes | {name: (shape[1], shape[0], *shape[2:]) for name, shape in inside.items()}
    lengths, how = steps_of(by_environment, swapped, environments, steps)
    rows = [
        Episode(int(count), steps, {name: Place(name, (shape[0], *shape[2:]), i) for name, shape in inside.items()})
        for i, count in enumerate(lengths)
    ]
    note = f"{steps} steps of {environments} environment{'s' * (environments > 1)} side by side"
    note += f", {how}" if (lengths < steps).any() else ""
    log = log_of(by_environment, rows, note, ENVIRONMENT)
    # What is longer by a step has the last next states; but inside, the next row may be that after a reset.
    return replace(log, episode=None, part=ENVIRONMENT, following={})


def _room(arrays: Arrays) -> tuple[int, int] | None:
    """The steps and environments of a file whose actions are `[steps, environments, width]`."""
    shapes = arrays.shapes()
    usual = conventional(list(shapes))
    if not usual.keys() >= {"observations", "actions"} or len(shape := shapes[usual["actions"][0]]) != 3:
        return None
    return shape[0], shape[1]


def _fits(shape: Shape, room: tuple[int, int]) -> bool:
    """Whether an array has a row for every step of every environment, or one more."""
    return shape[:2] in (room, (room[0] + 1, room[1]))


def _is_vector(path: Path) -> bool:
    """Whether the first axis is time: observations go on along it, and along the second they do not.

    A row more than there are actions, lengths of the environments, or next observations tell. Where the first axis is
    not clear, a flag that is set before one that is not, along the second, does. A single environment, as in a buffer
    of Stable-Baselines3 `[size, 1, width]`, has nothing along the second. InputError where neither axis is clear.
    """
    if (arrays := open_arrays(path)) is None or (room := _room(arrays)) is None:
        return False
    shapes = arrays.shapes()
    usual = conventional(list(shapes))
    inside = {ours: [name for name in names if _fits(shapes[name], room)] for ours, names in usual.items()}
    if says_lengths(shapes, *room) or not inside["observations"]:
        return False
    if says_lengths(shapes, *room[::-1]) or any(shapes[name][0] > room[0] for name in inside["observations"]):
        return True
    if room[1] == 1:
        return room[0] > 1
    observations = _together(arrays, inside["observations"], room)
    following = _together(arrays, inside.get("next_observations", ()), room)
    if following.shape == observations.shape:
        by_step = int((following[:-1] == observations[1:]).all(axis=2).sum())
        by_second = int((following[:, :-1] == observations[:, 1:]).all(axis=2).sum())
        if by_step != by_second:
            return by_step > by_second
    if not _roughness(observations, 1) > _INDEPENDENT:
        return False
    flags = _together(arrays, [*inside.get("terminals", ()), *inside.get("timeouts", ())], room) != 0
    resets = bool((flags[:, :-1] & ~flags[:, 1:]).any())
    roughness, is_short = _roughness(observations, 0), room[1] <= _FEW
    if roughness >= _RATHER:
        unclear = resets
    elif roughness >= _GOES_ON:
        unclear = not (resets or is_short or flags.any())
    else:
        unclear = is_short and not flags[:, :-1].any()
    if unclear:
        raise InputError(
            f"{path.name}: arrays {list(room)} may be {room[0]} steps of {room[1]} environments side by side, or "
            f"{room[0]} episodes of {room[1]} steps.",
            hint="--layout vector for environments, --layout padded for episodes",
        )
    return roughness < _GOES_ON or (roughness < _RATHER and resets)


def _together(arrays: Arrays, names: Sequence[str], room: tuple[int, int]) -> NDArray[Any]:
    """Some arrays side by side, `[steps, environments, width]`."""
    columns = [column[: room[0]].reshape(*room, -1) for column in arrays.read(names).values()]
    return np.asarray(np.nan_to_num(np.concatenate([np.empty((*room, 0)), *columns], axis=2)))


def _roughness(values: NDArray[Any], axis: int) -> float:
    """The mean difference of neighbours along an axis of `[steps, environments, width]`, of the smoothest column.

    In standard deviations along this axis; NaN where no column has one.
    """
    differences = np.abs(np.diff(values, axis=axis)).mean(axis=(0, 1))
    deviations = values.std(axis=axis, ddof=1).mean(axis=0)
    moving = differences > 0  # a deviation of equal numbers may be a rounding error
    return float((differences[moving] / deviations[moving]).min()) if moving.any() else np.nan


VECTOR = Layout(
    "HDF5 or NPZ with arrays [steps, environments, width] of a vector environment, or of a replay buffer",
    _open_vector,
    _is_vector,
)
