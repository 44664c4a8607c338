"""The next states of a log that does not hold them."""

import numpy as np

from mopo_cli.data.transitions import Bools, Floats, Transitions


def shift(
    observations: Floats, actions: Floats, rewards: Floats, terminals: Bools, timeouts: Bools
) -> tuple[Transitions, list[str]]:
    """Transitions whose next_observations are the next row's observations, and what was done for it, in words.

    Columns as in `Transitions`, over N rows. Rows that end the record (timeouts, the last) are dropped and the
    rows before them marked as timeouts. Terminals stay, and their own observation fills the place of the next,
    which nothing holds: the dataset's ``terminal_next_known`` must then be False.
    """
    dropped = timeouts & ~terminals
    dropped[-1:] = ~terminals[-1:]
    kept = ~dropped
    following = np.concatenate([observations[1:], observations[-1:]])
    following[terminals] = observations[terminals]
    cut = np.append(dropped[1:], False) & ~terminals
    notes = [
        f"no next_observations column: taken from the next row, {int(dropped.sum())} rows that end the record "
        "dropped and the rows before them marked as timeouts"
    ]
    if terminals.any():
        count = int(terminals.sum())
        notes.append(f"the states after its {count} terminals are unknown: no model is trained on those rows")
    shifted = Transitions(
        observations=observations[kept],
        actions=actions[kept],
        rewards=rewards[kept],
        next_observations=following[kept],
        terminals=terminals[kept],
        timeouts=cut[kept],
    )
    return shifted, notes
