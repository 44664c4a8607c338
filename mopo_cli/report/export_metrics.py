"""Metrics that are on disk already, for a library that shows them."""

from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

from mopo_cli.errors import InputError
from mopo_cli.report.json_lines import FILE
from mopo_cli.report.metrics import SINKS, by_epoch, reason, silent
from mopo_cli.report.sink import Curves, scalars
from mopo_cli.store.documents import SeedKey, check_epoch, read_lines
from mopo_cli.store.run import RunFolder

_Number = float | int | None
_EPOCH: Any = Annotated[dict[str, _Number | dict[SeedKey, list[_Number]]], AfterValidator(check_epoch)]
"""A line of any metrics.jsonl; that of a model has lists by seed."""


def export_metrics(run: RunFolder, name: str, folder: Path) -> dict[str, Any]:
    """Send what the model and all policies of a run logged to a sink, whose files go to ``folder``.

    What the sink had of them is replaced. Returns how to see it (``where``) and how many epochs each curve has.
    InputError where the run has no metrics or the library fails, CorruptError for a damaged file.
    """
    stages = {stage: _read(files) for stage, files in metrics_files(run).items()}
    if not stages:
        raise InputError(f"The run {run.root} has no metrics yet.", hint="mopo train-model")
    where, epochs = "", dict[str, int]()
    for stage, members in stages.items():
        curves = Curves(run.root, stage, list(members))
        try:
            with silent(), closing(SINKS[name](folder, curves)) as sink:
                for member, values in members.items():
                    sink.log(member, values)
        except Exception as error:
            raise InputError(f"{name} does not take the metrics of {stage}: {reason(error)}.") from error
        where = sink.where
        epochs |= {curves.name(member): len(values) for member, values in members.items()}
    return {"run": str(run.root), "to": name, "where": where, "epochs": epochs}


def metrics_files(run: RunFolder, prefix: str = "") -> dict[str, dict[str, Path]]:
    """The metrics.jsonl of finished trainings, by stage and member, of the run and of the variants in it."""
    files: dict[str, dict[str, Path]] = {}
    if (model := run.model_dir / FILE).is_file():
        files[f"{prefix}train-model"] = {"model": model}
    for path in sorted(run.root.glob(f"policies/*/seed-*/{FILE}")):
        files.setdefault(f"{prefix}train-policy/{path.parts[-3]}", {})[path.parts[-2]] = path
    for path in sorted(run.root.glob(f"ablations/*/cells/*/seed-*/{FILE}")):
        name, _, cell, seed = path.parts[-5:-1]
        files.setdefault(f"{prefix}ablate/{name}", {})[f"{cell}/{seed}"] = path
    for lineage in sorted(run.root.glob("variants/*/run.json")):
        files |= metrics_files(RunFolder(lineage.parent), f"{prefix}variants/{lineage.parent.name}/")
    return files


def _read(files: dict[str, Path]) -> dict[str, dict[int, dict[str, float]]]:
    return {
        member: {epoch: scalars(values) for epoch, values in by_epoch(read_lines(path, _EPOCH)).items()}
        for member, path in files.items()
    }
