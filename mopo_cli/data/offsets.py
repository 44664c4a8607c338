"""Columns that float32 cannot hold, such as times in seconds since 1970: they are stored less an offset."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mopo_cli.data.checks import Check
from mopo_cli.data.transitions import DatasetInfo, Floats, Transitions

Numbers = NDArray[Any]

_WHAT = "single precision"
# Rounding may change a number by that share of the column's standard deviation, and of its usual step to the next row.
_OF_DEVIATION, _OF_STEP = 1e-3, 1e-2
_DUST = 1e-12  # a step of that share of the numbers themselves is the rounding of float64
_SHOWN = 10


def lift_offsets(
    observations: Sequence[Numbers], following: Sequence[Numbers], names: Sequence[str], where: str
) -> tuple[list[Numbers], list[Numbers], NDArray[np.float64] | None, list[Check]]:
    """Take an offset off every dimension that float32 would change too much, and warn of it.

    ``observations`` are the numbers as they were read, each `[N]` or `[N, width]`, and ``following`` the next ones
    likewise or none; ``names`` are those of all dimensions. Returns both, float32 in what has an offset, and the
    offsets `[O]`, None where there are none.
    """
    offsets = [_offset(dimension) for part in observations for dimension in _dimensions(part)]
    if not any(offsets) or len(offsets) != len(names):
        return list(observations), list(following), None, []
    checks = [
        Check(
            name,
            _WHAT,
            warning=f"{where}: column {name} has numbers that float32 would round too much, so {offset:.15g} is taken "
            "off before they are stored. Rollout files, mopo show and the policies' inputs have the column as it is "
            "in the file.",
        )
        for name, offset in zip(names, offsets, strict=True)
        if offset
    ]
    return _lift(observations, offsets), _lift(following, offsets), np.array(offsets), checks[:_SHOWN]


def without_offset(transitions: Transitions, info: DatasetInfo) -> tuple[Transitions, DatasetInfo]:
    """The same data without an offset, as float32 holds them."""
    offset = info.observation_offset
    if offset is None:
        return transitions, info

    def whole(observations: Floats) -> Floats:
        return (observations + offset).astype(np.float32)

    plain = replace(
        transitions,
        observations=whole(transitions.observations),
        next_observations=whole(transitions.next_observations),
    )
    doubts = tuple(check for check in info.doubts if check.what != _WHAT)
    return plain, replace(info, observation_offset=None, doubts=doubts)


def _dimensions(part: Numbers) -> list[Numbers]:
    return list(part.T) if part.ndim == 2 else [part]


def _offset(values: Numbers) -> float:
    """The offset of one dimension `[N]`, a round number near its mean; 0 where it needs none."""
    if values.ndim != 1 or len(values) < 2 or values.dtype.kind not in "iuf" or values.dtype.itemsize < 4:
        return 0.0
    if values.dtype == np.float32:
        return 0.0
    exact = values.astype(np.float64)
    largest = float(np.abs(exact).max())
    if not largest < float(np.finfo(np.float32).max):  # too large, or not a number: a fault that is told elsewhere
        return 0.0
    deviation = float(exact.std())
    steps = np.abs(np.diff(exact))
    steps = steps[steps > _DUST * largest]
    if not len(steps):
        return 0.0
    if (error := _rounding(exact)) <= min(_OF_DEVIATION * deviation, _OF_STEP * float(np.median(steps))):
        return 0.0
    unit = 10.0 ** np.floor(np.log10(deviation))
    offset = float(np.round(exact.mean() / unit) * unit)
    return offset if 2 * _rounding(exact - offset) < error else 0.0


def _rounding(exact: NDArray[np.float64]) -> float:
    """The most that float32 changes one of these numbers."""
    return float(np.abs(exact - exact.astype(np.float32)).max())


def _lift(parts: Sequence[Numbers], offsets: Sequence[float]) -> list[Numbers]:
    lifted, place = [], 0
    for part in parts:
        width = part.shape[1] if part.ndim == 2 else 1
        by = np.array(offsets[place : place + width])
        place += width
        if part.ndim in (1, 2) and part.dtype.kind in "iuf" and len(by) == width and by.any():
            lifted.append((part.astype(np.float64) - (by if part.ndim == 2 else by[0])).astype(np.float32))
        else:
            lifted.append(part)
    return lifted
