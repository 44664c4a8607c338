"""The layout of arrays padded to the longest episode, `[episodes, steps, width]`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mopo_cli.data.files.layout import Layout, Log
from mopo_cli.data.files.layout_episodes import EPISODE, Episode, Place, Reader, Shape, log_of
from mopo_cli.data.files.layout_rows import open_arrays
from mopo_cli.data.files.resolve_columns import conventional
from mopo_cli.errors import InputError

_LENGTHS = ("lengths", "length", "episode_lengths", "episode_length", "traj_lengths", "seq_lens", "seq_len")
_MASKS = ("mask", "masks", "valid", "valids", "padding_mask", "attention_mask")


def _open_padded(path: Path) -> Log | None:
    """A file whose actions are `[episodes, steps, width]`; where flags end several in a row, it is an environment's."""
    if (arrays := open_arrays(path)) is None:
        return None
    shapes = arrays.shapes()
    usual = conventional(list(shapes))
    if not usual.keys() >= {"observations", "actions"} or len(shape := shapes[usual["actions"][0]]) != 3:
        return None
    return padded_log(arrays, shapes, *shape[:2])


def padded_log(arrays: Reader, shapes: dict[str, Shape], count: int, longest: int) -> Log:
    """The log in arrays `[count, longest, ...]`, of `count` episodes or environments. InputError as `steps_of`."""
    lengths, how = steps_of(arrays, shapes, count, longest)
    rooms = ((count,), (count, longest), (count, longest + 1))
    rows = {name: shape[1:] for name, shape in shapes.items() if shape[:2] in rooms}
    episodes = [
        Episode(int(steps), longest, {name: Place(name, shape, i) for name, shape in rows.items()})
        for i, steps in enumerate(lengths)
    ]
    flags = _flags(arrays, shapes, count, longest)
    # A flag that is set before one that is not: the row holds several episodes.
    if (flags[:, :-1] & ~flags[:, 1:] & (np.arange(1, longest) < lengths[:, None])).any():
        log = log_of(arrays, episodes, f"{count} environments of {longest} steps, one after another")
        # The next row of a step may be that after a reset.
        return replace(log, episode=None, part=EPISODE, following={})
    return log_of(arrays, episodes, f"{count} episodes padded to {longest} steps, {how}")


def lengths_name(shapes: dict[str, Shape], count: int) -> str | None:
    """The array that gives the lengths of so many padded episodes."""
    return next((name for name in _LENGTHS if shapes.get(name) in ((count,), (count, 1))), None)


def mask_name(shapes: dict[str, Shape], count: int, longest: int) -> str | None:
    """The array that marks the steps in arrays `[count, longest, ...]`."""
    return next((name for name in _MASKS if shapes.get(name) in ((count, longest), (count, longest, 1))), None)


def is_mask(mask: NDArray[np.bool_]) -> bool:
    """Whether a mask `[episodes, steps]` marks the first steps of every episode and none after them."""
    return bool(mask[:, 0].all() and (mask[:, :-1] >= mask[:, 1:]).all())


def steps_of(arrays: Reader, shapes: dict[str, Shape], count: int, longest: int) -> tuple[NDArray[np.int64], str]:
    """The steps `[count]` that come before the padding in arrays `[count, longest, ...]`, and what says so.

    InputError where an array of lengths or a mask is none, and where it is not clear what is padding.
    """
    lengths, how = _lengths(arrays, shapes, count, longest)
    return (lengths, how) if lengths is not None else _filled_steps(arrays, shapes, count, longest)


def _lengths(
    arrays: Reader, shapes: dict[str, Shape], count: int, longest: int
) -> tuple[NDArray[np.int64] | None, str]:
    """The steps of every episode `[count]`, and what says so; None if no array does. InputError for what is none."""
    if name := lengths_name(shapes, count):
        lengths = arrays.read([name])[name].reshape(count).astype(np.int64)
        if not ((lengths >= 1) & (lengths <= longest)).all():
            raise InputError(f"{arrays.path.name}: {name} must hold numbers from 1 to {longest}.")
        return lengths, f"their lengths in {name}"
    if name := mask_name(shapes, count, longest):
        mask = arrays.read([name])[name].reshape(count, longest) != 0
        if not is_mask(mask):
            raise InputError(f"{arrays.path.name}: {name} must be 1 for the steps of an episode and 0 after them.")
        return mask.sum(axis=1), f"their steps marked in {name}"
    return None, ""


