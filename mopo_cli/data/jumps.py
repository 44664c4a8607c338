"""Steps that are none: from the last state of one episode into the first of another, with next states or without."""

import numpy as np
from numpy.typing import NDArray

from mopo_cli.data.checks import Check
from mopo_cli.data.transitions import Bools, Floats, Transitions

Sizes = NDArray[np.float32]

# A group of steps stands out where its median is as many times the others' median, and beyond nearly all of them.
_TIMES, _NEARLY_ALL, _GROUP = 3.0, 0.99, 5
# A single step stands out beyond the median and as many times the distance from there to the upper quartile ...
_SPREADS, _TIMES_MEDIAN = 15.0, 5.0
# ... where the steps before and after it are smaller; a quick movement takes several large ones.
_TIMES_NEIGHBOURS = 2.0
_FEWEST = 20
_WHAT = "steps without jumps"
# Next states are the next episode's where they are in at least this share of the ends, and not by chance.
_MOST, _CHANCE = 0.5, 1e-3
_TRIED = 20
_AT_ENDS = "last states of episodes"


def step_sizes(observations: Floats, following: Floats) -> Sizes:
    """How far every step goes `[N]`: the largest change over the dimensions, each in its standard deviations.

    ``observations`` and ``following`` are `[N, O]`; a dimension that never changes counts for nothing.
    """
    sizes = np.zeros(len(following), np.float32)
    for column, after in zip(observations.T, following.T, strict=True):
        spread = float(column.std(dtype=np.float64)) if len(column) else 0.0
        if spread > 0:
            np.maximum(sizes, np.abs(after.astype(np.float64) - column) / spread, out=sizes)
    return sizes


def stand_out(group: Sizes, others: Sizes) -> bool:
    """Whether the steps of a group are jumps beside the others: by their median, or each of them where they are few."""
    moving = others[others > 0]
    if not len(group) or len(moving) < _FEWEST:
        return False
    return bool(np.median(group) > _usual(moving)) if len(group) >= _GROUP else bool(group.min() > _farthest(moving))


def check_jumps(observations: Floats, ends: Bools, where: str, cut: Bools | None = None) -> Check:
    """Whether the rows between marked ends follow on each other, where next states are the next row's observations.

    ``observations`` `[N, O]`, ``ends`` `[N]` the last rows of the episodes. It is a fault where the jumps lie in the
    row before or after the marked ends and not at these, and a warning where single steps stand out elsewhere. Of the
    ends, ``cut`` are not marked in the log: mopo ended the record there.
    """
    if len(observations) <= _FEWEST:
        return Check("observations", _WHAT)
    sizes = np.zeros(len(observations), np.float32)
    sizes[:-1] = step_sizes(observations[:-1], observations[1:])
    fault = _ends_beside(sizes, ends, ends if cut is None else ends & ~cut, where)
    if fault is not None:
        return fault
    inside = ~ends
    inside[-1] = False
    moving = sizes[inside & (sizes > 0)]
    if len(moving) < _FEWEST:
        return Check("observations", _WHAT)
    rows = np.flatnonzero(inside & (sizes > _farthest(moving)) & _alone(np.where(inside, sizes, 0)))
    if not len(rows):
        return Check("observations", _WHAT)
    many, largest = len(rows) > 1, sizes[rows].max()
    warning = (
        f"{where}: {len(rows)} step{'s' if many else ''} inside episodes stand{'' if many else 's'} out, first from "
        f"row {rows[0]} to the next: the largest changes an observation by {largest:.3g} standard deviations, where "
        f"the median step is {np.median(moving):.2g}. If an episode ends there, mark it in terminals or timeouts, or "
        "give every episode its own label (episode=); rows must be in the order of time."
    )
    return Check("observations", _WHAT, row=int(rows[0]), warning=warning)


