"""Layouts of HDF5 and NPZ files that hold their episodes apart, and what makes rows of them.

Groups (`data/demo_0/obs/x`, as robomimic), numbered arrays (`observations_0`, as d3rlpy 2.x), and arrays padded to
the longest episode (`[episodes, steps, width]`).
"""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mopo_cli.data.layout import Columns, Layout, Log, Wanted
from mopo_cli.data.layout_rows import Arrays, open_arrays, typed
from mopo_cli.data.resolve_columns import conventional
from mopo_cli.errors import InputError

EPISODE = "(episode)"
"""The column of the episodes' numbers, which these layouts make."""
_NEXT = " (next row)"
_LENGTHS = ("lengths", "length", "episode_lengths", "episode_length", "traj_lengths", "seq_lens", "seq_len")
_MASKS = ("mask", "masks", "valid", "valids", "padding_mask", "attention_mask")

Shape = tuple[int, ...]
Split = Callable[[str], tuple[str, int, str] | None]
"""The name of an array -> the family of episodes that it belongs to, the number of its episode, and its column."""


@dataclass(frozen=True)
class Place:
    """Where a column of an episode lies: in a whole array, or in its entry `index`; `shape` begins as the column's."""

    array: str
    shape: Shape
    index: int | None = None


@dataclass(frozen=True)
class Episode:
    """How many steps it has, for how many its columns have room, and where they lie."""

    steps: int
    room: int
    places: dict[str, Place]

    def has_one_more(self, name: str) -> bool:
        """Whether a column has one row more than there are steps: that of the last next state."""
        return self.places[name].shape[:1] == (self.room + 1,)


def _split_group(name: str) -> tuple[str, int, str] | None:
    match = re.fullmatch(r"((?:[^/]*/)*?[^/]*?)(\d+)/(.+)", name)
    return None if match is None else (match[1], int(match[2]), match[3])


def _split_number(name: str) -> tuple[str, int, str] | None:
    match = re.fullmatch(r"(.+)_(\d+)", name)
    return None if match is None else ("", int(match[2]), match[1])


def _open_family(path: Path, split: Split, about: str) -> Log | None:
    """The largest family of episodes in a file that is not one log as it stands."""
    if (arrays := open_arrays(path)) is None:
        return None
    shapes = arrays.shapes()
    families: dict[str, dict[int, dict[str, Place]]] = defaultdict(lambda: defaultdict(dict))
    for name, shape in shapes.items():
        if (parts := split(name)) is not None:
            family, number, column = parts
            families[family][number][column] = Place(name, shape)
    if not families or _is_log(shapes):
        return None
    family = max(families, key=lambda each: len(families[each]))
    members = [families[family][number] for number in sorted(families[family])]
    common = [name for name in members[0] if all(name in places for places in members)]
    if not _is_log(common):
        return None
    action, reward = (conventional(common)[ours][0] for ours in ("actions", "rewards"))
    if not all(places[action].shape and places[reward].shape for places in members):
        return None
    episodes = [
        Episode(places[action].shape[0], places[action].shape[0], {name: places[name] for name in common})
        for places in members
    ]
    return log_of(arrays, episodes, about.format(count=len(episodes), family=family))


def _open_padded(path: Path) -> Log | None:
    """A file whose actions are `[episodes, steps, width]`."""
    if (arrays := open_arrays(path)) is None:
        return None
    shapes = arrays.shapes()
    if not _is_log(shapes) or len(shape := shapes[conventional(list(shapes))["actions"][0]]) != 3:
        return None
    count, longest = shape[:2]
    lengths, how = _lengths(arrays, shapes, count, longest)
    rooms = ((count,), (count, longest), (count, longest + 1))
    rows = {name: shape[1:] for name, shape in shapes.items() if shape[:2] in rooms}
    episodes = [
        Episode(int(steps), longest, {name: Place(name, shape, i) for name, shape in rows.items()})
        for i, steps in enumerate(lengths)
    ]
    return log_of(arrays, episodes, f"{count} episodes padded to {longest} steps, {how}")


def _is_log(names: Collection[str]) -> bool:
    return conventional(list(names)).keys() >= {"observations", "actions", "rewards"}


