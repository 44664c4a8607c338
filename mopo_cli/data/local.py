"""A file in D4RL's layout, with the liberties that such files take, as checked-out columns."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mopo_cli.data.scores import reference_scores
from mopo_cli.data.spaces import spaces_of_id
from mopo_cli.data.transitions import Bools, DatasetInfo, Floats, Transitions
from mopo_cli.errors import InputError
from mopo_cli.store.columns import open_hdf5, read_columns, stored_names
from mopo_cli.tasks.termination import termination_for_env

_REQUIRED = ("observations", "actions", "rewards", "terminals")
_OPTIONAL = ("timeouts", "next_observations")


def load_local(path: Path, env_id: str | None, sha256: str) -> tuple[Transitions, DatasetInfo]:
    """Read ``path``; ``info.source`` says what was done to the columns that were not as they should be.

    - Rewards and flags may be `[N, 1]`, floats of any width, flags anything that is 0 or 1.
    - Without timeouts, all are False.
    - Without next_observations, they are the next row's observations; rows whose next state is then unknown
      (terminals, timeouts and the last) are dropped, and the rows before them end their episodes as timeouts.
    - Without ``env_id``, the action bounds are symmetric, and [-1, 1] or as far as the actions go.

    Raises InputError for missing or misshapen columns, and where the environment has other spaces;
    CorruptError for a damaged file. Call `validate` on what comes back.
    """
    with open_hdf5(path) as file:
        here = set(stored_names(file))
        raw = read_columns(file, [*_REQUIRED, *(name for name in _OPTIONAL if name in here)])
    transitions, notes = _tidy(raw, path.name)
    low, high = _bounds(transitions, env_id, path.name, notes)
    reference = reference_scores(env_id) or (None, None)
    info = DatasetInfo(
        dataset_id=path.name,
        env_id=env_id,
        source="; ".join([f"file {path.name} sha256 {sha256}", *notes]),
        action_low=low,
        action_high=high,
        termination=termination_for_env(env_id),
        reference_min=reference[0],
        reference_max=reference[1],
        seed=None,
    )
    return transitions, info


def _tidy(raw: dict[str, NDArray[Any]], where: str) -> tuple[Transitions, list[str]]:
    notes: list[str] = []
    columns = {name: _matrix(raw, name, where) for name in ("observations", "actions")}
    rewards = _floats(_vector(raw, "rewards", where))
    rows = len(columns["observations"])
    terminals = _flags(raw, "terminals", where)
    if "timeouts" in raw:
        timeouts = _flags(raw, "timeouts", where)
    else:
        timeouts = np.zeros(rows, np.bool_)
        notes.append("no timeouts column: none assumed")
    for name, column in {**columns, "rewards": rewards, "terminals": terminals, "timeouts": timeouts}.items():
        if len(column) != rows:
            raise InputError(f"{where}: column {name} has {len(column)} rows, observations has {rows}.")
    if "next_observations" in raw:
        following = _matrix(raw, "next_observations", where)
        return Transitions(
            **columns, rewards=rewards, next_observations=following, terminals=terminals, timeouts=timeouts
        ), notes
    return _shift(columns["observations"], columns["actions"], rewards, terminals, timeouts, notes), notes


def _shift(
    observations: Floats,
    actions: Floats,
    rewards: Floats,
    terminals: Bools,
    timeouts: Bools,
    notes: list[str],
) -> Transitions:
    ends = terminals | timeouts
    ends[-1:] = True
    kept = ~ends[:-1]
    notes.append(
        f"no next_observations column: taken from the next row, {int(ends.sum())} rows that end an episode "
        f"dropped ({int(terminals.sum())} terminals among them) and the rows before them marked as timeouts"
    )
    return Transitions(
        observations=observations[:-1][kept],
        actions=actions[:-1][kept],
        rewards=rewards[:-1][kept],
        next_observations=observations[1:][kept],
        terminals=np.zeros(int(kept.sum()), np.bool_),
        timeouts=ends[1:][kept],
    )


def _bounds(transitions: Transitions, env_id: str | None, where: str, notes: list[str]) -> tuple[Floats, Floats]:
    if env_id is None:
        reach = np.abs(transitions.actions).max(axis=0, initial=1.0)
        notes.append("no environment named: action bounds taken from the data")
        return -reach, reach
    spaces = spaces_of_id(env_id)
    for name, width, wanted in (
        ("observations", transitions.obs_dim, spaces.obs_dim),
        ("actions", transitions.act_dim, spaces.act_dim),
    ):
        if width != wanted:
            raise InputError(
                f"{where}: column {name} is {width} wide, but {env_id} has {wanted}: "
                "name the environment that the file was logged in.",
                hint="mopo fetch-data --dataset ./file.h5 --env ENV-ID",
            )
    return spaces.action_low, spaces.action_high


def _matrix(raw: dict[str, NDArray[Any]], name: str, where: str) -> Floats:
    if raw[name].ndim != 2:
        raise InputError(f"{where}: column {name} has shape {raw[name].shape}, not [rows, width].")
    return _floats(raw[name])


def _vector(raw: dict[str, NDArray[Any]], name: str, where: str) -> NDArray[Any]:
    column = raw[name]
    if column.ndim == 2 and column.shape[1] == 1:
        column = column[:, 0]
    if column.ndim != 1:
        raise InputError(f"{where}: column {name} has shape {column.shape}, not [rows] or [rows, 1].")
    return column


def _flags(raw: dict[str, NDArray[Any]], name: str, where: str) -> Bools:
    column = _vector(raw, name, where)
    odd = np.flatnonzero((column != 0) & (column != 1))
    if len(odd):
        raise InputError(f"{where}: column {name} holds {column[odd[0]]} in row {odd[0]}, not 0 or 1.")
    return column.astype(np.bool_)


def _floats(column: NDArray[Any]) -> Floats:
    # What does not fit becomes infinite, which validation reports by row.
    with np.errstate(over="ignore"):
        return column.astype(np.float32)
