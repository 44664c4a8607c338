"""Arrays that hold an episode or an environment in each entry, `[count, steps, ...]`, and which steps are padding."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mopo_cli.data.files.layout import Columns
from mopo_cli.data.files.layout_episodes import Reader, Shape
from mopo_cli.data.files.layout_rows import open_arrays
from mopo_cli.data.files.resolve_columns import conventional
from mopo_cli.errors import InputError

_LENGTHS = ("lengths", "length", "episode_lengths", "episode_length", "traj_lengths", "seq_lens", "seq_len")
_MASKS = ("mask", "masks", "valid", "valids", "padding_mask", "attention_mask")


@dataclass(frozen=True)
class _Swapped:
    """Arrays `[steps, count, ...]`, read as `[count, steps, ...]`."""

    arrays: Reader

    @property
    def path(self) -> Path:
        return self.arrays.path

    def read(self, names: Sequence[str], text: Sequence[str] = ()) -> Columns:
        columns = self.arrays.read(names, text)
        return {name: array.swapaxes(0, 1) if array.ndim > 1 else array for name, array in columns.items()}


@dataclass(frozen=True)
class Stack:
    """The arrays of a file that has `count` episodes or environments, of as many `steps` with their padding."""

    arrays: Reader
    shapes: dict[str, Shape]
    count: int
    steps: int

    @property
    def file(self) -> str:
        """The name of the file."""
        return self.arrays.path.name

    def time_first(self) -> "Stack":
        """The same arrays as `[steps, count, ...]`."""
        swapped = {name: (*shape[1::-1], *shape[2:]) for name, shape in self.shapes.items()}
        return Stack(_Swapped(self.arrays), swapped, self.steps, self.count)

    def inside(self) -> dict[str, Shape]:
        """The shapes of the arrays that have a row for every step, or one more."""
        rooms = ((self.count, self.steps), (self.count, self.steps + 1))
        return {name: shape for name, shape in self.shapes.items() if shape[:2] in rooms}

    def names(self, *columns: str) -> list[str]:
        """The arrays inside of these columns."""
        usual, inside = conventional(list(self.shapes)), self.inside()
        return [name for column in columns for name in usual.get(column, ()) if name in inside]

    def together(self, *names: str) -> NDArray[np.float64]:
        """Some arrays side by side, `[count, steps, width]`; of what is a step longer, the next row of each step."""
        columns = (array.reshape(*array.shape[:2], -1)[:, -self.steps :] for array in self.arrays.read(names).values())
        return np.concatenate([np.empty((self.count, self.steps, 0)), *columns], axis=2)

    def flag_names(self) -> list[str]:
        """The arrays of terminals and timeouts."""
        return [name for name in self.names("terminals", "timeouts") if self.shapes[name][1] == self.steps]

    @cached_property
    def flags(self) -> NDArray[np.bool_]:
        """Whether a flag is set `[count, steps]`."""
        return np.asarray((np.nan_to_num(self.together(*self.flag_names())) != 0).any(axis=2))

    def lengths_name(self) -> str | None:
        """The array of lengths."""
        shapes = ((self.count,), (self.count, 1), (1, self.count))
        return next((name for name in _LENGTHS if self.shapes.get(name) in shapes), None)

    def mask_name(self) -> str | None:
        """The array that marks the steps which are no padding."""
        shapes = ((self.count, self.steps), (self.count, self.steps, 1))
        return next((name for name in _MASKS if self.shapes.get(name) in shapes), None)

    @cached_property
    def mask(self) -> NDArray[np.bool_] | None:
        """What marks the steps `[count, steps]`; None where no array does."""
        if (name := self.mask_name()) is None:
            return None
        return np.asarray(self.arrays.read([name])[name].reshape(self.count, self.steps) != 0)

    @cached_property
    def lengths(self) -> tuple[NDArray[np.int64], str]:
        """The steps `[count]` that come before the padding, and what says so.

        InputError where an array of lengths or a mask is none, and where it is not clear what is padding.
        """
        if name := self.lengths_name():
            lengths = self.arrays.read([name])[name].reshape(self.count).astype(np.int64)
            if not ((lengths >= 1) & (lengths <= self.steps)).all():
                raise InputError(f"{self.file}: {name} must hold numbers from 1 to {self.steps}.")
            return lengths, f"their lengths in {name}"
        if (mask := self.mask) is not None:
            name = self.mask_name()
            if not is_mask(mask):
                raise InputError(f"{self.file}: {name} must be 1 for the steps of an episode and 0 after them.")
            return mask.sum(axis=1), f"their steps marked in {name}"
        return self._filled()

    def _filled(self) -> tuple[NDArray[np.int64], str]:
        """The steps `[count]` that come before the padding, by what it holds, and what was seen.

        That is NaN in all columns, or the same row again and again after the flag that ends the episode. InputError
        where rows are repeated at the end and no flag says that the episode ended before, or one amid the padding.
        """
        names = self.names("observations", "actions", "rewards")
        values = self.together(*names)
        steps = _before_the_last(np.asarray(np.isnan(values).all(axis=2)))
        if (steps < self.steps).any() and steps.all():
            return steps, "until their steps are NaN"
        alike = _before_the_last((values == values[:, -1:]).all(axis=2))
        one_number = (values[:, -1] == values[:, -1, :1]).all(axis=1)
        padded = (alike < self.steps - 1) | one_number
        if not padded.any():
            return np.full(self.count, self.steps), "all of this length, as no array gives their lengths"
        ended = self.flags & (np.arange(self.steps) >= alike[:, None] - 1)
        ends = np.where(ended.any(axis=1), ended.argmax(axis=1) + 1, 0)
        flags = " or ".join(self.flag_names())
        # A row of one number is hardly a step, so that the flag is in the row after the end.
        unclear = np.flatnonzero(padded & ((ends == 0) | (one_number & (alike < ends) & (ends < self.steps))))
        if len(unclear):
            which = f"{len(unclear)} of {self.count} episodes or environments (the first: {unclear[0]})"
            why = (
                f"{flags} marks one of them and not the step before"
                if ends[unclear[0]]
                else "no array says that it is padding"
            )
            raise InputError(
                f"{self.file}: the last steps of {which} are all alike in {', '.join(names)}, but {why}: "
                f"add {_LENGTHS[0]} [{self.count}], the number of steps of each, or leave out what was never filled."
            )
        return np.where(padded, ends, self.steps), f"until {flags} says that they end"


def open_stack(path: Path) -> Stack | None:
    """The arrays of a file whose actions are `[count, steps, width]`, and that has observations; else None."""
    if (arrays := open_arrays(path)) is None:
        return None
    shapes = arrays.shapes()
    usual = conventional(list(shapes))
    if not usual.keys() >= {"observations", "actions"} or len(shape := shapes[usual["actions"][0]]) != 3:
        return None
    return Stack(arrays, shapes, *shape[:2])


def is_mask(mask: NDArray[np.bool_]) -> bool:
    """Whether a mask `[count, steps]` marks the first steps of every episode and none after them."""
    return bool(mask[:, 0].all() and (mask[:, :-1] >= mask[:, 1:]).all())


def _before_the_last(marked: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many steps `[count]` come before those at the end that are all marked `[count, steps]`."""
    steps: NDArray[np.int64] = marked.shape[1] - np.logical_and.accumulate(marked[:, ::-1], axis=1).sum(axis=1)
    return steps
