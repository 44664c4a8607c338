"""Warnings about bad results: a model that learned nothing, branches that end at once, huge numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

from mopo_cli.agents.runs import Loop
from mopo_cli.dynamics.branched_rollouts import ENDS
from mopo_cli.report.console import Report
from mopo_cli.report.tables import format_number
from mopo_cli.stages.common.inputs import Data
from mopo_cli.store.documents import as_key

HUGE = 1e6
"""Where an observation or a reward is as large as this, networks learn badly whatever the learning rate."""
_MOST_BRANCHES = 0.9
_BY = {
    "terminated": "by the task's rule",
    "halted": "by the networks' discrepancy",
    "guarded": "by the guard",
    "dropped": "as numbers that are not finite",
}
_ADVICE = {
    "terminated": "The termination rule does not fit the data (mopo fetch-data --check compares them), or the model "
    "predicts badly what the rule depends on.",
    "halted": "A lower --pessimism lets the networks differ more before a branch halts.",
    "guarded": "The model predicts states far from all data: rescale columns of very different size, bring more data.",
    "dropped": "The model's predictions overflow: rescale columns with huge values and train it again.",
}


def model_alarm(dimensions: Sequence[Mapping[str, Any]], scale: str) -> str | None:
    """The warning for a model that explains nothing of most targets that vary at all; None where it is better.

    ``dimensions`` have the std and explained_variance of each, as in model.json; ``scale`` is the target_scale.
    """
    varying = [d for d in dimensions if d["std"] > 0]
    useless = [d for d in varying if not d["explained_variance"] > 0]
    if 2 * len(useless) <= len(varying):
        return None
    helps = "rescale columns whose units are far apart" if scale == "raw" else "train longer (--max-epochs, --patience)"
    return (
        f"For {len(useless)} of {len(varying)} targets the model predicts no better than their mean change (explained "
        f"variance 0 or below): rollouts and policies made with it mean nothing. What usually helps: {helps}, or bring "
        "more data."
    )


def branches_alarm(at_once: Mapping[str, float]) -> str | None:
    """The warning where nearly all branches end in their first step; ``at_once`` are the shares that do, by cause."""
    shares = {name: at_once.get(name, 0.0) for name in ENDS}
    if not sum(shares.values()) > _MOST_BRANCHES:
        return None
    causes = ", ".join(f"{share:.0%} {_BY[name]}" for name, share in shares.items() if share > 0)
    return (
        f"{sum(shares.values()):.0%} of the branches end in their first step ({causes}), so that the model's rows lead "
        f"nowhere and a policy learns little from them. {_ADVICE[max(shares, key=lambda name: shares[name])]}"
    )


def guard_remark(least: float) -> str:
    """How learning takes rows that the guard ended, where the data's least reward is ``least``."""
    paid = f"the data's least reward, {format_number(least)}," if least < 0 else "0, as no reward is negative,"
    return f"What follows a branch that the guard ended counts as {paid} at every step forever."


def rescale_hint(data: Data, standardised: bool = False) -> str | None:
    """The advice for data with huge values, which no learning rate cures; None for other data.

    Where observations are standardised, their own size is no matter.
    """
    columns = {"reward": data.reward} | ({} if standardised else {"observation": data.observation})
    largest = {name: float(column.abs().amax()) for name, column in columns.items()}
    name = max(largest, key=lambda name: largest[name])
    if largest[name] < HUGE:
        return None
    return f"rescale the data's columns: the largest {name} is {largest[name]:.1e} (mopo show DATASET)"


def tell_choices(loop: Loop, report: Report) -> None:
    """Say what the algorithm chose for settings that were left to the data."""
    for choice in loop.algorithm.choices(loop.agent):
        report.say(f"{as_key(choice.setting)} is {choice.value}, as {choice.why}")


def look_at_rollouts(loop: Loop, report: Report) -> None:
    """Warn, once for all members, where the latest rollouts of one lead nowhere."""
    alarms = [branches_alarm(tally.at_once) for tally in loop.tallies]
    first = next((alarm for alarm in alarms if alarm is not None), None)
    if first is not None:
        report.warn(first)


def look_back(
    histories: Sequence[Sequence[Mapping[str, Any]]],
    diverged: Sequence[bool],
    least: float,
    data: Data,
    report: Report,
    standardised: bool = False,
) -> None:
    """After training, from each member's records: say how guarded rows were paid, and what helps if one diverged."""
    if any(record.get("guarded") for history in histories for record in history):
        report.say(guard_remark(least))
    if any(diverged) and (hint := rescale_hint(data, standardised)) is not None:
        report.warn(f"What helps against diverging: {hint}")
