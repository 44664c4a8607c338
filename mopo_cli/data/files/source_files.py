"""The source of a user's own files: one, a folder of them, or those that match a pattern."""

import os
from pathlib import Path

from mopo_cli.config.schema_data import FetchData
from mopo_cli.data.files.log_files import is_pattern, log_files, refuse_copies
from mopo_cli.data.source import Dataset, DatasetName, Source, Work
from mopo_cli.errors import UsageError
from mopo_cli.store.files import expand
from mopo_cli.store.run import DATA_FILES, folder_name


def _parse(name: str) -> DatasetName | None:
    if not name.lower().endswith(DATA_FILES) and "/" not in name and os.sep not in name:
        return None
    path = expand(name)
    plain = next((each for each in (path, *path.parents) if not is_pattern(each) or each.exists()), path)
    return DatasetName("local", folder_name(plain), path=path)


def _files(name: DatasetName, settings: FetchData) -> dict[str, Path]:
    from mopo_cli.data.files.column_map import map_file

    assert name.path is not None
    first, *others = log_files(name.path)
    files = {"source": first} | {f"source {i}": path for i, path in enumerate(others, 2)}
    column_map = map_file(settings.columns)
    return files if column_map is None else files | {"columns": column_map}


def d4rl_set(sha256: str, columns: str | None) -> str | None:
    """The D4RL set that a file with this hash is to the byte, None for any other; with a column map it is another."""
    from mopo_cli.data.d4rl_files import identify

    return None if columns else identify(sha256)


def _fetch(name: DatasetName, settings: FetchData, work: Work) -> Dataset:
    """A file that is D4RL's to the byte is read as that set.

    UsageError if --env names another environment than it, InputError for a file that is there twice.
    """
    from mopo_cli.data.d4rl import load_d4rl
    from mopo_cli.data.files.local import load_local
    from mopo_cli.data.files.read_columns import Reading
    from mopo_cli.data.scores import d4rl_environment

    files = {role: path for role, path in _files(name, settings).items() if role != "columns"}
    sha256 = [work.sha256[role] for role in files]
    path, *others = files.values()
    refuse_copies([path, *others], sha256)
    dataset_id = None if others else d4rl_set(sha256[0], settings.columns)
    if dataset_id is None:
        how = Reading(
            settings.columns, settings.layout, settings.missing, settings.reward is not None, settings.env_kwargs or {}
        )
        return load_local([path, *others], settings.env, sha256, how, name.dataset_id)
    if settings.env_kwargs is not None:
        raise UsageError(
            f"--env-kwargs contradicts {path}, which is D4RL's {dataset_id}.", hint="leave --env-kwargs out"
        )
    if settings.env not in (None, d4rl_environment(dataset_id)):
        raise UsageError(
            f"--env {settings.env} contradicts {path}, which is D4RL's {dataset_id}, logged in "
            f"{d4rl_environment(dataset_id)}.",
            hint="leave --env out",
        )
    work.say(f"{path} is D4RL's {dataset_id}")
    return load_d4rl(path, dataset_id)


SOURCE = Source(
    _parse,
    _fetch,
    "./file.h5",
    settings=frozenset({"env", "env_kwargs", "columns", "layout", "missing"}),
    files=_files,
    is_here=lambda _name: True,
)
