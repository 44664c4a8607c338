"""run.json: how each finished stage was made, from what, and the hashes of both."""

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mopo_cli import __version__
from mopo_cli.errors import CorruptError, InputError
from mopo_cli.store.atomic import plain, read_json, sha256_file, write_json
from mopo_cli.store.run import RunFolder

_FORMAT = 1

Files = dict[str, dict[str, str]]
"""Files by role: ``{"model": {"path": …, "sha256": …}}``; a path inside the run is relative to it."""


@dataclass(frozen=True)
class StageRecord:
    """One finished stage: resolved settings, files in and out, versions, wall time [s] and its result."""

    settings: dict[str, Any]
    inputs: Files
    outputs: Files
    versions: dict[str, str]
    wall_seconds: float
    finished: str
    extra: dict[str, Any] = field(default_factory=dict)


def describe_files(run: RunFolder, files: Mapping[str, Path]) -> Files:
    """Path and hash of each file; InputError for one that cannot be read."""
    return {role: {"path": stored_path(run, path), "sha256": sha256_file(path)} for role, path in files.items()}


def stored_path(run: RunFolder, path: Path) -> str:
    """``path`` as run.json holds it: relative inside the run folder, absolute outside."""
    root, place = run.root.resolve(), path.resolve()
    return place.relative_to(root).as_posix() if place.is_relative_to(root) else str(place)


def read_lineage(run: RunFolder) -> dict[str, StageRecord]:
    """The record of every finished stage by key; empty for a new run.

    CorruptError when run.json is damaged, InputError when a newer mopo wrote it.
    """
    if not run.lineage.exists():
        return {}
    document = read_json(run.lineage)
    if not isinstance(document, dict) or not isinstance(document.get("stages"), dict):
        raise CorruptError(f"{run.lineage} is not a lineage file.")
    if document.get("format") != _FORMAT:
        raise InputError(f"{run.lineage} has format {document.get('format')!r}; this mopo reads {_FORMAT}.")
    return {key: _record(run, key, entry) for key, entry in document["stages"].items()}


def record_stage(run: RunFolder, key: str, record: StageRecord) -> None:
    """Write ``record`` under ``key`` in run.json; the other stages' records stay."""
    stages = {**read_lineage(run), key: record}
    write_json(run.lineage, {"format": _FORMAT, "stages": {name: asdict(item) for name, item in stages.items()}})


def fingerprint(stage: str, settings: Mapping[str, Any], inputs: Files) -> str:
    """SHA-256 over what decides a stage's result: its name, settings and the hashes of its inputs."""
    hashes = {role: file["sha256"] for role, file in inputs.items()}
    content = json.dumps([stage, plain(dict(settings)), hashes], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def is_up_to_date(
    run: RunFolder,
    key: str,
    settings: Mapping[str, Any],
    inputs: Files,
    defaults: Mapping[str, Any] | None = None,
) -> bool:
    """Whether ``key`` was made with these settings and input hashes and all it made is there unchanged.

    A setting that did not exist when it was made counts with its value in ``defaults``.
    """
    record = read_lineage(run).get(key)
    if record is None:
        return False
    then = {**(defaults or {}), **record.settings}
    if fingerprint(key, then, record.inputs) != fingerprint(key, settings, inputs):
        return False
    outputs = ((run.root / file["path"], file["sha256"]) for file in record.outputs.values())
    return all(path.is_file() and sha256_file(path) == digest for path, digest in outputs)


def tool_versions() -> dict[str, str]:
    """The versions that a result depends on, without importing the packages."""
    found = {"python": platform.python_version(), "mopo": __version__}
    for package in ("torch", "numpy", "gymnasium", "mujoco"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found


def _record(run: RunFolder, key: str, entry: Any) -> StageRecord:
    wanted = {item.name for item in fields(StageRecord)}
    shapes = {"settings": dict, "inputs": dict, "outputs": dict, "versions": dict, "extra": dict}
    if (
        not isinstance(entry, dict)
        or set(entry) != wanted
        or not all(isinstance(entry[name], kind) for name, kind in shapes.items())
        or not all(_is_file(file) for files in (entry["inputs"], entry["outputs"]) for file in files.values())
    ):
        raise CorruptError(f"{run.lineage} holds a damaged record of {key}.")
    return StageRecord(**entry)


def _is_file(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(name), str) for name in ("path", "sha256"))
