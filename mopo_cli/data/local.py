"""A file of somebody's own logs, HDF5, NPZ, CSV or Parquet, as checked-out columns."""

from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mopo_cli.data.actions import bounds_in_words, bounds_of, check_continuous
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
from mopo_cli.data.offsets import lift_offsets
from mopo_cli.data.raw_columns import column_names, is_table, read_raw
from mopo_cli.data.spaces import environment_fields, spaces_of_id
from mopo_cli.data.tidy import end_episodes, tidy_column
from mopo_cli.data.transitions import OBSERVATIONS, Bools, DatasetInfo, Floats, Transitions
from mopo_cli.data.values import check_actions_vary, check_far_values
from mopo_cli.errors import InputError, UsageError

_NEEDED = ("observations", "actions", "rewards")
_D4RL = (*_NEEDED, "terminals")
_D4RL_OPTIONAL = ("timeouts", "next_observations")
_D3RLPY_ENDS = "episode_terminals"  # d3rlpy 1.x: true in the last row of every episode, beside terminals


def load_local(
    path: Path, env_id: str | None, sha256: str, columns: str | None = None
) -> tuple[Transitions, DatasetInfo]:
    """Read ``path``; ``info.source`` says what was done to the columns that were not as they should be.

    ``columns`` is a column map (see `data.column_map`). Without one, an HDF5 or NPZ file has D4RL's names, a CSV
    or Parquet file obs_0, obs_1, ..., action_0, ..., reward, and terminal, timeout, next_obs_0, ..., episode.

    - Rewards and flags may be `[N, 1]`, floats of any width, flags anything that is 0 or 1.
    - An episode ends where the value of ``episode`` changes: as a timeout, unless the row is terminal.
    - Without timeouts, episode_terminals that are no terminals are; without these, all are False.
    - Without next_observations, they are the next row's observations. Rows that end the record (timeouts, the
      last) are dropped and the rows before them marked as timeouts, unless they hold outcomes: see `data.ends`.
      Terminals keep their own observation as a filler, and ``info.terminal_next_known`` is False.
    - Without ``env_id`` and without bounds in the map, the action bounds are those of `actions.bounds_of`.

    - Observations that float32 cannot hold are stored less ``info.observation_offset``: see `data.offsets`.

    ``info.doubts`` are the warnings. Raises UnusableData, an InputError, for missing, misshapen and unreadable columns,
    discrete actions, values far outside and ends in other rows; InputError where the environment has other spaces;
    UsageError for a map that is wrong in itself; CorruptError for a damaged file. Call `validate` on what comes back.
    """
    column_map = parse_column_map(columns)
    if env_id is not None and column_map.action_low is not None:
        raise UsageError(f"--env {env_id} gives the action bounds: leave action_low and action_high out of --columns.")
    sources, raw, notes = _read(path, column_map)
    names = {ours: _dimension_names(sources[ours], raw) for ours in sources}
    raw, offset, doubts = _lift(path.name, sources, raw, names["observations"])
    joined = _join(path.name, sources, raw, flat=bool(column_map.columns) or is_table(path))
    transitions, checks = _tidy(path.name, sources, joined, offset, names, notes)
    checks += doubts
    if len(sources["actions"]) == 1 and env_id is None and column_map.action_low is None:
        (only,) = sources["actions"]
        require([check_continuous(raw[only], only, path.name)])
    low, high = _bounds(path.name, transitions, env_id, column_map, names["actions"], notes)
    if env_id is not None or column_map.action_low is not None:
        checks += check_actions_vary(zip(names["actions"], joined["actions"].T, strict=True), path.name)
    info = DatasetInfo(
        dataset_id=path.name,
        source="; ".join([f"file {path.name} sha256 {sha256}", *notes]),
        action_low=low,
        action_high=high,
        **environment_fields(env_id),
        terminal_next_known="next_observations" in sources or not transitions.terminals.any(),
        doubts=tuple(check for check in checks if check.warning),
        observation_offset=offset,
    )
    return transitions, info


