"""``mopo fetch-data``"""

import shlex
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated

import typer

from mopo_cli.cli.context import fetched, settle
from mopo_cli.cli.options import Call, command, plain_option
from mopo_cli.config.schema_data import FetchData
from mopo_cli.errors import InputError, UsageError
from mopo_cli.store.run import resolve_run

if TYPE_CHECKING:
    from mopo_cli.data.source import Entry

EXAMPLES = (
    "mopo fetch-data --dataset generate:InvertedPendulum-v5:random",
    "mopo fetch-data --dataset generate:HalfCheetah-v5:medium-replay",
    "mopo fetch-data --dataset ./my-logs.h5 --env Hopper-v5",
    "mopo fetch-data --dataset ./tank.npz --env my_module:Tank-v0",
    "mopo fetch-data --dataset ./plant.csv --columns obs=temp+flow,action=valve,reward=yield,episode=batch --check",
    "mopo fetch-data --dataset ./demos.hdf5 --explain   # a group per episode",
    "mopo fetch-data --dataset ./d3rlpy.h5 --check      # observations_0, ...",
    "mopo fetch-data --dataset ./padded.npz --check     # padded episodes",
    "mopo fetch-data --dataset ./buffer.npz --check     # a vector environment",
    "mopo fetch-data --dataset ./lists.parquet --check  # lists in cells",
    "mopo fetch-data --dataset ./steps.jsonl --check    # or batches of RLlib",
    "mopo fetch-data --dataset ./logs/ --check          # all files of a folder",
    "mopo fetch-data --list hopper",
)

Pattern = Annotated[
    str | None,
    typer.Argument(metavar="[PATTERN]", help="with --list: part of a name, or a glob pattern", show_default=False),
]
Check = Annotated[bool, plain_option("--check", "validate local data and list every problem; writes nothing")]
Explain = Annotated[bool, plain_option("--explain", "say what a file holds and how its columns are understood")]
List = Annotated[bool, plain_option("--list", "list the known data sets")]
Remote = Annotated[bool, plain_option("--remote", "with --list: ask Minari's server for its sets too")]


@command(FetchData, without=("allow_mismatch", "method", "engine", "log"))
def fetch_data(
    call: Call,
    pattern: Pattern = None,
    check: Check = False,
    explain: Explain = False,
    list_: List = False,
    remote: Remote = False,
) -> None:
    """Fetch data: download, generate or read a file, check every column, write dataset.h5."""
    if list_ + check + explain > 1:
        raise UsageError("Use only one of --check, --explain and --list.")
    if list_:
        return _list(call, pattern, remote)
    if pattern is not None or remote:
        raise UsageError(
            "PATTERN and --remote need --list; name a data set to fetch with --dataset.",
            hint=f"mopo fetch-data --dataset {pattern}" if pattern else "mopo fetch-data --list --remote",
        )
    from mopo_cli.stages.fetch_data import run_fetch_data

    settings, options = settle(call, FetchData, _recorded_dataset(call), call.preset, call.flags)
    if check:
        return _check(call, settings)
    if explain:
        return _explain(call, settings)
    from_run = options.origins["dataset"] == "run"
    run = resolve_run(call.run, None if from_run else settings.dataset)
    if call.preset:  # the run keeps it, even if flags override all its settings of the data
        options = replace(options, origins={**options.origins, "preset": f"preset {call.preset}"})
    call.report.result(run_fetch_data(run, settings, options, call.report))


def _check(call: Call, settings: FetchData) -> None:
    from mopo_cli.data.registry import parse_dataset
    from mopo_cli.stages.common.check_data import run_check_data
    from mopo_cli.stages.fetch_data import explain_command

    if call.options.force:
        raise UsageError("--check writes nothing: leave out --force.")
    result = run_check_data(settings, call.report)
    failed = sum(check["fault"] is not None for check in result["checks"])
    verdict = f"{settings.dataset} is {'' if result['usable'] else 'not '}usable"
    call.report.result(result, f"{verdict}: {failed} of {len(result['checks'])} checks failed.")
    if not result["usable"]:
        first = next(check for check in result["checks"] if check["fault"])
        is_file = parse_dataset(settings.dataset).path is not None
        hint = explain_command(settings.dataset) if is_file else first["hint"] or "mopo fetch-data --list"
        raise InputError(f"{verdict}: {first['fault']}", hint=hint)


def _explain(call: Call, settings: FetchData) -> None:
    from mopo_cli.data.files.explain import explain
    from mopo_cli.data.files.log_files import log_files
    from mopo_cli.data.registry import parse_dataset

    name = parse_dataset(settings.dataset)
    if name.path is None:
        raise UsageError("--explain is for files.", hint=f"mopo show {settings.dataset}")
    about = explain(log_files(name.path), settings.layout)
    rows = [
        (
            column.name,
            " x ".join(map(str, column.shape)) or None,
            column.least,
            column.greatest,
            column.first,
            column.role or None,
        )
        for column in about.columns
    ]
    call.report.say(f"{settings.dataset}: {about.understood}; {about.rows:,} rows.")
    call.report.table("Columns", ("column", "width", "least", "greatest", "first values", "taken for"), rows)
    command = f"mopo fetch-data --dataset {shlex.quote(settings.dataset)} --columns '{about.column_map}' --check"
    call.report.result(asdict(about), f"To name the columns yourself, edit: {command}")


def _list(call: Call, pattern: str | None, remote: bool) -> None:
    """List the known data sets that match ``pattern``; ``remote`` asks Minari's server too."""
    if call.flags or call.run or call.preset or call.config or call.options.force:
        raise UsageError("--list allows only PATTERN, --remote and --json.")
    from mopo_cli.data.registry import KINDS, catalogue

    report, matches = call.report, catalogue(pattern, remote)
    for kind, title in KINDS.items():
        if entries := [entry for entry in matches if entry.kind == kind]:
            report.table(title, *_table(entries))
    if not matches:
        report.say(f"No known data set matches {pattern!r}.")
        report.hint(f"mopo fetch-data --list{'' if remote else f' {pattern} --remote'}")
    elif report.is_human:
        report.hint("mopo fetch-data --dataset NAME")
    if not report.is_human:
        listed = [{name: value for name, value in asdict(entry).items() if name != "aliases"} for entry in matches]
        report.result({"pattern": pattern, "remote": remote, "datasets": listed})


def _table(entries: "Sequence[Entry]") -> tuple[list[str], list[list[str | int | None]]]:
    """The columns that any of the entries fills, and a row per entry."""
    columns: dict[str, list[str | int | None]] = {
        "data set": [entry.name for entry in entries],
        "environment": [entry.environment for entry in entries],
        "transitions": [entry.transitions for entry in entries],
        "size": [_size(entry.bytes) for entry in entries],
        "here": ["yes" if entry.here else "no" for entry in entries] if len({e.here for e in entries}) > 1 else [],
        "note": [entry.note or None for entry in entries],
    }
    columns = {name: values for name, values in columns.items() if any(value is not None for value in values)}
    return list(columns), [list(row) for row in zip(*columns.values(), strict=True)]


def _size(count: int | None) -> str | None:
    if count is None:
        return None
    return f"{count / 1e6:,.1f} MB" if count >= 1e5 else f"{count / 1e3:,.1f} kB"


def _recorded_dataset(call: Call) -> str | None:
    """The data set of the named or current run, None if it has none yet."""
    if call.dataset:
        return None
    try:
        record = fetched(resolve_run(call.run, None))
    except InputError:
        return None
    return str(record.settings["dataset"]) if record else None
