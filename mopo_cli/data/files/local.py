"""Somebody's own logs as checked-out columns."""

import hashlib
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mopo_cli.data.checks import Check, UnusableData, require
from mopo_cli.data.files.arrange import Rows, arrange
from mopo_cli.data.files.column_map import WIDE, ColumnMap, Sources, parse_column_map
from mopo_cli.data.files.counters import unused_counter
from mopo_cli.data.files.layout import Columns
from mopo_cli.data.files.layouts import open_log
from mopo_cli.data.files.read_columns import PLAIN, Reading, read_columns
from mopo_cli.data.files.resolve_columns import FileColumns, in_full
from mopo_cli.data.files.to_transitions import to_transitions
from mopo_cli.data.offsets import lift_offsets
from mopo_cli.data.spaces import Spaces, environment_fields, spaces_for_columns
from mopo_cli.data.tidy import tidy_column
from mopo_cli.data.transitions import OBSERVATIONS, DatasetInfo, Floats, Transitions
from mopo_cli.data.validate import checks as all_checks
from mopo_cli.data.values import bounds_in_words, bounds_of, check_actions_vary, check_continuous
from mopo_cli.errors import InputError, UsageError
from mopo_cli.evaluation.dict_observations import in_order


def load_local(
    paths: Sequence[Path],
    env_id: str | None,
    sha256: Sequence[str],
    how: Reading = PLAIN,
    name: str | None = None,
) -> tuple[Transitions, DatasetInfo]:
    """Read one file, or several as one log; ``info.source`` says what was done to columns that were not as they should.

    ``name`` is that of the whole where there are several files.

    - Rewards and flags may be `[N, 1]`, floats of any width, flags anything that is 0 or 1.
    - An episode ends where the value of ``episode`` changes: as a timeout, unless the row is terminal.
    - Without timeouts, episode_terminals that are no terminals are; without these, all are False.
    - Without next_observations, they are the next row's observations. Rows that end the record (timeouts, the
      last) are dropped and the rows before them marked as timeouts, unless they hold outcomes: see `data.ends`.
      Terminals keep their own observation as a filler, and ``info.terminal_next_known`` is False.
    - Without ``env_id`` and without bounds in the map, the action bounds are those of `actions.bounds_of`.
    - Observations that float32 cannot hold are stored less ``info.observation_offset``: see `data.offsets`.

    ``info.doubts`` are the warnings. Raises UnusableData, an InputError, for missing, misshapen and unreadable columns,
    discrete actions, values far outside, ends in other rows and what `validate` refuses; InputError where the
    environment has other spaces; UsageError for a map that is wrong in itself; CorruptError for a damaged file.
    """
    column_map, spaces = _map_and_spaces(env_id, how)
    where = name or paths[0].name
    # Which layout is it, and which of its columns are observations, actions, ...?
    log = open_log(paths, how.layout)
    of, raw, notes = read_columns(where, log, column_map, how)
    # Categories become numbers, rows are sorted by their steps, missing values are mended.
    rows, checks = arrange(where, of, raw, log, how.missing, notes)
    names = {ours: _dimension_names(of.sources[ours], rows) for ours in of.sources}
    names["rewards"] = ["+".join(of.sources.get("rewards", ("rewards",)))]
    offset, doubts = _lift(where, of.sources, rows, names["observations"])
    is_flat = bool(column_map.columns) or log.is_table
    # Matrices of float32, flags, the ends of episodes and, where they are missing, next observations.
    try:
        joined = _join(where, of, rows, is_flat or len(of.sources["observations"]) > 1)
        if (counter := unused_counter(log, of.sources, len(raw[of.sources["observations"][0]]))) is not None:
            names["counter"], joined["counter"] = [counter.name], counter.values[rows.numbers]
        transitions, kept, more_checks = to_transitions(where, of.sources, joined, offset, names, notes)
    except UnusableData as error:
        raise UnusableData(rows.in_files(error.checks, paths)) from error
    checks = [*rows.in_files(more_checks, paths), *checks, *doubts]
    if spaces is None and column_map.action_low is None:
        require([check_continuous({name: raw[name] for name in of.sources["actions"]}, of.kinds, where)])
    else:
        checks += check_actions_vary(zip(names["actions"], joined["actions"].T, strict=True), where)
    if env_id is not None and spaces is not None:
        _check_widths(where, transitions, env_id, spaces)
        low, high = spaces.action_low, spaces.action_high
        notes += [f"in {env_id}: {in_order(spaces.entries)}"] if spaces.entries else []
    else:
        low, high = _bounds(where, transitions, column_map, names["actions"], notes)
    info = DatasetInfo(
        dataset_id=where,
        source="; ".join([_of_files(paths, sha256, where), *notes]),
        **environment_fields(env_id, low, high, how.env_kwargs),
        env_kwargs=how.env_kwargs,
        obs_entries=() if spaces is None else spaces.entries,
        terminal_next_known="next_observations" in of.sources or not transitions.terminals.any(),
        names={"obs": names["observations"], "action": names["actions"]} if is_flat else {},
        doubts=tuple(check for check in checks if check.warning),
        observation_offset=offset,
    )
    rows.numbers = rows.numbers[kept]
    looked_at = list(all_checks(transitions, info))
    if any(check.fault for check in looked_at):
        raise UnusableData(rows.in_files(looked_at, paths), (transitions, info))
    return transitions, info


