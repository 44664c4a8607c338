"""The tables of the papers that ship with mopo: what each compares, and where its published numbers stand."""

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, field_validator

from mopo_cli.config.presets import text_of
from mopo_cli.errors import UsageError

NOT_PRINTED = "none"
"""The name in print of a row that the paper does not print."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Row(_Frozen):
    """A row: a method to train, a statistic of the data, or neither for a row that is only in print."""

    label: str
    """What the paper calls it; unique in its table."""
    method: str | None = None
    data: Literal["mean", "max"] | None = None
    """Statistic of the returns of the data's episodes."""
    settings: dict[str, Any] = {}
    """Settings of train-policy that make the row, besides the method's."""
    datasets: tuple[str, ...] = ()
    """The families of data sets it is for; empty: all."""
    printed: str | None = None
    """Its name in print, where it is not the label."""
    table: str | None = None
    """Where it is printed, if not in the paper's table."""
    seeds: int | None = None
    """Policies per cell in the paper, where they are not as many as the table's."""

    @field_validator("settings", mode="before")
    @classmethod
    def _as_fields(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {key.replace("-", "_"): value for key, value in values.items()}

    @property
    def slug(self) -> str:
        """The label as one word: ``mopo-ens-pen``, ``h-5-lam-0.5``."""
        return _slug(self.label)


class PaperTable(_Frozen):
    """A table: every row is for every data set, but where it says otherwise."""

    name: str
    title: str
    paper: str
    """Key of the paper and of its table in the published results."""
    table: str
    unit: Literal["score", "return"]
    seeds: int
    """Policies per cell in the paper, where a row has no number of its own."""
    updates: int | dict[str, int]
    """Gradient steps of each in the paper; where these differ, by the first word of a data set's family."""
    datasets: tuple[str, ...]
    elsewhere: dict[str, str] = {}
    """The data sets in print that mopo cannot make, and why."""
    rows: tuple[Row, ...]
    search: bool = False
    """Whether the rows are pairs of h and lam: a number in print is then beside the pair that the paper names."""
    compare: tuple[str, str] | None = None
    """Labels of two rows: on how many data sets is the first one better?"""
    claim: str = ""
    """What the paper says of that."""
    notes: dict[str, str] = {}
    """By a data set's family, a row's label, or ``all``."""

    def rows_for(self, family: str) -> tuple[Row, ...]:
        """The rows that a data set of this family has."""
        return tuple(row for row in self.rows if not row.datasets or family in row.datasets)

    def seeds_for(self, row: Row) -> int:
        """Policies per cell of a row in the paper."""
        return row.seeds or self.seeds

    def updates_for(self, family: str) -> int:
        """Gradient steps in the paper on a data set of this family; the most of any, where it has none of its own."""
        if isinstance(self.updates, int):
            return self.updates
        return self.updates.get(family.split("-")[0], max(self.updates.values()))


def load_table(name: str) -> PaperTable:
    """A table of the papers. Raises what `presets.text_of` raises."""
    from mopo_cli.store.yaml_text import parse_yaml

    return PaperTable(name=name, **parse_yaml(text_of("table", name)))


def choose_rows(table: PaperTable, text: str) -> tuple[Row, ...]:
    """The rows named by ``text``: labels, labels as one word, or methods, with commas between them.

    UsageError, listing the known ones, for another name.
    """
    names: dict[str, list[Row]] = {}
    for row in table.rows:
        for name in {row.slug, row.method or row.slug}:
            names.setdefault(name, []).append(row)
    parts, chosen = text.split(","), []
    while parts:
        # A label may hold commas itself: the longest name that fits is meant.
        length = next((n for n in range(len(parts), 0, -1) if _slug(",".join(parts[:n])) in names), 0)
        if not length:
            slugs = ", ".join(dict.fromkeys(row.slug for row in table.rows))
            raise UsageError(f"--only: the table {table.name} has no row {parts[0].strip()!r}; it has {slugs}.")
        chosen += names[_slug(",".join(parts[:length]))]
        parts = parts[length:]
    return tuple(row for row in table.rows if row in chosen)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower().replace(". ", " ").rstrip(". ")).strip("-")
