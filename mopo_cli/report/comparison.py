"""Our numbers beside published ones, line by line: on the terminal, and as Markdown, CSV and PNG."""

from collections.abc import Sequence
from math import isnan
from pathlib import Path
from typing import Any

from mopo_cli.report.console import Report
from mopo_cli.report.plots import ablation_plot
from mopo_cli.report.tables import format_mean_std, format_number, markdown_table, seeds_played, write_csv
from mopo_cli.store.atomic import write_text

Line = dict[str, Any]

_WIDE = (
    *("data set", "method", "ours (last)", "ours (last 10)", "IQM (last 10)", "95 % of it"),
    *("published", "seeds x epochs", "notes"),
)
_NARROW = tuple(name for name in _WIDE if name not in ("data set", "ours (last 10)"))
_SETTINGS = ("lam", "h", "real_ratio", "epochs", "steps_per_epoch")
_CSV = (
    *("data_set", "row", "method", *_SETTINGS, "seed", "unit", "last", "last_10", "return_last", "return_last_10"),
    *("published_mean", "published_std", "missing"),
)


def write_comparison(paths: dict[str, Path], title: str, remarks: Sequence[str], lines: Sequence[Line]) -> None:
    """Publish the files named by kind: ``md``, ``csv`` (a row per seed, and one for what is missing) and ``png``."""
    numbers, notes = _numbered(lines)
    rows = [[_texts(line, number)[name] for name in _WIDE] for line, number in zip(lines, numbers, strict=True)]
    spread = "Mean ± population standard deviation over seeds; IQM with a 95 % bootstrap interval over seeds."
    listed = "".join(f"- {remark}\n" for remark in remarks)
    footnotes = "".join(f"{place}. {note}\n" for place, note in enumerate(notes, start=1))
    write_text(paths["md"], f"# {title}\n\n{spread}\n\n{listed}\n{markdown_table(_WIDE, rows)}\n{footnotes}")
    write_csv(paths["csv"], _CSV, [row for line in lines for row in _per_seed(line)])
    ours = {_name(line): [value["last"] for value in line["values"].values()] for line in lines if line.get("values")}
    printed = {_name(line): line["published"] for line in lines if line["published"]}
    means = {name: (one["mean"], one["std"]) for name, one in printed.items() if not isnan(one["mean"])}
    units = sorted({line["unit"] for line in lines if line.get("values")})
    beside = {name: means[name] for name in ours if name in means}
    ablation_plot(paths["png"], title, ours, {}, beside, " or ".join(units) or "return")


def show_comparison(report: Report, title: str, remarks: Sequence[str], lines: Sequence[Line]) -> None:
    """Print a table per data set, the remarks on all of them and the notes on single lines."""
    numbers, notes = _numbered(lines)
    report.say(f"\n{title}")
    tables: dict[str, list[list[str | None]]] = {}
    for line, number in zip(lines, numbers, strict=True):
        texts = _texts(line, number)
        tables.setdefault(line["data_set"], []).append([texts[name] for name in _NARROW])
    for name, rows in tables.items():
        report.table(name, _NARROW, rows)
    for remark in remarks:
        report.say(remark)
    for place, note in enumerate(notes, start=1):
        report.say(f"{place}. {note}")


def _numbered(lines: Sequence[Line]) -> tuple[list[str], list[str]]:
    """Per line the numbers of its notes, and the notes."""
    notes = list(dict.fromkeys(note for line in lines for note in line["notes"]))
    numbers = [sorted(notes.index(note) + 1 for note in line["notes"]) for line in lines]
    return [", ".join(map(str, each)) for each in numbers], notes


def _texts(line: Line, number: str) -> dict[str, str | None]:
    published, iqm = line["published"], line.get("iqm")
    printed = None
    if published:
        printed = "N/A" if isnan(published["mean"]) else format_mean_std(published["mean"], published["std"])
    seeds = seeds_played(line["returns"])
    last, last_10 = (format_mean_std(*line[key], seeds=seeds) if line[key] else None for key in ("last", "last_10"))
    bounds = [bound for bound in line["iqm_interval"] if not isnan(bound)] if iqm is not None else []
    interval = " to ".join(map(format_number, bounds)) or None
    cells = (
        *(line["data_set"], line["row"], last or ("missing" if line["missing"] else None), last_10),
        *(None if iqm is None else format_number(iqm), interval, printed, _budget(line), number),
    )
    return dict(zip(_WIDE, cells, strict=True))


def _budget(line: Line) -> str | None:
    if not line.get("seeds"):
        return None
    done, wanted = len(line["returns"]), len(line["seeds"])
    seeds = str(done) if done == wanted else f"{done} of {wanted}"
    return f"{seeds} x {line['epochs']}{'*' if line['smaller'] else ''}"


def _per_seed(line: Line) -> list[tuple[Any, ...]]:
    head = line["data_set"], line["row"], line["method"], *(line.get(name) for name in _SETTINGS)
    published = line["published"] or {}
    mean = published.get("mean")
    printed = None if mean is None or isnan(mean) else mean, published.get("std")
    rows: list[tuple[Any, ...]] = []
    for seed in line.get("seeds") or [None]:
        ours, raw = (line.get(key, {}).get(str(seed), {}) for key in ("values", "returns"))
        values = (ours.get("last"), ours.get("last_10"), raw.get("last"), raw.get("last_10"))
        if seed is None and line["last"]:
            values = (line["last"][0], None, None, None)
        missing = "diverged" if seed in line["diverged"] else line["missing"]
        rows.append((*head, seed, line["unit"], *values, *printed, missing))
    return rows


def _name(line: Line) -> str:
    return f"{line['data_set']}: {line['row']}"
