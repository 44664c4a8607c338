"""``mopo ablate --table NAME``: a table of a paper, as one ablation per data set, each in its own run."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mopo_cli.cli.elsewhere import tell_plan
from mopo_cli.cli.methods import ablate_by_model
from mopo_cli.cli.options import Call
from mopo_cli.cli.paper_plan import Plan, plan_dataset, table_remarks
from mopo_cli.config.paper_tables import PaperTable, choose_rows, load_table
from mopo_cli.data.registry import parse_dataset
from mopo_cli.errors import (
    CorruptError,
    DivergedError,
    FailedError,
    InputError,
    LockedError,
    MopoError,
    NetworkError,
    UsageError,
)
from mopo_cli.report import Report
from mopo_cli.store.documents import as_flag
from mopo_cli.store.run import current_run_kept, dataset_slug

if TYPE_CHECKING:
    from mopo_cli.stages.ablation.paper_table import Part
    from mopo_cli.stages.jobs.hand_out import HandOut

_ROOT = Path("runs/papers")

# Errors that leave out one data set or cell while the others go on.
_MISSING = (NetworkError, InputError, CorruptError, LockedError, DivergedError)


def paper_table(
    call: Call,
    name: str,
    datasets: str | None,
    only: str | None,
    env: str | None,
    hand_out: "HandOut | None" = None,
) -> None:
    """Train every missing cell of a table, and print it beside the published numbers.

    A data set or cell that fails is marked with the reason. Raises UsageError for an unknown table or row and for
    flags that conflict with a table, and the first failure if nothing succeeded.
    """
    from mopo_cli.stages.ablation.paper_table import publish_paper_table, table_lines

    full = load_table(name)
    _refuse(call, full, datasets, env)
    table = full.model_copy(update={"rows": choose_rows(full, only)}) if only else full
    root = call.run or _ROOT
    plans = [plan_dataset(call, table, root, dataset, env) for dataset in _datasets(table, datasets, root)]
    _announce(call.report, table, plans)
    remarks, parts = table_remarks(full, table, plans), [plan.part for plan in plans]
    for part in parts:
        part.missing = {row.label: "not reached yet" for row in table.rows if row.method or row.data}

    def make() -> tuple[dict[str, Any], list[MopoError]]:
        failures: list[MopoError] = []
        result: dict[str, Any] = {}
        for place, plan in enumerate(plans, start=1):
            call.report.say(f"\n{place}/{len(plans)} {plan.part.dataset}")
            with current_run_kept():
                failures += _train(plan, table, call.report.without_hints(), hand_out)
            end = place == len(plans) and not (hand_out and hand_out.jobs)
            result = publish_paper_table(root, table, table_lines(table, parts), remarks, call.report if end else None)
        return result, failures

    made = make() if hand_out is None else hand_out.make(make, call.report)
    if made is None and hand_out is not None:
        return tell_plan(call.report, hand_out)
    assert made is not None
    result, failures = made
    if failures and not any(line["last"] for line in result["lines"]):
        raise type(failures[0])(f"No cell of {name} could be made: {failures[0].message}", failures[0].hint)
    call.report.result(result, result["outputs"]["md"])
    if failed := [error for error in failures if isinstance(error, FailedError)]:
        raise failed[0]


def _datasets(table: PaperTable, text: str | None, root: Path) -> list[str]:
    """The data sets in ``text``, else the table's; UsageError if two would share a run."""
    if (root / "run.json").exists():
        raise UsageError(f"{root} is a run, but --table makes a run per data set in --run.", hint="another --run")
    chosen = [word.strip() for word in text.split(",")] if text else list(table.datasets)
    slugs = [dataset_slug(name) for name in chosen]
    if twice := [name for name, slug in zip(chosen, slugs, strict=True) if slugs.count(slug) > 1]:
        raise UsageError(f"--datasets: {' and '.join(twice)} would share the run {root / dataset_slug(twice[0])}.")
    return chosen


def _refuse(call: Call, table: PaperTable, datasets: str | None, env: str | None) -> None:
    if call.dataset:
        raise UsageError("--table has its own data sets: choose others with --datasets A,B.")
    for flag in ("method", "penalty", "grid", "name"):
        if flag in call.flags:
            raise UsageError(f"--table sets what is compared: leave out --{flag}; --only A,B chooses rows.")
    if fixed := {name for row in table.rows for name in row.settings} & set(call.flags):
        raise UsageError(f"{as_flag(min(fixed))} is set by the rows of {table.name}: leave it out.")
    if env and not any(parse_dataset(word.strip()).path for word in (datasets or "").split(",") if word):
        raise UsageError("--env is for data files only: add --datasets ./file.h5.")


def _announce(report: Report, table: PaperTable, plans: list[Plan]) -> None:
    cells = [cell for plan in plans for cell in plan.part.cells.values()]
    policies = sum(len(cell.all_seeds()) for cell in cells)
    done = sum(plan.part.already_there(table.name) for plan in plans)
    seeds = " or ".join(str(count) for count in sorted({len(cell.all_seeds()) for cell in cells})) or "0"
    sets = f"{len(plans)} data set{'s' if len(plans) > 1 else ''}"
    already = f", {done} of them already trained" if done else ""
    report.say(f"{table.name}: {sets}, {len(cells)} cells x {seeds} seeds = {policies} policies{already}")


def _train(plan: Plan, table: PaperTable, report: Report, hand_out: "HandOut | None") -> list[MopoError]:
    """Carry out a plan; returns the errors that stopped some or all of it, and marks them in its part."""
    from mopo_cli.stages.common.published_policies import raise_if_failed
    from mopo_cli.stages.fetch_data import run_fetch_data
    from mopo_cli.stages.jobs.model import make_model

    part = plan.part
    part.missing = {}
    failures: list[MopoError] = []
    if not any(row.method or row.data for row in table.rows):
        return failures
    try:
        run_fetch_data(part.run, *plan.fetch, report)
        failures += _mark_unknown_dynamics(part)
        cells = [cell for label, cell in part.cells.items() if label not in part.missing]
        needs_model = any(cell.needs_model for cell in cells)
        if needs_model and not make_model(part.run, plan.model[0], plan.elites[0], plan.model[1], report, hand_out):
            return failures
        if cells:
            raise_if_failed(ablate_by_model(plan.context, plan.ablation[0], cells, plan.ablation[1], report, hand_out))
    except FailedError as error:  # the table marks what is not there
        report.warn(f"{part.dataset}: {error.message}")
        failures.append(error)
    except _MISSING as error:
        report.warn(f"{part.dataset}: {error.message}")
        labels = [row.label for row in table.rows if row.method or (row.data and part.info() is None)]
        part.missing |= {label: error.message for label in labels if label not in part.missing}
        failures.append(error)
    return failures


def _mark_unknown_dynamics(part: "Part") -> list[MopoError]:
    """Marks the cells whose penalty needs the true dynamics, if these are not known."""
    from mopo_cli.dynamics.penalties import ORACLE
    from mopo_cli.tasks.oracle import check_oracle

    info = part.info()
    failures: list[MopoError] = []
    for label, cell in part.cells.items():
        if cell.penalty == ORACLE:
            try:
                check_oracle(info.env_id if info else None)
            except InputError as error:
                part.missing[label] = error.message
                failures.append(error)
    return failures
