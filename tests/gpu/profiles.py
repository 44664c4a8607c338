"""What torch's profiler says of gradient steps: launches, kernels, how long the GPU works and waits."""

import time
from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

_WARM_UP = 2  # calls, in the first of which steps are recorded and compared
_LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch", "cudaMemcpyAsync", "cudaMemsetAsync")
_NAMES = ("busy_share", "gap_median_us", "gap_90_percent_us", "gap_longest_us")
Span = tuple[float, float]
"""Begin and end, in microseconds."""


def profiled(take: Callable[[], object], steps: int, device: torch.device) -> dict[str, Any]:
    """Profile one call of `take`, which takes so many steps; on a CPU operations stand for launches and kernels."""
    for _ in range(_WARM_UP):
        take()
    seconds = _timed(take, device)
    cuda = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as watched:
        _timed(take, device)
    return {"updates_per_second": steps / seconds, **summary(watched.events(), steps, cuda)}


def summary(events: Iterable[Any], steps: int, cuda: bool) -> dict[str, float | None]:
    """Launches and kernels (copies are some) of an update, and the `occupancy` of the kernels."""
    if cuda:
        launches = [event for event in events if event.name.startswith(_LAUNCHES)]
        kernels = [event for event in events if event.device_type.name == "CUDA" and not _annotation(event)]
    else:
        launches = kernels = [e for e in events if e.cpu_parent is None and e.name.startswith("aten::")]
    spans = [(event.time_range.start, event.time_range.end) for event in kernels]
    counts = {"launches_per_update": len(launches) / steps, "kernels_per_update": len(kernels) / steps}
    return {**counts, **occupancy(spans)}


def occupancy(spans: Sequence[Span]) -> dict[str, float | None]:
    """Of what runs, perhaps at once: the share of the time from first to last, and the gaps between (µs)."""
    if not spans:
        return dict.fromkeys(_NAMES)
    first, end = min(spans)[0], min(spans)[0]
    gaps, idle = [], 0.0
    for begin, ends in sorted(spans):
        gap = max(0.0, begin - end)
        gaps.append(gap)
        idle, end = idle + gap, max(end, ends)
    gaps = sorted(gaps[1:]) or [0.0]
    busy = 1 - idle / (end - first) if end > first else 1.0
    return dict(zip(_NAMES, (busy, median(gaps), gaps[int(0.9 * (len(gaps) - 1))], gaps[-1]), strict=True))


def _annotation(event: Any) -> bool:
    return bool(getattr(event, "is_user_annotation", False))


def _timed(take: Callable[[], object], device: torch.device) -> float:
    started = time.perf_counter()
    take()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started
