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
    dropped = record_ends(terminals, timeouts)
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
    if dropped.any():
        notes.append(f"the dropped rows held {reward_share(rewards, dropped):.3g} % of all reward (sum of |r|)")
    shifted = Transitions(
        observations=observations[kept],
        actions=actions[kept],
        rewards=rewards[kept],
        next_observations=following[kept],
        terminals=terminals[kept],
        timeouts=cut[kept],
    )
    return shifted, notes


def record_ends(terminals: Bools, timeouts: Bools) -> Bools:
    """The rows `[N]` whose next state no row holds and the task does not end in: timeouts, and the last."""
    ends: Bools = timeouts & ~terminals
    ends[-1:] = ~terminals[-1:]
    return ends


def reward_share(rewards: Floats, rows: Bools) -> float:
    """How much of all reward `[N]`, by magnitude, the rows `[N]` hold, in percent; 0 where there is none."""
    sizes = np.abs(rewards.astype(np.float64))
    return 100 * float(sizes[rows].sum()) / float(sizes.sum()) if sizes.any() else 0.0
