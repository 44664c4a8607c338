"""The layout of arrays padded to the longest episode, `[episodes, steps, width]`."""

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
    """The steps of every episode `[count]` before those that are NaN in all columns, and what was seen.

    InputError where the last steps of some episodes are 0 in all columns, as nothing says whether these are steps.
    """
    usual = conventional(list(shapes))
    names = [name for ours in ("observations", "actions", "rewards") for name in usual.get(ours, ())]
    names = [name for name in names if shapes[name][:2] in ((count, longest), (count, longest + 1))]
    raw = arrays.read(names).values()
    columns = [array.reshape(count, array.shape[1], -1)[:, :longest] for array in raw]
    nan = np.logical_and.reduce([(column != column).all(axis=2) for column in columns])
    zero = np.logical_and.reduce([(column == 0).all(axis=2) for column in columns])
    if (steps := _before_the_last(nan)).min(initial=longest) < longest and steps.all():
        return steps, "until their steps are NaN"
    if len(padded := np.flatnonzero(_before_the_last(zero) < longest)):
        raise InputError(
            f"{arrays.path.name}: the last steps of {len(padded)} of {count} episodes (the first: episode {padded[0]}) "
            f"are 0 in {', '.join(names)}, and no array says whether that is padding: add {_LENGTHS[0]} [{count}], the "
            "number of steps of each episode."
        )
    return np.full(count, longest), "all of this length, as no array gives their lengths"


def _before_the_last(marked: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many steps `[count]` come before those at the end that are all marked `[count, steps]`."""
    steps: NDArray[np.int64] = marked.shape[1] - np.logical_and.accumulate(marked[:, ::-1], axis=1).sum(axis=1)
    return steps


PADDED = Layout("HDF5 or NPZ with arrays [episodes, steps, width] padded to the longest episode", _open_padded)
