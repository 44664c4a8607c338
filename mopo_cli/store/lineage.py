"""run.json: how each finished stage was made, from what, and the hashes of both."""

import json
import platform
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from shlex import quote
from typing import Any

from mopo_cli import __version__
from mopo_cli.errors import CorruptError, InputError
from mopo_cli.nets.libraries import in_use, named
from mopo_cli.store.atomic import plain, read_json, sha256_file, write_json
from mopo_cli.store.documents import CELL, Files, RunDocument, as_flag, checked, present_names
from mopo_cli.store.run import RunFolder

# Origins of settings that a command has without flags.
_BY_THEMSELVES = ("default", "data file", "generated data", "method ")
# What an analysis is asked for by, by its part of a key.
_OF_ANALYSES = {"bound": "--bound", "ope": "--ope", "map": "--map", "diagnosis": "--diagnose"}
_FORMAT = 1


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


_FIELDS = tuple(StageRecord.__dataclass_fields__)
# A file of a seed of an ablation's cell; the cell's own description holds its hash.
_CELL = re.compile(r"ablations/[^/]+/cells/[^/]+/seed-\d+/[^/]+")


def describe_files(
    run: RunFolder, files: Mapping[str, Path], at_present: Callable[[Path], Path] = lambda path: path
) -> Files:
    """Path and hash of each file; ``at_present`` says where its content is now. InputError if it cannot be read."""
    return {
        role: {"path": stored_path(run, path), "sha256": sha256_file(at_present(path))} for role, path in files.items()
    }


def hashes(files: Files) -> dict[str, str]:
    """The sha256 of each file, by role."""
    return {role: file["sha256"] for role, file in files.items()}


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
    if isinstance(document, dict) and isinstance(document.get("stages"), dict) and document.get("format") != _FORMAT:
        raise InputError(
            f"{run.lineage} has format {document.get('format')!r}; this version of mopo reads format {_FORMAT}."
        )
    stages = checked(run.lineage, RunDocument, document)["stages"]
    return {key: _record(key, entry) for key, entry in stages.items()}


def _record(key: str, entry: Mapping[str, Any]) -> StageRecord:
    record = StageRecord(**{name: entry[name] for name in _FIELDS})
    extra = dict(record.extra)
    if "origins" in extra:
        extra["origins"] = present_names(key, extra["origins"])
    return replace(record, settings=present_names(key, record.settings), extra=extra)


def record_stage(run: RunFolder, key: str, record: StageRecord, path: Path | None = None) -> None:
    """Write run.json with ``record`` under ``key`` and the other records as they are; ``path`` is another place."""
    stages = {**read_lineage(run), key: record}
    document = {"format": _FORMAT, "stages": {name: asdict(item) for name, item in stages.items()}}
    write_json(path or run.lineage, document)


def check_recorded(run: RunFolder, files: Files) -> None:
    """CorruptError where a stage of this run made one of the files and it is no longer what the stage wrote."""
    present = {file["path"]: file["sha256"] for file in files.values()}
    for key, path, digest in _written(run, present):
        if present[path] != digest:
            raise CorruptError(
                f"{run.root / path} is not what {key} wrote (sha256 {present[path]}, recorded {digest}): "
                "it was damaged or changed later.",
                hint=f"restore the file, or make it again: {command_again(run, key)}",
            )


def command_again(run: RunFolder, key: str) -> str:
    """The command that does a stage of the run again, with the settings that its data or its method do not set."""
    (stage, *of), record = key.split("/"), read_lineage(run)[key]
    if stage == "ablate":
        return f"mopo ablate --force, with the settings of {key} in: mopo show {quote(str(run.root))}"
    origins = record.extra.get("origins", {})
    chosen = {
        name: value
        for name, value in record.settings.items()
        if value is not None and not origins.get(name, "default").startswith(_BY_THEMSELVES)
    }
    if stage == "evaluate":
        chosen["policy"] = of[0]
        chosen |= {"returns": record.inputs["returns"]["path"]} if "returns" in record.inputs else {}
    flags = [f"{as_flag(name)} {quote(_as_flag(value))}" for name, value in chosen.items()]
    flags += [_OF_ANALYSES[part] for part in of[1:] if part in _OF_ANALYSES]
    return " ".join([f"mopo {stage}", *flags, f"--run {quote(str(run.root))} --force"])


def _as_flag(value: Any) -> str:
    if isinstance(value, dict):
        return json.dumps(value)
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _written(run: RunFolder, paths: Collection[str]) -> Iterator[tuple[str, str, str]]:
    """Of those of the ``paths`` that the run's records name: the stage's key, the path, the hash."""
    for key, record in read_lineage(run).items():
        for file in record.outputs.values():
            if file["path"] in paths:
                yield key, file["path"], file["sha256"]
    for description in {run.root / Path(path).parents[1] / "cell.json" for path in paths if _CELL.fullmatch(path)}:
        if description.is_file():
            folder = description.parent.relative_to(run.root)
            for name, digest in checked(description, CELL, read_json(description))["files"].items():
                if (path := (folder / name).as_posix()) in paths:
                    yield f"ablate/{folder.parts[1]}", path, digest


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
    if plain({**(defaults or {}), **record.settings}) != plain(dict(settings)):
        return False
    if hashes(record.inputs) != hashes(inputs):
        return False
    outputs = ((run.root / file["path"], file["sha256"]) for file in record.outputs.values())
    return all(path.is_file() and sha256_file(path) == digest for path, digest in outputs)


def tool_versions() -> dict[str, str]:
    """The versions that a result depends on, without importing the packages; also what multiplies, once chosen."""
    versions = {"python": platform.python_version(), "mopo": __version__}
    for package in ("torch", "numpy", "gymnasium", "mujoco"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "unknown"
    products = in_use()
    return versions if products is None else versions | {"products": named(products)}
