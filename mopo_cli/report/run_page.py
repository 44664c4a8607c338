"""A page about a run: what each stage left on disk, in the order in which a person asks for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mopo_cli.config.fields import written
from mopo_cli.report.alarms import model_alarm
from mopo_cli.report.dataset import percent, statistics_lines
from mopo_cli.report.page import Section, charts, heading, listed, note, page, paragraph, table
from mopo_cli.report.page_charts import band, histogram
from mopo_cli.report.run_page_contents import Contents
from mopo_cli.report.run_page_policies import actions_section, training_section
from mopo_cli.report.run_page_results import ablation_blocks, conclusion_lines, judgement_blocks, returns_blocks
from mopo_cli.report.tables import format_range
from mopo_cli.store.documents import as_key

if TYPE_CHECKING:
    from mopo_cli.data.statistics import Column

_MOST_ROWS = 60  # of a table of dimensions
_LEAST_COMPARED = 50  # transitions, so that a tenth of them is a few
_MOST_DRAWN = 24  # policies, so that a page stays below 3 MB


def run_page(contents: Contents) -> tuple[str, list[str]]:
    """The page as HTML, and the titles of its sections: those of which the run has something."""
    sections = [section for section in _sections(contents) if section.blocks]
    text = page(f"{contents.name}: a run of mopo", _introduction(contents), sections)
    return text, [section.title for section in sections]


def _introduction(contents: Contents) -> list[str]:
    fetched = contents.records.get("fetch-data")
    about = fetched.extra if fetched else {}
    said = f"Data set: {about.get('dataset_id', 'none yet')}. Environment: {about.get('env_id') or 'none'}."
    stages = ", ".join(dict.fromkeys(key.split("/")[0] for key in contents.records)) or "none"
    conclusions = conclusion_lines(contents)
    return [
        paragraph(f"{said} Finished stages: {stages}."),
        *([listed(conclusions)] if conclusions else []),
        *(note(text) for text in contents.missing),
    ]


def _sections(contents: Contents) -> list[Section]:
    model = contents.documents.get("train-model")
    drawn, more = _drawn(contents)
    curves = {name: seeds for name, seeds in contents.curves.items() if name in drawn}
    actions = {name: each for name, each in contents.actions.items() if name in drawn}
    training = training_section(curves, _references(contents), _diverged(contents))
    return [
        Section("What was logged", _dataset(contents)),
        Section("What the model predicts well and badly", _model(model)),
        Section("Where the model is unsure, and where it errs", [*_unsure(model), *_diagnoses(contents)]),
        Section("How training went", [*(more if training else []), *training]),
        Section("How good each policy is", [*returns_blocks(contents), *judgement_blocks(contents)]),
        Section("What the policies do in the data's states", [*(more if actions else []), *actions_section(actions)]),
        Section("Ablations", ablation_blocks(contents)),
        Section("How it was made", _records(contents)),
    ]


def _dataset(contents: Contents) -> list[str]:
    statistics = contents.statistics
    if statistics is None:
        return []
    source = contents.records["fetch-data"].extra.get("source") or "not recorded"
    drawn = [
        histogram("Episode returns", statistics.returns.edges, {"": statistics.returns.counts}, "return", "episodes"),
        histogram("Episode lengths", statistics.lengths.edges, {"": statistics.lengths.counts}, "steps", "episodes"),
    ]
    if near := statistics.neighbours:
        title = "Distance to the nearest row of another episode"
        drawn.append(histogram(title, near.histogram.edges, {"": near.histogram.counts}, "standard deviations", "rows"))
    columns = ("action", "lower bound", "upper bound", "rows at the lower", "rows at the upper")
    bounds = [(s.name, s.low, s.high, percent(s.at_low), percent(s.at_high)) for s in statistics.saturation]
    return [
        paragraph(f"Source: {source}."),
        listed(statistics_lines(statistics)),
        charts(drawn),
        _columns([statistics.rewards, *statistics.actions, *statistics.observations]),
        table("Actions at their bounds", columns, bounds),
    ]


def _columns(columns: Sequence[Column]) -> str:
    rows = [(c.name, c.min, c.p1, c.median, c.p99, c.max, c.mean, c.std) for c in columns[:_MOST_ROWS]]
    more = (
        f" (the first {_MOST_ROWS} of {len(columns)}; all of them: mopo show DATASET --json)"
        if len(columns) > _MOST_ROWS
        else ""
    )
    return table(f"Dimensions{more}", ("", "min", "1 %", "median", "99 %", "max", "mean", "std"), rows)


def _model(model: Mapping[str, Any] | None) -> list[str]:
    if model is None:
        return []
    blocks = []
    if dimensions := model.get("dimensions"):
        if alarm := model_alarm(dimensions, model.get("target_scale", "raw")):
            blocks.append(note(alarm))
        # Nothing of a target that does not vary can be explained.
        constant = [d for d in dimensions if not d["std"]]
        varying = sorted((d for d in dimensions if d["std"]), key=lambda d: float(d["explained_variance"]))
        if varying:
            (worst, low), (best, high) = ((d["target"], d["explained_variance"]) for d in (varying[0], varying[-1]))
            blocks.append(
                paragraph(
                    f"Of transitions that the model was not trained on, it explains {best} best ({percent(high)} of "
                    f"the variance) and {worst} worst ({percent(low)}). 0 % is no better than to predict the mean. "
                    "These are single rows, whose neighbours in time it has seen: in new episodes it may err more."
                )
            )
        rows = [(d["target"], d["explained_variance"], d["rmse"], d["std"]) for d in varying]
        rows += [(d["target"], None, d["rmse"], d["std"]) for d in constant]
        more = f", the worst {_MOST_ROWS} of {len(rows)}" if len(rows) > _MOST_ROWS else ""
        columns = ("target", "explained variance", "root mean squared error", "standard deviation of the target")
        blocks.append(table(f"Held-out transitions by target, the worst first{more}", columns, rows[:_MOST_ROWS]))
    errors = [
        (int(seed), network, mse, model["holdout_nll"][seed][network])
        for seed, networks in model["holdout_mse"].items()
        for network, mse in enumerate(networks)
    ]
    unit = " (standardised targets)" if model.get("target_scale") == "standardised" else ""
    columns = ("seed", "network", f"mean squared error{unit}", "negative log-likelihood")
    return [*blocks, table("Hold-out error of each network", columns, errors)]


def _unsure(model: Mapping[str, Any] | None) -> list[str]:
    """Nothing of models of earlier versions, which did not look."""
    if model is None or (errors := model.get("errors_by_input")) is None:
        return []
    relation, rows = errors["relation"], errors["rows"]
    if rows < _LEAST_COMPARED:
        return [paragraph(f"Held-out transitions: {rows}. That is too few to say where the model is unsure or errs.")]
    of = f", those of {len(model['holdout_mse'])} seeds together" if len(model["holdout_mse"]) > 1 else ""
    about = f"On {rows:,} transitions that the model was not trained on{of}, "
    if relation["spearman"] is None:
        return [paragraph(f"{about}its uncertainty or its error is everywhere the same.")]
    return [
        paragraph(
            f"{about}the rank correlation of its uncertainty with its true error is {relation['spearman']:.2f}. At 1 "
            "it is always less sure where it errs more; at 0 its uncertainty says nothing of its errors; below 0 it "
            "misleads. Both are over all targets together, in their standard deviations; the uncertainty is the "
            "penalty max-var."
        ),
        charts([_tenths("True error where the model is sure and unsure", "uncertainty", relation["calibration"])]),
        *_parts("errs most", "the worst first", "error", errors["worst"]),
        *_parts("is least sure", "the least sure first", "uncertainty", errors["least_sure"]),
    ]


def _parts(where: str, order: str, by: str, parts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of each input the values where uncertainty or error is highest, and in a sentence the first of them."""
    if not parts:
        return []
    first = parts[0]
    said = (
        f"The model {where} where {first['input']} is {format_range(first['low'], first['high'])}: its {by} is "
        f"{first[by]:.2f} times that of all rows. Numbers near 1 may be chance."
    )
    measured = "error", "uncertainty"
    rows = [(p["input"], format_range(p["low"], p["high"]), p["rows"], *(p[m] for m in measured)) for p in parts]
    columns = ("input", "values", "rows", *(f"{m} (1: as in all rows)" for m in measured))
    more = f", {_MOST_ROWS} of {len(rows)}" if len(rows) > _MOST_ROWS else ""
    caption = f"The values of each input where the model {where}, {order}{more}"
    return [paragraph(said), table(caption, columns, rows[:_MOST_ROWS])]


