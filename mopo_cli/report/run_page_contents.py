"""What a page about a run is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mopo_cli.report.page import note

if TYPE_CHECKING:
    from mopo_cli.data.statistics import DatasetStatistics
    from mopo_cli.store.lineage import StageRecord

Curve = Mapping[int, Sequence[Mapping[str, float | None]]]
"""The epochs of every seed."""


@dataclass(frozen=True)
class Actions:
    """Logged actions `[n, A]` and, by seed, what the policy does in the same states `[n, A]`; bounds `[A]`, names."""

    names: Sequence[str]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    logged: NDArray[np.float64]
    chosen: Mapping[int, NDArray[np.float64]]


@dataclass(frozen=True)
class Contents:
    """What a page is made of: the records of run.json by stage, and what is there of the files that they name.

    ``documents`` are the JSON files by the stage that wrote them; ``curves`` the epochs of every seed and ``actions``
    what the policies do, both by the policy's name; ``missing`` says what could not be read, a sentence each.
    """

    name: str
    records: Mapping[str, StageRecord]
    statistics: DatasetStatistics | None = None
    documents: Mapping[str, Any] = field(default_factory=dict)
    curves: Mapping[str, Curve] = field(default_factory=dict)
    actions: Mapping[str, Actions] = field(default_factory=dict)
    missing: Sequence[str] = ()

    def of(self, stage: str, last: str = "") -> dict[str, Any]:
        """The documents of ``stage``/NAME, or of ``stage``/NAME/``last``…, by NAME and what follows it."""
        names = {key: key.split("/") for key in self.documents}
        return {
            "/".join(parts[1:]): self.documents[key]
            for key, parts in names.items()
            if parts[0] == stage and (parts[2:] == [] if not last else parts[2:] and parts[2].startswith(last))
        }

    def stale(self, key: str) -> list[str]:
        """A note where something that the stage was made from has been made again since."""
        present = {file["path"]: file["sha256"] for record in self.records.values() for file in record.outputs.values()}
        used = self.records[key].inputs.values()
        changed = sorted(file["path"] for file in used if present.get(file["path"], file["sha256"]) != file["sha256"])
        return [note(f"Out of date: made from an earlier version of {', '.join(changed)}.")] if changed else []
