"""The column map: which columns of somebody's file are observations, actions, rewards and ends of episodes.

Written ``obs=temp+pressure,action=valve_*,reward=yield-0.1*cost,episode=batch``, or as YAML with the same names.
``step`` is a step or a time by which the rows of an episode are sorted. ``obs=sex:onehot`` are categories,
``action=dose:quantity`` whole numbers that are amounts:

    obs: [temp, pressure]            # a list, or text as above
    action: valve_*
    reward: yield
    episode: batch
    action_low: [0, 0]               # bounds of the actions, where no environment tells them
    action_high: [100, 1]
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mopo_cli.config.presets import suggestion
from mopo_cli.errors import InputError, UsageError
from mopo_cli.store.files import expand

_NAMES = {
    "obs": "observations",
    "action": "actions",
    "reward": "rewards",
    "terminal": "terminals",
    "timeout": "timeouts",
    "next_obs": "next_observations",
}
_OURS = (*_NAMES.values(), "episode", "step")
WIDE = ("observations", "actions", "next_observations")
# Of several columns these are made too: a reward is their sum, an episode where all their values are equal.
_SEVERAL = (*WIDE, "rewards", "episode")
_BOUNDS = ("action_low", "action_high")
SHOWN = 20
_MOST_NAMES = 50_000
_LARGEST = 3.4e38  # a float32
EXAMPLE = '--columns "obs=temp+pressure,action=valve,reward=yield,episode=batch"'
_IN_YAML = "; names that hold a comma or a plus are given in a YAML file, --columns map.yaml"

Sources = dict[str, tuple[str, ...]]
"""Our name of a column -> the file's columns it is made of, in order."""


@dataclass(frozen=True)
class ColumnMap:
    """``columns`` as they were written, with globs; the bounds of the actions, None where they are not told."""

    columns: Sources = field(default_factory=dict)
    action_low: tuple[float, ...] | None = None
    action_high: tuple[float, ...] | None = None


def map_file(text: str | None) -> Path | None:
    """The YAML file that ``--columns`` names, None where it is the map itself."""
    return expand(text) if text and "=" not in text else None


def parse_column_map(text: str | None) -> ColumnMap:
    """The map that ``--columns`` gives; nothing is opened but its YAML file.

    UsageError for names that are not ours, given twice, or with too many columns; InputError where the YAML
    file cannot be read.
    """
    path = map_file(text)
    if path is None:
        return ColumnMap(_columns([_item(part) for part in text.split(",")] if text else [], "--columns"))
    document = _read_yaml(path)
    bounds = {name: _numbers(document.pop(name), name, path) for name in _BOUNDS if name in document}
    if len(bounds) == 1:
        raise UsageError(f"{path} gives only {next(iter(bounds))}: give both action_low and action_high.")
    items = [(name, _list(value, name, path)) for name, value in document.items()]
    return ColumnMap(_columns(items, str(path)), **bounds)


def _item(part: str) -> tuple[str, list[str]]:
    name, equals, value = part.partition("=")
    if not equals or not name.strip() or not value.strip():
        raise UsageError(f"--columns: {part.strip()!r} must be written NAME=COLUMN+COLUMN...{_IN_YAML}", EXAMPLE)
    return name.strip(), [column.strip() for column in value.split("+")]


def _columns(items: list[tuple[str, list[str]]], where: str) -> Sources:
    columns: Sources = {}
    for name, names in items:
        ours = _NAMES.get(name, name)
        if ours not in _OURS:
            short_names = [*_NAMES, "episode", "step"]
            did_you_mean = suggestion(name, [*short_names, *_OURS])
            raise UsageError(
                f"{where}: the name {name!r} is not known{did_you_mean}; the names are {', '.join(short_names)}.",
                EXAMPLE,
            )
        if ours in columns:
            raise UsageError(f"{where} gives {ours} twice.", EXAMPLE)
        if not names or not all(names):
            raise UsageError(f"{where} gives {name} an empty column name{_IN_YAML}.", EXAMPLE)
        check_number(ours, names, where)
        columns[ours] = tuple(names)
    return columns


def _read_yaml(path: Path) -> dict[str, Any]:
    from mopo_cli.store.yaml_text import BadYamlError, parse_yaml, read_yaml_text

    try:
        text = read_yaml_text(path)
    except InputError as error:
        raise InputError(
            f"--columns {path} is neither NAME=COLUMN... nor a readable YAML file: {error.message}", EXAMPLE
        ) from error
    try:
        document = parse_yaml(text, _MOST_NAMES)
    except BadYamlError as error:
        raise InputError(f"The column map {path} {error}.", error.hint) from error
    if not isinstance(document, dict) or not all(isinstance(name, str) for name in document):
        raise UsageError(f"The column map {path} must hold names and columns such as 'obs: [temp, pressure]'.")
    return document


def _list(value: Any, name: str, path: Path) -> list[str]:
    if isinstance(value, str):
        return [column.strip() for column in value.split("+")]
    if not isinstance(value, list) or not all(isinstance(column, str | int) for column in value):
        raise UsageError(f"The column map {path} must give {name} a column name or a list of column names.")
    return [str(column) for column in value]


def _numbers(value: Any, name: str, path: Path) -> tuple[float, ...]:
    if not isinstance(value, list) or not all(type(number) in (int, float) for number in value):
        raise UsageError(f"The column map {path} must give {name} a list of numbers, one per action.")
    if any(_LARGEST < abs(number) < math.inf for number in value):
        raise UsageError(f"The column map {path} gives {name} a number that is too large for float32.")
    return tuple(map(float, value))


def check_number(ours: str, names: Sequence[str], where: str, several: Sequence[str] = _SEVERAL) -> None:
    """UsageError for several names of a column of ours that is not among those made of `several`."""
    if len(names) > 1 and ours not in several:
        mend = f"give it one, or add them up: reward={'+'.join(names[:3])}" if ours == "rewards" else "give it one"
        several_names = f"{len(names)} columns ({joined(tuple(names))})"
        raise UsageError(f"{where} gives {short_name(ours)} {several_names}: {mend}.", EXAMPLE)


def short_name(ours: str) -> str:
    """What a column of ours is called in a map: obs for observations."""
    return next((name for name, long in _NAMES.items() if long == ours), ours)


def joined(names: tuple[str, ...]) -> str:
    """Names with plus signs between them; of many, the first and the last."""
    if len(names) <= 2 * SHOWN:
        return " + ".join(names)
    return f"{' + '.join(names[:SHOWN])} + ... + {names[-1]} ({len(names)} columns)"
