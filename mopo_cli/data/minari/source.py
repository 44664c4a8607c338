"""The source of Minari's sets: those on this machine, and those of its server."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mopo_cli.config.schema_data import FetchData
from mopo_cli.data.source import Dataset, DatasetName, Entry, Source, Work
from mopo_cli.errors import CorruptError, InputError, UsageError

_SCHEME = "minari:"
_ID = r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]*/)*[A-Za-z0-9_][A-Za-z0-9_.-]*-v\d+"
_EXAMPLE = "minari:mujoco/walker2d/medium-v0"


def _parse(name: str) -> DatasetName | None:
    if not name.startswith(_SCHEME):
        return None
    if not re.fullmatch(_ID, _id(name)) or ".." in name:
        raise InputError(
            f"The dataset {name!r} must be written minari:NAMESPACE/NAME-vN.", hint=f"--dataset {_EXAMPLE}"
        )
    return DatasetName("minari", name)


def _id(name: str) -> str:
    return name.removeprefix(_SCHEME)


def _files(name: DatasetName, settings: FetchData) -> dict[str, Path]:
    from mopo_cli.data.files.column_map import map_file
    from mopo_cli.data.minari.sets import source_files

    _chosen(name, settings)
    column_map = map_file(settings.columns)
    return source_files(_id(name.dataset_id)) | ({} if column_map is None else {"columns": column_map})


def _chosen(name: DatasetName, settings: FetchData) -> tuple[str, ...]:
    """The entries of the observations that --columns names. UsageError where it names anything else."""
    from mopo_cli.data.files.column_map import parse_column_map

    column_map = parse_column_map(settings.columns)
    if column_map.columns.keys() - {"observations"} or column_map.action_low is not None:
        raise UsageError(
            f"--columns of {name.dataset_id} can only be obs=ENTRY+ENTRY, as a Minari set says itself what its other "
            "columns are.",
            hint="--columns 'obs=observation+desired_goal'",
        )
    return column_map.columns.get("observations", ())


def _download(name: DatasetName, work: Work) -> None:
    """Raises InputError for an id that the server does not have, NetworkError for a failed download.

    After Stopped, the same command resumes the download.
    """
    from mopo_cli.data.minari import remote
    from mopo_cli.data.minari.sets import minari_root

    if not _is_here(name):
        work.say(f"Downloading {name.dataset_id} to {minari_root()}")
        with work.progress(name.dataset_id, None, in_bytes=True) as count:
            remote.download(_id(name.dataset_id), count)


def _fetch(name: DatasetName, settings: FetchData, work: Work) -> Dataset:
    from mopo_cli.data.minari.load import load_minari
    from mopo_cli.data.minari.sets import open_set

    dataset_id = _id(name.dataset_id)
    with work.progress(f"reading {name.dataset_id}", open_set(dataset_id).steps) as count:
        return load_minari(dataset_id, count, settings.env, settings.env_kwargs, _chosen(name, settings))


def _is_here(name: DatasetName) -> bool:
    from mopo_cli.data.minari.sets import is_missing

    return not is_missing(_id(name.dataset_id))


def _entries(_fetched: set[str], remote: bool) -> Iterator[Entry]:
    """Raises NetworkError, and only with ``remote``."""
    from mopo_cli.data.minari.sets import local_sets

    here = list(local_sets())
    yield from map(_local_entry, here)
    if remote:
        yield from _remote_entries(set(here))


def _local_entry(dataset_id: str) -> Entry:
    from mopo_cli.data.minari.sets import minari_root, open_set, stored_environment

    name, folder = f"{_SCHEME}{dataset_id}", minari_root() / dataset_id
    try:
        minari_set = open_set(dataset_id)
    except (InputError, CorruptError) as error:
        return Entry("minari", name, path=str(folder), note=error.message)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    env_id = stored_environment(minari_set.metadata)
    return Entry("minari", name, env_id, minari_set.steps, size, here=True, path=str(folder))


def _remote_entries(here: set[str]) -> Iterator[Entry]:
    from mopo_cli.data.minari import remote
    from mopo_cli.data.minari.sets import stored_environment

    for dataset_id, metadata in sorted(remote.remote_sets().items()):
        megabytes = _number(metadata.get("dataset_size"))
        yield Entry(
            "minari-remote",
            f"{_SCHEME}{dataset_id}",
            stored_environment(metadata),
            _number(metadata.get("total_steps")),
            None if megabytes is None else int(megabytes * 1e6),
            here=dataset_id in here,
        )


def _number(value: Any) -> Any:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


SOURCE = Source(
    _parse,
    _fetch,
    _EXAMPLE,
    # Which of them a set allows shows when it is opened.
    settings=frozenset({"env", "env_kwargs", "columns"}),
    files=_files,
    download=_download,
    is_here=_is_here,
    titles={"minari": "Minari, on this machine", "minari-remote": "Minari, to be downloaded"},
    entries=_entries,
)
