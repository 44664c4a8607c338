"""``mopo ablate --table NAME``: a table of a paper, an ablation per data set, each in a run of its own."""

from pathlib import Path
from typing import TYPE_CHECKING

from mopo_cli.cli.methods import ablate_by_model
from mopo_cli.cli.options import Call
from mopo_cli.cli.paper_plan import Plan, plan_dataset
from mopo_cli.cli.paper_remarks import table_remarks
from mopo_cli.config.paper_tables import PaperTable, choose_rows, load_table
from mopo_cli.data.registry import parse_dataset
from mopo_cli.errors import CorruptError, DivergedError, InputError, LockedError, MopoError, NetworkError, UsageError
from mopo_cli.report import Report
from mopo_cli.store.run import current_run_kept, dataset_slug

if TYPE_CHECKING:
    from mopo_cli.stages.ablation.paper_table import Part

_ROOT = Path("runs/papers")

# What keeps one data set, or one cell, from being had; the others go on.
_MISSING = (NetworkError, InputError, CorruptError, LockedError, DivergedError)


def paper_table(call: Call, name: str, datasets: str | None, only: str | None, env: str | None) -> None:
    """Train every cell of a table that is not there yet, and print it beside the published numbers.

    A data set or cell that cannot be had is marked with the reason. Raises UsageError for an unknown table or row
    and for flags that do not go with a table, what fetching or training raised when nothing could be had.
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
    failures: list[MopoError] = []
    for place, plan in enumerate(plans, start=1):
        call.report.say(f"\n{place}/{len(plans)} {plan.part.dataset}")
        with current_run_kept():
            failures += _train(plan, table, Report(call.report.mode, hints=False))
        lines = table_lines(table, parts)
        result = publish_paper_table(root, table, lines, remarks, call.report if place == len(plans) else None)
    if failures and not any(line["last"] for line in lines):
        raise type(failures[0])(f"Nothing of {name} could be had: {failures[0].message}", failures[0].hint)
    call.report.result(result, result["outputs"]["md"])


def _datasets(table: PaperTable, text: str | None, root: Path) -> list[str]:
    """The data sets named, else the table's own; UsageError where two would share a run."""
    if (root / "run.json").exists():
        raise UsageError(f"{root} is a run itself; --table makes one per data set under --run.", hint="another --run")
    chosen = [word.strip() for word in text.split(",")] if text else list(table.datasets)
    slugs = [dataset_slug(name) for name in chosen]
    if twice := [name for name, slug in zip(chosen, slugs, strict=True) if slugs.count(slug) > 1]:
        raise UsageError(f"--datasets: {' and '.join(twice)} would share the run {root / dataset_slug(twice[0])}.")
    return chosen


def _refuse(call: Call, table: PaperTable, datasets: str | None, env: str | None) -> None:
    if call.dataset:
        raise UsageError("--table has data sets of its own: --datasets A,B restricts or replaces them.")
    for flag in ("method", "penalty", "grid", "name"):
        if flag in call.flags:
            raise UsageError(f"--table says itself what is compared, without --{flag}: --only A,B restricts its rows.")
    if fixed := {name for row in table.rows for name in row.settings} & set(call.flags):
        raise UsageError(f"--{min(fixed).replace('_', '-')} is what the rows of {table.name} are about; leave it out.")
    if env and not any(parse_dataset(word.strip()).path for word in (datasets or "").split(",") if word):
        raise UsageError("--env belongs to a data file: name it with --datasets ./file.h5.")


def _announce(report: Report, table: PaperTable, plans: list[Plan]) -> None:
    cells = [cell for plan in plans for cell in plan.part.cells.values()]
    policies = sum(len(cell.all_seeds()) for cell in cells)
    there = sum(plan.part.already_there(table.name) for plan in plans)
    seeds = " or ".join(str(count) for count in sorted({len(cell.all_seeds()) for cell in cells})) or "0"
    sets = f"{len(plans)} data set{'s' if len(plans) > 1 else ''}"
    already = f", {there} of them there already" if there else ""
    report.say(f"{table.name}: {sets}, {len(cells)} cells x {seeds} seeds = {policies} policies{already}")


def _train(plan: Plan, table: PaperTable, report: Report) -> list[MopoError]:
    """Do what a plan says; returns what kept it, or some of it, from being had, and marks that in its part."""
    from mopo_cli.stages.fetch_data import run_fetch_data
    from mopo_cli.stages.select_elites import run_select_elites
    from mopo_cli.stages.train_model import run_train_model

    part = plan.part
    part.missing = {}
    failures: list[MopoError] = []
    if not any(row.method or row.data for row in table.rows):
        return failures
    try:
        run_fetch_data(part.run, *plan.fetch, report)
        failures += _mark_unknown_dynamics(part)
        cells = [cell for label, cell in part.cells.items() if label not in part.missing]
        if any(cell.needs_model for cell in cells):
            run_train_model(part.run, *plan.model, report)
            run_select_elites(part.run, *plan.elites, report)
        if cells:
            ablate_by_model(plan.context, plan.ablation[0], cells, plan.ablation[1], report)
    except _MISSING as error:
        report.warn(f"{part.dataset}: {error.message}")
        ours = [row.label for row in table.rows if row.method or (row.data and part.info() is None)]
        part.missing |= {label: error.message for label in ours if label not in part.missing}
        failures.append(error)
    return failures


def _mark_unknown_dynamics(part: "Part") -> list[MopoError]:
    """Marks the cells whose penalty asks for true dynamics, where these are not known."""
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
