"""How the judgement of policies without a simulator is shown."""

from collections.abc import Mapping
from math import isfinite
from typing import Any

from mopo_cli.evaluation.verdict import ROUNDING
from mopo_cli.report.console import Report
from mopo_cli.report.tables import format_number

_NAMES = {"fqe": "fitted Q", "model": "in the judge's model"}


def show_judgement(result: Mapping[str, Any], report: Report) -> None:
    """Prints the estimates, what the estimators are worth, and the verdict."""
    episodes = result["episodes"]
    report.say(
        f"The judge has {result['transitions']:,} transitions of {episodes:,} episode{'' if episodes == 1 else 's'}"
        + (", which neither model nor policy has seen." if result["unseen"] else ".")
    )
    if not result["unseen"]:
        report.warn(
            "The policy has seen the judge's episodes, so the verdict is too kind. Keep some from it by "
            "--judge-share 0.2 of train-model, or of train-policy where no model is used."
        )
    if "allowed" not in result:
        again = f"mopo evaluate --ope --policy {result['policy']}"
        report.say(f"It was judged by an earlier version of mopo: {again} judges it again.")
        return
    floor = result["floor"]["discounted"]
    recorded = result["floor"].get("recorded", floor["value"])
    rows: list[tuple[Any, ...]] = [("logged behaviour", _interval(floor), *(None,) * 5)]
    rows += [_row("its clone", result["clone"])]
    rows += [_row(f"policy, seed {seed}", each) for seed, each in result["seeds"].items()]
    struck = result["struck_out"]
    report.table(
        f"{result['policy']}: return discounted by {result['gamma']:g} (95 % interval)",
        (
            "",
            *(f"{_NAMES[e]}{', struck out' if e in struck else ''}" for e in ("fqe", "model")),
            "WIS",
            "DR",
            "episodes",
            "unlike",
        ),
        rows,
    )
    report.say(f"Undiscounted, the judge's episodes returned {_interval(result['floor']['undiscounted'])}.")
    if abs(floor["value"] - recorded) > ROUNDING * abs(floor["value"]):
        report.say(
            f"Of the logged behaviour's {format_number(floor['value'])}, {format_number(recorded)} is in the "
            "log. The rest is what critics expect after the ends of its records."
        )
    report.table(
        "What the estimators say of behaviour whose return is in the log",
        ("behaviour", "return", *(_NAMES[e] for e in ("fqe", "model"))),
        [
            (name, _interval(each["return"]), *(_checked(each[e], result["allowed"]) for e in ("fqe", "model")))
            for name, each in result["calibration"].items()
        ],
    )
    if not result.get("knows_ends", True):
        report.say(
            "The judge's model is not used: its rule does not end the task where the log does. Say when it ends: "
            "mopo fetch-data --termination 'CONDITION'"
        )
    if all(not each["weighted"]["means_something"] for each in result["seeds"].values()):
        why = "the judge has too few episodes" if episodes < 10 else "the policy acts too differently from the log"
        report.say(f"WIS and DR mean nothing here: {why} (effective episodes < 10).")
    report.say(
        "unlike: the share of its actions that are farther than usual from all that the log did in similar states."
    )
    cut, steps = (max(each["model"][key] for each in result["seeds"].values()) for key in ("cut", "cut_steps"))
    report.say(
        f"In the model up to {cut:.0%} of the episodes ({steps:.1%} of the steps) left the data: "
        "fitted Q estimates the rest."
    )


def _row(name: str, each: Mapping[str, Any]) -> tuple[Any, ...]:
    weighted = each["weighted"]
    numbers = (format_number(weighted[key]) for key in ("importance", "doubly_robust"))
    return (
        name,
        _interval(each["fqe"]),
        _interval(each["model"]),
        *numbers,
        f"{weighted['effective']:.1f}",
        f"{each['outside']:.0%}",
    )


def _interval(estimate: Mapping[str, Any]) -> str:
    """The value with its bounds. Those of a single episode are infinite, and None in what is read from a file."""
    low, high = (estimate[key] for key in ("low", "high"))
    within = None not in (low, high) and isfinite(low) and isfinite(high)
    bounds = f"{format_number(low)} to {format_number(high)}" if within else "no interval"
    return f"{format_number(estimate['value'])} ({bounds})"


def _checked(each: Mapping[str, Any], allowed: float) -> str:
    if not each["misses_by"]:
        return _interval(each)
    much = "" if each["misses_by"] <= allowed else ", too much"
    return f"{_interval(each)}, misses it by {format_number(each['misses_by'])}{much}"
