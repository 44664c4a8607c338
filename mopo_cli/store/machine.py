"""What the machine, or the container that this process is in, has to give."""

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def cpu_count() -> int:
    """The CPUs that this process may use, or the whole ones of its container's quota if these are fewer."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = (_CGROUP / "cpu.max").read_text().split()
        return cpus if quota == "max" else max(1, min(cpus, int(quota) // int(period)))
    except (OSError, ValueError):
        return cpus


def total_memory() -> int:
    """Bytes of memory of the machine, or of its container if fewer."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(machine, int((_CGROUP / "memory.max").read_text()))
    except (OSError, ValueError):  # "max"
        return machine


def free_memory() -> int | None:
    """Bytes that a process can still take: those of the machine, or of its container if fewer; None where unknown."""
    amounts = [free for free in (_free_of_machine(), _free_of_container()) if free is not None]
    return min(amounts, default=None)


def _free_of_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        # Elsewhere what is free is not told, only what there is.
        names = ("SC_PHYS_PAGES", "SC_PAGE_SIZE")
        return os.sysconf(names[0]) * os.sysconf(names[1]) if set(names) <= set(os.sysconf_names) else None


def _free_of_container() -> int | None:
    try:
        limit, used, parts = ((_CGROUP / f"memory.{name}").read_text().strip() for name in ("max", "current", "stat"))
    except OSError:
        return None
    if limit == "max":
        return None
    # Files read lately count as used, and give way to whoever needs the room.
    files = dict(line.split() for line in parts.splitlines()).get("inactive_file", "0")
    return int(limit) - int(used) + int(files)
