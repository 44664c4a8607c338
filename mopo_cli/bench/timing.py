"""How long calls take: medians of many, made by turns where two are compared, and how far they spread."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median, quantiles

import torch

STEADY = 0.1
"""What is steady has an interquartile range below this share of its median."""
_LEAST = 5  # turns that a median is of
_PATIENCE = 3  # budgets that what is not steady may take
_SHARE = 0.25  # of the time of what is compared: that of what it is compared with

Work = Callable[[], object]


@dataclass(frozen=True)
class Seconds:
    """The median seconds of something, and their interquartile range."""

    median: float
    iqr: float = 0.0

    @property
    def spread(self) -> float:
        """The interquartile range as a share of the median."""
        return self.iqr / self.median if self.median else 0.0

    def __add__(self, other: "Seconds") -> "Seconds":
        return Seconds(self.median + other.median, self.iqr + other.iqr)

    def __mul__(self, factor: float) -> "Seconds":
        return Seconds(self.median * factor, self.iqr * factor)


def seconds_of(work: Work, budget: float, device: torch.device) -> Seconds:
    """Seconds of one call; see `by_turns`."""
    return by_turns([work], budget, device)[0]


def in_pairs(work: Work, other: Work, budget: float, device: torch.device) -> tuple[Seconds, Seconds]:
    """Seconds of one call of each, by turns; the other one is called as often in its turn as takes a quarter of work's.

    So both meet the same machine, as busy with other things as it then is.
    """
    for one in (work, other):
        _timed(one, device)  # warms up
    times = max(1, round(_SHARE * _timed(work, device) / max(_timed(other, device), 1e-9)))
    taken, others = by_turns([work, lambda: [other() for _ in range(times)]], budget, device)
    return taken, others * (1 / times)


def by_turns(works: Sequence[Work], budget: float, device: torch.device) -> list[Seconds]:
    """Seconds of one call of each: at least five turns, and more until `budget` seconds have passed for each of them.

    While one is not steady (see `STEADY`), up to three times as many seconds. One turn before them warms up and is not
    counted. On a GPU every call is waited for.
    """
    for work in works:
        _timed(work, device)
    each: list[list[float]] = [[] for _ in works]
    while True:
        for work, seconds in zip(works, each, strict=True):
            seconds.append(_timed(work, device))
        if len(each[0]) < _LEAST:
            continue
        summaries, spent = [_summary(seconds) for seconds in each], sum(map(sum, each)) / len(works)
        if spent >= _PATIENCE * budget or (spent >= budget and all(one.spread < STEADY for one in summaries)):
            return summaries


def spread_in_words(spread: float | None) -> str | None:
    """An interquartile range as a share of its median, which says where that is not steady."""
    return None if spread is None else f"{spread:.0%}" if spread < STEADY else f"unsteady: {spread:.0%}"


def _summary(seconds: list[float]) -> Seconds:
    first, _, third = quantiles(seconds, method="inclusive")
    return Seconds(median(seconds), third - first)


def _timed(work: Work, device: torch.device) -> float:
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
