"""The columns of a log that a map names, or that have the usual names, as they are stored."""

from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import PurePosixPath
from typing import Any

from mopo_cli.data.checks import Check, UnusableData, require
from mopo_cli.data.files.arrow_values import TEXT
from mopo_cli.data.files.column_map import ColumnMap, Sources
from mopo_cli.data.files.layout import Columns, Log, Wanted
from mopo_cli.data.files.missing import Remedy
from mopo_cli.data.files.resolve_columns import (
    D3RLPY_ENDS,
    NEEDED,
    FileColumns,
    conventional,
    in_full,
    in_words,
    list_once,
    missing_target,
    resolve,
)
from mopo_cli.errors import InputError

_OF_A_STEP = ("actions", "rewards", "terminals", "timeouts", "next_observations")


@dataclass(frozen=True)
class Reading:
    """How files are read: `columns` is a column map (see `column_map`), None where columns have usual names.

    `layout` is one of `layouts.LAYOUTS`, `missing` what is done where values are missing (see `missing`). With
    `without_rewards` a log needs none: they are then 0. `env_kwargs` are what its environment is made with.
    """

    columns: str | None = None
    layout: str | None = None
    missing: Remedy = "refuse"
    without_rewards: bool = False
    env_kwargs: dict[str, Any] = field(default_factory=dict)


PLAIN = Reading()


def read_columns(where: str, log: Log, column_map: ColumnMap, how: Reading) -> tuple[FileColumns, Columns, list[str]]:
    """The columns that the map names, or that have the usual names; UnusableData telling all that is amiss."""
    notes = [log.note] if log.note else []
    here = [*log.names, *log.lacking]
    wanted = column_map.columns or conventional(here)
    if column_map.columns and not log.is_table:
        for name in chain(*wanted.values()):
            if PurePosixPath(name).is_absolute() or {"", ".", ".."} & set(name.split("/")):
                raise InputError(f"{where}: {name!r} in --columns is not a path inside the file, such as group/column.")
    if not column_map.columns and wanted.get("timeouts") == (D3RLPY_ENDS,):
        notes.append(f"timeouts = {D3RLPY_ENDS} where no terminal is")
    absent = "is missing" if log.is_table else "is missing (or a link, which is not followed)"
    of, checks = resolve(wanted, here, where, absent, in_groups=not log.is_table)
    sources = of.sources
    checks += [_lacking(where, name, log.lacking[name]) for name in chain(*sources.values()) if name in log.lacking]
    checks += [
        _longer(where, name, ours)
        for ours, names in sources.items()
        for name in names
        if ours in _OF_A_STEP and name in log.following
    ]
    if "next_observations" not in sources and all(name in log.following for name in sources.get("observations", ())):
        sources["next_observations"] = tuple(log.following[name] for name in sources.get("observations", ()))
    plain = not (column_map.columns or log.is_table or log.episode)
    needed = {*NEEDED, *(["terminals"] if plain else [])} - {"rewards" if how.without_rewards else ""}
    lacking = [ours for ours in (*NEEDED, "terminals") if ours in needed and ours not in sources]
    checks += [missing_target(ours, log.names, where, log.is_table) for ours in lacking]
    if log.is_table or any(names != (ours,) for ours, names in sources.items()):
        notes.append(in_words(of))
    raw: Columns = {}
    try:
        raw = log.read(_wanted(of, log, how.missing))
    except UnusableData as error:
        checks += [_advised(check, sources) for check in error.checks]
    require(_with_note(list_once(checks, log.names), log.note))
    if not any(len(column) if column.ndim else 1 for column in raw.values()):
        raise InputError(f"{where} has no rows.")
    return of, raw, [*notes, *log.remarks]


def _lacking(where: str, name: str, part: str) -> Check:
    fault = f"{where}: {part} has no column {name}, but others have. Add it there, or say which to read with --columns."
    return Check(name, "present", fault)


def _longer(where: str, name: str, ours: str) -> Check:
    fault = (
        f"{where}: column {in_full(name, ours)} has one row more than there are steps in an episode, and nothing "
        "says to which steps its rows belong: leave out the first of them or the last."
    )
    return Check(name, "number of rows", fault)


def _advised(check: Check, sources: Sources) -> Check:
    """The check of a column of text, with what to do where it is an observation."""
    if check.what != TEXT or check.column not in sources.get("observations", ()):
        return check
    advice = f"categories: one column per value, --columns obs={check.column}:onehot"
    return replace(check, fault=f"{check.fault.removesuffix('.')}; {advice}.")


def _with_note(checks: list[Check], note: str) -> list[Check]:
    """The checks, of which the first column that is missing says how the file was understood."""
    first = next((i for i, check in enumerate(checks) if check.fault and check.what == "present"), None)
    if first is None or not note:
        return checks
    noted = replace(checks[first], fault=f"{checks[first].fault.removesuffix('.')} ({note}).")
    return [*checks[:first], noted, *checks[first + 1 :]]


def _wanted(of: FileColumns, log: Log, missing: Remedy) -> Wanted:
    """What to read of the columns that are there."""
    there = {*log.names, *log.following.values()}
    here = {ours: [name for name in names if name in there] for ours, names in of.sources.items()}
    made = [name for name in (log.episode, log.part, log.file) if name is not None]
    labels, times = here.pop("episode", []), here.pop("step", [])
    names = list(chain(*here.values()))
    words = [name for name in names if of.kinds.get(name) == "onehot"]
    numbers = [name for name in names if name not in words]
    flags = [*here.get("terminals", ()), *here.get("timeouts", ())]
    return Wanted(numbers, [*labels, *made], words, times, missing != "refuse", flags, here.get("rewards", ()))
