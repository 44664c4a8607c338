"""Which columns of a file a map stands for, or have the usual names, and what is missing."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from mopo_cli.config.presets import suggestion
from mopo_cli.data.checks import Check
from mopo_cli.data.files.column_map import EXAMPLE, SHOWN, WIDE, Sources, check_number, joined, short_name
from mopo_cli.data.files.column_terms import KINDS, fits, reward_terms, split_kind
from mopo_cli.errors import UsageError

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
NEEDED = ("observations", "actions", "rewards")
"""What every log must have."""
DONE = ("dones", "done", "next.done")
"""Usual names of flags that Gym's environments set at a time limit, too."""
D3RLPY_ENDS = "episode_terminals"
"""Of d3rlpy 1.x: true in the last row of every episode, beside terminals."""


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
            check_number(ours, matching, "--columns", WIDE)
            names += matching
        check_number(ours, names, "--columns")
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

    A column of the usual name, else numbered columns (obs_0, obs_1, ...), else all in a group of such a name (obs/...).
    """
    wanted: Sources = {}
    names = set(here)
    for ours, usual in _USUAL.items():
        columns = tuple(name for name in usual if name in names)[:1]
        if not columns and ours in WIDE:
            short = short_name(ours)
            groups = (tuple(name for name in here if name.startswith(f"{group}/")) for group in usual)
            columns = _without_gap(short, here) or next(filter(None, groups), ())
        if columns:
            wanted[ours] = columns
    return wanted


def numbered(short: str, here: Sequence[str]) -> tuple[str, ...]:
    """The columns obs_0, obs_1, ..., also written obs_00, by their numbers."""
    numbers = {name: int(match[1]) for name in here if (match := re.fullmatch(rf"{short}_(\d{{1,6}})", name))}
    return tuple(sorted(numbers, key=numbers.__getitem__))


def _without_gap(short: str, here: Sequence[str]) -> tuple[str, ...]:
    names = numbered(short, here)
    numbers = [int(name.rpartition("_")[2]) for name in names]
    # Where one lacks, it is asked for.
    return names if numbers == [*range(len(names))] else tuple(f"{short}_{i}" for i in range(len(names)))


def in_words(columns: FileColumns) -> str:
    """The map, resolved, for people: ``observations = temp + pressure; actions = …``."""
    written = {name: f"{weight:g} * {name}" for name, weight in columns.weights.items()}
    written |= {name: f"{name}:{kind}" for name, kind in columns.kinds.items()}
    sources = {ours: tuple(written.get(name, name) for name in names) for ours, names in columns.sources.items()}
    return "; ".join(f"{ours} = {joined(names)}" for ours, names in sources.items())


def in_full(name: str, ours: str) -> str:
    """A column of the file as people are told of it: ``yield (rewards)``, or ``rewards`` where it is called that."""
    return name if name == ours else f"{name} ({ours})"


def missing_target(ours: str, here: Sequence[str], file: str, is_table: bool) -> Check:
    """The check of a column that no map can do without."""
    if not is_table:
        return _missing(ours, ours, here, f"{file}: column {ours} is missing")
    short = short_name(ours)
    named = f"{short}_0, {short}_1, ..." if ours in WIDE else short
    fault = f"{file}: there is no column {named} for {ours}, and --columns does not name one; {_holds(here)}."
    return Check(ours, "present", fault, hint=EXAMPLE)


def _check_kind(ours: str, pattern: str, kind: str) -> None:
    if ours not in KINDS[kind]:
        wanted = " and ".join(map(short_name, KINDS[kind]))
        raise UsageError(f"--columns {short_name(ours)}={pattern}: the ending :{kind} is for {wanted}.", EXAMPLE)


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
            EXAMPLE,
        )
    return names


def list_once(checks: Sequence[Check], here: Sequence[str]) -> list[Check]:
    """The checks, of which only the first that fails names what the file holds."""
    listing, listed, shorter = f"; {_holds(here)}", False, []
    for check in checks:
        shorter.append(replace(check, fault=check.fault.replace(listing, "")) if listed else check)
        listed = listed or listing in check.fault
    return shorter


def _missing(name: str, ours: str, here: Sequence[str], message: str) -> Check:
    return Check(in_full(name, ours), "present", f"{message}{suggestion(name, list(here))}; {_holds(here)}.")


def _holds(here: Sequence[str]) -> str:
    return f"the file holds {', '.join(here[:SHOWN]) or 'nothing'}{', ...' if len(here) > SHOWN else ''}"
