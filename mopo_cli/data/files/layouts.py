"""The table of layouts, and several files opened as one log."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np

from mopo_cli.data.files import layout_episodes, layout_json, layout_lists, layout_padded, layout_rows, layout_vector
from mopo_cli.data.files.layout import Columns, Layout, Log, Wanted
from mopo_cli.errors import InputError

# To add a layout, add a line. The first that fits a file has it, so the plain ones come last.
LAYOUTS: dict[str, Layout] = {
    "groups": layout_episodes.GROUPS,
    "numbered": layout_episodes.NUMBERED,
    "vector": layout_vector.VECTOR,
    "padded": layout_padded.PADDED,
    "rllib": layout_json.RLLIB,
    "lists": layout_lists.LISTS,
    "lines": layout_json.LINES,
    "table": layout_rows.TABLE,
    "rows": layout_rows.ROWS,
}

FILE = "(file)"
"""The column that numbers the files of a log, where there are several."""
_SHOWN = 3


def open_log(paths: Sequence[Path], layout: str | None = None) -> Log:
    """The log that lies in one file, or in several, one after another.

    Each is opened in the `layout` of that name, or in the first that fits it. InputError where none does, where a file
    cannot be opened, or where the files have different columns.
    """
    logs = [_open(path, layout) for path in paths]
    return logs[0] if len(logs) == 1 else _joined(paths, logs)


def _open(path: Path, layout: str | None) -> Log:
    for name, candidate in LAYOUTS.items() if layout is None else ((layout, LAYOUTS[layout]),):
        if layout is None and not candidate.looks_so(path):
            continue
        if (log := candidate.open(path)) is not None:
            return replace(log, layout=name)
    raise InputError(f"{path} is not laid out as {layout}: {LAYOUTS[str(layout)].about}.", hint="leave --layout out")


def _joined(paths: Sequence[Path], logs: list[Log]) -> Log:
    first = logs[0]
    for path, log in zip(paths, logs, strict=True):
        if (log.layout, log.following) != (first.layout, first.following):
            raise InputError(f"{path.name} is laid out otherwise than {paths[0].name}.", hint="fetch them one by one")
    names, lacking = _common(paths, logs)
    remarks: list[str] = []

    def read(wanted: Wanted) -> Columns:
        inside = replace(wanted, labels=[label for label in wanted.labels if label != FILE])
        parts = [log.read(inside) for log in logs]
        remarks[:] = dict.fromkeys(chain(*(log.remarks for log in logs)))
        return _stacked(paths, parts, wanted)

    understood = list(dict.fromkeys(log.note for log in logs if log.note))
    shown = understood if len(understood) <= _SHOWN else [understood[0], "..."]
    note = "; ".join((f"{len(paths)} files, {paths[0].name} to {paths[-1].name}", *shown))
    # Where one file's rows hold several episodes each, all are read so.
    like = next((log for log in logs if log.part is not None), first)
    return replace(like, names=names, read=read, lacking=lacking, file=FILE, note=note, remarks=remarks)


def _common(paths: Sequence[Path], logs: list[Log]) -> tuple[list[str], dict[str, str]]:
    """The names of the columns that all files have, and of each other one a file that lacks it.

    InputError where a file has none in common with those before.
    """
    names = logs[0].names
    lacking = {name: lack for log in logs for name, lack in log.lacking.items()}
    for path, log in zip(paths, logs, strict=True):
        here = set(log.names)
        common = [name for name in names if name in here]
        if names and not common:
            columns, others = (", ".join(some[:5]) for some in (log.names, names))
            raise InputError(
                f"{path.name} has no column of {paths[0].name}: {columns}, not {others}.",
                hint="give all files the same heading, or none",
            )
        lacking |= {name: path.name for name in names if name not in here}
        names = common
    for log in logs[1:]:
        lacking |= {name: paths[0].name for name in log.names if name not in names and name not in lacking}
    return names, lacking


def _stacked(paths: Sequence[Path], parts: list[Columns], wanted: Wanted) -> Columns:
    """The columns of all files one after another; InputError where their widths differ."""
    columns: Columns = {}
    for name in parts[0]:
        arrays = [part[name] for part in parts]
        for path, array in zip(paths, arrays, strict=True):
            if array.shape[1:] != arrays[0].shape[1:]:
                shapes = f"{list(array.shape[1:])} a row, but {list(arrays[0].shape[1:])} in {paths[0].name}"
                raise InputError(f"{path.name}: column {name} has {shapes}.", hint="fetch them one by one")
        columns[name] = np.concatenate(arrays)
    if FILE in wanted.labels:
        columns[FILE] = np.repeat(np.arange(len(parts)), [len(next(iter(part.values()))) for part in parts])
    return columns
