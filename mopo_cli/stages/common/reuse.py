"""Policies that a run holds already, whichever stage trained them: a cell with equal settings takes them over."""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mopo_cli.errors import CorruptError, InputError
from mopo_cli.store.atomic import publish, sha256_file
from mopo_cli.store.documents import CELL, Files, Timing, read_document
from mopo_cli.store.lineage import StageRecord, hashes, read_lineage
from mopo_cli.store.publication import Publication
from mopo_cli.store.run import RunFolder

FILES = ("policy.safetensors", "metrics.jsonl")
"""What there is of every seed; of some algorithms there is more, see `files_of`."""

TIMING = "timing.json"
"""How long a seed took: it goes along with the others, but is neither compared nor required."""

_ROLE = re.compile(r"[^/]+/seed-\d{1,19}")

Hashes = dict[str, str]
"""SHA-256 by role, or by file name."""


@dataclass(frozen=True)
class StoredPolicy:
    """One seed's policy: what it was trained with and on, its folder, and the hashes of its files."""

    settings: dict[str, Any]
    inputs: Hashes
    seed: int
    folder: Path
    files: Hashes

    def take_over(self, out: Publication, folder: Path) -> bool:
        """Stage a copy of the files, and how long they took, for ``folder``, unless they are not what was recorded."""
        if not has_files(self.folder, self.files):
            return False
        if folder != self.folder:
            out.remove(folder / TIMING)
            for name in (*self.files, *([TIMING] if (self.folder / TIMING).is_file() else [])):
                with publish(out.stage(folder / name)) as temporary:
                    temporary.write_bytes((self.folder / name).read_bytes())
        keep_only(out, folder, self.files)
        return True


def has_files(folder: Path, files: Hashes) -> bool:
    """Whether a folder has these files, by their names in it, as they were recorded."""
    paths = {folder / name: digest for name, digest in files.items()}
    return all(path.is_file() and sha256_file(path) == digest for path, digest in paths.items())


def files_of(out: Publication, folder: Path) -> list[str]:
    """The names of the files of one seed: `FILES`, and the weights that its algorithm publishes beside the policy."""
    return [*FILES, *sorted(name for name in out.names(folder) - {*FILES} if name.endswith(".safetensors"))]


def wall_seconds(folder: Path) -> float | None:
    """How long the seed in ``folder`` took to train [s], of a stack its equal share; None where nothing tells."""
    try:
        return float(read_document(folder / TIMING, Timing)["wall_seconds"])
    except (InputError, CorruptError):
        return None


def keep_only(out: Publication, folder: Path, names: Collection[str]) -> None:
    """Remove all weights but those of these names: they went with a policy that was in the folder before."""
    for path in folder.glob("*.safetensors"):
        if path.name not in names:
            out.remove(path)


def stored_policies(run: RunFolder) -> list[StoredPolicy]:
    """Every seed's policy in the run: of train-policy, and of the cells of its ablations."""
    policies = [stored for key, record in read_lineage(run).items() for stored in _of_record(run, key, record)]
    for description in sorted(run.root.glob("ablations/*/cells/*/cell.json")):
        policies += of_cell(description)
    return policies


def read_cell(description: Path) -> dict[str, Any] | None:
    """The content of a cell.json; None where it is damaged, or was written before cells were taken over."""
    try:
        recorded: dict[str, Any] = read_document(description, CELL)
    except CorruptError:
        return None
    return recorded


def of_cell(description: Path) -> list[StoredPolicy]:
    """The seeds' policies that a cell.json names; none where it is damaged."""
    recorded = read_cell(description)
    if recorded is None:
        return []
    seeds: dict[str, Hashes] = {}
    for place, digest in recorded["files"].items():
        seed, _, file = place.partition("/")
        seeds.setdefault(seed, {})[file] = digest
    settings, inputs, folder = recorded["settings"], recorded["inputs"], description.parent
    return [StoredPolicy(settings, inputs, _number(seed), folder / seed, files) for seed, files in seeds.items()]


def _of_record(run: RunFolder, key: str, record: StageRecord) -> Iterator[StoredPolicy]:
    if not key.startswith("train-policy/"):
        return
    inputs = hashes(record.inputs)
    seeds: dict[str, Files] = {}
    for role, file in record.outputs.items():
        if _ROLE.fullmatch(role):
            seeds.setdefault(role.partition("/")[2], {})[Path(file["path"]).name] = file
    for seed, files in seeds.items():
        if {*FILES} <= files.keys():
            folder = (run.root / files[FILES[0]]["path"]).parent
            yield StoredPolicy(record.settings, inputs, _number(seed), folder, hashes(files))


def _number(seed: str) -> int:
    return int(seed.removeprefix("seed-"))