def _diagnoses(contents: Contents) -> list[str]:
    blocks = []
    for name, diagnosis in contents.of("rollout", "diagnosis").items():
        blocks += [heading(f"Rollouts {name.split('/')[0]}"), *contents.stale(f"rollout/{name}")]
        rows = [(u, r["spearman"], r["pearson"]) for u, r in diagnosis["uncertainties"].items()]
        columns = ("uncertainty", "Spearman with the true error", "Pearson")
        blocks.append(table(f"{diagnosis['rows']:,} imagined transitions against the simulator", columns, rows))
        steps = [(s["step"], s["median"], 0.0, s["p90"]) for s in diagnosis["steps"]]
        names = ("median", "up to the 90 % quantile")
        drawn = [band("True error by step of the rollout", steps, "step", "error", names)] if steps else []
        for uncertainty, relation in diagnosis["uncertainties"].items():
            if tenths := relation["calibration"]:
                drawn.append(_tenths(f"True error where {uncertainty} is low and high", uncertainty, tenths))
        blocks.append(charts(drawn))
    return blocks


def _tenths(title: str, uncertainty: str, bins: Sequence[Mapping[str, float]]) -> str:
    points = [(b["uncertainty"], b["error"], b["error_p10"], b["error_p90"]) for b in bins]
    return band(title, points, uncertainty, "error", ("mean", "middle 80 %"))


