"""Layouts of HDF5 and NPZ files that hold their episodes apart, and what makes rows of them.

Groups (`data/demo_0/obs/x`, as robomimic), and numbered arrays (`observations_0`, as d3rlpy 2.x).
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mopo_cli.data.files.layout import Columns, Layout, Log, Wanted
from mopo_cli.data.files.layout_rows import Arrays, open_arrays, typed
from mopo_cli.data.files.log_files import by_number
from mopo_cli.data.files.resolve_columns import NEEDED, conventional
from mopo_cli.errors import InputError

EPISODE = "(episode)"
"""The column of the episodes' numbers, which these layouts make."""
_NEXT = " (next row)"
_SHOWN = 3


Shape = tuple[int, ...]


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


def _open_groups(path: Path) -> Log | None:
    """Groups that hold an episode each, by the numbers in their names, in a file that is not one log as it stands."""
    if (arrays := open_arrays(path)) is None:
        return None
    shapes = arrays.shapes()
    if _is_log(shapes) or not (groups := _usual_groups(shapes) or _like_groups(shapes)):
        return None
    names = sorted(groups, key=by_number)
    kinds = list(dict.fromkeys(re.sub(r"\d+", "*", name) for name in names))
    about = f"{len(names)} groups {', '.join(kinds[:_SHOWN])}{', ...' if len(kinds) > _SHOWN else ''}, one per episode"
    return _log_of_members(arrays, {name: groups[name] for name in names}, about)


def _usual_groups(shapes: Mapping[str, Shape]) -> dict[str, dict[str, Place]]:
    """The outermost groups with columns of the usual names; none where no name has a number, as in train and test."""
    inside: dict[str, dict[str, Place]] = defaultdict(dict)
    for name, shape in shapes.items():
        parts = name.split("/")
        for i in range(1, len(parts)):
            inside["/".join(parts[:i])]["/".join(parts[i:])] = Place(name, shape)
    groups: dict[str, dict[str, Place]] = {}
    for group, places in sorted(inside.items()):
        above = group.split("/")
        if any("/".join(above[:i]) in groups for i in range(1, len(above))):
            continue
        usual = conventional(list(places)).keys()
        # One that is numbered as the others are and lacks a column must not be passed over.
        if usual >= {*NEEDED} or (usual & {"observations", "actions"} and re.search(r"\d", group)):
            groups[group] = places
    return groups if any(re.search(r"\d", group) for group in groups) else {}


def _like_groups(shapes: Mapping[str, Shape]) -> dict[str, dict[str, Place]]:
    """The numbered groups in a file that has nothing else, if there are several with the same columns."""
    groups: dict[str, dict[str, Place]] = defaultdict(dict)
    for name, shape in shapes.items():
        if (match := re.fullmatch(r"((?:[^/]*/)*?[^/]*?\d)/(.+)", name)) is None:
            return {}
        groups[match[1]][match[2]] = Place(name, shape)
    are_like = len(groups) > 1 and len({tuple(places) for places in groups.values()}) == 1
    return groups if are_like else {}


def _open_numbered(path: Path) -> Log | None:
    """Arrays whose names end in the number of their episode, in a file that is not one log as it stands."""
    if (arrays := open_arrays(path)) is None:
        return None
    shapes = arrays.shapes()
    numbered: dict[int, dict[str, Place]] = defaultdict(dict)
    for name, shape in shapes.items():
        if (match := re.fullmatch(r"(.+)_(\d+)", name)) is not None:
            numbered[int(match[2])][match[1]] = Place(name, shape)
    whole = sum(_is_log(places) for places in numbered.values())
    if _is_log(shapes) or 2 * whole <= len(numbered):
        return None
    members = {f"episode {number}": numbered[number] for number in sorted(numbered)}
    return _log_of_members(arrays, members, f"numbered arrays, {len(members)} of each, one per episode")


