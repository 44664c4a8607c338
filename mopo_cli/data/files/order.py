"""The order of rows that have a step or a time: sorted within their episodes, and cut where steps are missing."""

from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from mopo_cli.data.checks import Check, require
from mopo_cli.data.transitions import Bools

# A difference of steps further than this share of the usual one from it is another one.
_OTHER = 0.5
# Where more of them are other ones, time passes irregularly, and a long step is no gap.
_IRREGULAR_SHARE = 0.1
_FAR = 10  # usual steps: what takes longer is no step
_WHAT = "steps"

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Order:
    """How N rows follow one another: the `rows` of the file `[n]` (repeated ones are left out), and by their order
    the `episode` of each `[n]`, and `gap` `[n]`, true where steps are missing after a row. `checks` are warnings.

    `restarts` says whether steps begin again inside a label, so that each beginning is that of an episode.
    """

    rows: Rows
    episode: NDArray[np.int64]
    gap: Bools
    restarts: bool
    checks: list[Check]


def order_rows(
    step: NDArray[np.float64], labels: NDArray[np.int64] | None, content: NDArray[np.int64], name: str, where: str
) -> Order:
    """Sort rows by `step` `[N]` within the episodes of their `labels` `[N]`; without these, each fall begins one.

    Several episodes may share a label: where the steps begin again, another begins. `content` `[N]` are numbers, equal
    where all that is read of two rows is: of these only the first of an episode is kept. `name` is that of the step's
    column. UnusableData where two different rows of an episode have one step.
    """
    by_file = labels is None
    groups = _groups(np.zeros(len(step), np.int64) if labels is None else labels)
    runs = [_runs(step, group, content, by_file) for group in groups]
    episodes = sorted(chain(*runs), key=min)
    rows, episode = np.concatenate(episodes), np.repeat(np.arange(len(episodes)), list(map(len, episodes)))
    inside = np.diff(episode, append=-1) == 0
    change = np.diff(step[rows], append=np.inf)
    if len(twice := np.flatnonzero(inside & (change <= 0))):
        first, second = sorted((int(rows[twice[0]]), int(rows[twice[0] + 1])))
        mend = (
            "name the column that tells them apart, as episode=run"
            if by_file
            else ("give each its own, such as episode=worker+episode")
        )
        which = "If these are rows of two episodes" if by_file else "If two episodes share a label"
        fault = (
            f"{where}: rows {first} and {second} differ, but both are {name} {step[first]:.12g} of one episode. "
            f"{which}, {mend}."
        )
        require([Check(name, _WHAT, fault, second)])
    checks = [Check(name, _WHAT)]
    if moved := int((rows != np.sort(rows)).sum()):
        checks.append(_warn(name, f"{where}: {moved} rows were put in order, by episode and by {name}."))
    if dropped := len(step) - len(rows):
        checks.append(_warn(name, f"{where}: {dropped} rows that repeat an earlier row were left out."))
    gap, check = _gaps(change, inside, step[rows], rows, name, where)
    return Order(rows, episode, gap, any(len(each) > 1 for each in runs), [*checks, check])


def _groups(labels: NDArray[np.int64]) -> list[Rows]:
    """The rows of each label."""
    order = np.argsort(labels, kind="stable")
    return list(np.split(order, np.flatnonzero(np.diff(labels[order])) + 1))


def _runs(step: NDArray[np.float64], group: Rows, content: NDArray[np.int64], by_file: bool) -> list[Rows]:
    """The episodes in the rows of one label: one, sorted, if no step comes twice.

    Else another begins where the step falls, or stays the same in a row that is another one.
    """
    first_of_each = _distinct(group, content)
    whole = first_of_each[np.argsort(step[first_of_each], kind="stable")]
    if not by_file and (np.diff(step[whole]) > 0).all():
        return [whole]
    change = np.diff(step[group])
    runs = np.split(group, np.flatnonzero((change < 0) | ((change == 0) & (np.diff(content[group]) != 0))) + 1)
    # Episodes of one label that are logged in turn cannot be told apart: their steps are compared as those of one.
    if len(runs) > 1 and _are_in_turn(step, runs):
        return [whole]
    return [_distinct(run, content) for run in runs]


def _distinct(rows: Rows, content: NDArray[np.int64]) -> Rows:
    """Rows without those that equal an earlier one of them."""
    return rows[np.sort(np.unique(content[rows], return_index=True)[1])]


def _are_in_turn(step: NDArray[np.float64], runs: list[Rows]) -> bool:
    """Whether a part between two falls leaves out a step, or begins later than at the first step, as none does that is
    an episode."""
    changes = np.concatenate([np.diff(step[run]) for run in runs])
    changes = changes[changes > 0]
    if not len(changes):
        return True
    usual = float(np.median(changes))
    begins = np.array([step[run[0]] for run in runs])
    late = begins[1:] > begins.min() + _OTHER * usual
    return bool((changes > (1 + _OTHER) * usual).any() or late.any())


def _gaps(
    change: NDArray[np.float64], inside: Bools, step: NDArray[np.float64], rows: Rows, name: str, where: str
) -> tuple[Bools, Check]:
    none, changes = np.zeros(len(rows), np.bool_), change[inside]
    if not len(changes):
        return none, Check(name, "gaps")
    usual = float(np.median(changes))
    other = np.abs(changes - usual) > _OTHER * usual
    # Much longer steps are gaps, however many; what is irregular are those that are somewhat longer or shorter.
    if float((other & (changes < _FAR * usual)).mean()) > _IRREGULAR_SHARE:
        text = (
            f"{where}: the steps of {name} are irregular (the usual one is {usual:.6g}, {100 * other.mean():.0f} % are "
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
