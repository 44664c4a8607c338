"""rollout --map: where rollouts leave the data, and whether the uncertainties stored with them grow there."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mopo_cli.config.schema import Rollout
from mopo_cli.data.transition_files import read_dataset
from mopo_cli.data.transitions import Transitions
from mopo_cli.engine.streams import stream
from mopo_cli.errors import InputError, Stopped
from mopo_cli.evaluation.density import (
    NEIGHBOURS,
    Departure,
    Map,
    Projection,
    density_map,
    departure,
    fit_scaler,
    neighbour_distance,
    principal_components,
    umap_projection,
    umap_version,
)
from mopo_cli.report.console import Report
from mopo_cli.report.plots_rollouts import departure_plot
from mopo_cli.report.tables import write_csv
from mopo_cli.stages.common.inputs import dataset_path
from mopo_cli.stages.common.options import Options
from mopo_cli.stages.common.rollout_rows import Columns, draw_rows, uncertainties_of
from mopo_cli.stages.runner import Stage, stage_envelope
from mopo_cli.store.atomic import write_json
from mopo_cli.store.run import RunFolder

_ROWS = 10_000  # of the rollouts, drawn from all
_REFERENCES = 20_000  # rows of the data that distances are measured to
_USUAL = 4_000  # further rows of the data, whose distances are what is usual
_UMAP_ROWS = 5_000  # of the data, that its map is made of
_PART = 1_000  # rows between two looks at the signals

Values = NDArray[np.float64]


def run_density_map(run: RunFolder, settings: Rollout, options: Options, report: Report) -> dict[str, Any]:
    """Write rollouts/<name>-map.json, .csv and .png of the rollout file with these settings; returns the result object.

    Distances are over all states and actions, in standard deviations of the data; the maps only show them. There
    is a map by principal components, and by UMAP where umap-learn is installed. InputError where nothing in the
    data varies.
    """
    name = settings.file_name()
    inputs = {"dataset": dataset_path(run), "rollouts": run.rollouts(name)}
    sizes = {"rows": _ROWS, "references": _REFERENCES, "usual": _USUAL, "neighbours": NEIGHBOURS}
    recorded = settings.model_dump() | sizes | {"umap_rows": _UMAP_ROWS, "umap": umap_version()}
    with stage_envelope(run, f"rollout/{name}/map", recorded, inputs, options, report) as stage:
        if stage.up_to_date:
            return stage.result()
        transitions, info = read_dataset(inputs["dataset"])
        columns, places, stored = draw_rows(inputs["rollouts"], _ROWS, stream(settings.seed, "map/rows"))
        references, others = _draw_data(transitions, settings.seed)
        try:
            scaler = fit_scaler(references)
        except ValueError as error:
            raise InputError(f"There is no map of {inputs['dataset']}: no column of it varies.") from error
        references, others, rows = scaler(references), scaler(others), scaler(_joint(columns))
        distance, data_distance = _distances(stage, (rows, others), references)
        uncertainties = uncertainties_of(columns)
        result = departure(distance, data_distance, uncertainties, columns["step"])
        maps = list(_maps(stage, references, rows, settings.seed))
        content = {
            "data_rows": len(transitions),
            "references": len(references),
            "dimensions": rows.shape[1],
            "neighbours": NEIGHBOURS,
            "stored": stored,
            **asdict(result),
            "maps": {
                drawn.name: {"axes": drawn.axes, "outside": drawn.density.outside(drawn.points)} for drawn in maps
            },
        }
        _show(result, maps, report)
        json, csv, picture = (inputs["rollouts"].with_name(f"{name}-map.{kind}") for kind in ("json", "csv", "png"))
        origin = {"dataset": info.dataset_id, "rollouts_sha256": stage.inputs["rollouts"]["sha256"]}
        write_json(stage.out.stage(json), content | origin)
        _write_rows(stage.out.stage(csv), places, columns["step"], distance, maps, uncertainties)
        departure_plot(stage.out.stage(picture), f"{name}: {info.dataset_id}", result, maps, uncertainties)
        finished = stage.finish({"map": json, "rows": csv, "picture": picture}, content)
        report.say(f"Drawn: {picture}")
        return finished


def _joint(columns: Columns) -> Values:
    return np.concatenate([columns["observations"], columns["actions"]], axis=1, dtype=np.float64)


def _draw_data(transitions: Transitions, seed: int) -> tuple[Values, Values]:
    """Rows that distances are measured to, and others, a sixth of those drawn at most; both at random."""
    count = len(transitions)
    others = max(1, min(_USUAL, count // 6))
    drawn = torch.randperm(count, generator=stream(seed, "map/data"))[: _REFERENCES + others].numpy()
    joint = _joint({"observations": transitions.observations[drawn], "actions": transitions.actions[drawn]})
    return joint[others:], joint[:others]


def _distances(stage: Stage, queries: tuple[Values, ...], references: Values) -> list[Values]:
    """Per array of queries, the distance of each row to the references."""
    distances = []
    with stage.progress("map", sum(map(len, queries))) as count:
        for rows in queries:
            parts = []
            for start in range(0, len(rows), _PART):
                parts.append(neighbour_distance(rows[start : start + _PART], references))
                count(len(parts[-1]))
            distances.append(np.concatenate(parts))
    return distances


def _maps(stage: Stage, data: Values, rows: Values, seed: int) -> Iterator[Map]:
    project, shares = principal_components(data)
    labels = [f"principal component {i + 1} ({share:.0%})" for i, share in enumerate(shares)]
    yield _map("pca", (labels[0], labels[1]), project, data, rows)
    if umap_version() is None:
        stage.report.say("Without UMAP's map: umap-learn is not installed (pip install umap-learn).")
        return
    if stage.should_stop():
        raise Stopped(stage.signal)
    data = data[:_UMAP_ROWS]
    try:
        drawn = _map("umap", ("UMAP 1", "UMAP 2"), umap_projection(data, seed), data, rows)
    except Exception as error:  # whatever a broken installation of it or of what it compiles with raises
        stage.report.warn(
            f"Without UMAP's map: umap-learn does not work here ({error}). Repair it, then run again with --force."
        )
    else:
        yield drawn


def _map(name: str, axes: tuple[str, str], project: Projection, data: Values, rows: Values) -> Map:
    return Map(name, axes, density_map(project(data)), project(rows))


def _write_rows(
    path: Path, places: NDArray[np.int64], step: NDArray[Any], distance: Values, maps: list[Map], uncertainties: Columns
) -> None:
    """The rows looked at: place in the rollout file, step as there, distance to the data, places in the maps, u."""
    columns = {"row": places, "step": step, "distance": distance}
    for drawn in maps:
        columns |= {f"{drawn.name}_{axis + 1}": drawn.points[:, axis] for axis in range(2)}
    columns |= uncertainties
    write_csv(path, tuple(columns), list(zip(*(values.tolist() for values in columns.values()), strict=True)))


def _show(result: Departure, maps: list[Map], report: Report) -> None:
    names = list(result.spearman)
    whole = ("all", result.rows, result.distance, f"{result.outside:.1%}", *result.spearman.values())
    report.table(
        "Distance of the rollouts to the data, and its rank correlation with each uncertainty u",
        ("step", "rows", "median distance", "outside 99 % of the data", *names),
        [(str(s.step), s.rows, s.distance, f"{s.outside:.1%}", *s.spearman.values()) for s in result.steps] + [whole],
    )
    report.table(
        "Mean of each uncertainty by how dense the data are there",
        ("share of the data that is denser", "share of the rollouts", *names),
        [(f"{r.low:.0%} to {r.high:.0%}", f"{r.share:.1%}", *r.mean.values()) for r in result.regions],
    )
    planes = ", ".join(f"{drawn.density.outside(drawn.points):.1%} by {drawn.name}" for drawn in maps)
    report.say(
        f"The data's own median distance is {result.data_distance:.3g}, and 1 % of their rows lie outside. "
        f"A map shows less of it, where of the rollouts' rows lie outside: {planes}."
    )
