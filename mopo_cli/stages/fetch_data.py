"""mopo fetch-data: from a dataset's name to a checked dataset.h5 in the cache."""

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mopo_cli.config.schema import FetchData
from mopo_cli.data.local import load_local
from mopo_cli.data.registry import DatasetName, not_yet, parse_dataset
from mopo_cli.data.transitions import DatasetInfo, Transitions
from mopo_cli.data.validate import Summary, summarise, validate
from mopo_cli.errors import CorruptError, InputError, Stopped, UsageError
from mopo_cli.report.console import Report
from mopo_cli.stages.runner import Options, Stage, stage_envelope
from mopo_cli.store.atomic import read_json, sha256_file, write_json
from mopo_cli.store.hdf5 import read_dataset, write_dataset
from mopo_cli.store.run import RunFolder, cache_dir, dataset_slug

KEY = "fetch-data"


def run_fetch_data(run: RunFolder, settings: FetchData, options: Options, report: Report) -> dict[str, Any]:
    """Load or generate the dataset, check it and record it under "fetch-data".

    The file lies in the cache, once for all runs; run.json refers to it by absolute path and sha256 as the
    output "dataset". Returns the summary with `dataset_id`, `env_id`, `source`. Raises InputError for an
    unknown, missing or unusable dataset, CorruptError for a damaged file, UsageError for --env with a
    generated set; then nothing on disk changes.
    """
    name = parse_dataset(settings.dataset)
    _check_request(name, settings)
    inputs = {} if name.path is None else {"source": name.path}
    with stage_envelope(run, KEY, settings.model_dump(), inputs, options, report) as stage:
        if stage.up_to_date:
            return stage.result()
        path, transitions, info = _cached_dataset(name, settings, stage)
        summary = summarise(transitions)
        _show(report, info, summary)
        report.hint("mopo train-model")
        described = {"dataset_id": info.dataset_id, "env_id": info.env_id, "source": info.source}
        return stage.finish({"dataset": path}, {**described, **asdict(summary)})


def _check_request(name: DatasetName, settings: FetchData) -> None:
    if name.kind in ("d4rl", "minari"):
        raise not_yet(name)
    if name.path is not None and not name.path.is_file():
        raise InputError(
            f"The dataset file {name.path} does not exist or is not a file.",
            hint="mopo fetch-data --dataset ./file.h5 --env ENV-ID",
        )
    if name.kind == "generate" and settings.env not in (None, name.env_id):
        raise UsageError(
            f"--env {settings.env} contradicts --dataset {settings.dataset}, which names its environment.",
            hint="leave --env out; it belongs to files",
        )


def _cached_dataset(name: DatasetName, settings: FetchData, stage: Stage) -> tuple[Path, Transitions, DatasetInfo]:
    """The dataset from the cache if it is there whole, else made and put there."""
    folder = (cache_dir() / "datasets" / _cache_name(name, settings, stage)).resolve()
    path, sidecar = folder / "dataset.h5", folder / "dataset.json"
    if not stage.options.force and _is_whole(path, sidecar):
        stage.report.say(f"Found in the cache: {path}")
        return path, *read_dataset(path)
    transitions, info = _make(name, settings, stage)
    validate(transitions, info)
    digest = write_dataset(path, transitions, info)
    write_json(sidecar, {"dataset_id": info.dataset_id, "sha256": digest, "source": info.source})
    return path, transitions, info


def _cache_name(name: DatasetName, settings: FetchData, stage: Stage) -> str:
    """A folder name that tells apart everything the content depends on."""
    slug = dataset_slug(settings.dataset)
    if name.kind == "generate":
        return f"{slug}-{settings.transitions}-seed{settings.seed}"
    env = re.sub(r"[^A-Za-z0-9._-]+", "-", settings.env or "")[:60]
    return "-".join(part for part in (slug, env, stage.inputs["source"]["sha256"][:12]) if part)


def _is_whole(path: Path, sidecar: Path) -> bool:
    if not (path.is_file() and sidecar.is_file()):
        return False
    try:
        recorded = read_json(sidecar)
    except CorruptError:
        return False
    return isinstance(recorded, dict) and recorded.get("sha256") == sha256_file(path)


def _make(name: DatasetName, settings: FetchData, stage: Stage) -> tuple[Transitions, DatasetInfo]:
    if name.path is not None:
        return load_local(name.path, settings.env, stage.inputs["source"]["sha256"])
    from mopo_cli.data.generate import generate_random

    assert name.env_id is not None
    with stage.report.progress(f"random steps in {name.env_id}", settings.transitions) as progress:

        def on_progress(steps: int) -> None:
            progress.update(steps)
            if stage.should_stop():
                raise Stopped(stage.signal)

        return generate_random(name.env_id, settings.transitions, settings.seed, on_progress)


def _show(report: Report, info: DatasetInfo, summary: Summary) -> None:
    columns = [field.replace("_", " ") for field in asdict(summary)]
    report.table(info.dataset_id, columns, [list(asdict(summary).values())])
    report.say(info.source)
    if info.termination == "none" and summary.terminals:
        report.warn(
            f"{info.dataset_id} marks terminals ({summary.terminals}), but no termination rule is known for "
            f"the environment {info.env_id}: imagined episodes will not end there."
        )
