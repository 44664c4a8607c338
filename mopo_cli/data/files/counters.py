"""A column that counts the steps of a log, though no map names it: it tells whether rows are in the order of time."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from mopo_cli.data.checks import Check
from mopo_cli.data.files.column_map import Sources
from mopo_cli.data.files.layout import Log, Wanted
from mopo_cli.data.transitions import Bools
from mopo_cli.errors import MopoError

_NAMES = ("step", "t", "timestep", "time_step", "frame_index", "time")
_FEWEST = 3  # different values; fewer may be a flag


@dataclass(frozen=True)
class Counter:
    """A column of numbers, `values` `[N]` in the order of the log, and its `name`."""

    name: str
    values: NDArray[np.float64]


def unused_counter(log: Log, sources: Sources, rows: int) -> Counter | None:
    """The column that has a usual name of a step and its values evenly spaced, where `sources` name no step.

    None where there is none, or what is called so is no column of so many `rows` of numbers.
    """
    if "step" in sources:
        return None
    used = set(chain(*sources.values()))
    return next(_counters(log, (name for name in _NAMES if name in log.names and name not in used), rows), None)


def _counters(log: Log, names: Iterable[str], rows: int) -> Iterator[Counter]:
    for name in names:
        try:
            column = log.read(Wanted([name]))[name]
        except MopoError:  # nobody asked for this column
            continue
        if column.dtype.kind not in "fiu" or column.shape not in ((rows,), (rows, 1)):
            continue
        values = column.reshape(-1).astype(np.float64)
        spacing = np.diff(np.unique(values))
        if len(spacing) + 1 >= _FEWEST and np.allclose(spacing, spacing[0], rtol=1e-6, atol=0):
            yield Counter(name, values)


def check_counter(values: NDArray[np.float64], ends: Bools, name: str, where: str) -> Check:
    """Whether steps `[N]` rise from row to row, but for the `ends` `[N]` of episodes; a warning where they do not."""
    stays = np.flatnonzero((np.diff(values) <= 0) & ~ends[:-1])
    if not len(stays):
        return Check(name, "rises within episodes")
    row = int(stays[0])
    warning = (
        f"{where}: column {name} does not rise within episodes in {len(stays)} of {len(values) - 1} steps, first from "
        f"row {row} ({values[row]:.12g}) to the next ({values[row + 1]:.12g}). Episodes may be joined there, or rows "
        f'out of order. If it counts the steps, name it: --columns "...,step={name}".'
    )
    return Check(name, "rises within episodes", row=row, warning=warning)
