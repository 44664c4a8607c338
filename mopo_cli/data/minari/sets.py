"""Minari's datasets on this machine: where they lie, which there are, and what their metadata say."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mopo_cli.errors import CorruptError, InputError
from mopo_cli.store.atomic import read_json

METADATA, HDF5_FILE = "metadata.json", "main_data.hdf5"
_FORMATS = ("hdf5", "arrow", "parquet")
# A namespace of namespaces is not deeper; a link that leads back into itself ends here.
_DEEPEST = 8
_HUB_NOTES = Path(".cache", "huggingface", "download")


@dataclass(frozen=True)
class MinariSet:
    """A dataset that is here: the folder of its data, and its metadata with the counts checked."""

    dataset_id: str
    data: Path
    data_format: str
    episodes: int
    steps: int
    metadata: dict[str, Any]


def minari_root() -> Path:
    """Where Minari keeps datasets: $MINARI_DATASETS_PATH, else ~/.minari/datasets. It need not exist."""
    named = os.environ.get("MINARI_DATASETS_PATH")
    return Path(named) if named else Path.home() / ".minari" / "datasets"


def is_here(dataset_id: str) -> bool:
    """Whether there is anything at the dataset's place, whole or not."""
    return (minari_root() / dataset_id).exists()


def is_begun(dataset_id: str) -> bool:
    """Whether what is here is the beginning of a download, by the notes that the Hugging Face client keeps."""
    space, _, rest = dataset_id.partition("/")
    noted = (minari_root() / space / _HUB_NOTES / rest).is_dir()
    return noted and _lacks(_data_folder(dataset_id)) is not None


def is_missing(dataset_id: str) -> bool:
    """Whether the dataset has to be downloaded first, or on."""
    return not is_here(dataset_id) or is_begun(dataset_id)


def source_files(dataset_id: str) -> dict[str, Path]:
    """The files of a set that is here, by role; of one in many files, its metadata."""
    data = _data_folder(dataset_id)
    places = {f"source/{name}": data / name for name in (METADATA, HDF5_FILE)}
    return {role: path for role, path in places.items() if path.is_file()}


def local_sets() -> Iterator[str]:
    """The ids of the datasets that lie under Minari's root, sorted, damaged ones among them."""
    yield from _search(minari_root(), "", _DEEPEST)


def _search(folder: Path, dataset_id: str, depth: int) -> Iterator[str]:
    try:
        names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    except OSError:
        return
    if dataset_id and "data" in names:
        yield dataset_id
        return
    for name in names if depth else ():
        if not name.startswith("."):
            yield from _search(folder / name, f"{dataset_id}/{name}".lstrip("/"), depth - 1)


def open_set(dataset_id: str) -> MinariSet:
    """The dataset of that id under Minari's root; only its metadata are read.

    Raises InputError when it is not here or cannot be read, CorruptError when it is incomplete or damaged,
    each with what mends it.
    """
    data = _data_folder(dataset_id)
    if not is_here(dataset_id):
        raise InputError(f"The Minari set {dataset_id} is not under {minari_root()}.")
    if lacking := _lacks(data):
        raise CorruptError(
            f"The Minari set in {data.parent} is incomplete: it has no data/{lacking}.", mend(dataset_id)
        )
    try:
        metadata = read_json(data / METADATA)
    except CorruptError as error:
        raise CorruptError(error.message, mend(dataset_id)) from error
    episodes, steps, data_format = (
        _field(metadata, name, kind, data, dataset_id)
        for name, kind in (("total_episodes", int), ("total_steps", int), ("data_format", str))
    )
    if metadata.get("dataset_id") != dataset_id:
        raise InputError(
            f"{data / 'metadata.json'} names the set {metadata.get('dataset_id')!r}, not {dataset_id!r}.",
            hint="rename the folder, or use the name in its metadata",
        )
    if data_format not in _FORMATS:
        raise InputError(
            f"The Minari set in {data.parent} is stored as {data_format!r}; known formats are {', '.join(_FORMATS)}."
        )
    return MinariSet(dataset_id, data, data_format, episodes, steps, metadata)


def stored_environment(metadata: dict[str, Any]) -> str | None:
    """The id of the environment that a set says it was logged in; None where it says none."""
    try:
        env_id = json.loads(metadata["env_spec"])["id"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    return env_id if isinstance(env_id, str) else None


def mend(dataset_id: str) -> str:
    """What to do about a set that is damaged. Nothing of Minari's is ever removed from here."""
    return (
        f"move {minari_root() / dataset_id} away and run the same command again to download it; "
        "a set of your own must be created again"
    )


def _data_folder(dataset_id: str) -> Path:
    return minari_root() / dataset_id / "data"


def _lacks(data: Path) -> str | None:
    """The file that is missing, of those that the set cannot be read without."""
    if not (data / METADATA).is_file():
        return METADATA
    try:
        is_hdf5 = read_json(data / METADATA)["data_format"] == "hdf5"
    except (CorruptError, KeyError, TypeError):
        return None  # whoever opens the set says what is wrong with it
    return HDF5_FILE if is_hdf5 and not (data / HDF5_FILE).is_file() else None


def _field(metadata: Any, name: str, kind: type, data: Path, dataset_id: str) -> Any:
    value = metadata.get(name) if isinstance(metadata, dict) else None
    if type(value) is not kind or (isinstance(value, int) and value < 1):
        raise CorruptError(f"{data / 'metadata.json'} has no valid field {name}.", mend(dataset_id))
    return value
