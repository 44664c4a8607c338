"""What a table is made of by chance: how its text is written, its steps and labels, and the order of its rows."""

import itertools
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from faults.table_files import TEXT, Column, Style
from faults.truth import Log

NAMES = (
    "Temp (°C)",
    "Durchfluss [m³/h]",
    "p1 - p2",
    "Ventil %",
    "x+y",
    "a,b",
    "rate=1",
    "k*",
    "Größe",
    "level",
    "2*flow",
    "count 5",
    "-dose",
    "pH",
    "N°",
    "e",
    "1e3",
)
START = datetime(2024, 3, 1, 6)
DAY = 86400
STEPS = {"int": 1.0, "count": 1.0, "seconds": 0.1, "minutes": 60.0, "iso": 60.0, "fractions": 0.25, "dotted": 60.0}
"""Kinds of columns of steps, and how many seconds a step takes."""


def style_of(chance: np.random.Generator, ending: str, decimals: int) -> Style:
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


def units_of(chance: np.random.Generator, style: Style) -> list[float]:
    return [
        float(chance.choice([1.0, 1000.0] if style.thousands else [1.0])) for _ in range(int(chance.integers(1, 5)))
    ]


def with_gaps(chance: np.random.Generator, log: Log) -> Log:
    """Without a few rows inside episodes: so few that the others say how long a step is."""
    inside = [i for i in range(1, len(log) - 1) if log.episode[i - 1] == log.episode[i] == log.episode[i + 1]]
    gone = {int(row) for row in chance.choice(inside, max(1, len(inside) // 30), replace=False)}
    return log.select([i for i in range(len(log)) if i not in gone])


def clock_of(log: Log) -> Any:
    """Seconds since 1970, a minute for each row."""
    return (1.7e9 + DAY * log.episode + 60.0 * log.time)[:, None]


def lose(chance: np.random.Generator, log: Log, has_next: bool) -> None:
    names = [f"action {i}" for i in range(log.action.shape[1])] + [f"reward {i}" for i in range(log.terms.shape[1])]
    if not has_next:
        names += [f"obs {i}" for i in range(log.obs.shape[1])] + ["word"] * any(log.word)
    for _ in range(int(chance.integers(1, 2 + len(log) // 12))):
        log.lacks.add((int(chance.integers(len(log))), str(chance.choice(names))))


def in_files(chance: np.random.Generator, log: Log, one_each: bool) -> list[list[int]]:
    """The rows of each file: whole episodes, one or some."""
    numbers = list(dict.fromkeys(log.episode.tolist()))
    cuts = numbers if one_each else sorted({numbers[0], *chance.choice(numbers, 2).tolist()})
    bounds = [*cuts, numbers[-1] + 1]
    return [[i for i in range(len(log)) if low <= log.episode[i] < high] for low, high in itertools.pairwise(bounds)]


def columns_of(log: Log, has_next: bool, quantity: bool) -> list[Column]:
    """The columns of values; a value that is missing is None."""
    vectors = {"obs": log.obs, "action": log.action, "reward": log.terms} | (
        {"next_obs": log.following} if has_next else {}
    )
    columns = [
        Column(
            "",
            f"{role} {i}",
            [None if (row, f"{role} {i}") in log.lacks else float(value) for row, value in enumerate(values)],
        )
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


def labels(log: Log, order: list[list[int]], counts: bool, kind: str) -> list[Any]:
    """A label for each row, ``counts``: from 0 in each file."""
    first = {row: int(log.episode[rows[0]]) if counts else 0 for rows in order for row in rows}
    numbers = [int(log.episode[row]) - first[row] for row in range(len(log))]
    return [f"Bär {number}" for number in numbers] if kind == "text" else numbers


def steps(chance: np.random.Generator, log: Log, kind: str, parallel: bool) -> list[Any]:
    begin = int(chance.integers(2))
    if kind == "int":
        return [int(time) + begin for time in log.time]
    seconds = log.time * STEPS[kind]
    if kind == "count":  # one that counts on over all episodes
        return (np.arange(len(log)) if not has_gaps(log) else 1000 * log.episode + log.time).tolist()
    if kind in ("seconds", "minutes"):
        return np.round(seconds + STEPS[kind] * chance.uniform(0, 0.1, len(log)) * (log.time > 0), 4).tolist()
    form = {"iso": "%Y-%m-%dT%H:%M:%S", "fractions": "%Y-%m-%d %H:%M:%S.%f", "dotted": "%d.%m.%Y %H:%M"}[kind]
    days = (0 if parallel else 1) * log.episode
    return [
        (START + timedelta(days=int(day), seconds=float(second))).strftime(form)
        for day, second in zip(days, seconds, strict=True)
    ]


def has_gaps(log: Log) -> bool:
    return bool(((np.diff(log.time) != 1) & (np.diff(log.episode) == 0)).any())


def mixed_rows(chance: np.random.Generator, log: Log, rows: list[int], how: str) -> list[int]:
    if how == "shuffled":
        return [int(row) for row in chance.permutation(rows)]
    return sorted(rows, key=lambda row: (log.time[row], log.episode[row])) if how == "in turn" else rows


def repeated(chance: np.random.Generator, rows: list[int], anywhere: bool) -> list[int]:
    for _ in range(int(chance.integers(1, 4))):
        place = int(chance.integers(len(rows)))
        rows = [*rows[:place], rows[place], *rows[place:]]
        if anywhere:
            row = rows.pop(place)
            rows.insert(int(chance.integers(len(rows))), row)
    return rows


def name_all(chance: np.random.Generator, columns: list[Column], style: Style) -> None:
    """Give all columns names, and put them in another order."""
    names = [str(name) for name in chance.permutation(NAMES)] + [f"extra {i}" for i in range(30)]
    if style.encoding in ("utf-8", "utf-16"):
        names[0] += " 温度"
    for column, name in zip(columns, names, strict=False):
        column.name = column.name or name
    places = chance.permutation(len(columns))
    columns[:] = [columns[place] for place in places]
