"""The list of known datasets: those fetched already, and those of every source."""

from collections.abc import Iterator
from fnmatch import fnmatchcase

from mopo_cli.data.registry import SOURCES
from mopo_cli.data.source import Entry
from mopo_cli.errors import CorruptError, InputError
from mopo_cli.store.documents import CachedDataset, read_document
from mopo_cli.store.run import cache_dir

KINDS = {"fetched": "Fetched already, in mopo's cache"} | {
    kind: title for source in SOURCES.values() for kind, title in source.titles.items()
}
"""The kinds of entries with their titles, in the order of the list."""


def catalogue(pattern: str | None = None, remote: bool = False) -> list[Entry]:
    """The known datasets that match ``pattern``, by kind and name; with ``remote`` also those on a server.

    A pattern with ``*``, ``?`` or ``[`` is a glob for the whole name, another one a part of it; names are those
    of the dataset and its environment, and case does not count. Raises NetworkError, and only with ``remote``.
    """
    entries = list(_fetched())
    ids = {entry.name for entry in entries}
    for source in SOURCES.values():
        entries += source.entries(ids, remote)
    return [entry for entry in entries if _matches(entry, pattern)]


def _matches(entry: Entry, pattern: str | None) -> bool:
    wanted = (pattern or "").lower()
    names = [name.lower() for name in (entry.name, entry.environment or "", *entry.aliases)]
    if any(mark in wanted for mark in "*?["):
        return any(fnmatchcase(name, wanted) for name in names)
    return any(wanted in name for name in names)


def _fetched() -> Iterator[Entry]:
    """The files in the cache without damaged ones, which fetch-data makes anew."""
    for sidecar in sorted((cache_dir() / "datasets").glob("*/dataset.json")):
        path = sidecar.with_name("dataset.h5")
        try:
            recorded = read_document(sidecar, CachedDataset)
            size = path.stat().st_size
        except (OSError, InputError, CorruptError):
            continue
        note = str(recorded.get("source", ""))
        yield Entry("fetched", recorded["dataset_id"], bytes=size, here=True, path=str(path), note=note)
