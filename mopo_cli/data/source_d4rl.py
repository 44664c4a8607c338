"""The source of D4RL's published sets: a copy on disk, else a download."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mopo_cli.config.schema_data import FetchData
from mopo_cli.data.scores import D4RL_ENVIRONMENTS, d4rl_environment
from mopo_cli.data.source import Dataset, DatasetName, Entry, Source, Work
from mopo_cli.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from mopo_cli.data.d4rl_files import D4rlFile

_LEVELS = ("random", "medium", "medium-replay", "mixed", "medium-expert", "expert", "full-replay")
_NAMES = tuple(f"{body}-{level}" for body in D4RL_ENVIRONMENTS for level in _LEVELS)
_EXAMPLE = "walker2d-medium"


def _parse(name: str) -> DatasetName | None:
    match = re.fullmatch(r"(.+?)(?:-v(\w*))?", name)
    if match is None or match[1] not in _NAMES:
        return None
    version = "2" if match[2] is None else match[2]
    if version not in ("0", "2"):
        raise InputError(
            f"The dataset {name!r} has the unknown version v{version}: D4RL has -v0 and -v2.", f"--dataset {_EXAMPLE}"
        )
    dataset_id = f"{match[1].replace('-mixed', '-medium-replay')}-v{version}"
    return DatasetName("d4rl", dataset_id, env_id=d4rl_environment(dataset_id))


def _fetch(name: DatasetName, settings: FetchData, work: Work) -> Dataset:
    """Raises UsageError for a bad mirror address, NetworkError for a failed download, else as `load_d4rl`.

    After Stopped, the same command resumes the download.
    """
    from mopo_cli.data.d4rl import load_d4rl
    from mopo_cli.data.d4rl_files import address, published

    file = published(name.dataset_id)
    url = address(file, settings.mirror)
    path = _copy_on_disk(file, work) or _download(file, url, work)
    return load_d4rl(path, file.dataset_id)


def _copy_on_disk(file: "D4rlFile", work: Work) -> "Path | None":
    from mopo_cli.data.d4rl_files import copies

    for path, is_published in copies(file):
        if is_published:
            work.say(f"Found on disk: {path}")
            return path
        work.warn(f"{path} is not the published file (its size or sha256 differs), so it is not used.")
    return None


def _download(file: "D4rlFile", url: str, work: Work) -> "Path":
    from mopo_cli.data.d4rl_files import MIRROR, downloads_dir
    from mopo_cli.data.download import Remote, download, partial_file

    target = downloads_dir() / file.name
    mend = (
        f"run the same command again to resume; or use another server (--mirror URL or {MIRROR}), "
        f"or put the file at {target.resolve()}"
    )
    part = partial_file(target)
    done = part.stat().st_size if part.is_file() else 0
    work.say(f"Downloading {url} to {target}")
    with work.progress(file.name, file.size, done, in_bytes=True) as count:
        download(Remote(url, file.size, file.sha256), target, mend, count, work.say)
    return target


def _is_here(name: DatasetName) -> bool:
    from mopo_cli.data.d4rl_files import copies, published

    return any(is_published for _, is_published in copies(published(name.dataset_id)))


def _entries(fetched: set[str], _remote: bool) -> Iterator[Entry]:
    from mopo_cli.data.d4rl_files import downloads_dir, table

    for dataset_id, file in table().items():
        copy = downloads_dir() / file.name
        here = dataset_id in fetched or (copy.is_file() and copy.stat().st_size == file.size)
        aliases = (dataset_id.replace("medium-replay", "mixed"),)
        yield Entry("d4rl", dataset_id, d4rl_environment(dataset_id), bytes=file.size, here=here, aliases=aliases)


SOURCE = Source(
    _parse,
    _fetch,
    _EXAMPLE,
    names=_NAMES,
    is_here=_is_here,
    titles={"d4rl": "D4RL, to be downloaded"},
    entries=_entries,
)