def _log_of_members(arrays: Arrays, members: dict[str, dict[str, Place]], about: str) -> Log | None:
    """The log of episodes, by name, with the places of their columns; None where one has no steps' actions."""
    names = list(dict.fromkeys(chain(*members.values())))
    lacking = {name: next((each for each in members if name not in members[each]), "") for name in names}
    common = [name for name in names if not lacking[name]]
    actions = conventional(common).get("actions", ())
    if not common or not all(places[name].shape for places in members.values() for name in actions):
        return None
    episodes = []
    for places in members.values():
        lengths = [places[name].shape[0] for name in actions or common if places[name].shape]
        steps = Counter(lengths).most_common(1)[0][0] if lengths else 1
        episodes.append(Episode(steps, steps, {name: places[name] for name in common}))
    return replace(log_of(arrays, episodes, about), lacking={name: part for name, part in lacking.items() if part})


def _is_log(names: Collection[str]) -> bool:
    return conventional(list(names)).keys() >= {*NEEDED}


class Reader(Protocol):
    """What reads arrays, those of ``text`` also of text; of one that holds all episodes, each by its number."""

    @property
    def path(self) -> Path: ...

    def read(self, names: Sequence[str], text: Sequence[str] = ()) -> Mapping[str, Any]: ...


def log_of(arrays: Reader, episodes: list[Episode], note: str) -> Log:
    """The rows of all episodes, one after another, whose columns lie at their places in arrays.

    The column `EPISODE` has their numbers.
    """
    names = list(episodes[0].places)
    longer = [name for name in names if all(episode.has_one_more(name) for episode in episodes)]

    def read(wanted: Wanted) -> Columns:
        stored = {name: name.removesuffix(_NEXT) for name in wanted.names if name != EPISODE}
        places = {name: [episode.places[column] for episode in episodes] for name, column in stored.items()}
        text = set(wanted.text)
        is_text = {place.array: name in text for name, some in places.items() for place in some}
        raw = arrays.read(list(is_text), [array for array in is_text if is_text[array]])
        columns: Columns = {}
        for name, some in places.items():
            parts = [
                _rows(arrays.path, name, raw[place.array], place, episode, wanted)
                for place, episode in zip(some, episodes, strict=True)
            ]
            _check_widths(arrays.path, some, parts)
            columns[name] = typed(arrays.path, name, np.concatenate(parts), wanted)
        if EPISODE in wanted.labels:
            columns[EPISODE] = np.repeat(np.arange(len(episodes)), [episode.steps for episode in episodes])
        return columns

    following = {name: name + _NEXT for name in longer}
    return Log(names, read, episode=EPISODE, following=following, note=note)


def _check_widths(path: Path, places: Sequence[Place], parts: Sequence[NDArray[Any]]) -> None:
    for place, part in zip(places, parts, strict=True):
        if part.shape[1:] != parts[0].shape[1:]:
            shapes = f"{list(part.shape[1:])} a row, but {places[0].array} has {list(parts[0].shape[1:])}"
            raise InputError(f"{path.name}: {place.array} has {shapes}.")


def _rows(path: Path, name: str, array: NDArray[Any], place: Place, episode: Episode, wanted: Wanted) -> NDArray[Any]:
    """A column of one episode, `[steps]` or `[steps, width]`.

    What is there once per episode is the same in all its rows; but a flag is about its last row. InputError for a
    reward that is there once.
    """
    values, steps = array if place.index is None else array[place.index], episode.steps
    if values.ndim == 0 or (len(values) == 1 and steps > 1):
        if name in wanted.rewards and steps > 1:
            rewards = f"has one reward for an episode of {steps} steps"
            raise InputError(f"{path.name}: {place.array} {rewards}: write one per step, 0 where there is none.")
        once = np.full(steps, values.reshape(-1)[0])
        is_flag = name in wanted.flags or (name not in wanted.text and values.dtype.kind == "b")
        return np.where(np.arange(steps) == steps - 1, once, 0) if is_flag else once
    first = int(name.endswith(_NEXT))
    if len(values) not in (episode.room, episode.room + 1):
        rows = f"{len(values)} rows, but the actions beside it have {episode.room}"
        raise InputError(f"{path.name}: {place.array} has {rows}.", hint="leave it out of --columns")
    return values[first : first + steps]


GROUPS = Layout(
    "HDF5 with one group per episode, as robomimic's data/demo_0",
    _open_groups,
)
NUMBERED = Layout(
    "HDF5 or NPZ with numbered arrays per episode, as d3rlpy's observations_0",
    _open_numbered,
)
