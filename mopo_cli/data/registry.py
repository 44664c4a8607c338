"""The table of sources, what a dataset's name means, and the list of known datasets."""

import difflib
from collections.abc import Iterator
from fnmatch import fnmatchcase

from mopo_cli.data import source_d4rl, source_generated
from mopo_cli.data.files import source_files
from mopo_cli.data.minari import source as source_minari
from mopo_cli.data.source import DatasetName, Entry, Source
from mopo_cli.errors import CorruptError, InputError
from mopo_cli.store.documents import CachedDataset, read_document
from mopo_cli.store.run import cache_dir

# To add a source, add a line. Files come last: any name with a slash is a path.
SOURCES: dict[str, Source] = {
    "minari": source_minari.SOURCE,
    "d4rl": source_d4rl.SOURCE,
    "generate": source_generated.SOURCE,
    "local": source_files.SOURCE,
}
"""The sources, by the kind of their names; the first that knows a name has it."""

KINDS = {"fetched": "Fetched already, in mopo's cache"} | {
    kind: title for source in SOURCES.values() for kind, title in source.titles.items()
}
"""The kinds of entries with their titles, in the order of the list."""


def parse_dataset(name: str) -> DatasetName:
    """The dataset that ``name`` means; nothing is opened or fetched.

    Raises InputError for an unknown name, with the closest known one.
    """
    for source in SOURCES.values():
        if (parsed := source.parse(name)) is not None:
            return parsed
    close = difflib.get_close_matches(name, [each for source in SOURCES.values() for each in source.names], n=1)
    suggestion = f"; did you mean {close[0]!r}?" if close else "."
    examples = ", ".join(source.example for source in SOURCES.values())
    raise InputError(f"The dataset {name!r} is not known{suggestion}", hint=f"a name such as {examples}")


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
    """The files in the cache without damaged ones, which fetch-data makes again."""
    for sidecar in sorted((cache_dir() / "datasets").glob("*/dataset.json")):
        path = sidecar.with_name("dataset.h5")
        try:
            recorded = read_document(sidecar, CachedDataset)
            size = path.stat().st_size
        except (OSError, InputError, CorruptError):
            continue
        note = str(recorded.get("source", ""))
        yield Entry("fetched", recorded["dataset_id"], bytes=size, here=True, path=str(path), note=note)
