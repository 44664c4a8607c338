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
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mopo_cli.config.presets import suggestion
from mopo_cli.data.checks import Check
from mopo_cli.data.column_terms import KINDS, fits, reward_terms, split_kind
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
# The names of columns in files of D4RL, d3rlpy, Gymnasium, robomimic, LeRobot and RLlib, and those of `_NAMES`.
_USUAL = {
    "observations": ("observations", "obs", "observation", "observation.state"),
    "actions": ("actions", "action"),
    "rewards": ("rewards", "reward", "next.reward"),
    "terminals": ("terminals", "terminal", "terminations", "terminated", "terminateds", "dones", "done", "next.done"),
    "timeouts": ("timeouts", "timeout", "truncations", "truncated", "truncateds", "episode_terminals"),
    "next_observations": ("next_observations", "next_obs", "new_obs", "next_observation"),
    "episode": ("episode", "episode_index", "episode_id", "eps_id"),
}
_WIDE = ("observations", "actions", "next_observations")
# Of several columns these are made too: a reward is their sum, an episode where all their values are equal.
_SEVERAL = (*_WIDE, "rewards", "episode")
_BOUNDS = ("action_low", "action_high")
_SHOWN = 20
_MOST_NAMES = 50_000
_LARGEST = 3.4e38  # a float32
_EXAMPLE = '--columns "obs=temp+pressure,action=valve,reward=yield,episode=batch"'

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


@dataclass(frozen=True)
class FileColumns:
    """The columns of a file that ours are made of.

    ``weights`` are those of the columns whose sum is the reward, where they are not 1. ``kinds`` says of a column that
    it has categories ("onehot"), or amounts, although they are whole numbers ("quantity").
    """

    sources: Sources
    weights: dict[str, float] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)


def resolve(
    wanted: Sources, here: Sequence[str], file: str, absent: str = "is missing", in_groups: bool = True
) -> tuple[FileColumns, list[Check]]:
    """The file's columns that a map stands for: globs are filled in, in the order of ``here``, the file's own.

    Second, a failed check for each column that is not ``here``; ``absent`` says what that means. ``in_groups``: whether
    a name is a path, as in HDF5. UsageError for a column that is used twice, a glob that stands for columns of several
    groups, and one that gives several columns where one is needed.
    """
    columns = FileColumns({})
    faults = []
    user: dict[str, str] = {}
    for ours, patterns in wanted.items():
        if ours == "rewards":
            weights = reward_terms("+".join(patterns), here)
            columns.weights.update({name: weight for name, weight in weights.items() if weight != 1})
            patterns = tuple(weights)
        names = []
        for pattern in patterns:
            plain, kind = split_kind(pattern, here)
            matching = _matching(plain, here, ours, in_groups)
            if kind:
                _check_kind(ours, pattern, kind)
                columns.kinds.update(dict.fromkeys(matching, kind))
            # What is added up, or tells episodes apart, is named: a star may stand for more than was meant.
            _check_number(ours, matching, "--columns", _WIDE)
            names += matching
        _check_number(ours, names, "--columns")
        faults += [_missing(name, ours, here, f"{file}: column {name} {absent}") for name in names if name not in here]
        for name in names:
            if name in user:
                uses = f"{user[name]} and {ours}" if user[name] != ours else f"{ours} twice"
                raise UsageError(
                    f"--columns uses column {name} for {uses}: to use it again, copy it under another name."
                )
            user[name] = ours
        columns.sources[ours] = tuple(names)
    return columns, faults


def conventional(here: Sequence[str]) -> Sources:
    """The map of a file without one, by the names that are usual; what none of them is in the file for is left out.

    A column of the usual name, else numbered columns (obs_0, obs_1, ...), else all in a group of that name (obs/...).
    """
    wanted: Sources = {}
    names = set(here)
    for ours, usual in _USUAL.items():
        columns = tuple(name for name in usual if name in names)[:1]
        if not columns and ours in _WIDE:
            short = short_name(ours)
            columns = _numbered(short, here) or tuple(name for name in here if name.startswith(f"{short}/"))
        if columns:
            wanted[ours] = columns
    return wanted


def _numbered(short: str, here: Sequence[str]) -> tuple[str, ...]:
    count = sum(re.fullmatch(rf"{short}_\d{{1,6}}", name) is not None for name in here)
    return tuple(f"{short}_{i}" for i in range(count))  # where one lacks, it is asked for


def in_words(columns: FileColumns) -> str:
    """The map, resolved, for people: ``observations = temp + pressure; actions = …``."""
    written = {name: f"{weight:g} * {name}" for name, weight in columns.weights.items()}
    written |= {name: f"{name}:{kind}" for name, kind in columns.kinds.items()}
    sources = {ours: tuple(written.get(name, name) for name in names) for ours, names in columns.sources.items()}
    return "; ".join(f"{ours} = {_joined(names)}" for ours, names in sources.items())


