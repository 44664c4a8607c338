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
    try:
        name, fault = parse_dataset(text), None
    except InputError as error:
        name, fault = None, error
    if path.name != text and name and name.path is not None:
        raise InputError(f"{path} does not exist.")
    if (file := _in_run(text)) is not None:
        report.say(f"{text}: {file} (the data of {resolve_run(None, text).root})")
        return file
    if not (cached := _in_cache(text, name.dataset_id if name else text)):
        if fault:
            raise InputError(f"No path {text} exists; {fault.message[:1].lower()}{fault.message[1:]}", fault.hint)
        if name and name.path is not None:
            raise InputError(f"{text} does not exist.")
        raise InputError(f"The dataset {text} has not been fetched yet.", hint=f"mopo fetch-data --dataset {text}")
    newest = max(cached, key=lambda file: (file.stat().st_mtime_ns, str(file)))
    which = f"the newest of {len(cached)} in the cache" if len(cached) > 1 else "from the cache"
    report.say(f"{text}: {newest} ({which})")
    return newest


def _in_run(name: str) -> Path | None:
    run = resolve_run(None, name)
    record = fetched(run)
    if record is None or "dataset" not in record.outputs:
        return None
    path = run.root / record.outputs["dataset"]["path"]
    return path if path.is_file() else None


def _in_cache(name: str, dataset_id: str) -> list[Path]:
    """The cached files that were fetched under this name, or under another one of the same dataset."""
    folder_name = re.compile(re.escape(dataset_slug(name)) + r"-[0-9a-f]{12}")
    files = (cache_dir() / "datasets").glob("*/dataset.h5")
    return [file for file in files if folder_name.fullmatch(file.parent.name) or _is_of(file, dataset_id)]


def _is_of(file: Path, dataset_id: str) -> bool:
    try:
        recorded = read_document(file.with_name("dataset.json"), CachedDataset)
    except (InputError, CorruptError):
        return False
    return bool(recorded["dataset_id"] == dataset_id)
