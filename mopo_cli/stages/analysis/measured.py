"""evaluate --returns: what was measured elsewhere, as the evaluation of a policy."""

from pathlib import Path
from typing import Any

from mopo_cli.config.schema import Evaluate
from mopo_cli.data.measured import Measured, read_measured
from mopo_cli.data.transition_files import read_dataset
from mopo_cli.report.console import Report
from mopo_cli.stages.common.inputs import dataset_path
from mopo_cli.stages.common.options import Options
from mopo_cli.stages.common.trained_policies import (
    diverged_seeds,
    files_by_seed,
    policies_to_evaluate,
    policy_inputs_of,
)
from mopo_cli.stages.evaluate import show_evaluation, summarise, write_evaluation
from mopo_cli.stages.runner import stage_envelope
from mopo_cli.store.run import RunFolder


def run_measured(run: RunFolder, settings: Evaluate, options: Options, report: Report, path: Path) -> dict[str, Any]:
    """Write evaluations/<policy>.json, .csv and .png from a file of returns; returns the result object.

    They are those of `run_evaluate`, with the file and its sha256 as ``source``, and take their place. The data need
    not name an environment. Raises what `read_measured` does.
    """
    name, record, policies = policies_to_evaluate(run, settings.policy)
    inputs = {"returns": path, "dataset": dataset_path(run), **policy_inputs_of(policies)}
    # Episodes and their starts were somebody else's.
    recorded = settings.model_dump(include={"policy"})
    with stage_envelope(run, f"evaluate/{name}", recorded, inputs, options, report) as stage:
        if stage.up_to_date:
            return stage.result()
        measured = read_measured(path, name, policies)
        source = {"file": path.name, "sha256": stage.inputs["returns"]["sha256"]}
        statistics = summarise(measured.returns, *read_dataset(inputs["dataset"]))
        result = {"policy": name, "source": source, **diverged_seeds(record, report), **statistics}
        show_evaluation(result, report)
        metrics = files_by_seed(run, record, "metrics")
        outputs = write_evaluation(stage, run.evaluation(name), result, *_table(measured), metrics)
        return stage.finish(outputs, result)


def _table(measured: Measured) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    """The columns and rows of the evaluation's CSV."""
    columns = ("seed", "episode", "return", *(["length"] if measured.lengths else []))
    rows = []
    for seed, returns in measured.returns.items():
        more = [measured.lengths[seed].tolist()] if measured.lengths else []
        for row in zip(measured.episodes[seed].tolist(), returns.tolist(), *more, strict=True):
            rows.append((int(seed), *row))
    return columns, rows
