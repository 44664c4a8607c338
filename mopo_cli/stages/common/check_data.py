"""mopo fetch-data --check: validate a local dataset and list every problem; nothing is written."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mopo_cli.config.schema_data import FetchData
from mopo_cli.data.checks import Check, UnusableData
from mopo_cli.data.history import newest_frames
from mopo_cli.data.registry import SOURCES, parse_dataset
from mopo_cli.data.transition_files import read_dataset
from mopo_cli.data.transitions import DatasetInfo, Transitions
from mopo_cli.data.validate import Summary, checks, fit_together, summarise
from mopo_cli.errors import InputError
from mopo_cli.report.console import Report
from mopo_cli.stages.common.options import Options
from mopo_cli.stages.common.rule_agreement import agreement
from mopo_cli.stages.fetch_data import KEY, cached_file, check_request, make_dataset, show, warn_of
from mopo_cli.stages.runner import Stage
from mopo_cli.store.lineage import describe_files
from mopo_cli.store.run import RunFolder
from mopo_cli.tasks.termination import termination_rule

if TYPE_CHECKING:
    from mopo_cli.dynamics.branched_rollouts import TerminationRule


def run_check_data(settings: FetchData, report: Report) -> dict[str, Any]:
    """Read the dataset as fetch-data would and list all faults and warnings; nothing is written.

    The result says whether the dataset is ``usable``, with ``checks``, and where it can be read the ``summary``
    and how ``termination`` agrees with the stored terminals. Faults of single columns come first: if there are
    any, checks over several columns are left out. Raises what fetch-data raises for a request
    that is wrong in itself and for a damaged file, and InputError for a dataset that is not here yet.
    """
    name = parse_dataset(settings.dataset)
    files = check_request(name, settings)
    run = RunFolder(Path())  # only names the files; nothing is written there
    inputs = describe_files(run, files)
    stage = Stage(run, KEY, settings.model_dump(), inputs, Options(), report)
    source = SOURCES[name.kind]
    cached = cached_file(name, settings, stage)
    if cached is None and not source.is_here(name):
        raise InputError(
            f"--check reads local data only, and {name.dataset_id} is not here yet: it must be {source.verb} first.",
            hint=f"mopo fetch-data --dataset {settings.dataset}",
        )
    result: dict[str, Any] = {"dataset": settings.dataset, "summary": None, "termination": None}
    try:
        cached = cached if name.path is None else None
        transitions, info = newest_frames(*read_dataset(cached)) if cached else make_dataset(name, settings, stage)
    except UnusableData as error:
        results = error.checks
        if error.data is not None and fit_together(results):
            transitions, info = error.data
            result |= _describe(transitions, info, report)
    except InputError as error:
        results = [Check("all", "readable", error.message, hint=error.hint)]
    else:
        results = list(checks(transitions, info))
        result |= _describe(transitions, info, report) if fit_together(results) else {}
    _show(settings.dataset, results, report)
    rows = [
        {
            "column": check.column,
            "check": check.what,
            "fault": check.fault or None,
            "warning": check.warning or None,
            "first_bad_row": check.row,
            "hint": check.hint or None,
        }
        for check in results
    ]
    return {**result, "usable": not any(check.fault for check in results), "checks": rows}


def _describe(transitions: Transitions, info: DatasetInfo, report: Report) -> dict[str, Any]:
    summary: Summary = summarise(transitions)
    show(report, info, summary)
    rule = agreement(transitions, info, _rule(info))
    if rule["terminals"] or rule["false_alarms"]:
        share = "unknown" if rule["reproduced"] is None else f"{rule['reproduced']:.1%}"
        columns = ("rule", "stored terminals", "reproduced", "false alarms", "first")
        row = (rule["rule"], rule["terminals"], share, rule["false_alarms"], rule["first_false_alarm"])
        report.table("The termination rule and the stored terminals", columns, [row])
    return {"summary": asdict(summary), "termination": rule, "source": info.source}


def _rule(info: DatasetInfo) -> "TerminationRule | None":
    if info.termination == "none":
        return None
    from mopo_cli.data.restated import in_user_units

    return in_user_units(termination_rule(info.termination, bounds=(info.action_low, info.action_high)), info)


def _show(dataset: str, results: list[Check], report: Report) -> None:
    warn_of(results, report)
    rows = [(c.column, c.what, c.fault or ("warning, see above" if c.warning else "ok"), c.row) for c in results]
    report.table(f"Checks of {dataset}", ("column", "check", "result", "first bad row"), rows)