def _read(path: Path, column_map: ColumnMap) -> tuple[Sources, dict[str, NDArray[Any]], list[str]]:
    """The columns that the map names, or the file's kind has by convention; UnusableData telling all that is amiss."""
    if not path.is_file():
        raise InputError(f"{path} does not exist or is not a file.")
    here = column_names(path)
    notes = []
    if column_map.columns:
        wanted = column_map.columns
        if not is_table(path):
            for name in chain(*wanted.values()):
                if PurePosixPath(name).is_absolute() or {"", ".", ".."} & set(name.split("/")):
                    raise InputError(
                        f"{path.name}: {name!r} in --columns is not a path inside the file, such as group/column."
                    )
    elif is_table(path):
        wanted = conventional(here)
    else:
        wanted = {name: (name,) for name in (*_D4RL, *(name for name in _D4RL_OPTIONAL if name in here))}
        if "timeouts" not in here and _D3RLPY_ENDS in here:
            wanted["timeouts"] = (_D3RLPY_ENDS,)
            notes.append(f"timeouts = {_D3RLPY_ENDS} where no terminal is")
    absent = (
        "is missing"
        if is_table(path) or path.suffix.lower() == ".npz"
        else "is missing (or a link, which is not followed)"
    )
    sources, checks = resolve(wanted, here, path.name, absent, in_groups=not is_table(path))
    checks += [missing_target(ours, here, path.name) for ours in _NEEDED if ours not in sources]
    if column_map.columns or is_table(path):
        notes.append(in_words(sources))
    present = [name for names in sources.values() for name in names if name in here]
    labels = [name for name in sources.get("episode", ()) if name in here]
    raw: dict[str, NDArray[Any]] = {}
    try:
        raw = read_raw(path, [name for name in present if name not in labels], labels)
    except UnusableData as error:
        checks += error.checks
    require(list_once(checks, here))
    return sources, raw, notes


def _tidy(
    where: str,
    sources: Sources,
    columns: dict[str, NDArray[Any]],
    offset: NDArray[np.float64] | None,
    names: dict[str, list[str]],
    notes: list[str],
) -> tuple[Transitions, list[Check]]:
    """Our columns as transitions, and what was looked at, of which nothing failed.

    ``names``: what each dimension is called in the file; ``offset`` was taken off observations.
    """
    rows = len(columns["observations"])
    terminals = columns.get("terminals", np.zeros(rows, np.bool_))
    stated = columns.get("timeouts", np.zeros(rows, np.bool_)) & ~terminals
    timeouts = stated
    whole = columns if offset is None else columns | {o: columns[o] + offset for o in OBSERVATIONS if o in columns}
    dimensions = (
        (in_full(name, ours), dimension)
        for ours in (*_NEEDED, "next_observations")
        if ours in columns
        for name, dimension in zip(names[ours], np.atleast_2d(whole[ours].T), strict=True)
    )
    checks = check_far_values(dimensions, where)
    if "episode" in columns:
        name = in_full(sources["episode"][0], "episode")
        timeouts, check = end_episodes(columns["episode"], terminals, stated, name, where)
        checks.append(check)
    elif "timeouts" not in columns:
        notes.append("no timeouts column: none assumed")
    require(checks)
    observations, actions, rewards = (columns[ours] for ours in _NEEDED)
    if "next_observations" in columns:
        following = columns["next_observations"]
        return Transitions(observations, actions, rewards, following, terminals, timeouts), checks
    if "episode" not in columns:
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


def _lift(
    where: str, sources: Sources, raw: dict[str, NDArray[Any]], names: list[str]
) -> tuple[dict[str, NDArray[Any]], NDArray[np.float64] | None, list[Check]]:
    """The file's columns, those of observations less their offsets, these offsets `[O]`, and what is to be said."""
    ours, following = (sources.get(column, ()) for column in OBSERVATIONS)
    parts = [raw[name] for name in ours], [raw[name] for name in following]
    *lifted, offset, checks = lift_offsets(*parts, names, where)
    return raw | dict(zip((*ours, *following), chain(*lifted), strict=True)), offset, checks


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
