"""The layout of arrays padded to the longest episode, `[episodes, steps, width]`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mopo_cli.data.files.layout import Layout, Log
from mopo_cli.data.files.layout_episodes import Episode, Place, Shape, log_of
from mopo_cli.data.files.layout_rows import Arrays, open_arrays
from mopo_cli.data.files.resolve_columns import conventional
from mopo_cli.errors import InputError

_LENGTHS = ("lengths", "length", "episode_lengths", "episode_length", "traj_lengths", "seq_lens", "seq_len")
_MASKS = ("mask", "masks", "valid", "valids", "padding_mask", "attention_mask")


def _open_padded(path: Path) -> Log | None:
    """A file whose actions are `[episodes, steps, width]`."""
    if (arrays := open_arrays(path)) is None:
        return None
    shapes = arrays.shapes()
    usual = conventional(list(shapes))
    if not usual.keys() >= {"observations", "actions"} or len(shape := shapes[usual["actions"][0]]) != 3:
        return None
    count, longest = shape[:2]
    lengths, how = _lengths(arrays, shapes, count, longest)
    if lengths is None:
        lengths, how = _filled_steps(arrays, shapes, count, longest)
    rooms = ((count,), (count, longest), (count, longest + 1))
    rows = {name: shape[1:] for name, shape in shapes.items() if shape[:2] in rooms}
    episodes = [
        Episode(int(steps), longest, {name: Place(name, shape, i) for name, shape in rows.items()})
        for i, steps in enumerate(lengths)
    ]
    return log_of(arrays, episodes, f"{count} episodes padded to {longest} steps, {how}")


def says_lengths(shapes: dict[str, Shape], count: int, longest: int) -> bool:
    """Whether an array gives the lengths of padded episodes."""
    lengths = any(shapes.get(name) in ((count,), (count, 1)) for name in _LENGTHS)
    return lengths or any(shapes.get(name) in ((count, longest), (count, longest, 1)) for name in _MASKS)


def _lengths(
    arrays: Arrays, shapes: dict[str, Shape], count: int, longest: int
) -> tuple[NDArray[np.int64] | None, str]:
    """The steps of every episode `[count]`, and what says so; None if no array does. InputError for what is none."""
    for name in _LENGTHS:
        if shapes.get(name) in ((count,), (count, 1)):
            lengths = arrays.read([name])[name].reshape(count).astype(np.int64)
            if not ((lengths >= 1) & (lengths <= longest)).all():
                raise InputError(f"{arrays.path.name}: {name} must hold numbers from 1 to {longest}.")
            return lengths, f"their lengths in {name}"
    for name in _MASKS:
        if shapes.get(name) in ((count, longest), (count, longest, 1)):
            mask = arrays.read([name])[name].reshape(count, longest) != 0
            if not (mask[:, 0].all() and (mask[:, :-1] >= mask[:, 1:]).all()):
                raise InputError(f"{arrays.path.name}: {name} must be 1 for the steps of an episode and 0 after them.")
            return mask.sum(axis=1), f"their steps marked in {name}"
    return None, ""


def _filled_steps(arrays: Arrays, shapes: dict[str, Shape], count: int, longest: int) -> tuple[NDArray[np.int64], str]:
    """The steps of every episode `[count]`, by what lies after them, and what was seen.

    That is NaN in all columns, or the same row again and again after the first flag. InputError where rows are repeated
    at the end and no flag says that the episode ended before.
    """
    usual = conventional(list(shapes))
    fits = ((count, longest), (count, longest + 1))
    names = [name for ours in ("observations", "actions", "rewards") for name in usual.get(ours, ())]
    names = [name for name in names if shapes[name][:2] in fits]
    values = _together(arrays, names, count, longest)
    if (steps := _before_the_last(np.asarray(np.isnan(values).all(axis=2)))).min(
        initial=longest
    ) < longest and steps.all():
        return steps, "until their steps are NaN"
    alike = _before_the_last((values == values[:, -1:]).all(axis=2))
    one_number = (values[:, -1] == values[:, -1, :1]).all(axis=1)
    padded = (alike < longest - 1) | one_number
    if not padded.any():
        return np.full(count, longest), "all of this length, as no array gives their lengths"
    flags = [name for ours in ("terminals", "timeouts") for name in usual.get(ours, ()) if shapes[name][:2] in fits]
    ended = (_together(arrays, flags, count, longest) != 0).any(axis=2)
    ends = np.where(ended.any(axis=1), ended.argmax(axis=1) + 1, 0)
    if len(unclear := np.flatnonzero(padded & (alike > ends))):
        some = f"{len(unclear)} of {count} episodes (the first: episode {unclear[0]})"
        raise InputError(
            f"{arrays.path.name}: the last steps of {some} are all alike in {', '.join(names)}, and no array says "
            f"whether that is padding: add {_LENGTHS[0]} [{count}], the number of steps of each episode."
        )
    return np.where(padded, ends, longest), f"until {' or '.join(flags)} says that they end"


def _together(arrays: Arrays, names: Sequence[str], count: int, longest: int) -> NDArray[np.float64]:
    """Some arrays side by side, `[episodes, steps, width]`."""
    columns = [column.reshape(count, column.shape[1], -1)[:, :longest] for column in arrays.read(names).values()]
    return np.concatenate([np.empty((count, longest, 0)), *columns], axis=2)


def _before_the_last(marked: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many steps `[count]` come before those at the end that are all marked `[count, steps]`."""
    steps: NDArray[np.int64] = marked.shape[1] - np.logical_and.accumulate(marked[:, ::-1], axis=1).sum(axis=1)
    return steps


PADDED = Layout("HDF5 or NPZ with arrays [episodes, steps, width] padded to the longest episode", _open_padded)
