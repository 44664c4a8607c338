"""A Minari dataset as transitions: every episode's T+1 observations are T states and T next states."""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import numpy as np

from mopo_cli.data.checks import Check, require
from mopo_cli.data.generate import LOGGED_INFOS
from mopo_cli.data.minari.environment import dataset_spaces, rebuild_environment
from mopo_cli.data.minari.episodes import Episode, read_episodes
from mopo_cli.data.minari.sets import HDF5_FILE, MinariSet, open_set
from mopo_cli.data.spaces import Spaces
from mopo_cli.data.transitions import COLUMNS, DatasetInfo, Transitions
from mopo_cli.data.values import check_actions_vary, check_far_values, dimensions
from mopo_cli.errors import InputError
from mopo_cli.evaluation.dict_observations import in_order
from mopo_cli.store.columns import check_declared

_REPORT_EVERY = 10_000
_LONGEST_TEXT = 200
_LARGEST = 1e300


def load_minari(
    dataset_id: str,
    on_progress: Callable[[int], None] = lambda _: None,
    env_id: str | None = None,
    env_kwargs: dict[str, Any] | None = None,
    chosen: Sequence[str] = (),
) -> tuple[Transitions, DatasetInfo]:
    """Read the set ``dataset_id`` (without "minari:") that lies under Minari's root, all episodes in their order.

    Terminations are terminals, truncations without one are timeouts, and so is the last row of an episode that
    has neither. ``on_progress(n)`` is told of n more transitions read, and may raise to stop. ``info.source`` says
    who made the set, what is known of its environment, and the `fingerprint` of what was read. ``env_id``, made
    with ``env_kwargs``, is the environment of a set that names none; then its action bounds count. Of Dict observations
    the entries ``chosen``, else all, lie side by side, in the order of ``info.obs_entries``.

    Raises InputError for a missing set, spaces that are not flat and continuous, an environment that differs
    from the data; UsageError where the set names another one than ``env_id``, or has no such entries; CorruptError for
    a damaged or incomplete set. Call `validate` on what comes back.
    """
    minari_set = open_set(dataset_id)
    spaces = dataset_spaces(minari_set, chosen)
    rebuilt = rebuild_environment(minari_set, spaces, env_id, env_kwargs)
    order = [in_order(spaces.entries)] if spaces.entries else []
    transitions = _join(minari_set, spaces, on_progress)
    checks = _look_at(transitions, f"minari:{dataset_id}")
    require(checks)
    reference_min, reference_max = _reference(minari_set.metadata)
    info = DatasetInfo(
        dataset_id=f"minari:{dataset_id}",
        env_id=rebuilt.env_id,
        source="; ".join(
            [*_origin(minari_set), *order, *rebuilt.notes, f"sha256 of the columns {fingerprint(transitions)}"]
        ),
        action_low=rebuilt.spaces.action_low,
        action_high=rebuilt.spaces.action_high,
        termination=rebuilt.termination,
        reference_min=reference_min,
        reference_max=reference_max,
        env_kwargs=rebuilt.kwargs,
        obs_entries=spaces.entries,
        doubts=tuple(check for check in checks if check.warning),
    )
    return transitions, info


def _look_at(transitions: Transitions, where: str) -> list[Check]:
    actions = list(dimensions("actions", transitions.actions))
    columns = [
        *dimensions("observations", transitions.observations),
        *actions,
        *dimensions("rewards", transitions.rewards),
        *dimensions("next_observations", transitions.next_observations),
    ]
    return [*check_far_values(columns, where), *check_actions_vary(actions, where)]


def fingerprint(transitions: Transitions) -> str:
    """sha256 over name, shape and bytes of every column, infos last: the same for the same data, however stored."""
    digest = hashlib.sha256()
    columns = {name: getattr(transitions, name) for name in COLUMNS} | dict(sorted(transitions.infos.items()))
    for name, column in columns.items():
        digest.update(f"{name} {column.shape}\n".encode())
        digest.update(np.ascontiguousarray(column).data)
    return digest.hexdigest()


def _join(minari_set: MinariSet, spaces: Spaces, on_progress: Callable[[int], None]) -> Transitions:
    joined = _empty(minari_set, spaces)
    infos = joined.infos
    row = reported = 0
    with np.errstate(over="ignore"):  # what does not fit becomes infinite, which validation reports by row
        for episode in read_episodes(minari_set, spaces):
            end = row + len(episode["rewards"])
            infos = {name: column for name, column in infos.items() if name in episode}
            _fill(joined, infos, slice(row, end), episode)
            row = end
            if row - reported >= _REPORT_EVERY:
                on_progress(row - reported)
                reported = row
    on_progress(row - reported)
    return replace(joined, infos=infos)


def _empty(minari_set: MinariSet, spaces: Spaces) -> Transitions:
    """Columns of the length that the metadata say. The system gives the memory as they are filled."""
    n = minari_set.steps
    floats = n * (2 * spaces.obs_dim + spaces.act_dim + 1 + len(LOGGED_INFOS))
    if minari_set.data_format == "hdf5":
        check_declared(minari_set.data / HDF5_FILE, np.dtype(np.float32).itemsize * floats)
    try:
        return Transitions(
            observations=np.empty((n, spaces.obs_dim), np.float32),
            actions=np.empty((n, spaces.act_dim), np.float32),
            rewards=np.empty(n, np.float32),
            next_observations=np.empty((n, spaces.obs_dim), np.float32),
            terminals=np.zeros(n, np.bool_),
            timeouts=np.zeros(n, np.bool_),
            infos={name: np.empty(n, np.float32) for name in LOGGED_INFOS},
        )
    except (MemoryError, OverflowError, ValueError) as error:
        raise InputError(
            f"The {n:,} steps of the Minari set in {minari_set.data.parent} do not fit into memory."
        ) from error


def _fill(joined: Transitions, infos: dict[str, Any], rows: slice, episode: Episode) -> None:
    joined.observations[rows] = episode["observations"][:-1]
    joined.next_observations[rows] = episode["observations"][1:]
    joined.actions[rows] = episode["actions"]
    joined.rewards[rows] = episode["rewards"]
    joined.terminals[rows] = episode["terminations"]
    timeouts = episode["truncations"].astype(np.bool_)
    timeouts[-1:] = True
    joined.timeouts[rows] = timeouts & ~joined.terminals[rows]
    for name, column in infos.items():
        column[rows] = episode[name]


def _reference(metadata: dict[str, Any]) -> tuple[float | None, float | None]:
    """The returns that the set's makers call score 0 and score 100, where they say both."""
    low, high = (_number(metadata.get(f"ref_{end}_score")) for end in ("min", "max"))
    return (low, high) if low < high else (None, None)


def _number(value: Any) -> float:
    """``value`` where it is a finite number, else NaN, with which every comparison fails."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and abs(value) < _LARGEST else math.nan


def _origin(minari_set: MinariSet) -> list[str]:
    metadata = minari_set.metadata
    authors = metadata.get("author") or []
    parts = [
        f"Minari set {minari_set.dataset_id}, read with minari {version('minari')}",
        f"written with {_line(metadata.get('minari_version', 'an unknown version'))}",
        f"by {_line(', '.join(sorted(map(str, authors))) if isinstance(authors, list) else authors)}"
        if authors
        else "",
        f"code {_line(metadata['code_permalink'])}" if metadata.get("code_permalink") else "",
    ]
    return [part for part in parts if part]


def _line(text: Any) -> str:
    """Somebody's text, fit for one line of a terminal."""
    return "".join(c if c.isprintable() else " " for c in str(text))[:_LONGEST_TEXT].strip()
