"""The parts of a page about a run that are about its policies: how training went, and what they do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mopo_cli.report.dataset import percent
from mopo_cli.report.page import charts, heading, paragraph, table
from mopo_cli.report.page_charts import band, histogram
from mopo_cli.report.run_page_contents import Actions, Curve

# The metrics that come first; those of single algorithms follow under their own names.
_METRICS = {
    "return": "return in the real environment",
    "q": "Q, what the critics expect",
    "penalty": "penalty on rewards, mean of the batches",
    "reward": "reward before the penalty, mean of the batches",
    "critic_loss": "loss of the critics",
    "entropy": "entropy of the policy",
    "length": "steps of an episode in the real environment",
}
_MOST_POINTS = 120
_MOST_CHARTS = 8
_BINS = 20


def training_section(
    curves: Mapping[str, Curve], returns: Mapping[str, float], diverged: Mapping[str, Sequence[str]]
) -> list[str]:
    """Per policy a chart of each metric that it logged, mean and range over seeds; beside ``returns`` of the data.

    ``diverged`` are the seeds of which there is no policy, by the policy's name. A metric that is always 0 is not
    drawn, but for returns.
    """
    blocks = []
    for name in dict.fromkeys([*curves, *(name for name, lost in diverged.items() if lost)]):
        seeds = curves.get(name, {})
        said = [f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''}, {_epochs(seeds)}."] if seeds else []
        if lost := diverged.get(name):
            said.append(f"Diverged, and not published: {', '.join(lost)}.")
        blocks += [heading(name), paragraph(" ".join(said)), charts(_training_charts(seeds, returns))]
    return blocks


def _epochs(seeds: Curve) -> str:
    last = max(int(line["epoch"] or 0) for lines in seeds.values() for line in lines)
    return f"{last:,} epoch{'s' if last > 1 else ''}"


def _training_charts(seeds: Curve, returns: Mapping[str, float]) -> list[str]:
    logged = {metric for lines in seeds.values() for line in lines for metric in line} - {"epoch", *_METRICS}
    titles = _METRICS | {metric: metric.replace("_", " ") for metric in sorted(logged)}
    names = "mean over seeds", "range over seeds"
    drawn = []
    for metric, title in titles.items():
        points = over_seeds(seeds, metric)
        if any(metric == "return" or low or high for _, _, low, high in points):
            drawn.append(band(title, points, "epoch", metric, names, returns if metric == "return" else {}))
    return drawn


def over_seeds(seeds: Curve, metric: str) -> list[tuple[float, float, float, float]]:
    """(epoch, mean, least, greatest) of a metric over the seeds that have it, at most 120 points.

    Of longer trainings a point stands for several epochs, and has the mean of their means and the range of all.
    """
    by_epoch: dict[int, list[float]] = {}
    for lines in seeds.values():
        for line in lines:
            if (value := line.get(metric)) is not None and np.isfinite(value):
                by_epoch.setdefault(int(line["epoch"] or 0), []).append(float(value))
    epochs = sorted(by_epoch)
    size = -(-len(epochs) // _MOST_POINTS) or 1
    points = []
    for start in range(0, len(epochs), size):
        block = epochs[start : start + size]
        every = [value for epoch in block for value in by_epoch[epoch]]
        middle = float(np.mean([np.mean(by_epoch[epoch]) for epoch in block]))
        points.append((float(block[-1]), middle, min(every), max(every)))
    return points


def actions_section(actions: Mapping[str, Actions]) -> list[str]:
    """Per policy and action dimension how its actions are spread beside the logged ones, and how far apart they are."""
    blocks = []
    for name, each in actions.items():
        apart = distances(each)
        order = np.argsort(-apart, kind="stable")
        rows = [_row(each, int(d), float(apart[d])) for d in order]
        columns = (
            "action",
            "mean distance",
            "of the range",
            "logged mean",
            "policy mean",
            "policy within 1 % of a bound",
        )
        more = f" Drawn are the {_MOST_CHARTS} that differ most." if len(order) > _MOST_CHARTS else ""
        blocks += [
            heading(name),
            paragraph(
                f"In {len(each.logged):,} states of the data: the policy's mean action, of {len(each.chosen)} "
                f"seed{'s' if len(each.chosen) > 1 else ''}, beside the action that was taken.{more}"
            ),
            charts([_chart(name, each, int(d)) for d in order[:_MOST_CHARTS]]),
            table("Distance between the policy's and the logged action, the largest first", columns, rows),
        ]
    return blocks


def distances(actions: Actions) -> NDArray[np.float64]:
    """How far the policy is from the log, on average over rows and seeds, as a share of the range of actions `[A]`."""
    chosen = np.stack(list(actions.chosen.values()))  # [S, n, A]
    shares: NDArray[np.float64] = np.abs(chosen - actions.logged).mean(axis=(0, 1)) / (actions.high - actions.low)
    return shares


def _row(actions: Actions, d: int, apart: float) -> tuple[Any, ...]:
    chosen = np.concatenate([each[:, d] for each in actions.chosen.values()])
    low, high = float(actions.low[d]), float(actions.high[d])
    near = 0.01 * (high - low)
    at_bound = float(((chosen <= low + near) | (chosen >= high - near)).mean())
    logged = float(actions.logged[:, d].mean())
    return actions.names[d], apart * (high - low), percent(apart), logged, float(chosen.mean()), percent(at_bound)


def _chart(policy: str, actions: Actions, d: int) -> str:
    span = float(actions.low[d]), float(actions.high[d])
    chosen = np.concatenate([each[:, d] for each in actions.chosen.values()])
    edges = np.linspace(*span, _BINS + 1)
    shares = {}
    for name, values in (("logged", actions.logged[:, d]), (policy, chosen)):
        # Rounding puts an action at a bound a little outside.
        counts, _ = np.histogram(np.clip(values, *span), edges)
        shares[name] = [float(count) for count in 100 * counts / len(values)]
    return histogram(actions.names[d], [float(edge) for edge in edges], shares, "action", "% of states")
