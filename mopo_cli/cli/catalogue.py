"""``mopo fetch-data --list``: the known datasets, a table per kind"""

from collections.abc import Sequence
from dataclasses import asdict

from mopo_cli.data.catalogue import KINDS, catalogue
from mopo_cli.data.source import Entry
from mopo_cli.report import Report


def list_datasets(report: Report, pattern: str | None, remote: bool) -> None:
    """List the known data sets that match ``pattern``; ``remote`` asks Minari's server too."""
    matches = catalogue(pattern, remote)
    for kind, title in KINDS.items():
        if entries := [entry for entry in matches if entry.kind == kind]:
            report.table(title, *_table(entries))
    if not matches:
        report.say(f"No known data set matches {pattern!r}.")
        report.hint(f"mopo fetch-data --list{'' if remote else f' {pattern} --remote'}")
    elif report.is_human:
        report.hint("mopo fetch-data --dataset NAME")
    if not report.is_human:
        report.result({"pattern": pattern, "remote": remote, "datasets": [_plain(entry) for entry in matches]})


def _table(entries: Sequence[Entry]) -> tuple[list[str], list[list[str | int | None]]]:
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


def _plain(entry: Entry) -> dict[str, object]:
    return {name: value for name, value in asdict(entry).items() if name != "aliases"}
