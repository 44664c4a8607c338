"""Tables with a planted fault: the refusal must name the column and the row, and say what mends it."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from faults.table_files import ENDINGS, TEXT, Column, write_arrays
from faults.tables import Case, Table, make_table

Chance = np.random.Generator
TABLES = (*TEXT, ".jsonl", ".parquet")
ARRAYS = (".npz", ".h5")


def _row(chance: Chance, table: Table) -> int:
    """One that is neither the first nor the last."""
    return int(chance.integers(1, len(table.log) - 1))


def _name(column: Column) -> str:
    return re.escape(column.name)


def _at(table: Table, row: int) -> str:
    """How a row is called: JSON has lines."""
    return rf"line {row + 1}\b" if "json" in table.ending else rf"row {row}\b"


def _flags(table: Table, cells: list[object]) -> Column:
    table.columns.append(Column("Ende", "terminal", cells))
    return table.columns[-1]


def _put(table: Table, role: str, row: int, value: object) -> tuple[str, ...]:
    column = table.column(role)
    column.cells[row] = value
    return _name(column), _at(table, row)


def text_in_numbers(chance: Chance, table: Table) -> tuple[str, ...]:
    return *_put(table, str(chance.choice(["obs 0", "action 0", "reward 0"])), _row(chance, table), "offen"), "'offen'"


def empty_cell(chance: Chance, table: Table) -> tuple[str, ...]:
    role = str(chance.choice(["obs 0", "action 0", "reward 0"]))
    return *_put(table, role, _row(chance, table), None), "empty|no value|not a number|NaN", "--missing"


def empty_label(chance: Chance, table: Table) -> tuple[str, ...]:
    return *_put(table, "episode", _row(chance, table), None), "empty|no value|holds NaN"


def infinite(chance: Chance, table: Table) -> tuple[str, ...]:
    row = _row(chance, table)
    column, _ = _put(table, "obs 0", row, float("inf"))
    return column, rf"row {row}\b", "infinity|not a number"


def far_value(chance: Chance, table: Table) -> tuple[str, ...]:
    row = _row(chance, table)
    table.style.decimals = None
    column, _ = _put(table, "obs 0", row, 1e12)
    return column, rf"row {row}\b", "1e\\+12", "[Rr]emove or repair"


def no_time(chance: Chance, table: Table) -> tuple[str, ...]:
    row = _row(chance, table)
    cells: list[object] = [f"2024-03-01T{t // 60:02}:{t % 60:02}:00" for t in range(len(table.log))]
    cells[row] = "gestern"
    table.columns.append(Column("Zeit", "step", cells))
    return "Zeit", rf"row {row}\b", "'gestern'", "time such as 2024-03-01"


def missing_column(chance: Chance, table: Table) -> tuple[str, ...]:
    column = table.column(str(chance.choice(["obs 0", "action 0", "reward 0", "episode"])))
    column.name, column.mapped = "Vorlauftemperatur", "Vorlauftemperatr"
    return "Vorlauftemperatr.* is missing", "did you mean 'Vorlauftemperatur'"


def same_name(chance: Chance, table: Table) -> tuple[str, ...]:
    table.columns.append(Column(table.column("obs 0").name, "", [1.5] * len(table.log)))
    return _name(table.column("obs 0")), "two columns", "rename"


def thousands(chance: Chance, table: Table) -> tuple[str, ...]:
    table.style.comma = table.style.thousands = False
    cells = [f"{chance.integers(1, 9)},{chance.integers(100, 999)}" for _ in range(len(table.log))]
    row = _row(chance, table)
    if table.style.separator == "," and row:
        table.column("obs 0").cells = list(cells)
        return _name(table.column("obs 0")), "row 0", "thousands separators"
    table.column("obs 0").cells = [*cells[:row], "7", *cells[row + 1 :]]
    return _name(table.column("obs 0")), "row 0", "may be", "thousands separators"


def mixed_signs(chance: Chance, table: Table) -> tuple[str, ...]:
    if table.style.separator == ",":
        table.style.separator = ";"
    table.style.comma, table.style.thousands = True, False
    row = _row(chance, table)
    return *_put(table, "obs 0", row, "3.75"), "decimal comma", "in one way"


def short_row(chance: Chance, table: Table) -> tuple[str, ...]:
    row = _row(chance, table)
    column = table.columns[-1]
    column.cells = [str(table.style.cell(cell)) for cell in column.cells]
    table.style.cut = row
    return rf"[Rr]ow #?{row + 2}\b|row {row}\b", "columns|cells"


def choices(chance: Chance, table: Table) -> tuple[str, ...]:
    table.columns = [column for column in table.columns if not re.match("action [1-9]", column.role)]
    table.column("action 0").cells = [int(cell) for cell in chance.integers(0, 4, len(table.log))]
    return _name(table.column("action 0")), "discrete actions", ":quantity"


def constant_action(chance: Chance, table: Table) -> tuple[str, ...]:
    table.column("action 0").cells = [0.5] * len(table.log)
    return _name(table.column("action 0")), "in every row", "leave it out"


def odd_flag(chance: Chance, table: Table) -> tuple[str, ...]:
    row = _row(chance, table)
    _flags(table, [2 * int(i == row) for i in range(len(table.log))])
    return "Ende", rf"row {row}\b", "not 0 or 1"


def words_as_flags(chance: Chance, table: Table) -> tuple[str, ...]:
    _flags(table, ["ja" if flag else "nein" for flag in table.log.terminal])
    return "Ende", "'nein'|'ja'|does not hold numbers", "numbers|0 or 1"


def early_terminal(chance: Chance, table: Table) -> tuple[str, ...]:
    inside = np.flatnonzero(np.diff(table.log.episode, append=-1) == 0)
    row = int(chance.choice(inside))
    _flags(table, [i == row for i in range(len(table.log))])
    return _name(table.column("episode")), rf"row {row}\b.* is a terminal", "only the last row"


def rows_apart(chance: Chance, table: Table) -> tuple[str, ...]:
    (rows,) = table.order
    table.order = [[*rows[1:], rows[0]]]
    return _name(table.column("episode")), rf"row {len(rows) - 1}\b", "step="


def shared_label(chance: Chance, table: Table) -> tuple[str, ...]:
    """Two episodes of one label, in turns."""
    rows = np.flatnonzero(np.diff(table.log.episode, append=-1))
    first = int(rows[0]) + 1
    other = [first + i for i in range(len(table.log) - first)]
    if len(other) < 8:
        return ()
    table.column("episode").cells = [1] * len(table.log)
    table.columns.append(Column("Schritt", "step", [*range(first), *range(len(other))]))
    a, b = int(chance.integers(2, first - 1)), int(chance.integers(1, 4))
    a = min(a, len(other) - b - 2)
    # The rows of the other go on where those of the first have stopped.
    table.order = [[*range(a), *other[: a - 1 + b], *range(a, first), *other[a - 1 + b :]]]
    return "Schritt", "share a label", "episode="


def same_step(chance: Chance, table: Table) -> tuple[str, ...]:
    inside = np.flatnonzero(
        (np.diff(table.log.episode, prepend=-1) == 0) & (np.diff(table.log.episode, append=-1) == 0)
    )
    row = int(chance.choice(inside))
    cells = [int(time) for time in table.log.time]
    cells[row] = cells[row - 1]
    table.columns.append(Column("Schritt", "step", list(cells)))
    return "Schritt", rf"rows {row - 1} and {row}\b", "episode="


def nothing_but_a_heading(chance: Chance, table: Table) -> tuple[str, ...]:
    table.order = [[]]
    return ("has no rows|holds no line",)


FAULTS: dict[str, tuple[Callable[[Chance, Table], tuple[str, ...]], tuple[str, ...]]] = {
    "text in numbers": (text_in_numbers, (*TEXT, ".jsonl")),
    "empty cell": (empty_cell, TABLES),
    "empty label": (empty_label, TABLES),
    "infinite": (infinite, (*TEXT, ".parquet", *ARRAYS)),
    "far value": (far_value, ENDINGS),
    "no time": (no_time, (*TEXT, ".jsonl", ".parquet", *ARRAYS)),
    "missing column": (missing_column, ENDINGS),
    "same name": (same_name, (*TEXT, ".parquet")),
    "thousands": (thousands, TEXT),
    "mixed signs": (mixed_signs, TEXT[:1]),
    "short row": (short_row, TEXT),
    "choices": (choices, ENDINGS),
    "constant action": (constant_action, ENDINGS),
    "odd flag": (odd_flag, ENDINGS),
    "words as flags": (words_as_flags, ENDINGS),
    "early terminal": (early_terminal, ENDINGS),
    "rows apart": (rows_apart, ENDINGS),
    "shared label": (shared_label, ENDINGS),
    "same step": (same_step, ENDINGS),
    "no rows": (nothing_but_a_heading, (*TEXT, ".jsonl", ".parquet")),
}


def make_fault(chance: Chance, folder: Path, fault: str) -> Case:
    """A table with that fault, in a file inside the folder."""
    plant, endings = FAULTS[fault]
    patterns: tuple[str, ...] = ()
    while not patterns:
        table = make_table(chance, endings, plain=True)
        patterns = plant(chance, table)
    case = table.save(folder)
    case.refusal, case.ways = patterns, [f"fault {fault}"]
    return case


def make_array_fault(chance: Chance, folder: Path, fault: str) -> Case:
    """Arrays under D4RL's names with a fault that only rows beside one another show."""
    folder.mkdir()
    lengths = chance.integers(8, 20, 8)
    ends = np.cumsum(lengths) - 1
    paths = [chance.normal(0, 3, 2) + 0.1 * chance.normal(size=(n + 1, 2)).cumsum(axis=0) for n in lengths]
    rows = int(lengths.sum())
    arrays = {
        "observations": np.concatenate([path[:-1] for path in paths]),
        "actions": chance.uniform(-1, 1, (rows, 1)),
        "rewards": chance.uniform(-1, 1, rows),
        "terminals": np.isin(np.arange(rows), ends),
    }
    patterns: tuple[str, ...]
    if fault == "next of the reset":
        arrays["next_observations"] = np.roll(arrays["observations"], -1, axis=0)
        arrays["next_observations"][-1] = paths[-1][-1]
        patterns = "next_observations", rf"row {ends[0]}\b", "final_obs"
    elif fault in ("ends too early", "ends too late"):
        shift = -1 if fault == "ends too early" else 1
        arrays["terminals"] = np.roll(arrays["terminals"], shift)
        patterns = f"a row {fault.partition(' ')[2]}", "Mark the last row of every episode"
    else:
        name = str(chance.choice(["rewards", "actions", "terminals"]))
        arrays[name] = arrays[name][:-1]
        patterns = name, f"{rows - 1} rows", f"{rows}"
    path = folder / f"log{chance.choice(ARRAYS)}"
    write_arrays(path, arrays)
    return Case([path], None, refusal=patterns, ways=[f"fault {fault}"])


ARRAY_FAULTS = ("next of the reset", "ends too early", "ends too late", "other lengths")
