"""A ranking of cells: on the terminal, and as Markdown and CSV."""

from pathlib import Path
from typing import Any

from mopo_cli.evaluation.ranking import LEAST
from mopo_cli.report.console import Report
from mopo_cli.report.tables import markdown_table, write_csv
from mopo_cli.store.atomic import write_text
from mopo_cli.store.documents import as_flag

_MOST_COLUMNS = 6  # criteria that a terminal has room for


def show_ranking(result: dict[str, Any], report: Report) -> None:
    """Print the cells in their order, what each criterion is worth, how they were judged, and what is chosen."""
    cells, criteria = _tables(result, _MOST_COLUMNS)
    report.table(f"{result['table']}: cells by {_criteria(result)[0]}, the best first", *cells)
    report.table(f"What each criterion {'is worth' if result['compared'] else 'chooses'}", *criteria)
    for note in _notes(result):
        report.say(note)


def _criteria(result: dict[str, Any]) -> list[str]:
    """The names of the criteria, that which orders the cells first; a file has them by the alphabet."""
    names = list(result["criteria"])
    first = result.get("by", names[0])
    return [first, *(name for name in names if name != first)]


def write_ranking(markdown: Path, csv: Path, result: dict[str, Any], returns: dict[str, dict[str, Any]]) -> None:
    """Publish both files; the CSV has a row per cell and seed. ``returns`` are a seed's true ones, by cell and seed."""
    names = _criteria(result)
    rows = [
        (cell["cell"], int(seed), returns[cell["cell"]][seed].get("last"), *(values[name] for name in names))
        for cell in result["cells"]
        for seed, values in cell["per_seed"].items()
    ]
    write_csv(csv, ("cell", "seed", "return_last", *names), rows)
    tables = (markdown_table(*table) for table in _tables(result))
    notes = "\n".join(_notes(result)) + "\n"
    write_text(markdown, "\n".join([f"# {result['dataset']}: {result['table']}\n", *tables, notes]))


def _tables(result: dict[str, Any], most: int | None = None) -> list[tuple[tuple[str, ...], list[tuple[Any, ...]]]]:
    """The cells in their order, and what each criterion is worth; no empty columns where no true return is known.

    The cells' table has at most so many criteria.
    """
    names = _criteria(result)
    cells = [
        (
            each["rank"],
            f"{each['cell']}{_mark(result, each)}",
            *(each["values"][name] for name in names[:most]),
            each["return"],
        )
        for each in result["cells"]
    ]
    worths = [(name, result["criteria"][name]) for name in names]
    criteria = [
        (name, worth["best"], worth["spearman"], worth["chooses"], worth["regret"], worth["meaning"])
        for name, worth in worths
    ]
    if not result["compared"]:
        return [
            (("rank", "cell", *names[:most]), [row[:-1] for row in cells]),
            (("criterion", "best is", "chooses", "what it is"), [(row[0], row[1], row[3], row[5]) for row in criteria]),
        ]
    return [
        (("rank", "cell", *names[:most], "true return"), cells),
        (("criterion", "best is", "Spearman", "chooses", "regret", "what it is"), criteria),
    ]


def _mark(result: dict[str, Any], cell: dict[str, Any]) -> str:
    return " *" if "starts" in result and not cell["trained_in_this_model"] else ""


def _notes(result: dict[str, Any]) -> list[str]:
    """How the cells were judged, in this run's model or by their logs, and what is chosen."""
    notes = []
    if "starts" in result:
        notes.append(
            f"All are judged in this run's model, with u = {result['penalty']} and lam = {result['lam']:g}: "
            f"{result['starts']} episodes per seed of at most {result['horizon']:,} steps, gamma {result['gamma']:g}."
        )
        if not all(cell["trained_in_this_model"] for cell in result["cells"]):
            notes.append("* trained in another model, whose errors it may have learned to exploit; this one's differ.")
    else:
        notes.append("Judged by the last epoch in the logs of each seed, without simulator or model.")
        first = _criteria(result)[0]
        if silent := [cell["cell"] for cell in result["cells"] if cell["values"][first] is None]:
            notes.append(f"Ranked last, as {first} is missing for some seeds: {', '.join(silent)}.")
    if lost := [cell["cell"] for cell in result["cells"] if cell["diverged"]]:
        notes.append(f"Judged without the seeds that diverged: {', '.join(lost)}.")
    if not result["compared"]:
        notes.append("No cell has a true return, so the criteria cannot be checked.")
    elif result["compared"] < LEAST:
        notes.append(f"Only {result['compared']} cells have true returns: too few for a rank correlation.")
    else:
        notes.append(
            f"Spearman: rank correlation with the true returns (last, mean over seeds) of {result['compared']} cells, "
            "less those without a value. Regret: by how much the chosen cell's true return falls short of the best."
        )
    if (chosen := result["chosen"]) is None:
        return [*notes, "Chosen: none, as no cell has a value."]
    flags = (f"{as_flag(name)} {str(value).removesuffix('.0')}" for name, value in chosen["settings"].items())
    return [*notes, f"Chosen: {chosen['cell']} ({' '.join(flags)})"]