def _lengths(arrays: Arrays, shapes: dict[str, Shape], count: int, longest: int) -> tuple[NDArray[np.int64], str]:
    """The steps of every episode `[count]`, and what says so. InputError where they are no lengths."""
    for name in _LENGTHS:
        if shapes.get(name) in ((count,), (count, 1)):
            lengths = arrays.read([name])[name].reshape(count).astype(np.int64)
            if not ((lengths >= 1) & (lengths <= longest)).all():
                raise InputError(f"{arrays.path.name}: {name} must hold numbers from 1 to {longest}.")
            return lengths, f"their lengths in {name}"
    for name in _MASKS:
        if shapes.get(name) in ((count, longest), (count, longest, 1)):
            mask = arrays.read([name])[name].reshape(count, longest) != 0
            if not (mask[:, 0].all() and (mask[:, :-1] >= mask[:, 1:]).all()):
                raise InputError(f"{arrays.path.name}: {name} must be 1 for the steps of an episode and 0 after them.")
            return mask.sum(axis=1), f"their steps marked in {name}"
    return np.full(count, longest), "all of this length, as no array gives their lengths"


class Reader(Protocol):
    """What reads arrays, those of ``text`` also of text; of one that holds all episodes, each by its number."""

    @property
    def path(self) -> Path: ...

    def read(self, names: Sequence[str], text: Sequence[str] = ()) -> Mapping[str, Any]: ...


def log_of(arrays: Reader, episodes: list[Episode], note: str) -> Log:
    """The rows of all episodes, one after another, whose columns lie at their places in arrays."""
    names = list(episodes[0].places)
    longer = [name for name in names if all(episode.has_one_more(name) for episode in episodes)]

    def read(wanted: Wanted) -> Columns:
        stored = {name: name.removesuffix(_NEXT) for name in wanted.names if name != EPISODE}
        places = {name: [episode.places[column] for episode in episodes] for name, column in stored.items()}
        text = set(wanted.text)
        is_text = {place.array: name in text for name, some in places.items() for place in some}
        raw = arrays.read(list(is_text), [array for array in is_text if is_text[array]])
        columns = {
            name: np.concatenate(
                [
                    _rows(arrays.path, name, raw[place.array], place, episode, name in text)
                    for place, episode in zip(some, episodes, strict=True)
                ]
            )
            for name, some in places.items()
        }
        columns = {name: typed(arrays.path, name, column, wanted) for name, column in columns.items()}
        if EPISODE in wanted.labels:
            columns[EPISODE] = np.repeat(np.arange(len(episodes)), [episode.steps for episode in episodes])
        return columns

    following = {name: name + _NEXT for name in longer}
    return Log(names, read, episode=EPISODE, following=following, note=note)


def _rows(path: Path, name: str, array: NDArray[Any], place: Place, episode: Episode, is_text: bool) -> NDArray[Any]:
    """A column of one episode, `[steps]` or `[steps, width]`.

    What is there once per episode is the same in all its rows; but a flag is about its last row.
    """
    values, steps = array if place.index is None else array[place.index], episode.steps
    if values.ndim == 0 or (len(values) == 1 and steps > 1):
        once = np.full(steps, values.reshape(-1)[0])
        return once if is_text or values.dtype.kind != "b" else once & (np.arange(steps) == steps - 1)
    first = int(name.endswith(_NEXT))
    if len(values) not in (episode.room, episode.room + 1):
        rows = f"{len(values)} rows, but the actions beside it have {episode.room}"
        raise InputError(f"{path.name}: {place.array} has {rows}.", hint="leave it out of --columns")
    return values[first : first + steps]


GROUPS = Layout(
    "HDF5 with one group per episode, as robomimic's data/demo_0",
    lambda path: _open_family(path, _split_group, "{count} groups {family}*, one per episode"),
)
NUMBERED = Layout(
    "HDF5 or NPZ with numbered arrays per episode, as d3rlpy's observations_0",
    lambda path: _open_family(path, _split_number, "numbered arrays, {count} of each, one per episode"),
)
PADDED = Layout("HDF5 or NPZ with arrays [episodes, steps, width] padded to the longest episode", _open_padded)
