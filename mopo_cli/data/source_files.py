"""The source of a user's own files: HDF5, NPZ, CSV or Parquet."""

import os
from dataclasses import replace
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


def _fetch(name: DatasetName, settings: FetchData, work: Work) -> Dataset:
    """A file that is D4RL's to the byte is read as that set. UsageError if --env names another environment than it."""
    from mopo_cli.data.d4rl import load_d4rl
    from mopo_cli.data.d4rl_files import identify
    from mopo_cli.data.scores import d4rl_environment

    assert name.path is not None
    dataset_id = None if settings.columns else identify(work.sha256["source"])
    if dataset_id is None:
        return _load(name.path, settings, work)
    if settings.env_kwargs is not None:
        raise UsageError(
            f"--env-kwargs contradicts {name.path}, which is D4RL's {dataset_id}.", hint="leave --env-kwargs out"
        )
    if settings.env not in (None, d4rl_environment(dataset_id)):
        raise UsageError(
            f"--env {settings.env} contradicts {name.path}, which is D4RL's {dataset_id}, logged in "
            f"{d4rl_environment(dataset_id)}.",
            hint="leave --env out",
        )
    work.say(f"{name.path} is D4RL's {dataset_id}")
    return load_d4rl(name.path, dataset_id)


def _load(path: Path, settings: FetchData, work: Work) -> Dataset:
    from mopo_cli.data.column_map import parse_column_map
    from mopo_cli.data.local import load_local
    from mopo_cli.data.spaces import OpenedId, environment_fields, spaces_for_columns
    from mopo_cli.evaluation.dict_observations import in_order

    sha256, kwargs = work.sha256["source"], settings.env_kwargs or {}
    if settings.env is None:
        return load_local(path, None, sha256, settings.columns)
    names = parse_column_map(settings.columns).columns.get("observations", ())
    spaces = spaces_for_columns(settings.env, kwargs, names)
    transitions, info = load_local(path, OpenedId.of(settings.env, spaces), sha256, settings.columns)
    fields = environment_fields(settings.env, spaces.action_low, spaces.action_high, kwargs)
    fields |= {"env_kwargs": kwargs, "obs_entries": spaces.entries}
    order = f"; in {settings.env}: {in_order(spaces.entries)}" if spaces.entries else ""
    return transitions, replace(info, **fields, source=info.source + order)


SOURCE = Source(
    _parse,
    _fetch,
    "./file.h5",
    settings=frozenset({"env", "env_kwargs", "columns"}),
    files=_files,
    is_here=lambda _name: True,
)