def _filled_steps(arrays: Reader, shapes: dict[str, Shape], count: int, longest: int) -> tuple[NDArray[np.int64], str]:
    """The steps of every episode `[count]`, by what lies after them, and what was seen.

    That is NaN in all columns, or the same row again and again after the flag that ends the episode. InputError where
    rows are repeated at the end and no flag says that the episode ended before, or one in the midst of the padding.
    """
    usual = conventional(list(shapes))
    fits = ((count, longest), (count, longest + 1))
    names = [name for ours in ("observations", "actions", "rewards") for name in usual.get(ours, ())]
    names = [name for name in names if shapes[name][:2] in fits]
    values = _together(arrays, names, count, longest)
    steps = _before_the_last(np.asarray(np.isnan(values).all(axis=2)))
    if (steps < longest).any() and steps.all():
        return steps, "until their steps are NaN"
    alike = _before_the_last((values == values[:, -1:]).all(axis=2))
    one_number = (values[:, -1] == values[:, -1, :1]).all(axis=1)
    padded = (alike < longest - 1) | one_number
    if not padded.any():
        return np.full(count, longest), "all of this length, as no array gives their lengths"
    ended = _flags(arrays, shapes, count, longest)
    ended &= np.arange(longest) >= alike[:, None] - 1
    ends = np.where(ended.any(axis=1), ended.argmax(axis=1) + 1, 0)
    flags = " or ".join(_flag_names(shapes, count, longest))
    # A row of one number is hardly a step, so that the flag is in the row after the end.
    unclear = np.flatnonzero(padded & ((ends == 0) | (one_number & (alike < ends) & (ends < longest))))
    if len(unclear):
        which = f"{len(unclear)} of {count} episodes or environments (the first: {unclear[0]})"
        why = (
            f"{flags} marks one of them and not the step before"
            if ends[unclear[0]]
            else "no array says that it is padding"
        )
        raise InputError(
            f"{arrays.path.name}: the last steps of {which} are all alike in {', '.join(names)}, but {why}: "
            f"add {_LENGTHS[0]} [{count}], the number of steps of each."
        )
    return np.where(padded, ends, longest), f"until {flags} says that they end"


def _flags(arrays: Reader, shapes: dict[str, Shape], count: int, longest: int) -> NDArray[np.bool_]:
    """Whether a flag is set `[episodes, steps]`."""
    flags = _together(arrays, _flag_names(shapes, count, longest), count, longest)
    return np.asarray((flags != 0).any(axis=2))


def _flag_names(shapes: dict[str, Shape], count: int, longest: int) -> list[str]:
    usual = conventional(list(shapes))
    names = [name for ours in ("terminals", "timeouts") for name in usual.get(ours, ())]
    return [name for name in names if shapes[name][:2] == (count, longest)]


def _together(arrays: Reader, names: Sequence[str], count: int, longest: int) -> NDArray[np.float64]:
    """Some arrays side by side, `[episodes, steps, width]`; of what is a step longer, the next row of each step."""
    columns = [column.reshape(count, column.shape[1], -1)[:, -longest:] for column in arrays.read(names).values()]
    return np.concatenate([np.empty((count, longest, 0)), *columns], axis=2)


def _before_the_last(marked: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many steps `[count]` come before those at the end that are all marked `[count, steps]`."""
    steps: NDArray[np.int64] = marked.shape[1] - np.logical_and.accumulate(marked[:, ::-1], axis=1).sum(axis=1)
    return steps


PADDED = Layout("HDF5 or NPZ with arrays [episodes, steps, width] padded to the longest episode", _open_padded)
