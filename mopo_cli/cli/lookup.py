"""The path that the argument of ``mopo show`` means: an existing path, or the file of a dataset's name."""

import re
from pathlib import Path

from mopo_cli.cli.context import fetched
from mopo_cli.data.registry import parse_dataset
from mopo_cli.errors import CorruptError, InputError
from mopo_cli.report import Report
from mopo_cli.store.documents import CachedDataset, read_document
from mopo_cli.store.files import expand
from mopo_cli.store.run import cache_dir, dataset_slug, resolve_run


def find(text: str, report: Report) -> Path:
    """The path ``text``, else the dataset of that name: the one of its run here, else the newest in the cache.

    ``report`` says which file a name stands for. Raises InputError if there is neither.
    """
    path = expand(text)
    if path.exists():
        return path
    if path.name != text and _is_path(text):
        raise InputError(f"{path} does not exist.")
    if (file := _in_run(text)) is not None:
        report.say(f"{text}: {file} (the data of {resolve_run(None, text).root})")
        return file
    if not (cached := _in_cache(text)):
        raise _absent(text)
    newest = max(cached, key=lambda file: (file.stat().st_mtime_ns, str(file)))
    which = f"the newest of {len(cached)} in the cache" if len(cached) > 1 else "from the cache"
    report.say(f"{text}: {newest} ({which})")
    return newest


def _is_path(text: str) -> bool:
    try:
        return parse_dataset(text).path is not None
    except InputError:
        return False


def _in_run(name: str) -> Path | None:
    run = resolve_run(None, name)
    record = fetched(run)
    if record is None or "dataset" not in record.outputs:
        return None
    path = run.root / record.outputs["dataset"]["path"]
    return path if path.is_file() else None


def _in_cache(name: str) -> list[Path]:
    """The cached files that were fetched under this name, or under another one of the same dataset."""
    folder_name = re.compile(re.escape(dataset_slug(name)) + r"-[0-9a-f]{12}")
    try:
        dataset_id = parse_dataset(name).dataset_id
    except InputError:
        dataset_id = name
    files = (cache_dir() / "datasets").glob("*/dataset.h5")
    return [file for file in files if folder_name.fullmatch(file.parent.name) or _is_of(file, dataset_id)]


def _is_of(file: Path, dataset_id: str) -> bool:
    try:
        recorded = read_document(file.with_name("dataset.json"), CachedDataset)
    except (InputError, CorruptError):
        return False
    return bool(recorded["dataset_id"] == dataset_id)


def _absent(text: str) -> InputError:
    try:
        name = parse_dataset(text)
    except InputError as error:
        return InputError(f"No path {text} exists; {error.message[:1].lower()}{error.message[1:]}", error.hint)
    if name.path is not None:
        return InputError(f"{text} does not exist.")
    return InputError(f"The dataset {text} has not been fetched yet.", hint=f"mopo fetch-data --dataset {text}")
