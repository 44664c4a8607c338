"""The layout of arrays of a vector environment, `[steps, environments, width]`."""

from dataclasses import replace
from pathlib import Path

from mopo_cli.data.files.layout import Layout, Log
from mopo_cli.data.files.layout_episodes import EPISODE, Episode, Place, log_of
from mopo_cli.data.files.layout_padded import padded_log
from mopo_cli.data.files.stack import open_stack
from mopo_cli.data.files.time_axis import is_time_first


def _open_vector(path: Path) -> Log | None:
    """A file whose actions are `[steps, environments, width]`: one environment's rows after the other's.

    Where some end before others, or lengths or a mask are there, they are padded episodes, or environments if flags
    end several in one.
    """
    if (as_stored := open_stack(path)) is None:
        return None
    stack = as_stored.time_first()
    if stack.lengths_name() or stack.mask_name() or (stack.lengths[0] < stack.steps).any():
        log = padded_log(stack)
        return replace(log, note=f"{log.note}, the first axis being time")
    places = {name: shape[1:] for name, shape in stack.inside().items()}
    rows = [
        Episode(stack.steps, stack.steps, {name: Place(name, shape, i) for name, shape in places.items()})
        for i in range(stack.count)
    ]
    note = f"{stack.steps} steps of {stack.count} environment{'s' * (stack.count > 1)} side by side"
    log = log_of(stack.arrays, rows, note)
    # What is longer by a step has the last next states; but inside, the next row may be that after a reset.
    return replace(log, episode=None, part=EPISODE, following={})


def _is_vector(path: Path) -> bool:
    """Whether the first axis is time. InputError where neither axis is clear."""
    stack = open_stack(path)
    return stack is not None and is_time_first(stack)


VECTOR = Layout(
    "HDF5 or NPZ with arrays [steps, environments, width] of a vector environment, or of a replay buffer",
    _open_vector,
    _is_vector,
)