def _ends_beside(sizes: Sizes, ends: Bools, marked: Bools, where: str) -> Check | None:
    """The fault of ends that are marked a row too early or too late, None where they are not."""
    rows = np.flatnonzero(marked[:-2])
    rows = rows[rows > 0]
    near = np.zeros(len(sizes), np.bool_)
    for beside in (-1, 0, 1):
        near[rows + beside] = True
    near[ends] = True
    others = sizes[:-1][~near[:-1]]
    moving = others[others > 0]
    if not len(rows) or len(moving) < _FEWEST or np.median(sizes[rows]) > _usual(moving):
        return None
    for beside, off in ((1, "early"), (-1, "late")):
        group = sizes[rows + beside][~ends[rows + beside]]
        if not stand_out(group, others):
            continue
        jumping = "after the next" if beside > 0 else "in the row before"
        reset = ", or leave out rows that only reset the environment" if beside > 0 else ""
        fault = (
            f"{where}: the ends of episodes are marked a row too {off}: at the {len(rows)} marked rows the "
            f"observations go on in the next row, and they jump {jumping}, first from row {rows[0] + beside} to "
            f"{rows[0] + beside + 1} (median jump {np.median(group):.3g} standard deviations, median step "
            f"{np.median(others):.2g}). Mark the last row of every episode{reset}."
        )
        return Check("observations", _WHAT, fault, int(rows[0]) + beside)
    return None


def _usual(moving: Sizes) -> float:
    """What the middle one of several usual steps does not go beyond."""
    return max(_TIMES * float(np.median(moving)), float(np.quantile(moving, _NEARLY_ALL)))


def _farthest(moving: Sizes) -> float:
    """What no single usual step goes beyond, where up to a fifth of them are jumps."""
    median, quartile = (float(value) for value in np.quantile(moving, (0.5, 0.75)))
    return max(median + _SPREADS * (quartile - median), _TIMES_MEDIAN * median)


def _alone(sizes: Sizes) -> Bools:
    """Steps `[N]` that are larger than the one before and the one after by more than they vary."""
    beside = np.zeros(len(sizes), np.float32)
    beside[1:] = sizes[:-1]
    beside[:-1] = np.maximum(beside[:-1], sizes[1:])
    return sizes > _TIMES_NEIGHBOURS * beside


def check_resets(transitions: Transitions, where: str) -> Check:
    """Whether next states at the ends are the states there, and not the first of the next episode.

    It fails where they equal the next row's observations to the bit in most ends. A log that is cut into pieces, and
    goes on after a timeout, does so rightly: for timeouts it fails only where the step there, or the one of the row
    after, is a jump beside those inside episodes.
    """
    t = transitions
    moved = (t.next_observations[:-1] != t.observations[:-1]).any(axis=1)
    for name, ends in (("terminals", t.terminals[:-1]), ("timeouts", (t.timeouts & ~t.terminals)[:-1])):
        rows = np.flatnonzero(ends & moved)
        same = rows[(t.next_observations[rows] == t.observations[rows + 1]).all(axis=1)]
        if not len(same) or len(same) < _MOST * len(rows) or _by_chance(t, same) ** len(same) > _CHANCE:
            continue
        if name == "timeouts" and not _jump(t, same):
            continue
        fault = (
            f"{where}: column next_observations equals the next row's observations in {len(same)} of {len(rows)} rows "
            f"that {name} marks as ends, first in row {same[0]}. So it holds the first state of the next episode, or "
            "the next row is only a reset. If the environment resets in the same step, store the final observation "
            '(info["final_obs"]) as next_observations; if it resets in the next step, leave out the row after each '
            "end."
        )
        return Check("next_observations", _AT_ENDS, fault, int(same[0]))
    return Check("next_observations", _AT_ENDS)


def _by_chance(t: Transitions, rows: NDArray[np.int64]) -> float:
    """How often the next states of these rows are the observations of rows that no episode begins with."""
    others = np.delete(t.observations, [0, *(rows + 1)], axis=0)
    shares = [(others == t.next_observations[row]).all(axis=1).mean() for row in rows[:_TRIED] if len(others)]
    return float(np.mean(shares)) if shares else 1.0


def _jump(t: Transitions, rows: NDArray[np.int64]) -> bool:
    sizes = step_sizes(t.observations, t.next_observations)
    inside = ~(t.terminals | t.timeouts)
    inside[rows + 1] = False
    return any(stand_out(sizes[group], sizes[inside]) for group in (rows, rows + 1))