def _map_and_spaces(env_id: str | None, how: Reading) -> tuple[ColumnMap, Spaces | None]:
    """The map of columns, and the spaces of the environment if one is named."""
    column_map = parse_column_map(how.columns)
    if env_id is None:
        return column_map, None
    if column_map.action_low is not None:
        raise UsageError(f"--env {env_id} gives the action bounds: leave action_low and action_high out of --columns.")
    return column_map, spaces_for_columns(env_id, how.env_kwargs, column_map.columns.get("observations", ()))


def _of_files(paths: Sequence[Path], sha256: Sequence[str], name: str) -> str:
    if len(paths) == 1:
        return f"file {name} sha256 {sha256[0]}"
    together = hashlib.sha256("".join(sha256).encode()).hexdigest()
    return f"{len(paths)} files of {name}, sha256 of their sha256 {together}"


def _dimension_names(names: tuple[str, ...], rows: Rows) -> list[str]:
    """The file's columns as dimensions: ``temp`` and ``sex=F``, or ``observations[0]``, ``observations[1]``, ..."""
    shapes = {name: rows.raw[name].shape[1:] for name in names if name in rows.raw}
    dimensions = {
        name: [name] if shape in ((), (1,)) else [f"{name}[{i}]" for i in range(shape[0])]
        for name, shape in shapes.items()
    } | rows.dimensions
    return [dimension for name in names if name in dimensions for dimension in dimensions[name]]


def _lift(where: str, sources: Sources, rows: Rows, names: list[str]) -> tuple[NDArray[np.float64] | None, list[Check]]:
    """Take the offsets off the columns of observations, in place; these offsets `[O]`, and what is to be said."""
    ours, following = (sources.get(column, ()) for column in OBSERVATIONS)
    parts = [rows.raw[name] for name in ours], [rows.raw[name] for name in following]
    *lifted, offset, checks = lift_offsets(*parts, names, where)
    rows.raw |= dict(zip((*ours, *following), chain(*lifted), strict=True))
    return offset, checks


def _join(where: str, of: FileColumns, arranged: Rows, flat: bool) -> Columns:
    """Our columns, each put together from the file's and tidied; UnusableData telling all that is wrong."""
    sources, raw = {ours: names for ours, names in of.sources.items() if ours not in ("episode", "step")}, arranged.raw
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
            columns[ours] = np.concatenate(parts, axis=1) if len(parts) > 1 and ours in WIDE else parts[0]
            if ours == "rewards" and (len(parts) > 1 or of.weights):
                weights = np.array([of.weights.get(name, 1.0) for name in names])
                columns[ours] = (weights @ np.stack(parts).astype(np.float64)).astype(np.float32)
    require(checks)
    marks = {"episode": arranged.episode, "part": arranged.part}
    columns.setdefault("rewards", np.zeros(rows, np.float32))
    return columns | {name: mark for name, mark in marks.items() if mark is not None}


def _check_widths(where: str, transitions: Transitions, env_id: str, spaces: Spaces) -> None:
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


def _bounds(
    where: str, transitions: Transitions, column_map: ColumnMap, names: list[str], notes: list[str]
) -> tuple[Floats, Floats]:
    """The bounds of the actions where no environment tells them: the map's, else as far as the data go."""
    if column_map.action_low is not None and column_map.action_high is not None:
        notes.append("action bounds from the column map")
        return np.array(column_map.action_low, np.float32), np.array(column_map.action_high, np.float32)
    low, high, checks = bounds_of(transitions.actions, names, where)
    require(checks)
    notes.append(bounds_in_words(transitions.actions, low, high, names))
    return low, high
