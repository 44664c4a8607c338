"""Metrics sinks without a library: one that keeps what it gets, and one that fails."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mopo_cli.report.sink import Curves, Values

Rows = list[tuple[int, str, float]]
"""Numbers by epoch and name."""


class Memory:
    """A sink as one would add it; `attempts` are all that were made."""

    library = "json"
    where = "in memory"
    attempts: list["Memory"]

    def __init__(self, folder: Path, curves: Curves) -> None:
        print("a library that is talkative")
        print("on both streams", file=sys.stderr)
        self.folder, self.curves, self.closed = folder, curves, False
        self.logged: list[tuple[str, int, dict[str, float]]] = []
        self.attempts.append(self)

    def log(self, member: str, epochs: Mapping[int, Values]) -> None:
        assert not self.closed
        print("an epoch")
        self.logged += [(member, epoch, dict(values)) for epoch, values in epochs.items()]

    def close(self) -> None:
        print("goodbye")
        self.closed = True

    def of(self, member: str) -> dict[int, dict[str, float]]:
        """What a member logged by epoch; none may come twice or before an earlier one."""
        epochs = [epoch for name, epoch, _ in self.logged if name == member]
        assert epochs == sorted(set(epochs))
        return {epoch: values for name, epoch, values in self.logged if name == member}


class Failing(Memory):
    """Fails where it is made, at the second epoch of a member, or where it is closed: as `moment` says."""

    moment = "log"

    def __init__(self, folder: Path, curves: Curves) -> None:
        super().__init__(folder, curves)
        if self.moment == "make":
            raise OSError(28, "No space left on device")

    def log(self, member: str, epochs: Mapping[int, Values]) -> None:
        super().log(member, epochs)
        if self.moment == "log" and len(self.of(member)) > 1:
            raise ValueError("the second epoch\nis too much")

    def close(self) -> None:
        super().close()
        if self.moment == "close":
            raise RuntimeError


def numbers(path: Path) -> dict[int, dict[str, float]]:
    """What a sink should get of a metrics.jsonl, by epoch."""
    records: list[dict[str, Any]] = [json.loads(line) for line in path.read_text().splitlines()]
    return {record.pop("epoch"): dict(_flat(record)) for record in records}


def _flat(record: dict[str, Any]) -> Any:
    for name, value in record.items():
        if isinstance(value, dict):
            for seed, networks in value.items():
                yield from ((f"{name}/seed-{seed}/network-{n}", number) for n, number in enumerate(networks))
        elif value is not None:
            yield name, float(value)


def tensorboard_rows(folder: Path) -> dict[str, Rows]:
    """The scalars in event files under a folder, by the path of each folder in it."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    rows = {}
    for place in {file.parent for file in folder.rglob("events.out.tfevents.*")}:
        events = EventAccumulator(str(place), {"scalars": 0})
        events.Reload()
        tags = events.Tags()["scalars"]
        rows[str(place.relative_to(folder))] = [(e.step, tag, e.value) for tag in tags for e in events.Scalars(tag)]
    return rows
