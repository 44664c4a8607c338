"""Somebody's own logs as checked-out columns."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mopo_cli.data.actions import bounds_in_words, bounds_of, check_continuous
from mopo_cli.data.arrow_values import TEXT
from mopo_cli.data.checks import Check, UnusableData, require
from mopo_cli.data.column_map import (
    ColumnMap,
    Sources,
    conventional,
    in_full,
    in_words,
    list_once,
    missing_target,
    parse_column_map,
    resolve,
)
from mopo_cli.data.ends import guess_next
from mopo_cli.data.layout import Columns, Log
from mopo_cli.data.layouts import open_log
from mopo_cli.data.spaces import environment_fields, spaces_of_id
from mopo_cli.data.tidy import end_episodes, tidy_column
from mopo_cli.data.transitions import Bools, DatasetInfo, Floats, Transitions
from mopo_cli.data.values import check_actions_vary, check_far_values
from mopo_cli.errors import InputError, UsageError

_NEEDED = ("observations", "actions", "rewards")
_D3RLPY_ENDS = "episode_terminals"  # d3rlpy 1.x: true in the last row of every episode, beside terminals


def load_local(
    paths: Sequence[Path],
    env_id: str | None,
    sha256: Sequence[str],
    columns: str | None = None,
    layout: str | None = None,
    name: str | None = None,
) -> tuple[Transitions, DatasetInfo]:
    """Read one file, or several as one log; ``info.source`` says what was done to columns that were not as they should.

    ``columns`` is a column map (see `data.column_map`), without one the columns have their usual names; ``layout`` is
    one of `layouts.LAYOUTS`, ``name`` that of the whole where there are several files.

    - Rewards and flags may be `[N, 1]`, floats of any width, flags anything that is 0 or 1.
    - An episode ends where the value of ``episode`` changes: as a timeout, unless the row is terminal.
    - Without timeouts, episode_terminals that are no terminals are; without these, all are False.
    - Without next_observations, they are the next row's observations. Rows that end the record (timeouts, the
      last) are dropped and the rows before them marked as timeouts, unless they hold outcomes: see `data.ends`.
      Terminals keep their own observation as a filler, and ``info.terminal_next_known`` is False.
    - Without ``env_id`` and without bounds in the map, the action bounds are those of `actions.bounds_of`.

    ``info.doubts`` are the warnings. Raises UnusableData, an InputError, for missing, misshapen and unreadable columns,
    discrete actions, values far outside and ends in other rows; InputError where the environment has other spaces;
    UsageError for a map that is wrong in itself; CorruptError for a damaged file. Call `validate` on what comes back.
    """
    column_map = parse_column_map(columns)
    if env_id is not None and column_map.action_low is not None:
        raise UsageError(f"--env {env_id} gives the action bounds: leave action_low and action_high out of --columns.")
    log = open_log(paths, layout)
    where = name or paths[0].name
    sources, raw, notes = _read(where, log, column_map)
    joined = _join(where, sources, raw, flat=bool(column_map.columns) or log.is_table)
    joined |= _labels(sources, raw, log)
    names = {ours: _dimension_names(sources[ours], raw) for ours in sources}
    transitions, checks = _tidy(where, sources, joined, names, notes)
    if len(sources["actions"]) == 1 and env_id is None and column_map.action_low is None:
        (only,) = sources["actions"]
        require([check_continuous(raw[only], only, where)])
    low, high = _bounds(where, transitions, env_id, column_map, names["actions"], notes)
    if env_id is not None or column_map.action_low is not None:
        checks += check_actions_vary(zip(names["actions"], joined["actions"].T, strict=True), where)
    info = DatasetInfo(
        dataset_id=where,
        source="; ".join([_of_files(paths, sha256, where), *notes]),
        action_low=low,
        action_high=high,
        **environment_fields(env_id),
        terminal_next_known="next_observations" in sources or not transitions.terminals.any(),
        doubts=tuple(check for check in checks if check.warning),
    )
    return transitions, info


def _of_files(paths: Sequence[Path], sha256: Sequence[str], name: str) -> str:
    if len(paths) == 1:
        return f"file {name} sha256 {sha256[0]}"
    together = hashlib.sha256("".join(sha256).encode()).hexdigest()
    return f"{len(paths)} files of {name}, sha256 of their sha256 {together}"


def _read(where: str, log: Log, column_map: ColumnMap) -> tuple[Sources, Columns, list[str]]:
    """The columns that the map names, or that have the usual names; UnusableData telling all that is amiss."""
    notes = [log.note] if log.note else []
    wanted = column_map.columns or conventional(log.names)
    if column_map.columns and not log.is_table:
        for name in chain(*wanted.values()):
            if PurePosixPath(name).is_absolute() or {"", ".", ".."} & set(name.split("/")):
                raise InputError(f"{where}: {name!r} in --columns is not a path inside the file, such as group/column.")
    if not column_map.columns and wanted.get("timeouts") == (_D3RLPY_ENDS,):
        notes.append(f"timeouts = {_D3RLPY_ENDS} where no terminal is")
    absent = "is missing" if log.is_table else "is missing (or a link, which is not followed)"
    sources, checks = resolve(wanted, log.names, where, absent, in_groups=not log.is_table)
    if "next_observations" not in sources and all(name in log.following for name in sources.get("observations", ())):
        sources["next_observations"] = tuple(log.following[name] for name in sources.get("observations", ()))
    plain = not (column_map.columns or log.is_table or log.episode)
    needed = (*_NEEDED, "terminals") if plain else _NEEDED
    checks += [missing_target(ours, log.names, where, log.is_table) for ours in needed if ours not in sources]
    if log.is_table or any(names != (ours,) for ours, names in sources.items()):
        notes.append(in_words(sources))
    present = [name for names in sources.values() for name in names if name in log.names]
    labels = [name for name in sources.get("episode", ()) if name in log.names]
    made = [name for name in (log.episode, log.part) if name is not None]
    raw: Columns = {}
    try:
        raw = log.read([name for name in present if name not in labels], [*labels, *made])
    except UnusableData as error:
        checks += [_advised(check, sources) for check in error.checks]
    require(_with_note(list_once(checks, log.names), log.note))
    return sources, raw, [*notes, *log.remarks]


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
    told = replace(checks[first], fault=f"{checks[first].fault.removesuffix('.')} ({note}).")
    return [*checks[:first], told, *checks[first + 1 :]]


def _labels(sources: Sources, raw: Columns, log: Log) -> Columns:
    """The labels of episodes, "episode" `[N]`, by the user's column and the log's, and those of files, "part" `[N]`."""
    labels = [raw[name] for name in (*sources.get("episode", ()), log.episode) if name is not None]
    columns: Columns = {}
    if log.part is not None:
        columns["part"] = raw[log.part]
        labels += [raw[log.part]] * bool(labels)
    if labels:
        columns["episode"] = np.unique(np.stack(labels, axis=1), axis=0, return_inverse=True)[1].reshape(-1)
    return columns


def _tidy(
    where: str,
    sources: Sources,
    columns: dict[str, NDArray[Any]],
    names: dict[str, list[str]],
    notes: list[str],
) -> tuple[Transitions, list[Check]]:
    """Our columns as transitions, and what was looked at, of which nothing failed.

    ``names``: what each dimension is called in the file.
    """
    rows = len(columns["observations"])
    terminals = columns.get("terminals", np.zeros(rows, np.bool_))
    stated = columns.get("timeouts", np.zeros(rows, np.bool_)) & ~terminals
    timeouts = stated
    if "part" in columns:
        timeouts = stated | ((np.diff(columns["part"], append=-1) != 0) & ~terminals)
    dimensions = (
        (in_full(name, ours), dimension)
        for ours in (*_NEEDED, "next_observations")
        if ours in columns
        for name, dimension in zip(names[ours], np.atleast_2d(columns[ours].T), strict=True)
    )
    checks = check_far_values(dimensions, where)
    if "episode" in columns:
        name = in_full(sources["episode"][0], "episode") if "episode" in sources else "episode"
        timeouts, check = end_episodes(columns["episode"], terminals, stated, name, where)
        checks.append(check)
    elif "timeouts" not in columns:
        notes.append("no timeouts column: none assumed")
    require(checks)
    observations, actions, rewards = (columns[ours] for ours in _NEEDED)
    if "next_observations" in columns:
        following = columns["next_observations"]
        return Transitions(observations, actions, rewards, following, terminals, timeouts), checks
    if "episode" not in columns and ("part" not in columns or terminals.any()):
        checks += _unmarked_ends(where, terminals, timeouts, "timeouts" in columns, notes)
    labelled = "episode" in columns
    transitions, more_notes, more_checks = guess_next(
        observations, actions, rewards, terminals, timeouts, stated, labelled, where
    )
    require([*checks, *more_checks])
    notes += more_notes
    return transitions, [*checks, *more_checks]


def _unmarked_ends(where: str, terminals: Bools, timeouts: Bools, may_time_out: bool, notes: list[str]) -> list[Check]:
    """Warnings that ends may be missing in a log without next states and without a column of episodes."""
    if not (terminals | timeouts).any():
        notes.append("nothing marks where an episode ends: one long episode")
        warning = (
            f"Nothing in {where} marks where an episode ends, so it is taken for one long episode. If it "
            'holds several, name the column that tells them apart: --columns "...,episode=...".'
        )
    elif not may_time_out:
        warning = (
            f"{where} marks terminals ({int(terminals.sum())}), but has neither timeouts nor a column of episodes. If "
            "an episode ended by time, without a terminal, its last step leads into the next episode: mark its last "
            'row in timeouts, or name the column that tells episodes apart: --columns "...,episode=...".'
        )
    else:
        return []
    return [Check("timeouts", "ends of the record", warning=warning)]


def _dimension_names(names: tuple[str, ...], raw: dict[str, NDArray[Any]]) -> list[str]:
    """The file's columns as dimensions: ``temp`` and ``valve``, or ``observations[0]``, ``observations[1]``, ..."""
    widths = {name: raw[name].shape[1] if raw[name].ndim > 1 else 1 for name in names}
    return [name if widths[name] == 1 else f"{name}[{i}]" for name in names for i in range(widths[name])]


