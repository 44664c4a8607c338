"""The datasets that are known: fetched already, D4RL's, Minari's, and those that can be generated."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from mopo_cli.data.d4rl_files import downloads_dir, table
from mopo_cli.data.minari_sets import local_sets, minari_root, open_set, stored_environment
from mopo_cli.data.registry import LEVELS, TASKS, parse_dataset
from mopo_cli.errors import CorruptError, InputError
from mopo_cli.store.documents import CachedDataset, read_document
from mopo_cli.store.run import cache_dir

KINDS = {
    "fetched": "Fetched already, in mopo's cache",
    "minari": "Minari, on this machine",
    "minari-remote": "Minari, to be downloaded",
    "d4rl": "D4RL, to be downloaded",
    "generate": "Generated here",
}
"""The kinds of entries, in the order they are listed, and what each is called."""

# Any environment of flat boxes can be named; these are the usual ones.
_EXAMPLES = (
    "Hopper-v5",
    "HalfCheetah-v5",
    "Walker2d-v5",
    "Ant-v5",
    "Humanoid-v5",
    "InvertedPendulum-v5",
    "InvertedDoublePendulum-v5",
    "Pendulum-v1",
)


@dataclass(frozen=True)
class Entry:
    """One dataset, or for ``generate`` a family of them; None where a thing is not known."""

    kind: str
    """One of KINDS."""
    name: str
    """What --dataset takes."""
    environment: str | None = None
    transitions: int | None = None
    bytes: int | None = None
    here: bool = False
    """Whether it can be had without a network."""
    path: str | None = None
    note: str = ""
    aliases: tuple[str, ...] = ()
    """Other names that a pattern may mean."""


def catalogue(pattern: str | None = None, remote: bool = False) -> list[Entry]:
    """What is known and matches ``pattern``, by kind and name; with ``remote`` also what Minari's server has.

    A pattern with ``*``, ``?`` or ``[`` is a glob for the whole name, another one a part of it; names are those
    of the dataset and its environment, and case does not count. Raises NetworkError, and only with ``remote``.
    """
    fetched = list(_fetched())
    known: list[Iterable[Entry]] = [fetched, _minari_here(), _d4rl({entry.name for entry in fetched}), _generated()]
    if remote:
        known.insert(2, _minari_remote())
    return [entry for entries in known for entry in entries if _matches(entry, pattern)]


def _matches(entry: Entry, pattern: str | None) -> bool:
    wanted = (pattern or "").lower()
    names = [name.lower() for name in (entry.name, entry.environment or "", *entry.aliases)]
    if any(mark in wanted for mark in "*?["):
        return any(fnmatchcase(name, wanted) for name in names)
    return any(wanted in name for name in names)


def _fetched() -> Iterator[Entry]:
    """The files in the cache; of those that are damaged, fetch-data makes new ones."""
    for sidecar in sorted((cache_dir() / "datasets").glob("*/dataset.json")):
        path = sidecar.with_name("dataset.h5")
        try:
            recorded = read_document(sidecar, CachedDataset)
            size = path.stat().st_size
        except (OSError, InputError, CorruptError):
            continue
        note = str(recorded.get("source", ""))
        yield Entry("fetched", recorded["dataset_id"], bytes=size, here=True, path=str(path), note=note)


def _minari_here() -> Iterator[Entry]:
    for dataset_id in local_sets():
        folder = minari_root() / dataset_id
        try:
            found = open_set(dataset_id)
        except (InputError, CorruptError) as error:
            yield Entry("minari", f"minari:{dataset_id}", path=str(folder), note=error.message)
            continue
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        env_id = stored_environment(found.metadata)
        yield Entry("minari", f"minari:{dataset_id}", env_id, found.steps, size, here=True, path=str(folder))


def _minari_remote() -> Iterator[Entry]:
    from mopo_cli.data.minari_remote import remote_sets

    here = set(local_sets())
    for dataset_id, metadata in sorted(remote_sets().items()):
        megabytes = _number(metadata.get("dataset_size"))
        yield Entry(
            "minari-remote",
            f"minari:{dataset_id}",
            stored_environment(metadata),
            _number(metadata.get("total_steps")),
            None if megabytes is None else int(megabytes * 1e6),
            here=dataset_id in here,
        )


def _d4rl(fetched: set[str]) -> Iterator[Entry]:
    for dataset_id, file in table().items():
        copy = downloads_dir() / file.name
        here = dataset_id in fetched or (copy.is_file() and copy.stat().st_size == file.size)
        aliases = (dataset_id.replace("medium-replay", "mixed"),)
        env_id = parse_dataset(dataset_id).env_id
        yield Entry("d4rl", dataset_id, env_id, bytes=file.size, here=here, aliases=aliases)


def _generated() -> Iterator[Entry]:
    for task in TASKS:
        yield Entry("generate", task, parse_dataset(task).env_id, here=True, note="a task of the MOPO paper")
    for env_id in _EXAMPLES:
        names = tuple(f"generate:{env_id}:{level}" for level in LEVELS)
        note = f"LEVEL: {', '.join(LEVELS)}"
        yield Entry("generate", f"generate:{env_id}:LEVEL", env_id, here=True, note=note, aliases=names)


def _number(value: Any) -> Any:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
