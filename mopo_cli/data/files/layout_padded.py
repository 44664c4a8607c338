"""The layout of arrays padded to the longest episode, `[episodes, steps, width]`."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from mopo_cli.data.files.layout import Layout, Log
from mopo_cli.data.files.layout_episodes import EPISODE, Episode, Place, log_of
from mopo_cli.data.files.stack import Stack, open_stack


def _open_padded(path: Path) -> Log | None:
    """A file whose actions are `[episodes, steps, width]`; where flags end several in a row, it is an environment's."""
    stack = open_stack(path)
    return None if stack is None else padded_log(stack)


def padded_log(stack: Stack) -> Log:
    """The log of arrays `[count, longest, ...]`, of `count` episodes or environments. InputError as `Stack.lengths`."""
    lengths, how = stack.lengths
    count, longest = stack.count, stack.steps
    inside = stack.inside()
    rows = {name: shape[1:] for name, shape in stack.shapes.items() if name in inside or shape == (count,)}
    episodes = [
        Episode(int(steps), longest, {name: Place(name, shape, i) for name, shape in rows.items()})
        for i, steps in enumerate(lengths)
    ]
    flags = stack.flags
    # A flag that is set before one that is not: the row holds several episodes.
    if (flags[:, :-1] & ~flags[:, 1:] & (np.arange(1, longest) < lengths[:, None])).any():
        log = log_of(stack.arrays, episodes, f"{count} environments of {longest} steps, one after another")
        # The next row of a step may be that after a reset.
        return replace(log, episode=None, part=EPISODE, following={})
    return log_of(stack.arrays, episodes, f"{count} episodes padded to {longest} steps, {how}")


PADDED = Layout("HDF5 or NPZ with arrays [episodes, steps, width] padded to the longest episode", _open_padded)
