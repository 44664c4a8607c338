"""Files of a job's folder on their way between machines."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from mopo_cli.errors import CorruptError
from mopo_cli.store.atomic import publish

Parcel = Mapping[str, bytes]
"""Files by their paths below a folder, with "/"."""

_RESULTS = {
    "train-policy": ("run.json", "ablations/job"),
    "train-model": ("run.json", "model", "elites.json"),
}
_KEY = {"train-policy": "ablate/job", "train-model": "select-elites"}
_KEPT = (".state", "ablations")
_LAST = "run.json"


def results(folder: Path, stage: str) -> dict[str, bytes] | None:
    """What a job of this stage made in its folder; None where it is not finished."""
    try:
        finished = _KEY[stage] in json.loads((folder / _LAST).read_bytes())["stages"]
    except (OSError, ValueError, LookupError):
        return None
    return {_name(path, folder): path.read_bytes() for path in _files(folder, _RESULTS[stage])} if finished else None


def kept(folder: Path) -> dict[str, bytes]:
    """What a job goes on from in another folder: its checkpoint, and the cells that it has finished."""
    parcel = {}
    for path in _to_keep(folder):
        try:
            parcel[_name(path, folder)] = path.read_bytes()
        except FileNotFoundError:  # the job is at work meanwhile
            continue
    return parcel


def kept_since(folder: Path, before: dict[str, tuple[int, int]]) -> dict[str, bytes]:
    """What `kept` gives of the files that are new or changed; ``before`` notes them."""
    parcel = {}
    for path in _to_keep(folder):
        try:
            about = path.stat()
            mark = about.st_mtime_ns, about.st_ino
            if before.get(name := _name(path, folder)) != mark:
                parcel[name] = path.read_bytes()
                before[name] = mark
        except FileNotFoundError:
            continue
    return parcel


def unpack(parcel: Parcel, folder: Path) -> None:
    """Write a parcel's files into a folder, each whole or not at all, and run.json last; InputError if it cannot be."""
    for name in sorted(parcel, key=lambda name: (name == _LAST, name)):
        if name.startswith("/") or ".." in name.split("/"):
            raise CorruptError(f"A job sent a file for another folder than its: {name!r}.")
        with publish(folder / name) as temporary:
            temporary.write_bytes(parcel[name])


def _to_keep(folder: Path) -> Iterator[Path]:
    for path in _files(folder, _KEPT):
        inside = path.relative_to(folder).parts
        if inside[0] != ".state" or not {"live", "staged"} & set(inside):
            yield path


def _files(folder: Path, names: tuple[str, ...]) -> Iterator[Path]:
    for place in (folder / name for name in names):
        if place.is_file():
            yield place
        for inside, _, files in os.walk(place):  # which takes no harm from folders that vanish meanwhile
            yield from (Path(inside, name) for name in sorted(files) if not name.startswith("."))


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()
