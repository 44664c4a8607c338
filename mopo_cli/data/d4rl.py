"""A file of D4RL's as transitions: what its columns mean in each version, and the environment they belong to."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mopo_cli.data.checks import Check, require
from mopo_cli.data.d4rl_files import published
from mopo_cli.data.ends import guess_next
from mopo_cli.data.scores import d4rl_environment
from mopo_cli.data.spaces import Spaces, environment_fields, spaces_of_id
from mopo_cli.data.tidy import tidy_column
from mopo_cli.data.transitions import COLUMNS, DatasetInfo, Transitions
from mopo_cli.data.validate import discontinuities
from mopo_cli.errors import InputError
from mopo_cli.store.columns import open_hdf5, read_columns, stored_names

_NEXT = "next_observations"
# Rows inside an episode that the next row may fail to continue, one in so many: seams, and not a shifted column.
_SEAM_IN = 1000


def load_d4rl(path: Path, dataset_id: str) -> tuple[Transitions, DatasetInfo]:
    """Read ``path``, which the caller knows to be the published file of ``dataset_id``; all rows, no infos.

    - v2 holds next_observations: they are kept, also where a timeout ends the record.
    - v0 does not: see `ends.guess_next`. Its terminals stay, with ``terminal_next_known`` False.
    - Rows that the next row does not continue, as where the halves of medium-expert meet, are marked as timeouts.
    - Ant's 84 contact forces are left out where they are all zero, as in the -v4 environment.

    ``info.source`` says which of this was done. CorruptError or InputError for a file that is not as it should be.
    """
    file = published(dataset_id)
    env_id = d4rl_environment(dataset_id)
    transitions, notes, checks = _read(path)
    shifted = bool(notes)
    if shifted and "-medium-expert-" in dataset_id:
        notes.append("where its halves meet, one next state is wrong unless the file marks an end there")
    transitions = _mark_seams(transitions, notes)
    transitions, spaces, env_kwargs = _fit(transitions, env_id, notes)
    info = DatasetInfo(
        dataset_id=dataset_id,
        source="; ".join([f"D4RL {dataset_id}: {file.url} sha256 {file.sha256}", *notes]),
        **environment_fields(env_id, spaces.action_low, spaces.action_high),
        env_kwargs=env_kwargs,
        terminal_next_known=not (shifted and transitions.terminals.any()),
        # What would refuse somebody's log is told of a published set, which everybody uses as it is.
        doubts=tuple(replace(c, fault="", warning=text) for c in checks if (text := c.fault or c.warning)),
    )
    return transitions, info


def _read(path: Path) -> tuple[Transitions, list[str], list[Check]]:
    with open_hdf5(path) as file:
        here = [name for name in COLUMNS if name != _NEXT or name in stored_names(file)]
        raw = read_columns(file, here)
    tidied = {name: tidy_column(column, name, name, path.name, flat=False) for name, column in raw.items()}
    require([check for _, check in tidied.values()])
    columns: dict[str, Any] = {name: column for name, (column, _) in tidied.items()}
    if _NEXT in columns:
        return Transitions(**columns), [], []
    # Where a published file ends, only its record does, whatever the last reward is.
    stated = columns["timeouts"].copy()
    stated[-1:] = True
    transitions, _, notes, checks = guess_next(**columns, stated=stated, labelled=False, where=path.name)
    return transitions, notes, checks


def _mark_seams(transitions: Transitions, notes: list[str]) -> Transitions:
    rows = discontinuities(transitions)
    if not 0 < len(rows) <= max(1, len(transitions) // _SEAM_IN):
        return transitions  # whole, or in a state that validation tells of
    timeouts = transitions.timeouts.copy()
    timeouts[rows] = True
    notes.append(f"{len(rows)} rows that the next row does not continue marked as timeouts, first row {rows[0]}")
    return replace(transitions, timeouts=timeouts)


def _fit(transitions: Transitions, env_id: str, notes: list[str]) -> tuple[Transitions, Spaces, dict[str, bool]]:
    """The transitions as wide as the environment's spaces, these, and what it is made with."""
    spaces, env_kwargs = spaces_of_id(env_id), {}
    extra = transitions.obs_dim - spaces.obs_dim
    if env_id.startswith("Ant-") and extra > 0:
        columns = (transitions.observations, transitions.next_observations)
        if any(column[:, spaces.obs_dim :].any() for column in columns):
            env_kwargs = {"use_contact_forces": True}
            spaces = spaces_of_id(env_id, env_kwargs)
        else:
            observations, following = (np.ascontiguousarray(column[:, : spaces.obs_dim]) for column in columns)
            transitions = replace(transitions, observations=observations, next_observations=following)
            notes.append(f"{extra} contact forces, all zero, left out of the observations")
    dims, expected = (transitions.obs_dim, transitions.act_dim), (spaces.obs_dim, spaces.act_dim)
    if dims != expected:
        raise InputError(f"The observations and actions have {dims} dimensions, but those of {env_id} have {expected}.")
    return transitions, spaces, env_kwargs
