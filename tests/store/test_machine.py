"""A container's limits count where they are below those of the machine."""

import os
from pathlib import Path

import pytest

from mopo_cli.store import machine

GB = 10**9


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a container's limits, on a machine of eight CPUs and 64 GB."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4000, "SC_PHYS_PAGES": 64 * GB // 4000}.__getitem__)
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    return tmp_path


def test_a_machine_without_limits(cgroup: Path) -> None:
    assert (machine.cpu_count(), machine.total_memory()) == (8, 64 * GB)


@pytest.mark.parametrize(
    ("quota", "cpus"), [("max 100000", 8), ("400000 100000", 4), ("50000 100000", 1), ("1600000 100000", 8), ("", 8)]
)
def test_a_quota_of_cpus(quota: str, cpus: int, cgroup: Path) -> None:
    (cgroup / "cpu.max").write_text(quota + "\n")
    assert machine.cpu_count() == cpus


@pytest.mark.parametrize(
    ("limit", "total"), [("max", 64 * GB), (str(8 * GB), 8 * GB), (str(256 * GB), 64 * GB), ("", 64 * GB)]
)
def test_a_limit_of_memory(limit: str, total: int, cgroup: Path) -> None:
    (cgroup / "memory.max").write_text(limit + "\n")
    assert machine.total_memory() == total
