"""ablate --table: a paper's table with our numbers beside the published ones, from the ablations of its data sets."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import isnan
from pathlib import Path
from typing import Any

from mopo_cli.config.paper_tables import NOT_PRINTED, PaperTable, Row
from mopo_cli.config.schema import TrainPolicy
from mopo_cli.data.registry import parse_dataset
from mopo_cli.data.transition_files import read_dataset_info
from mopo_cli.data.transitions import DatasetInfo
from mopo_cli.errors import CorruptError, InputError
from mopo_cli.evaluation.published import (
    PublishedResult,
    chosen_pair,
    data_version,
    family,
    in_print,
    published_factor,
)
from mopo_cli.evaluation.stats import normalised_score
from mopo_cli.report.comparison import show_comparison, write_comparison
from mopo_cli.report.console import Report
from mopo_cli.report.tables import format_mean_std
from mopo_cli.stages.ablate import statistics
from mopo_cli.stages.ablation.train_cells import shown_settings
from mopo_cli.stages.common.inputs import dataset_path
from mopo_cli.stages.common.reuse import of_cell
from mopo_cli.stages.common.same_settings import other_training
from mopo_cli.store.atomic import write_json
from mopo_cli.store.documents import TableDocument, read_document
from mopo_cli.store.lineage import read_lineage
from mopo_cli.store.publication import published_together
from mopo_cli.store.run import RunFolder

Line = dict[str, Any]
"""One row of a table on one data set: what it is, ours, what is in print, and notes on both."""

_UNITS = {"score": "normalised scores", "return": "returns"}
_PAPERS = {"MOPO-v1": "the first version", "MOPO-v2": "the final version"}


@dataclass
class Part:
    """One data set of a table: its run, and by row label the cells to train and what is missing."""

    dataset: str
    run: RunFolder
    cells: dict[str, TrainPolicy]
    missing: dict[str, str] = field(default_factory=dict)
    """Why a cell cannot be had."""

    @property
    def dataset_id(self) -> str:
        """The data set's canonical name, that of a published set also where the data came as a file."""
        info = self.info()
        return info.dataset_id if info else parse_dataset(self.dataset).dataset_id

    def info(self) -> DatasetInfo | None:
        """What the data set says of itself; None where it is not there."""
        try:
            return read_dataset_info(dataset_path(self.run))
        except (InputError, CorruptError):
            return None

    def already_there(self, table: str) -> int:
        """How many of the policies were trained for this table before; the data and the model are not looked at."""
        count = 0
        for cell in self.cells.values():
            place = f"ablations/{table}/cells/{cell.policy_name()}/cell.json"
            paths = [*self.run.root.glob(place), *self.run.root.glob(f"variants/*/{place}")]
            stored = [one for path in paths for one in of_cell(path)]
            same = {one.seed for one in stored if not other_training(one.settings, cell.model_dump())}
            count += len(same & set(cell.all_seeds()))
        return count


def table_lines(table: PaperTable, parts: Sequence[Part]) -> list[Line]:
    """Every row on every data set, those that are missing included."""
    return [line for part in parts for line in _lines(table, part)]


def _lines(table: PaperTable, part: Part) -> list[Line]:
    info, dataset = part.info(), part.dataset_id
    rows = table.rows_for(family(parse_dataset(part.dataset).dataset_id))
    lines = [_line(table, part, row, info, dataset) for row in rows]
    for place, line in enumerate(lines):
        policies = line.get("policies")
        same = (other["row"] for other in lines[:place] if policies and other.get("policies") == policies)
        if (twin := next(same, None)) is not None:
            line["notes"].append(f"the settings are those of {twin}, and so are the policies")
    return lines


def _line(table: PaperTable, part: Part, row: Row, info: DatasetInfo | None, dataset: str) -> Line:
    settings = part.cells.get(row.label)
    line: Line = {"data_set": dataset, "row": row.label, "method": row.method, "unit": table.unit, "returns": {}}
    line |= {"missing": part.missing.get(row.label), "diverged": [], "last": None, "last_10": None, "notes": []}
    if settings:
        line |= shown_settings(settings) | {"real_ratio": settings.real_ratio, "seeds": list(settings.all_seeds())}
        fewer = settings.updates < table.updates_for(family(dataset))
        line["smaller"] = fewer or len(settings.all_seeds()) < table.seeds_for(row)
    if row.method is None and row.data is None:
        line["notes"].append("in print only: mopo does not train it")
    elif info is not None and line["missing"] is None:
        line |= _ours(table, part, row, info, settings)
    if line["missing"]:
        line["notes"].append(line["missing"])
    line["notes"] += [f"seed {seed} diverged and is left out" for seed in line["diverged"]]
    if line.get("unknown"):
        line["notes"].append(f"the simulator could not tell the error of {line['unknown']:.0%} of the model's rows")
    if line["last"] and line["unit"] != table.unit:
        line["notes"].append("a return: this data set has no reference returns for a score")
    result = _published(table, row, dataset, settings, line["notes"])
    line["published"] = None if result is None else _described(result, dataset, table, line["notes"])
    about = ("all", family(dataset), *([row.label] if result else []))
    notes = (table.notes.get(key) for key in about)
    line["notes"] += [note for note in notes if note]
    return line


