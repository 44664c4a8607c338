"""The columns of a log, put together and in order, as transitions: its flags, the ends of episodes, the next states."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mopo_cli.data.checks import Check, require
from mopo_cli.data.ends import guess_next
from mopo_cli.data.files.column_map import Sources
from mopo_cli.data.files.counters import check_counter
from mopo_cli.data.files.resolve_columns import D3RLPY_ENDS, DONE, NEEDED, in_full
from mopo_cli.data.tidy import end_episodes
from mopo_cli.data.transitions import OBSERVATIONS, Bools, Transitions
from mopo_cli.data.values import check_far_values


def to_transitions(
    where: str,
    sources: Sources,
    columns: dict[str, NDArray[Any]],
    offset: NDArray[np.float64] | None,
    names: dict[str, list[str]],
    notes: list[str],
) -> tuple[Transitions, Bools, list[Check]]:
    """Our columns as transitions, which rows these are `[N]`, and what was looked at, of which nothing failed.

    ``names``: what each dimension is called in the file; ``offset`` was taken off observations.
    """
    rows = len(columns["observations"])
    terminals, stated, checks = _marked(where, sources, columns, notes)
    timeouts, cut = stated, np.zeros(rows, np.bool_)
    if "part" in columns and (columns["part"] != columns["part"][:1]).any():  # one part marks no end
        cut = (np.diff(columns["part"], append=-1) != 0) & ~terminals
    whole = columns if offset is None else columns | {o: columns[o] + offset for o in OBSERVATIONS if o in columns}
    dimensions = (
        (in_full(name, ours), dimension)
        for ours in (*NEEDED, "next_observations")
        if ours in columns
        for name, dimension in zip(names[ours], np.atleast_2d(whole[ours].T), strict=True)
    )
    checks += check_far_values(dimensions, where)
    if "episode" in columns:
        by = next((ours for ours in ("episode", "step") if ours in sources), "episode")
        name = in_full("+".join(sources.get(by, (by,))), by)
        timeouts, check = end_episodes(columns["episode"], terminals, timeouts, name, where)
        checks.append(check)
    cut &= ~timeouts
    timeouts = timeouts | cut
    counted = []
    if "counter" in columns:
        counted.append(check_counter(columns["counter"], terminals | timeouts, names["counter"][0], where))
    if "episode" not in columns and "timeouts" not in columns:
        notes.append("no timeouts column: none assumed")
    require(checks)
    observations, actions, rewards = (columns[ours] for ours in NEEDED)
    if "next_observations" in columns:
        following = columns["next_observations"]
        transitions = Transitions(observations, actions, rewards, following, terminals, timeouts)
        return transitions, np.ones(rows, np.bool_), [*checks, *counted]
    if "episode" not in columns and not (cut[:-1].any() and ("step" in sources or not terminals.any())):
        checks += _unmarked_ends(where, terminals, timeouts, "timeouts" in columns, notes)
    checks += counted
    labelled = "episode" in columns
    transitions, kept, more_notes, more_checks = guess_next(
        observations, actions, rewards, terminals, timeouts, stated, labelled, where, cut
    )
    require([*checks, *more_checks])
    notes += more_notes
    return transitions, kept, [*checks, *more_checks]


def _marked(
    where: str, sources: Sources, columns: dict[str, NDArray[Any]], notes: list[str]
) -> tuple[Bools, Bools, list[Check]]:
    """The terminals and the timeouts `[N]` that the log marks, of which no row has both, and what is to be said."""
    nothing = np.zeros(len(columns["observations"]), np.bool_)
    terminals, timeouts = columns.get("terminals", nothing), columns.get("timeouts", nothing)
    both = terminals & timeouts
    if not both.any() or sources.get("timeouts") == (D3RLPY_ENDS,):  # which are true at every end
        return terminals, timeouts & ~terminals, []
    (flag,) = sources["terminals"]
    if flag.rpartition("/")[2] in DONE:  # as Gym had it: true at a time limit as well
        notes.append(f"terminals = {flag} where no timeout is")
        return terminals & ~timeouts, timeouts, []
    warning = (
        f"{where}: {int(both.sum())} of {int(timeouts.sum())} rows that {sources['timeouts'][0]} marks are marked by "
        f"{flag} as well, and count as ends of the task. If {flag} also marks where time ran out, clear it there."
    )
    return terminals, timeouts & ~terminals, [Check("timeouts", "ends of the record", warning=warning)]


def _unmarked_ends(where: str, terminals: Bools, timeouts: Bools, may_time_out: bool, notes: list[str]) -> list[Check]:
    """Warnings that ends may be missing in a log without next states and without a column of episodes."""
    if not (terminals | timeouts).any():
        notes.append("nothing marks where an episode ends: one long episode")
        warning = (
            f"Nothing in {where} marks where an episode ends, so it is taken for one long episode. If it "
            'holds several, name the column that tells them apart: --columns "...,episode=...".'
        )
    elif not may_time_out:
        warning = (
            f"{where} marks terminals ({int(terminals.sum())}), but has neither timeouts nor a column of episodes. If "
            "an episode ended by time, without a terminal, its last step leads into the next episode: mark its last "
            'row in timeouts, or name the column that tells episodes apart: --columns "...,episode=...".'
        )
    else:
        return []
    return [Check("timeouts", "ends of the record", warning=warning)]
