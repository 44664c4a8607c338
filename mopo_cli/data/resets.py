"""Next states at the ends of episodes that are the first states of the next ones."""

import numpy as np
from numpy.typing import NDArray

from mopo_cli.data.checks import Check
from mopo_cli.data.jumps import stand_out, step_sizes
from mopo_cli.data.transitions import Transitions

# Next states are the next episode's where they are in at least this share of the ends, and not by chance.
_MOST, _CHANCE = 0.5, 1e-3
_TRIED = 20
_WHAT = "last states of episodes"


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
        return Check("next_observations", _WHAT, fault, int(same[0]))
    return Check("next_observations", _WHAT)


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