def _ours(table: PaperTable, part: Part, row: Row, info: DatasetInfo, settings: TrainPolicy | None) -> Line:
    """What we have of a row on a data set that was fetched, in the table's unit where there is one."""
    unit, convert = _unit(table, info)
    if row.data is not None:
        value = read_lineage(part.run)["fetch-data"].extra.get(f"return_{row.data}")
        if not isinstance(value, int | float):
            return {"missing": f"{part.run.lineage} does not hold the data's return"}
        return {"unit": unit, "last": [convert(value), None]}
    path = part.run.ablation_dir(table.name) / "table.json"
    records = (
        {record["cell"]: record for record in read_document(path, TableDocument)["cells"]} if path.is_file() else {}
    )
    record = records.get(settings.policy_name()) if settings else None
    if record is None:
        return {"missing": "not trained"}
    kept = {name: record[name] for name in ("returns", "policies", "diverged", "unknown") if name in record}
    values = {seed: _convert(value, convert) for seed, value in record["returns"].items()}
    result = statistics(values, replace(info, reference_min=None, reference_max=None))
    if result["last"] is None:
        reason = (
            record.get("failed") or "every seed diverged"
            if not values
            else "never played: no environment is named, or --eval-every is 0"
        )
        return {**kept, "missing": reason}
    return {**kept, **result, "unit": unit, "values": values}


def _unit(table: PaperTable, info: DatasetInfo) -> tuple[str, Callable[[float], float]]:
    low, high = info.reference_min, info.reference_max
    if table.unit == "score" and low is not None and high is not None:
        return "score", lambda value: normalised_score(value, low, high)
    factor = published_factor(info.dataset_id, info.env_kwargs)
    return "return", lambda value: factor * value


def _convert(value: dict[str, Any], convert: Callable[[float], float]) -> dict[str, Any]:
    return {
        name: [convert(one) for one in number] if isinstance(number, list) else convert(number)
        for name, number in value.items()
    }


def _published(
    table: PaperTable, row: Row, dataset: str, settings: TrainPolicy | None, notes: list[str]
) -> PublishedResult | None:
    """The number in print that the row is to be compared with; notes get what tells a search's pair."""
    if row.printed == NOT_PRINTED:
        return None
    if table.search and settings:
        papers = [paper for paper in _PAPERS if chosen_pair(dataset, paper) == (settings.h, settings.lam)]
        if papers:
            notes.append(f"the pair of {' and '.join(_PAPERS[paper] for paper in papers)} of the paper")
        if table.paper not in papers:
            return None
    return in_print(dataset, table.paper, row.table or table.table, row.printed or row.label)


def _described(result: PublishedResult, dataset: str, table: PaperTable, notes: list[str]) -> dict[str, Any]:
    if isnan(result.mean):
        notes.append("N/A in print: the paper's authors could not get the true error from the simulator")
    if result.note:
        notes.append(f"in print: {result.note}")
    if result.std is not None and "95% CI" in result.unit:
        notes.append("± in print is a 95 % confidence interval")
    if result.version and result.version != data_version(dataset):
        notes.append(
            f"in print is version {result.version[1:]} of the data, ours is version {data_version(dataset)[1:]}"
        )
    if result.table != table.table:
        notes.append(f"printed in {result.table}")
    names = ("paper", "table", "method", "version", "mean", "std", "note")
    return {name: getattr(result, name) for name in names}


def publish_paper_table(
    root: Path, table: PaperTable, lines: list[Line], remarks: Sequence[str], report: Report | None = None
) -> dict[str, Any]:
    """Write NAME.md, .csv, .json and .png under ``root``; returns the result object. A ``report`` is shown it, too."""
    remarks = [*remarks, *_comparison(table, lines), *_elsewhere(table)]
    title = f"{table.name}: {table.title} ({table.paper}, {table.table}; {_UNITS[table.unit]})"
    paths = {kind: root / f"{table.name}.{kind}" for kind in ("md", "csv", "json", "png")}
    result = {"table": table.name, "title": title, "remarks": remarks, "lines": lines}
    with published_together(root / f".{table.name}.staged") as out:
        staged = {kind: out.stage(path) for kind, path in paths.items()}
        write_comparison(staged, title, remarks, lines)
        write_json(staged["json"], result)
    if report is not None:
        show_comparison(report, title, remarks, lines)
    return {**result, "outputs": {kind: str(path) for kind, path in paths.items()}}


def _comparison(table: PaperTable, lines: list[Line]) -> list[str]:
    """On how many data sets one row is better than the other, where the paper makes such a claim."""
    if table.compare is None:
        return []
    one, other = table.compare
    means: dict[str, dict[str, list[float]]] = {}
    for line in lines:
        if line["last"]:
            means.setdefault(line["data_set"], {})[line["row"]] = line["last"]
    both = [(rows[one], rows[other]) for rows in means.values() if {one, other} <= set(rows)]
    better = sum(ours[0] > theirs[0] for ours, theirs in both)
    within = sum(abs(ours[0] - theirs[0]) <= theirs[1] for ours, theirs in both)
    return [
        f"{one} does better than {other} on {better} of {len(both)} data sets here, and lies within one standard "
        f"deviation of it on {within}; {table.claim}"
    ]


def _elsewhere(table: PaperTable) -> list[str]:
    """What is in print of the data sets that cannot be had here."""
    remarks = []
    for name, reason in table.elsewhere.items():
        results = {row.label: in_print(name, table.paper, table.table, row.printed or row.label) for row in table.rows}
        numbers = [f"{row} {format_mean_std(one.mean, one.std)}" for row, one in results.items() if one]
        remarks.append(f"In print only, {name} ({reason}): {', '.join(numbers)}")
    return remarks