def in_full(name: str, ours: str) -> str:
    """A column of the file as people are told of it: ``yield (rewards)``, or ``rewards`` where it is called that."""
    return name if name == ours else f"{name} ({ours})"


def missing_target(ours: str, here: Sequence[str], file: str, is_table: bool) -> Check:
    """The check of a column that no map can do without."""
    if not is_table:
        return _missing(ours, ours, here, f"{file}: column {ours} is missing")
    short = short_name(ours)
    named = f"{short}_0, {short}_1, ..." if ours in _WIDE else short
    fault = f"{file}: there is no column {named} for {ours}, and --columns does not name one; {_holds(here)}."
    return Check(ours, "present", fault, hint=_EXAMPLE)


def _item(part: str) -> tuple[str, list[str]]:
    name, equals, value = part.partition("=")
    if not equals or not name.strip() or not value.strip():
        raise UsageError(f"--columns: {part.strip()!r} must be written NAME=COLUMN+COLUMN...", _EXAMPLE)
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
                _EXAMPLE,
            )
        if ours in columns:
            raise UsageError(f"{where} gives {ours} twice.", _EXAMPLE)
        if not names or not all(names):
            raise UsageError(f"{where} gives {name} an empty column name.", _EXAMPLE)
        _check_number(ours, names, where)
        columns[ours] = tuple(names)
    return columns


def _read_yaml(path: Path) -> dict[str, Any]:
    from mopo_cli.store.yaml_text import BadYamlError, parse_yaml, read_yaml_text

    try:
        text = read_yaml_text(path)
    except InputError as error:
        raise InputError(
            f"--columns {path} is neither NAME=COLUMN... nor a readable YAML file: {error.message}", _EXAMPLE
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


def _check_kind(ours: str, pattern: str, kind: str) -> None:
    if ours not in KINDS[kind]:
        wanted = " and ".join(map(short_name, KINDS[kind]))
        raise UsageError(f"--columns {short_name(ours)}={pattern}: the ending :{kind} is for {wanted}.", _EXAMPLE)


def _check_number(ours: str, names: Sequence[str], where: str, several: Sequence[str] = _SEVERAL) -> None:
    if len(names) > 1 and ours not in several:
        mend = f"give it one, or add them up: reward={'+'.join(names[:3])}" if ours == "rewards" else "give it one"
        several_names = f"{len(names)} columns ({_joined(tuple(names))})"
        raise UsageError(f"{where} gives {short_name(ours)} {several_names}: {mend}.", _EXAMPLE)


def _matching(pattern: str, here: Sequence[str], ours: str, in_groups: bool) -> list[str]:
    """What a name with ``*`` stands for; itself where it is a column, or where there is none."""
    if "*" not in pattern or pattern in here:
        return [pattern]
    names = [name for name in here if fits(name, pattern)] or [pattern]
    groups = list(dict.fromkeys(name.rpartition("/")[0] for name in names))
    if in_groups and len(groups) > 1:
        shown = ", ".join(group or "/" for group in groups[:3]) + (", ..." if len(groups) > 3 else "")
        raise UsageError(
            f"--columns {short_name(ours)}={pattern} matches columns of {len(groups)} groups ({shown}). A star joins "
            "columns side by side, as dimensions of the same rows; it does not join the rows of several groups. If the "
            "groups are episodes, write all their rows into the same columns, with one more column that numbers the "
            "episodes. If they are dimensions, name each column without a star.",
            _EXAMPLE,
        )
    return names


def list_once(checks: Sequence[Check], here: Sequence[str]) -> list[Check]:
    """The checks, of which only the first that fails names what the file holds."""
    listing, listed, shorter = f"; {_holds(here)}", False, []
    for check in checks:
        shorter.append(replace(check, fault=check.fault.replace(listing, "")) if listed else check)
        listed = listed or listing in check.fault
    return shorter


def short_name(ours: str) -> str:
    """What a column of ours is called in a map: obs for observations."""
    return next((name for name, long in _NAMES.items() if long == ours), ours)


def _missing(name: str, ours: str, here: Sequence[str], message: str) -> Check:
    return Check(in_full(name, ours), "present", f"{message}{suggestion(name, list(here))}; {_holds(here)}.")


def _holds(here: Sequence[str]) -> str:
    return f"the file holds {', '.join(here[:_SHOWN]) or 'nothing'}{', ...' if len(here) > _SHOWN else ''}"


def _joined(names: tuple[str, ...]) -> str:
    if len(names) <= 2 * _SHOWN:
        return " + ".join(names)
    return f"{' + '.join(names[:_SHOWN])} + ... + {names[-1]} ({len(names)} columns)"
