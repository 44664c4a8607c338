"""The episodes of a Minari dataset, one at a time, checked."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mopo_cli.data.generate import LOGGED_INFOS
from mopo_cli.data.minari.sets import HDF5_FILE, MinariSet, mend
from mopo_cli.data.spaces import Spaces
from mopo_cli.errors import CorruptError, MopoError
from mopo_cli.evaluation.dict_observations import entry_of
from mopo_cli.store.columns import open_hdf5, read_columns, stored_names

Episode = dict[str, NDArray[Any]]
"""``observations`` `[T+1, O]`, ``actions`` `[T, A]`, ``rewards``, ``terminations`` and ``truncations`` `[T]`, and
those of LOGGED_INFOS that were recorded `[T]`; numbers of any width."""

_COLUMNS = ("observations", "actions", "rewards", "terminations", "truncations")


def read_episodes(minari_set: MinariSet, spaces: Spaces) -> Iterator[Episode]:
    """All episodes in their order.

    Raises CorruptError or InputError, with what mends it, where they cannot be read, do not fit ``spaces``, or
    have other steps in all than the metadata say.
    """
    read = _from_hdf5 if minari_set.data_format == "hdf5" else _from_library
    left = minari_set.steps
    try:
        for k, raw in enumerate(read(minari_set, spaces)):
            episode = _checked(minari_set, k, _side_by_side(raw, spaces), spaces)
            left -= len(episode["rewards"])
            if left < 0:
                break
            yield episode
    except MopoError as error:
        raise type(error)(error.message, error.hint or mend(minari_set.dataset_id)) from error
    if left:
        raise CorruptError(
            f"The Minari set in {minari_set.data.parent} is damaged: its episodes have "
            f"{'more' if left < 0 else 'fewer'} steps than the {minari_set.steps:,} in its metadata.",
            mend(minari_set.dataset_id),
        )


def _columns(spaces: Spaces) -> list[str]:
    """The columns of an episode: of Dict observations, each entry is one."""
    return [*(f"observations/{path}" for path in spaces.entries), *_COLUMNS[bool(spaces.entries) :]]


def _from_hdf5(minari_set: MinariSet, spaces: Spaces) -> Iterator[Episode]:
    # Minari's own reader follows links out of the file, allocates whatever the file claims and decodes every info.
    with open_hdf5(minari_set.data / HDF5_FILE) as file:
        for k in range(minari_set.episodes):
            infos = {*stored_names(file, f"episode_{k}/infos")}.intersection(LOGGED_INFOS)
            places = {name: f"episode_{k}/{name}" for name in _columns(spaces)}
            places |= {name: f"episode_{k}/infos/{name}" for name in infos}
            columns = read_columns(file, places.values())
            yield {name: columns[place] for name, place in places.items()}


def _from_library(minari_set: MinariSet, spaces: Spaces) -> Iterator[Episode]:
    try:
        from minari import MinariDataset

        for episode in MinariDataset(minari_set.data).iterate_episodes():
            columns = {name: _column_of(episode, name) for name in _columns(spaces)}
            infos = {name: value for name, value in (episode.infos or {}).items() if name in LOGGED_INFOS}
            yield {name: np.asarray(column) for name, column in {**columns, **infos}.items()}
    except Exception as error:  # the storages' libraries have no error class in common
        raise CorruptError(f"The Minari set in {minari_set.data.parent} cannot be read ({error!r}).") from error


def _column_of(episode: Any, name: str) -> Any:
    column, _, path = name.partition("/")
    return entry_of(getattr(episode, column), path) if path else getattr(episode, column)


def _side_by_side(raw: Episode, spaces: Spaces) -> Episode:
    """The episode with the entries of its Dict observations side by side, each in C order.

    Where they cannot be, the first stands for all, and is refused.
    """
    if not spaces.entries:
        return raw
    parts = [raw[f"observations/{path}"] for path in spaces.entries]
    fit = all(part.ndim and part.dtype.kind in "fiub" for part in parts) and len(set(map(len, parts))) == 1
    joined = np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1) if fit else parts[0]
    return {**raw, "observations": joined}


def _checked(minari_set: MinariSet, k: int, episode: Episode, spaces: Spaces) -> Episode:
    """The episode, without infos that are not one finite number per step."""
    steps = episode["rewards"].size
    wanted = {
        "observations": (steps + 1, spaces.obs_dim),
        "actions": (steps, spaces.act_dim),
        **dict.fromkeys(("rewards", "terminations", "truncations"), (steps,)),
    }
    for name, shape in wanted.items():
        column = episode[name]
        if column.shape != shape or column.dtype.kind not in "fiub":
            raise CorruptError(
                f"The Minari set in {minari_set.data.parent} is damaged: {name} of episode {k} are {column.dtype} of "
                f"shape {column.shape}, not numbers of shape {shape}."
            )
    infos = {name: _per_step(episode[name], steps) for name in LOGGED_INFOS if name in episode}
    return {name: episode[name] for name in wanted} | {name: info for name, info in infos.items() if info is not None}


def _per_step(info: NDArray[Any], steps: int) -> NDArray[Any] | None:
    """The info after each step `[T]`; where there are T+1, the first was told by the reset."""
    info = info[1:] if info.shape == (steps + 1,) else info
    return info if info.shape == (steps,) and info.dtype.kind in "fiu" and np.isfinite(info).all() else None
