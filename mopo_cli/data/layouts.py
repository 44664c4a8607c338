"""The table of layouts, and several files opened as one log."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mopo_cli.data import layout_episodes, layout_rows
from mopo_cli.data.layout import Columns, Layout, Log, Wanted
from mopo_cli.errors import InputError

# To add a layout, add a line. The first that fits a file has it, so the plain ones come last.
LAYOUTS: dict[str, Layout] = {
    "groups": layout_episodes.GROUPS,
    "numbered": layout_episodes.NUMBERED,
    "padded": layout_episodes.PADDED,
    "table": layout_rows.TABLE,
    "rows": layout_rows.ROWS,
}

FILE = "(file)"
"""The column that numbers the files of a log, where there are several."""


def open_log(paths: Sequence[Path], layout: str | None = None) -> Log:
    """The log that lies in one file, or in several, one after another.

    Each is opened in the `layout` of that name, or in the first that fits it. InputError where none does, where a file
    cannot be opened, or where the files have different columns.
    """
    logs = [_open(path, layout) for path in paths]
    return logs[0] if len(logs) == 1 else _joined(paths, logs)


def _open(path: Path, layout: str | None) -> Log:
    for name, candidate in LAYOUTS.items() if layout is None else ((layout, LAYOUTS[layout]),):
        if (log := candidate.open(path)) is not None:
            return replace(log, layout=name)
    raise InputError(f"{path} is not laid out as {layout}: {LAYOUTS[str(layout)].about}.", hint="leave --layout out")


def _joined(paths: Sequence[Path], logs: list[Log]) -> Log:
    first = logs[0]
    for path, log in zip(paths, logs, strict=True):
        if (log.layout, log.following) != (first.layout, first.following):
            raise InputError(f"{path.name} is laid out otherwise than {paths[0].name}.", hint="fetch them one by one")
    names = [name for name in first.names if all(name in log.names for log in logs)]

    def read(wanted: Wanted) -> Columns:
        inside = replace(wanted, labels=[label for label in wanted.labels if label != FILE])
        return _stacked(paths, [log.read(inside) for log in logs], wanted)

    note = "; ".join(filter(None, (f"{len(paths)} files, {paths[0].name} to {paths[-1].name}", first.note)))
    return replace(first, names=names, read=read, part=FILE, note=note)


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
