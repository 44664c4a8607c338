"""What stages say of bad results: branches that end at once, huge numbers, divergence."""

from collections.abc import Mapping, Sequence
from typing import Any

from mopo_cli.agents.runs import Loop
from mopo_cli.report.alarms import branches_alarm, guard_remark
from mopo_cli.report.console import Report
from mopo_cli.stages.common.inputs import Data
from mopo_cli.store.documents import as_key

HUGE = 1e6
"""Where an observation or a reward is as large as this, networks learn badly whatever the learning rate."""


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
    alarms = [branches_alarm(tally.ended_first_step) for tally in loop.tallies]
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
