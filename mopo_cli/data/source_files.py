"""The source of a user's own files: HDF5, NPZ, CSV or Parquet."""

import os
from pathlib import Path

from mopo_cli.config.schema import FetchData
from mopo_cli.data.source import Dataset, DatasetName, Source, Work
from mopo_cli.errors import InputError, UsageError
from mopo_cli.store.files import expand
from mopo_cli.store.run import DATA_FILES


def _parse(name: str) -> DatasetName | None:
    if not name.lower().endswith(DATA_FILES) and "/" not in name and os.sep not in name:
        return None
    path = expand(name)
    return DatasetName("local", path.name, path=path)


def _files(name: DatasetName, settings: FetchData) -> dict[str, Path]:
    from mopo_cli.data.column_map import map_file

    assert name.path is not None
    if not name.path.is_file():
        raise InputError(
            f"The dataset file {name.path} does not exist or is not a file.",
            hint="mopo fetch-data --dataset ./file.h5 --env ENV-ID",
        )
    column_map = map_file(settings.columns)
    return {"source": name.path} | ({} if column_map is None else {"columns": column_map})


def d4rl_set(sha256: str, columns: str | None) -> str | None:
    """The D4RL set that a file with this hash is to the byte, None for any other; with a column map it is another."""
    from mopo_cli.data.d4rl_files import identify

    return None if columns else identify(sha256)


def _fetch(name: DatasetName, settings: FetchData, work: Work) -> Dataset:
    """A file that is D4RL's to the byte is read as that set. UsageError if --env names another environment than it."""
    from mopo_cli.data.d4rl import load_d4rl
    from mopo_cli.data.local import load_local
    from mopo_cli.data.scores import d4rl_environment

    assert name.path is not None
    dataset_id = d4rl_set(work.sha256["source"], settings.columns)
    if dataset_id is None:
        return load_local(name.path, settings.env, work.sha256["source"], settings.columns)
    if settings.env not in (None, d4rl_environment(dataset_id)):
        raise UsageError(
            f"--env {settings.env} contradicts {name.path}, which is D4RL's {dataset_id}, logged in "
            f"{d4rl_environment(dataset_id)}.",
            hint="leave --env out",
        )
    work.say(f"{name.path} is D4RL's {dataset_id}")
    return load_d4rl(name.path, dataset_id)


SOURCE = Source(
    _parse,
    _fetch,
    "./file.h5",
    settings=frozenset({"env", "columns"}),
    files=_files,
    is_here=lambda _name: True,
)
