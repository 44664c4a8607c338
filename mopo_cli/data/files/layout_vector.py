"""The layout of arrays of a vector environment, `[steps, environments, width]`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mopo_cli.data.files.layout import Columns, Layout, Log
from mopo_cli.data.files.layout_episodes import Episode, Place, Shape, log_of
from mopo_cli.data.files.layout_padded import is_mask, lengths_name, mask_name, padded_log, steps_of
from mopo_cli.data.files.layout_rows import Arrays, open_arrays
from mopo_cli.data.files.resolve_columns import conventional
from mopo_cli.errors import InputError

ENVIRONMENT = "(environment)"
"""The column of the environments' numbers, which this layout makes."""
# The mean difference of neighbours, in standard deviations: 1.13 where they are independent draws.
_INDEPENDENT = 0.75
_RATHER = 1.0
_GOES_ON = 0.5
# More rows than these tell no more.
_ENOUGH = 300
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
    """A file whose actions are `[steps, environments, width]`: one environment's rows after the other's.

    Where lengths or a mask are there, they are of padded episodes, or of environments if flags end several in one.
    """
    if (arrays := open_arrays(path)) is None or (room := _room(arrays)) is None:
        return None
    steps, environments = room
    by_environment, shapes = _ByEnvironment(arrays), arrays.shapes()
    inside = {name: shape for name, shape in shapes.items() if _fits(shape, room)}
    swapped = shapes | {name: (shape[1], shape[0], *shape[2:]) for name, shape in inside.items()}
    if lengths_name(swapped, environments) or mask_name(swapped, environments, steps):
        log = padded_log(by_environment, swapped, environments, steps)
        return replace(log, note=f"{log.note}, the first axis being time")
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


@dataclass(frozen=True)
class _Rows:
    """A file whose arrays have rows in a `room` [steps, environments], or [episodes, steps]: which is to be seen."""

    arrays: Arrays
    room: tuple[int, int]

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        return self.arrays.shapes()

    @cached_property
    def mask(self) -> NDArray[np.bool_] | None:
        """What marks the steps, `room`."""
        name = mask_name(self.shapes, *self.room)
        return None if name is None else self.arrays.read([name])[name].reshape(self.room) != 0

    def names(self, *columns: str) -> list[str]:
        """The arrays of these columns."""
        usual = conventional(list(self.shapes))
        names = [name for column in columns for name in usual.get(column, ())]
        return [name for name in names if _fits(self.shapes[name], self.room)]

    def together(self, *columns: str) -> NDArray[np.float64]:
        """The arrays of these columns side by side, `[*room, width]`; what is padding is NaN."""
        read = self.arrays.read(self.names(*columns)).values()
        flat = (array[: self.room[0]].reshape(*self.room, -1) for array in read)
        values = np.concatenate([np.empty((*self.room, 0)), *flat], axis=2)
        if self.mask is not None:
            values[~self.mask] = np.nan
        return values


def _is_vector(path: Path) -> bool:
    """Whether the first axis is time. InputError where neither axis is clear."""
    if (arrays := open_arrays(path)) is None or (room := _room(arrays)) is None:
        return False
    rows = _Rows(arrays, room)
    if not rows.names("observations"):
        return False
    for tells in (_by_shapes, _by_mask, _by_next_observations):
        if (is_vector := tells(rows)) is not None:
            return is_vector
    return _by_smoothness(rows)


def _by_shapes(rows: _Rows) -> bool | None:
    """By lengths of episodes or of environments, a row more than there are actions, or a single environment.

    That is a buffer of Stable-Baselines3, `[size, 1, width]`.
    """
    steps, environments = rows.room
    of_first, of_second = (lengths_name(rows.shapes, count) is not None for count in rows.room)
    if of_first != of_second:
        return of_second
    if any(rows.shapes[name][0] > steps for name in rows.names("observations")):
        return True
    return steps > 1 if environments == 1 else None


def _by_mask(rows: _Rows) -> bool | None:
    """By the axis along which a mask ends; of episodes sorted by length it ends along both."""
    if rows.mask is None or (by_first := is_mask(rows.mask.T)) == is_mask(rows.mask):
        return None
    return by_first


def _by_next_observations(rows: _Rows) -> bool | None:
    """By the axis along which the next row's observations are the next observations more often."""
    observations, following = rows.together("observations"), rows.together("next_observations")
    if following.shape != observations.shape:
        return None
    by_first = int((following[:-1] == observations[1:]).all(axis=2).sum())
    by_second = int((following[:, :-1] == observations[:, 1:]).all(axis=2).sum())
    return None if by_first == by_second else by_first > by_second


def _by_smoothness(rows: _Rows) -> bool:
    """By the axis along which observations go on, as along that of environments or episodes they do not.

    Where that is not clear, a flag that is set before one that is not, along the second axis, says that the first is
    time. InputError where nothing does.
    """
    observations = rows.together("observations")
    if not _roughness(observations, 1) > _INDEPENDENT:
        return False
    flags = np.nan_to_num(rows.together("terminals", "timeouts")) != 0
    resets = bool((flags[:, :-1] & ~flags[:, 1:]).any())
    roughness, is_short = _roughness(observations, 0), rows.room[1] <= _FEW
    if roughness >= _RATHER:
        unclear = resets
    elif roughness >= _GOES_ON:
        unclear = not (resets or is_short or flags.any())
    else:
        unclear = is_short and not flags[:, :-1].any()
    if unclear:
        first, second = rows.room
        raise InputError(
            f"{rows.arrays.path.name}: arrays {[first, second]} may be {first} steps of {second} environments side by "
            f"side, or {first} episodes of {second} steps.",
            hint="--layout vector for environments, --layout padded for episodes",
        )
    return roughness < _GOES_ON or (roughness < _RATHER and resets)


def _roughness(values: NDArray[np.float64], axis: int) -> float:
    """The mean difference of neighbours along an axis of `[steps, environments, width]`, of the smoothest column.

    In standard deviations along this axis; NaN where no column has one. Padding (NaN) does not count.
    """
    values = values[:_ENOUGH, :_ENOUGH]
    with np.errstate(invalid="ignore"):  # what is not finite is refused once it is read
        differences = np.abs(np.diff(values, axis=axis))
    means = np.ma.masked_invalid(differences).mean(axis=(0, 1)).filled(0)
    deviations = np.ma.masked_invalid(values).std(axis=axis, ddof=1).mean(axis=0)
    moving = means > 0  # a deviation of equal numbers may be a rounding error
    return float((means[moving] / deviations[moving]).min()) if moving.any() else np.nan


VECTOR = Layout(
    "HDF5 or NPZ with arrays [steps, environments, width] of a vector environment, or of a replay buffer",
    _open_vector,
    _is_vector,
)