def _join(where: str, sources: Sources, raw: dict[str, NDArray[Any]], flat: bool) -> dict[str, NDArray[Any]]:
    """Our columns, each put together from the file's and tidied; UnusableData telling all that is wrong."""
    columns: dict[str, NDArray[Any]] = {}
    checks: list[Check] = []
    rows = len(raw[sources["observations"][0]]) if raw[sources["observations"][0]].ndim else 0
    for ours, names in sources.items():
        parts = []
        for name in names:
            part, check = tidy_column(raw[name], ours, in_full(name, ours), where, flat)
            if not check.fault and len(part) != rows:
                fault = f"{where}: column {in_full(name, ours)} has {len(part)} rows, but observations has {rows}."
                check = Check(in_full(name, ours), "number of rows", fault)
            parts.append(part)
            checks.append(check)
        if not any(check.fault for check in checks):
            columns[ours] = np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]
    require(checks)
    return columns


def _bounds(
    where: str,
    transitions: Transitions,
    env_id: str | None,
    column_map: ColumnMap,
    names: list[str],
    notes: list[str],
) -> tuple[Floats, Floats]:
    if env_id is not None:
        spaces = spaces_of_id(env_id)
        for name, width, wanted in (
            ("observations", transitions.obs_dim, spaces.obs_dim),
            ("actions", transitions.act_dim, spaces.act_dim),
        ):
            if width != wanted:
                raise InputError(
                    f"{where}: column {name} has {width} dimensions, but {env_id} has {wanted}: "
                    "give the environment in which the file was logged.",
                    hint="mopo fetch-data --dataset ./file.h5 --env ENV-ID",
                )
        return spaces.action_low, spaces.action_high
    if column_map.action_low is not None and column_map.action_high is not None:
        notes.append("action bounds from the column map")
        return np.array(column_map.action_low, np.float32), np.array(column_map.action_high, np.float32)
    low, high, checks = bounds_of(transitions.actions, names, where)
    require(checks)
    notes.append(bounds_in_words(transitions.actions, low, high, names))
    return low, high
