"""The order of rows that have a step or a time: sorted within their episodes, and cut where steps are missing."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mopo_cli.data.checks import Check, require
from mopo_cli.data.transitions import Bools

# A difference of steps further than this share of the usual one from it is another one.
_OTHER = 0.5
# Where more of them are other ones, time passes irregularly, and a long step is no gap.
_IRREGULAR_SHARE = 0.1
_WHAT = "steps"

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Order:
    """How N rows follow one another: the `rows` of the file `[n]` (repeated ones are left out), and by their order
    the `episode` of each `[n]`, and `gap` `[n]`, true where steps are missing after a row. `checks` are warnings.
    """

    rows: Rows
    episode: NDArray[np.int64]
    gap: Bools
    checks: list[Check]


def order_rows(
    step: NDArray[np.float64], labels: NDArray[np.int64] | None, repeated: Bools, name: str, where: str
) -> Order:
    """Sort rows by `step` `[N]` within the episodes of their `labels` `[N]`; without these, each fall begins one.

    Several episodes may share a label: where the steps begin again, another begins. `repeated` `[N]` says which rows
    equal an earlier row in all that is read. `name` is that of the step's column. UnusableData where two different rows
    of an episode have one step.
    """
    rows = np.flatnonzero(~repeated)
    dropped = int(repeated.sum())
    episodes = _episodes(step[rows], np.zeros(len(rows), np.int64) if labels is None else labels[rows], labels is None)
    rows, episode = rows[np.concatenate(episodes)], np.repeat(np.arange(len(episodes)), list(map(len, episodes)))
    inside = np.diff(episode, append=-1) == 0
    change = np.diff(step[rows], append=np.inf)
    if len(twice := np.flatnonzero(inside & (change <= 0))):
        first, second = sorted((int(rows[twice[0]]), int(rows[twice[0] + 1])))
        fault = (
            f"{where}: rows {first} and {second} differ, but both are {name} {step[first]:.12g} of one episode. If two "
            "episodes share a label, give each its own, such as episode=worker+episode."
        )
        require([Check(name, _WHAT, fault, second)])
    checks = [Check(name, _WHAT)]
    if moved := int((rows != np.sort(rows)).sum()):
        checks.append(_warn(name, f"{where}: {moved} rows were put in order, by episode and by {name}."))
    if dropped:
        checks.append(_warn(name, f"{where}: {dropped} rows that repeat an earlier row were left out."))
    gap, check = _gaps(change, inside, step[rows], rows, name, where)
    return Order(rows, episode, gap, [*checks, check])


def _episodes(step: NDArray[np.float64], labels: NDArray[np.int64], by_file: bool) -> list[Rows]:
    """The rows of each episode, sorted, in the order in which the episodes begin in the file."""
    order = np.argsort(labels, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    episodes = [run for group in groups for run in _runs(step, group, by_file)]
    return sorted(episodes, key=min)


def _runs(step: NDArray[np.float64], group: Rows, by_file: bool) -> list[Rows]:
    """The episodes in the rows of one label: one, sorted, if no step comes twice; else another begins at each fall."""
    if not by_file and len(np.unique(step[group])) == len(group):
        return [group[np.argsort(step[group], kind="stable")]]
    runs = np.split(group, np.flatnonzero(np.diff(step[group]) < 0) + 1)
    # Episodes of one label that are logged in turn cannot be told apart: their steps are compared as those of one.
    in_turn = any((np.diff(run) > 1).any() for run in runs) and len(runs) > 1
    return [group[np.argsort(step[group], kind="stable")]] if in_turn else runs


def _gaps(
    change: NDArray[np.float64], inside: Bools, step: NDArray[np.float64], rows: Rows, name: str, where: str
) -> tuple[Bools, Check]:
    none, changes = np.zeros(len(rows), np.bool_), change[inside]
    if not len(changes):
        return none, Check(name, "gaps")
    usual = float(np.median(changes))
    other = np.abs(change - usual) > _OTHER * usual
    if (share := float(other[inside].mean())) > _IRREGULAR_SHARE:
        text = (
            f"{where}: the steps of {name} are irregular (the usual one is {usual:.6g}, {100 * share:.0f} % are "
            "others), so no gap is looked for. The model learns one step as if all took as long."
        )
        return none, _warn(name, text)
    gap = inside & (change > (1 + _OTHER) * usual)
    if not gap.any():
        return none, Check(name, "gaps")
    i, count = int(np.flatnonzero(gap)[0]), int(gap.sum())
    text = (
        f"{where}: {count} gap{'s' * (count > 1)} in {name}, where more than one step of {usual:.6g} passes (the first "
        f"after row {rows[i]}: {step[i]:.12g}, then {step[i + 1]:.12g}): the record is cut there, as at a timeout."
    )
    return gap, _warn(name, text)


def _warn(name: str, text: str) -> Check:
    return Check(name, _WHAT, warning=text)
