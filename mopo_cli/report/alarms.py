"""Warnings about bad results, as sentences: a model that learned nothing, branches that end at once."""

from collections.abc import Mapping, Sequence
from typing import Any

from mopo_cli.report.tables import format_number

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


def branches_alarm(ended_first_step: Mapping[str, float]) -> str | None:
    """The warning where nearly all branches end in their first step; ``ended_first_step``: their shares by cause."""
    shares = {name: ended_first_step.get(name, 0.0) for name in _BY}
    if not sum(shares.values()) > _MOST_BRANCHES:
        return None
    causes = ", ".join(f"{share:.0%} {_BY[name]}" for name, share in shares.items() if share > 0)
    return (
        f"{sum(shares.values()):.0%} of the branches end in their first step ({causes}), so a policy can learn little "
        f"from the model. {_ADVICE[max(shares, key=lambda name: shares[name])]}"
    )


def guard_remark(least: float) -> str:
    """How learning takes rows that the guard ended, where the data's least reward is ``least``."""
    paid = f"the data's least reward, {format_number(least)}" if least < 0 else "0, as no reward is negative"
    return f"If the guard ends a branch, every later step counts as {paid}."
