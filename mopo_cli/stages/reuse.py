"""Policies that a run holds already, whichever stage trained them: a cell with equal settings takes them over."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mopo_cli.stages.runner import same_settings
from mopo_cli.store.atomic import publish, read_json, sha256_file
from mopo_cli.store.lineage import StageRecord, read_lineage
from mopo_cli.store.run import RunFolder

FILES = ("policy.safetensors", "metrics.jsonl")
"""What there is of every seed."""

# A seed's policy depends neither on what it is called nor on what was trained beside it.
_NAMES = ("method", "name")
_SEEDS = ("seeds", "seed_list")

Hashes = dict[str, str]
"""SHA-256 by role, or by file name."""


@dataclass(frozen=True)
class Held:
    """One seed's policy: what it was trained with and on, its folder, and the hashes of its files."""

    settings: dict[str, Any]
    inputs: Hashes
    seed: int
    folder: Path
    files: Hashes

    def take_over(self, folder: Path) -> bool:
        """Copy the files to ``folder``, unless they are not what was recorded."""
        if any(self._digest(name) != digest for name, digest in self.files.items()):
            return False
        for name in self.files:
            if folder / name != self.folder / name:
                with publish(folder / name) as temporary:
                    temporary.write_bytes((self.folder / name).read_bytes())
        return True

    def _digest(self, name: str) -> str | None:
        path = self.folder / name
        return sha256_file(path) if path.is_file() else None


def held_policies(run: RunFolder) -> list[Held]:
    """Every seed's policy in the run: of train-policy, and of the cells of its ablations."""
    found = [held for key, record in read_lineage(run).items() for held in _of_record(run, key, record)]
    for description in sorted(run.root.glob("ablations/*/cells/*/cell.json")):
        found += of_cell(description)
    return found


def of_cell(description: Path) -> list[Held]:
    """The seeds' policies that a cell.json tells of."""
    recorded = read_json(description)
    if not {"settings", "inputs", "files"} <= set(recorded):  # written before cells were taken over
        return []
    seeds: dict[str, Hashes] = {}
    for place, digest in recorded["files"].items():
        seed, _, file = place.partition("/")
        seeds.setdefault(seed, {})[file] = digest
    settings, inputs, folder = recorded["settings"], recorded["inputs"], description.parent
    return [Held(settings, inputs, _number(seed), folder / seed, files) for seed, files in seeds.items()]


def same_policy(recorded: dict[str, Any], now: dict[str, Any], *, of_seed: bool = False) -> bool:
    """Whether two settings of train-policy train the same policies; ``of_seed``: the same for a seed of both."""
    return same_settings("train-policy", recorded, now, ignore=(*_NAMES, *(_SEEDS if of_seed else ())))


def _of_record(run: RunFolder, key: str, record: StageRecord) -> Iterator[Held]:
    if not key.startswith("train-policy/"):
        return
    inputs = {role: file["sha256"] for role, file in record.inputs.items()}
    policies = {role.partition("/")[2]: file for role, file in record.outputs.items() if role.startswith("policy/")}
    for seed, policy in policies.items():
        metrics = record.outputs.get(f"metrics/{seed}")
        if metrics is not None:
            files = dict(zip(FILES, (policy["sha256"], metrics["sha256"]), strict=True))
            folder = (run.root / policy["path"]).parent
            yield Held(record.settings, inputs, _number(seed), folder, files)


def _number(seed: str) -> int:
    return int(seed.removeprefix("seed-"))