def _drawn(contents: Contents) -> tuple[set[str], list[str]]:
    """The policies whose charts a page has room for, the last trained ones, and a note where there are more."""
    names = dict.fromkeys([*contents.curves, *contents.actions])
    when = {name: contents.records[f"train-policy/{name}"].finished for name in names}
    drawn = sorted(when, key=lambda name: when[name])[-_MOST_DRAWN:]
    if len(when) == len(drawn):
        return set(drawn), []
    return set(drawn), [note(f"Drawn are the {_MOST_DRAWN} policies that were trained last, of {len(when):,}.")]


def _references(contents: Contents) -> dict[str, float]:
    """Returns of the data's episodes, to compare policies with."""
    if contents.statistics is None:
        return {}
    summary = contents.statistics.summary
    return {"data, mean episode": summary.return_mean, "data, best episode": summary.return_max}


def _diverged(contents: Contents) -> dict[str, list[str]]:
    """The seeds of each policy that diverged in training."""
    trained = {key: record for key, record in contents.records.items() if key.startswith("train-policy/")}
    return {key.partition("/")[2]: record.extra.get("diverged", []) for key, record in trained.items()}


def _records(contents: Contents) -> list[str]:
    blocks = []
    for key, record in contents.records.items():
        versions = ", ".join(f"{name} {version}" for name, version in record.versions.items())
        origins = record.extra.get("origins", {})
        blocks += [
            heading(key),
            *contents.stale(key),
            paragraph(f"Finished {record.finished} after {record.wall_seconds:,.1f} s, with {versions}."),
        ]
        if record.settings:
            settings = [(as_key(n), written(v), origins.get(n)) for n, v in record.settings.items()]
            blocks.append(table("Settings", ("setting", "value", "from"), settings))
        files = [
            (kind, role, file["path"], file["sha256"])
            for kind, entries in (("input", record.inputs), ("output", record.outputs))
            for role, file in entries.items()
        ]
        if files:
            blocks.append(table("Files", ("", "what", "path", "sha256"), files))
    return blocks
