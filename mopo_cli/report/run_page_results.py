"""The parts of a page about a run that say how good its policies are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mopo_cli.report.console import format_value
from mopo_cli.report.judgement import show_judgement
from mopo_cli.report.page import Collected, charts, heading, pairs, paragraph, table
from mopo_cli.report.page_charts import intervals
from mopo_cli.report.ranking_table import show_ranking
from mopo_cli.report.run_page_contents import Contents
from mopo_cli.report.tables import format_mean_std, seeds_played

_MOST_ROWS = 80  # of a chart
_MOST_CONCLUSIONS = 6


def returns_blocks(contents: Contents) -> list[str]:
    """Per policy its real returns beside those of the data, and published ones of the same data set."""
    blocks = []
    for name, result in contents.of("evaluate").items():
        low, high = result["return_iqm_95"]
        mean, best = result["dataset_return_mean"], result["dataset_return_max"]
        several = len(result["return_per_seed"]) > 1
        numbers = {
            "mean over seeds": result["return_mean"],
            **({"standard deviation over seeds": result["return_std"]} if several else {}),
            "IQM (mean of the middle half of all episodes)": result["return_iqm"],
            "95 % interval of the IQM": _interval(low, high),
            **{f"seed {seed}": value for seed, value in result["return_per_seed"].items()},
            "data, mean episode": mean,
            "data, best episode": best,
        }
        if "score_mean" in result:
            numbers["normalised score (100: expert)"] = result["score_mean"]
            numbers["normalised score of the data"] = result["dataset_score_mean"]
        if (factor := result.get("published_factor", 1)) != 1 and result["return_mean"] is not None:
            unit = f"x {factor:,.6g} (the published unit)"
            numbers |= {
                f"mean over seeds, {unit}": factor * result["return_mean"],
                f"data, mean episode, {unit}": factor * mean,
                f"data, best episode, {unit}": factor * best,
            }
        lost = result.get("diverged_seeds", [])
        rows = [("data, mean episode", mean, mean, mean), ("data, best episode", best, best, best)]
        rows.append((f"{name}, IQM with its 95 % interval", result["return_iqm"], low, high))
        rows += [(f"seed {seed}", value, value, value) for seed, value in result["return_per_seed"].items()]
        blocks += [
            heading(f"{name}: real returns"),
            *contents.stale(f"evaluate/{name}"),
            paragraph(_returned(name, result)),
            *([paragraph(f"Not in these numbers, as they diverged in training: {', '.join(lost)}.")] if lost else []),
            pairs(f"Returns of {name}", numbers, ("", "return")),
            *_drawn(f"Returns of {name} and of the data", rows, "return"),
        ]
        if published := result.get("published"):
            columns = ("paper", "method", "version", "mean", "std", "unit", "note")
            lines = [tuple(entry.get(column) for column in columns) for entry in published]
            blocks.append(table("Published results for this data set", columns, lines))
    return blocks


def conclusion_lines(contents: Contents) -> list[str]:
    """A sentence on each policy, at most six: its real returns, the verdict by the log. Nothing that is out of date."""
    lines = {f"evaluate/{name}": _returned(name, result) for name, result in contents.of("evaluate").items()}
    for key, result in contents.of("evaluate", "ope").items():
        lines[f"evaluate/{key}"] = f"{result['policy']}: {result['sentence']}"
    return [line for key, line in lines.items() if not contents.stale(key)][:_MOST_CONCLUSIONS]


def _returned(name: str, result: Mapping[str, Any]) -> str:
    source = result.get("source")
    where = f"As measured in {source['file']}," if source else f"In {result['environment']}"
    mean, best = result["dataset_return_mean"], result["dataset_return_max"]
    return (
        f"{where} the policy {name} returns {format_value(result['return_mean'])} on average, over "
        f"{result['episodes']} episode{'s' if result['episodes'] > 1 else ''} of each seed; the episodes in "
        f"the data returned {format_value(mean)} on average and {format_value(best)} at best."
    )


def _interval(low: float | None, high: float | None) -> str | None:
    """The bounds, which a single return does not have."""
    return None if low is None or high is None else f"{format_value(low)} to {format_value(high)}"


def _drawn(title: str, rows: Sequence[tuple[Any, ...]], x: str) -> list[str]:
    """A chart of those rows (name, value, low, high) that have all numbers."""
    complete = [row for row in rows if None not in row][:_MOST_ROWS]
    return [charts([intervals(title, complete, x)])] if complete else []


def judgement_blocks(contents: Contents) -> list[str]:
    """Per policy what its log alone says of it: the verdict, the estimates and what they are worth."""
    blocks = []
    for key, result in contents.of("evaluate", "ope").items():
        shown = Collected()
        show_judgement(result, shown)
        rows = [("logged behaviour", result["floor"]["discounted"])]
        for name, each in (("its clone", result["clone"]), *((f"seed {s}", e) for s, e in result["seeds"].items())):
            rows += [(f"{name}, {e}", each[short]) for short, e in (("fqe", "fitted Q"), ("model", "judge's model"))]
        drawn = [(name, e["value"], e["low"], e["high"]) for name, e in rows]
        struck = ", ".join(result["struck_out"]) or "none"
        blocks += [
            heading(f"{result['policy']} by the log alone"),
            *contents.stale(f"evaluate/{key}"),
            paragraph(result["sentence"]),
            *shown.blocks,
            paragraph("WIS: weighted importance sampling. DR: doubly robust. Episodes: how many these weights leave."),
            paragraph(
                f"Estimators struck out, as they miss a return that is in the log or nothing checks them: {struck}."
            ),
            *_drawn("Discounted return by each estimator", drawn, "discounted return, 95 % interval"),
        ]
    return blocks


def ablation_blocks(contents: Contents) -> list[str]:
    """Per ablation its table and its rankings."""
    blocks = []
    rankings = contents.of("ablate", "rank")
    for name, document in contents.of("ablate").items():
        cells = document["cells"]
        blocks += [heading(name), *contents.stale(f"ablate/{name}"), *_cells(cells)]
        measured = [(c["cell"], c["iqm"], *c["iqm_interval"]) for c in cells if c.get("iqm_interval")]
        references = [(f"{label} (reference)", v, v, v) for label, v in document.get("references", {}).items()]
        blocks += _drawn("IQM with its 95 % interval", [*references, *measured], "return") if measured else []
        for key in (key for key in rankings if key.split("/")[0] == name):
            shown = Collected()
            show_ranking(rankings[key], shown)
            blocks += [*contents.stale(f"ablate/{key}"), *shown.blocks]
    return blocks


def _cells(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """The table of an ablation's cells, without returns where no environment told any."""
    if not any(cell.get("last") for cell in cells):
        rows = [(c["cell"], c["epochs"], len(c["returns"]), ", ".join(map(str, c["diverged"])) or None) for c in cells]
        return [table("Cells", ("cell", "epochs", "seeds", "diverged seeds"), rows)]
    columns = ("cell", "epochs", "seeds", "last", "last 10", "IQM (last 10)", "95 % of it", "diverged seeds")
    caption = "Returns by cell in the last evaluations; ±: standard deviation over seeds; IQM: mean of the middle half"
    return [table(caption, columns, [_cell(c) for c in cells])]


def _cell(cell: Mapping[str, Any]) -> tuple[Any, ...]:
    seeds = seeds_played(cell["returns"])
    pairs = [cell.get(key) or (None, None) for key in ("last", "last_10")]
    last, last_10 = (None if None in pair else format_mean_std(*pair, seeds=seeds) for pair in pairs)
    interval = _interval(*cell["iqm_interval"]) if cell.get("iqm_interval") else None
    lost = ", ".join(map(str, cell["diverged"])) or None
    return cell["cell"], cell["epochs"], len(cell["returns"]), last, last_10, cell.get("iqm"), interval, lost
