"""Medians of repeated work, after a warm-up."""

import time
from collections.abc import Callable
from statistics import median

import torch

_LEAST = 5


def median_seconds(work: Callable[[], object], budget: float, device: torch.device) -> float:
    """Median seconds of one call of ``work``: at least five calls, and more until ``budget`` seconds have passed.

    One call before them warms up and is not counted. On a GPU every call is waited for.
    """
    _timed(work, device)
    seconds: list[float] = []
    while len(seconds) < _LEAST or sum(seconds) < budget:
        seconds.append(_timed(work, device))
    return median(seconds)


def _timed(work: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
