"""Tables of which the truth is known, each written in a way chosen by chance: what is read must be that truth."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from faults.table_files import ENDINGS, TEXT, Column, Style, write
from faults.table_parts import (
    STEPS,
    clock_of,
    columns_of,
    in_files,
    labels,
    lose,
    mixed_rows,
    name_all,
    repeated,
    steps,
    style_of,
    units_of,
    with_gaps,
)
from faults.truth import Log, Piece, pieces_of, simulate

from mopo_cli.data.files.missing import Remedy


@dataclass
class Case:
    """Files to read, how, and the truth; where there is a fault, patterns that the refusal must have, all of them."""

    paths: list[Path]
    columns: str | None
    missing: Remedy = "refuse"
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
    remedy: Remedy
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
            return ",".join(
                f"{role}={_sum(names) if role == 'reward' else '+'.join(names)}" for role, names in items.items()
            )
        path.write_text(yaml.safe_dump(items, allow_unicode=True))
        return str(path)


def make_table(chance: np.random.Generator, endings: Sequence[str] = ENDINGS, plain: bool = False) -> Table:
    """A log and how it is written, by chance; ``plain``: labelled rows in order, with nothing special but the text."""

    def pick(*values: Any) -> Any:
        return values[int(chance.integers(len(values)))]

    def maybe(share: float) -> bool:
        return bool(chance.random() < share) and not plain

    ending, decimals = pick(*endings), pick(1, 2, 4, 5)
    style = style_of(chance, ending, decimals)
    style.heading |= plain
    units, quantity = units_of(chance, style), maybe(0.1)
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
        log = with_gaps(chance, log)
    if clock := maybe(0.15):
        log.obs = np.concatenate([log.obs, clock_of(log)], axis=1)
        log.following = np.concatenate([log.following, clock_of(log) + 60], axis=1)
        style.decimals = None
    outcomes = labelled and not (gaps or has_next) and maybe(0.1)
    if outcomes:
        ends = np.diff(log.episode, append=-1) != 0
        log.weights, log.terminal = [1.0], ends
        log.terms = np.where(ends, chance.choice([-15.0, 15.0], len(log)), 0.0)[:, None]
    if maybe(0.2) and not has_next and style.heading:
        log.word = [str(word) for word in chance.choice(["F", "M", "größer als", "7"], len(log))]
    remedy: Remedy = "refuse"
    if style.heading and not outcomes and maybe(0.3):
        remedy = pick("split-episodes", "fill-forward", *([] if has_next else ["drop-rows"]))
        lose(chance, log, has_next)
    order = [list(range(len(log)))]
    if marks == "files" or (labelled and maybe(0.3)):
        order = in_files(chance, log, one_each=marks == "files")
    counts = bool(labelled and len(order) > 1 and maybe(0.5))
    columns = columns_of(log, has_next, quantity)
    sees_terminals = marks in ("flags", "terminal") or maybe(0.6)
    if sees_terminals and not outcomes:
        columns.append(Column("", "terminal", [bool(flag) for flag in log.terminal]))
    if marks == "flags":
        ends = (np.diff(log.episode, append=-1) != 0) & ~log.terminal
        columns.append(Column("", "timeout", [bool(flag) for flag in ends]))
    if labelled:
        columns.append(
            Column("", "episode", labels(log, order, counts, pick("number", "text") if style.heading else "number"))
        )
    mixed = "kept"
    if step is not None:
        mixed = pick("kept", "shuffled", "in turn") if labelled else "kept"
        if not labelled and marks == "flags" and step in ("count", "iso") and maybe(0.3):
            mixed = "shuffled"
        columns.append(Column("", "step", steps(chance, log, step, parallel=mixed == "in turn" and maybe(0.5))))
        order = [mixed_rows(chance, log, rows, mixed) for rows in order]
        if maybe(0.3):
            order = [repeated(chance, rows, anywhere=labelled) for rows in order]
    if style.heading and maybe(0.5):
        columns.append(
            Column("Kommentar", "", [pick("", 'gut; "sehr", gut', "1,5\nund mehr", "Ö") for _ in range(len(log))])
        )
    name_all(chance, columns, style)
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
