"""The next states of a log that does not hold them: what is kept where its episodes end, and what is dropped."""

import numpy as np

from mopo_cli.data.checks import Check
from mopo_cli.data.jumps import check_jumps
from mopo_cli.data.transitions import Bools, Floats, Transitions

# Rewards are outcomes where they lie more than as many times further from the median than those inside episodes.
_TIMES = 5
_LARGE_PERCENT = 5
_WHAT = "rewards of the last rows"


def guess_next(
    observations: Floats,
    actions: Floats,
    rewards: Floats,
    terminals: Bools,
    timeouts: Bools,
    stated: Bools,
    labelled: bool,
    where: str,
    cut: Bools | None = None,
) -> tuple[Transitions, Bools, list[str], list[Check]]:
    """Transitions whose next states are the next row's observations, and which of the N rows they are.

    Besides, what was done, in words, and what was looked at.

    Columns as in `Transitions`, over N rows, with `settle_ends` before `shift`. ``stated`` `[N]`: the timeouts that the
    log marks itself; ``labelled``: whether a column of episodes marks the ends; ``cut``: where mopo cut the record,
    at gaps and between files. The caller must `checks.require` what
    comes back: outcomes that were dropped, and ends that are marked a row beside the true ones, are faults.
    """
    is_marked = labelled or bool((terminals | timeouts).any())
    settled, checks = settle_ends(rewards, terminals, timeouts, stated, is_marked, where)
    checks.append(check_jumps(observations, settled | timeouts, where, cut))
    transitions, kept, notes = shift(observations, actions, rewards, settled, timeouts)
    if not len(transitions):
        checks.append(_nothing_left(where, len(rewards)))
    added = int(settled.sum() - terminals.sum())
    if added:
        notes.append(f"{added} rows that end the record and hold outcomes kept as terminals")
    return transitions, kept, notes, checks


def shift(
    observations: Floats, actions: Floats, rewards: Floats, terminals: Bools, timeouts: Bools
) -> tuple[Transitions, Bools, list[str]]:
    """Transitions whose next_observations are the next row's, which rows they are `[N]`, and what was done, in words.

    Columns as in `Transitions`, over N rows. Rows that end the record (timeouts, the last) are dropped and the
    rows before them marked as timeouts. Terminals stay, and their own observation fills the place of the next,
    which nothing holds: the dataset's ``terminal_next_known`` must then be False.
    """
    dropped = _record_ends(terminals, timeouts)
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
        notes.append(f"the dropped rows held {_reward_share(rewards, dropped):.3g} % of all reward (sum of |r|)")
    shifted = Transitions(
        observations=observations[kept],
        actions=actions[kept],
        rewards=rewards[kept],
        next_observations=following[kept],
        terminals=terminals[kept],
        timeouts=cut[kept],
    )
    return shifted, kept, notes


def settle_ends(
    rewards: Floats, terminals: Bools, timeouts: Bools, stated: Bools, is_marked: bool, where: str
) -> tuple[Bools, list[Check]]:
    """The terminals `[N]` of a log without next states, and what is said of rewards in rows that end its record.

    Where these rewards are outcomes, the rows end the task as well: they become terminals, with a warning. Where the
    rows are ``stated`` to end the record only, that is a fault. Other rewards are dropped with their rows, with a
    warning where they are much. ``is_marked``: whether anything marks ends; else the log is one long episode.
    """
    dropped = _record_ends(terminals, timeouts)
    inside = rewards[~dropped & ~terminals]
    if _are_outcomes(rewards[dropped & stated], inside):
        so = (
            "so they would be dropped with it. If the task ends there, mark them in terminals and not in timeouts; "
            "else give next_observations."
        )
        which = "that timeouts marks"
        return terminals, [_check(rewards, dropped & stated, where, which, so, is_fault=True)]
    checks = []
    outcomes = dropped & ~stated
    if is_marked and _are_outcomes(rewards[outcomes], inside):
        terminals, dropped = terminals | outcomes, dropped & stated
        so = (
            "so they are kept as ends of the task (terminals), and the model does not learn from them. If the record "
            "merely stops there, mark them in timeouts and give next_observations."
        )
        checks.append(_check(rewards, outcomes, where, "at the end of episodes", so))
    if _reward_share(rewards, dropped) > _LARGE_PERCENT:
        so = "so they are dropped. Give next_observations to keep them, or mark those in terminals that end the task."
        checks.append(_check(rewards, dropped, where, "that end the record", so))
    return terminals, checks or [Check("rewards", _WHAT)]


def _nothing_left(where: str, rows: int) -> Check:
    fault = f"{where}: no row is left, as each lacks a value."
    if rows:
        fault = (
            f"{where}: no row is followed by another of its episode, so no next state is known. If episodes have more "
            "than one row, another column tells them apart; else give next_observations."
        )
    return Check("next_observations", "rows", fault)


def _are_outcomes(last: Floats, inside: Floats) -> bool:
    if not len(last) or not len(inside):
        return False
    middle = float(np.median(inside))
    far, near = (float(np.abs(part.astype(np.float64) - middle).mean()) for part in (last, inside))
    return far > _TIMES * near


def _check(rewards: Floats, rows: Bools, where: str, which: str, so: str, is_fault: bool = False) -> Check:
    """What the rows hold, and ``so`` what becomes of them, as a fault or as a warning."""
    count, first = int(rows.sum()), int(np.flatnonzero(rows)[0])
    text = (
        f"{where}: {count} row{'s' * (count > 1)} {which} (first row {first}) hold{'s' * (count == 1)} "
        f"{_reward_share(rewards, rows):.3g} % of all reward (sum of |r|); their next states are not given, {so}"
    )
    return Check("rewards", _WHAT, text if is_fault else "", first, warning="" if is_fault else text)


def _record_ends(terminals: Bools, timeouts: Bools) -> Bools:
    """The rows `[N]` whose next state no row holds and the task does not end in: timeouts, and the last."""
    ends: Bools = timeouts & ~terminals
    ends[-1:] = ~terminals[-1:]
    return ends


def _reward_share(rewards: Floats, rows: Bools) -> float:
    """How much of all reward `[N]`, by magnitude, the rows `[N]` hold, in percent; 0 where there is none."""
    sizes = np.abs(rewards.astype(np.float64))
    return 100 * float(sizes[rows].sum()) / float(sizes.sum()) if sizes.any() else 0.0
