"""The files of D4RL's Gym-MuJoCo sets: their names, sizes and hashes, and where they may be had."""

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

from urllib3.exceptions import LocationValueError
from urllib3.util import parse_url

from mopo_cli.data.download import is_file_of
from mopo_cli.errors import InputError, UsageError
from mopo_cli.store.run import cache_dir

_TABLE = Path(__file__).with_name("d4rl_files.csv")
_ROOT = "/datasets/offline_rl/"
MIRROR = "MOPO_D4RL_MIRROR"


@dataclass(frozen=True)
class D4rlFile:
    """One published set, known to the byte; ``url`` is the authors' own address."""

    dataset_id: str
    url: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        """The file's own name, hopper_medium-v2.hdf5, which D4RL keeps in its cache."""
        return PurePosixPath(self.url).name


@cache
def table() -> dict[str, D4rlFile]:
    """Every published set by its id, hopper-medium-v2; versions v0 and v2."""
    with _TABLE.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        files = (D4rlFile(row["d4rl_id"], row["url"], int(row["bytes"]), row["sha256"]) for row in rows)
        return {file.dataset_id: file for file in files}


def published(dataset_id: str) -> D4rlFile:
    """The file of a canonical id. InputError where D4RL has no such set, naming those of the same environment."""
    if file := table().get(dataset_id):
        return file
    body, _, _ = dataset_id.partition("-")
    same_body = [other for other in table() if other.startswith(f"{body}-")]
    version = dataset_id[-2:]
    same_version = ", ".join(other for other in same_body if other.endswith(version))
    other_version = f"{dataset_id[:-2]}{'v2' if version == 'v0' else 'v0'}"
    raise InputError(
        f"D4RL has no {dataset_id}; its {body} sets of this version are {same_version}.",
        hint=f"mopo fetch-data --dataset {other_version if other_version in same_body else same_body[0]}",
    )


def identify(sha256: str) -> str | None:
    """The id of the published set whose file has this hash."""
    return next((file.dataset_id for file in table().values() if file.sha256 == sha256), None)


def address(file: D4rlFile, mirror: str | None) -> str:
    """Where to download ``file``: the authors' address, or under ``mirror`` (else $MOPO_D4RL_MIRROR).

    A mirror stands for everything up to and with ``/datasets/offline_rl``, so that it must hold
    ``MIRROR/gym_mujoco_v2/hopper_medium-v2.hdf5``. UsageError where it is no plain HTTP address.
    """
    source = "--mirror" if mirror else MIRROR
    mirror = mirror or os.environ.get(MIRROR)
    if not mirror:
        return file.url
    try:
        parts = parse_url(mirror)
    except LocationValueError:
        parts = parse_url("")
    if parts.scheme not in ("http", "https") or not parts.host or parts.auth or parts.query or parts.fragment:
        raise UsageError(
            f"{source} must be an http:// or https:// address without login and query; mopo appends "
            "/gym_mujoco_v2/hopper_medium-v2.hdf5 to it.",
            hint=f"{source}{' ' if source.startswith('-') else '='}https://my.server/offline_rl",
        )
    return f"{mirror.rstrip('/')}/{file.url.partition(_ROOT)[2]}"


def downloads_dir() -> Path:
    """Where downloaded files are kept, under their own names."""
    return cache_dir() / "downloads" / "d4rl"


def copies(file: D4rlFile) -> Iterator[tuple[Path, bool]]:
    """The files of this name on disk, and whether each is the published one.

    Looked for, and only read, in `downloads_dir`, $D4RL_DATASET_DIR and ~/.d4rl/datasets.
    """
    folders = [downloads_dir()]
    if named := os.environ.get("D4RL_DATASET_DIR"):
        folders.append(Path(named))
    folders.append(Path("~/.d4rl/datasets").expanduser())
    for folder in folders:
        path = folder / file.name
        if path.is_file():
            yield path, is_file_of(path, file.size, file.sha256)
