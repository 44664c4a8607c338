"""Tables of which the truth is known, each written in a way chosen by chance: what is read must be that truth."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from faults.table_files import ENDINGS, TEXT, Column, Style, write
from faults.truth import Log, Piece, pieces_of, simulate

NAMES = "Temp (°C)|Durchfluss [m³/h]|p1 - p2|Ventil %|x+y|a,b|rate=1|k*|Größe|level|2*flow|count 5|-dose|pH|N°|e|1e3".split("|")
START = datetime(2024, 3, 1, 6)
DAY = 86400
STEPS = {"int": 1.0, "count": 1.0, "seconds": 0.1, "minutes": 60.0, "iso": 60.0, "fractions": 0.25, "dotted": 60.0}
"""Kinds of columns of steps, and how many seconds a step takes."""


@dataclass
class Case:
    """Files to read, how, and the truth; or patterns that the refusal must have, all of them, where there is a fault."""

    paths: list[Path]
    columns: str | None
    missing: str = "refuse"
    pieces: list[Piece] = field(default_factory=list)
    refusal: tuple[str, ...] = ()
    ways: list[str] = field(default_factory=list)
    layout: str = ""


@dataclass
class Table:
    """A log as the cells of one or several files: `order` are the rows of each, some of them perhaps twice."""

    log: Log
    columns: list[Column]
    order: list[list[int]]
    style: Style
    ending: str
    remedy: str
    pieces: list[Piece]
    ways: list[str]

    def column(self, role: str) -> Column:
        """The first column of that role."""
        return next(column for column in self.columns if column.role == role)

    def save(self, folder: Path) -> Case:
        """Write the files, and a map of their columns in a YAML file where names hold signs."""
        folder.mkdir()
        paths = [folder / f"log_{i}{self.ending}" for i in range(8, 8 + len(self.order))]
        for path, rows in zip(paths, self.order, strict=True):
            cells = [replace(c, cells=[c.cells[row] for row in rows]) for c in self.columns]
            write(path, cells, self.style)
        return Case(paths, self._map(folder.parent / f"{folder.name}.yaml"), self.remedy, self.pieces, ways=self.ways)

    def _map(self, path: Path) -> str:
        if not self.style.heading:
            for i, column in enumerate(self.columns):
                column.name = str(i)
        items: dict[str, list[str]] = {}
        for column in sorted(filter(lambda c: c.role, self.columns), key=lambda c: c.role):
            role, _, place = column.role.partition(" ")
            name = column.mapped or column.name
            name = f"{name}:{column.kind}" if column.kind else name
            if role == "reward" and (weight := self.log.weights[int(place)]) != 1:
                name = f"{weight:.2f}*{name}"
            items.setdefault(role, []).append(name)
        if not any(set(",=+\n") & set(name) for names in items.values() for name in names):
            return ",".join(f"{role}={_sum(names) if role == 'reward' else '+'.join(names)}" for role, names in items.items())
        path.write_text(yaml.safe_dump(items, allow_unicode=True))
        return str(path)


def make_table(chance: np.random.Generator, endings: Sequence[str] = ENDINGS, plain: bool = False) -> Table:
    """A log and how it is written, by chance; ``plain``: labelled rows in order, with nothing special but the text."""

    def pick(*values: Any) -> Any:
        return values[int(chance.integers(len(values)))]

    def maybe(share: float) -> bool:
        return bool(chance.random() < share) and not plain

    ending, decimals = pick(*endings), pick(1, 2, 4, 5)
    style = _style(chance, ending, decimals)
    style.heading |= plain
    units, quantity = _units(chance, style), maybe(0.1)
    if maybe(0.2):
        units, style.decimals = [10.0 ** pick(-6, -3, 0, 3, 6) for _ in units], None
    log = simulate(chance, decimals, units, quantity)
    marks = "episode" if plain else pick("episode", "episode", "episode", "flags", "terminal", "step", "files")
    step = None if plain else pick(None, *STEPS)
    if marks == "step":
        step = pick("int", "seconds", "minutes")
    if step == "dotted" and ending not in (*TEXT, ".parquet"):
        step = "iso"
    if step in ("iso", "dotted", "fractions") and not style.heading:
        step = "int"
    if marks == "terminal":
        log.terminal[np.flatnonzero(np.diff(log.episode, append=-1))[:-1]] = True
    labelled = marks == "episode"
    gaps, has_next = labelled and step is not None and maybe(0.3), maybe(0.3)
    if gaps:
        log = _with_gaps(chance, log)
    if clock := maybe(0.15):
        log.obs = np.concatenate([log.obs, _clock(log)], axis=1)
        log.following = np.concatenate([log.following, _clock(log) + 60], axis=1)
        style.decimals = None
    outcomes = labelled and not (gaps or has_next) and maybe(0.1)
    if outcomes:
        ends = np.diff(log.episode, append=-1) != 0
        log.weights, log.terminal = [1.0], ends
        log.terms = np.where(ends, chance.choice([-15.0, 15.0], len(log)), 0.0)[:, None]
    if maybe(0.2) and not has_next and style.heading:
        log.word = [str(word) for word in chance.choice(["F", "M", "größer als", "7"], len(log))]
    remedy = "refuse"
    if style.heading and not outcomes and maybe(0.3):
        remedy = pick("split-episodes", "fill-forward", *([] if has_next else ["drop-rows"]))
        _lose(chance, log, has_next)
    order = [list(range(len(log)))]
    if marks == "files" or (labelled and maybe(0.3)):
        order = _in_files(chance, log, one_each=marks == "files")
    counts = bool(labelled and len(order) > 1 and maybe(0.5))
    columns = _columns(log, has_next, quantity)
    sees_terminals = marks in ("flags", "terminal") or maybe(0.6)
    if sees_terminals and not outcomes:
        columns.append(Column("", "terminal", [bool(flag) for flag in log.terminal]))
    if marks == "flags":
        ends = (np.diff(log.episode, append=-1) != 0) & ~log.terminal
        columns.append(Column("", "timeout", [bool(flag) for flag in ends]))
    if labelled:
        columns.append(Column("", "episode", _labels(log, order, counts, pick("number", "text") if style.heading else "number")))
    mixed = "kept"
    if step is not None:
        mixed = pick("kept", "shuffled", "in turn") if labelled else "kept"
        if not labelled and marks == "flags" and step in ("count", "iso") and maybe(0.3):
            mixed = "shuffled"
        columns.append(Column("", "step", _steps(chance, log, step, parallel=mixed == "in turn" and maybe(0.5))))
        order = [_mixed(chance, log, rows, mixed) for rows in order]
        if maybe(0.3):
            order = [_repeated(chance, rows, anywhere=labelled) for rows in order]
    if style.heading and maybe(0.5):
        columns.append(Column("Kommentar", "", [pick("", 'gut; "sehr", gut', "1,5\nund mehr", "Ö") for _ in range(len(log))]))
    _name(chance, columns, style)
    pieces = pieces_of(log, has_next, step is not None, remedy, sees_terminals or outcomes)
    ways = {
        f"file {ending}": True,
        f"encoding {style.encoding}": ending in TEXT,
        "no heading": not style.heading,
        "decimal commas": style.comma,
        "points between thousands": style.thousands,
        f"ends by {marks}": True,
        f"step {step}": step is not None,
        f"rows {mixed}": mixed != "kept",
        "rows repeated": sum(map(len, order)) > len(log),
        "gaps": gaps,
        f"--missing {remedy}": bool(log.lacks),
        "categories": any(log.word),
        "amounts": quantity,
        "weighted rewards": log.weights != [1.0],
        "outcomes": outcomes,
        "next observations": has_next,
        "several files": len(order) > 1,
        "labels from 0 in each file": counts,
        "units far apart": style.decimals is None and ending in TEXT,
        "clock since 1970": clock,
    }
    return Table(log, columns, order, style, ending, remedy, pieces, [way for way, is_so in ways.items() if is_so])


def _sum(terms: list[str]) -> str:
    """Terms with their signs between them, where they begin with a weight."""
    return "".join(term if not i or re.match(r"-[\d.]+\*", term) else f"+{term}" for i, term in enumerate(terms))


def _style(chance: np.random.Generator, ending: str, decimals: int) -> Style:
    if ending not in TEXT:
        return Style()
    separator = "\t" if "tsv" in ending else str(chance.choice([",", ";", "\t"]))
    comma = separator != "," and chance.random() < 0.5
    return Style(
        separator=separator,
        comma=bool(comma),
        thousands=bool(comma and chance.random() < 0.5),
        decimals=decimals,
        encoding=str(chance.choice(["utf-8", "utf-8-sig", "cp1252", "utf-16"])),
        heading=bool(chance.random() < 0.85),
        newline=str(chance.choice(["\n", "\r\n"])),
        flags=[("0", "1"), ("False", "True"), ("true", "false")[::-1]][int(chance.integers(3))],
        empty=str(chance.choice(["", " ", "nan"])),
    )


def _units(chance: np.random.Generator, style: Style) -> list[float]:
    return [float(chance.choice([1.0, 1000.0] if style.thousands else [1.0])) for _ in range(int(chance.integers(1, 5)))]


def _with_gaps(chance: np.random.Generator, log: Log) -> Log:
    """Without a few rows inside episodes: so few that the others say how long a step is."""
    inside = [i for i in range(1, len(log) - 1) if log.episode[i - 1] == log.episode[i] == log.episode[i + 1]]
    gone = {int(row) for row in chance.choice(inside, max(1, len(inside) // 30), replace=False)}
    return log.select([i for i in range(len(log)) if i not in gone])


def _clock(log: Log) -> Any:
    """Seconds since 1970, a minute for each row."""
    return (1.7e9 + DAY * log.episode + 60.0 * log.time)[:, None]


def _lose(chance: np.random.Generator, log: Log, has_next: bool) -> None:
    names = [f"action {i}" for i in range(log.action.shape[1])] + [f"reward {i}" for i in range(log.terms.shape[1])]
    if not has_next:
        names += [f"obs {i}" for i in range(log.obs.shape[1])] + ["word"] * any(log.word)
    for _ in range(int(chance.integers(1, 2 + len(log) // 12))):
        log.lacks.add((int(chance.integers(len(log))), str(chance.choice(names))))


def _in_files(chance: np.random.Generator, log: Log, one_each: bool) -> list[list[int]]:
    """The rows of each file: whole episodes, one or some."""
    numbers = list(dict.fromkeys(log.episode.tolist()))
    cuts = numbers if one_each else sorted({numbers[0], *chance.choice(numbers, 2).tolist()})
    bounds = [*cuts, numbers[-1] + 1]
    return [
        [i for i in range(len(log)) if low <= log.episode[i] < high]
        for low, high in zip(bounds, bounds[1:], strict=False)
    ]


def _columns(log: Log, has_next: bool, quantity: bool) -> list[Column]:
    """The columns of values; a value that is missing is None."""
    vectors = {"obs": log.obs, "action": log.action, "reward": log.terms} | ({"next_obs": log.following} if has_next else {})
    columns = [
        Column("", f"{role} {i}", [None if (row, f"{role} {i}") in log.lacks else float(value) for row, value in enumerate(values)])
        for role, vector in vectors.items()
        for i, values in enumerate(vector.T)
    ]
    for column in columns if quantity else []:
        if column.role.startswith("action"):
            column.cells, column.kind = [None if cell is None else int(cell) for cell in column.cells], "quantity"
    if any(log.word):
        cells = ["" if (row, "word") in log.lacks else word for row, word in enumerate(log.word)]
        columns.append(Column("", "obs 99", cells, "onehot"))
    return columns


def _labels(log: Log, order: list[list[int]], counts: bool, kind: str) -> list[Any]:
    """A label for each row, ``counts``: from 0 in each file."""
    first = {row: int(log.episode[rows[0]]) if counts else 0 for rows in order for row in rows}
    numbers = [int(log.episode[row]) - first[row] for row in range(len(log))]
    return [f"Bär {number}" for number in numbers] if kind == "text" else numbers


def _steps(chance: np.random.Generator, log: Log, kind: str, parallel: bool) -> list[Any]:
    begin = int(chance.integers(2))
    if kind == "int":
        return [int(time) + begin for time in log.time]
    seconds = log.time * STEPS[kind]
    if kind == "count":  # one that counts on over all episodes
        return (np.arange(len(log)) if not _has_gaps(log) else 1000 * log.episode + log.time).tolist()
    if kind in ("seconds", "minutes"):
        return np.round(seconds + STEPS[kind] * chance.uniform(0, 0.1, len(log)) * (log.time > 0), 4).tolist()
    form = {"iso": "%Y-%m-%dT%H:%M:%S", "fractions": "%Y-%m-%d %H:%M:%S.%f", "dotted": "%d.%m.%Y %H:%M"}[kind]
    days = (0 if parallel else 1) * log.episode
    return [
        (START + timedelta(days=int(day), seconds=float(second))).strftime(form)
        for day, second in zip(days, seconds, strict=True)
    ]


def _has_gaps(log: Log) -> bool:
    return bool(((np.diff(log.time) != 1) & (np.diff(log.episode) == 0)).any())


def _mixed(chance: np.random.Generator, log: Log, rows: list[int], how: str) -> list[int]:
    if how == "shuffled":
        return [int(row) for row in chance.permutation(rows)]
    return sorted(rows, key=lambda row: (log.time[row], log.episode[row])) if how == "in turn" else rows


def _repeated(chance: np.random.Generator, rows: list[int], anywhere: bool) -> list[int]:
    for _ in range(int(chance.integers(1, 4))):
        place = int(chance.integers(len(rows)))
        rows = [*rows[:place], rows[place], *rows[place:]]
        if anywhere:
            row = rows.pop(place)
            rows.insert(int(chance.integers(len(rows))), row)
    return rows


def _name(chance: np.random.Generator, columns: list[Column], style: Style) -> None:
    """Give all columns names, and put them in another order."""
    names = [str(name) for name in chance.permutation(NAMES)] + [f"extra {i}" for i in range(30)]
    if style.encoding in ("utf-8", "utf-16"):
        names[0] += " 温度"
    for column, name in zip(columns, names, strict=False):
        column.name = column.name or name
    places = chance.permutation(len(columns))
    columns[:] = [columns[place] for place in places]
