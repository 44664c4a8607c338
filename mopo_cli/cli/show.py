"""``mopo show``: what is this, how was it made, with which settings, and what is a dataset like"""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mopo_cli.cli.describe import RUN, describe, open_dataset
from mopo_cli.cli.lookup import find
from mopo_cli.cli.options import show as show_setting
from mopo_cli.errors import UsageError
from mopo_cli.report import Report
from mopo_cli.report.console import format_value
from mopo_cli.report.dataset import recipe_text, statistics_text, wrap

if TYPE_CHECKING:
    from mopo_cli.data.statistics import DatasetStatistics

EXAMPLES = (
    "mopo show runs/quickstart",
    "mopo show runs/quickstart/model/ensemble.safetensors",
    "mopo show hopper-medium --plot hopper.png",
)


def show(
    path: Annotated[
        str,
        typer.Argument(
            metavar="PATH|DATASET", help="a run folder, a file that mopo made, or a data set by name or file"
        ),
    ],
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.png", help="draw the data set there", show_default=False)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="print one JSON object on stdout", show_default=False)] = False,
) -> None:
    """Tell what a run folder or file is, how it was made, and what a data set is like."""
    if plot is not None and plot.suffix.lower() != ".png":
        raise UsageError(f"--plot {plot} must end in .png: that is what it writes.")
    report = Report("json" if json else "human")
    found = describe(find(path, report))
    picture = None
    if dataset := open_dataset(found):
        from mopo_cli.data.statistics import dataset_statistics
        from mopo_cli.data.validate import doubts

        found["about"].setdefault("source", dataset[1].source)  # what was done to a foreign file to read it
        picture = dataset_statistics(*dataset)
        for warning in (check.warning for check in doubts(*dataset) if check.warning):
            report.warn(warning)
    if plot is not None:
        _draw(plot, found, picture)
        report.say(f"Drawn: {plot}")
    report.result(found | ({"portrait": asdict(picture)} if picture else {}), _text(found, picture))


def _draw(plot: Path, found: dict[str, Any], picture: "DatasetStatistics | None") -> None:
    if picture is None:
        raise UsageError(f"--plot draws data sets, and {found['path']} is none ({found['kind']}).")
    from mopo_cli.report.plots import dataset_plot

    dataset_plot(plot, str(found["about"].get("dataset_id", found["path"])), picture)


def _text(found: dict[str, Any], picture: "DatasetStatistics | None") -> str:
    hidden = ("recipe", "doubts")  # the one is told below, the other by warnings
    about = [f"  {name}: {format_value(value) or '-'}" for name, value in found["about"].items() if name not in hidden]
    lines = [f"{found['path']}: {found['kind']}", *(about if picture is None else map(wrap, about))]
    if data := _data_file(found):
        lines.append(f"  what its data are like: mopo show {data}")
    if picture is not None:
        recipe = found["about"].get("recipe")
        lines += [recipe_text(recipe)] if recipe else []
        lines += ["", statistics_text(picture)]
    for stage in found["stages"]:
        lines += ["", *_stage_lines(stage)]
    return "\n".join(lines)


def _data_file(found: dict[str, Any]) -> Path | None:
    """The dataset that a run folder was made from."""
    fetched = (stage for stage in found["stages"] if found["kind"] == RUN and stage["stage"] == "fetch-data")
    files = (stage["outputs"].get("dataset") for stage in fetched)
    return next((Path(found["path"]) / file["path"] for file in files if file), None)


def _stage_lines(stage: dict[str, Any]) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in stage["versions"].items())
    lines = [f"{stage['stage']}: made {stage['finished']} in {stage['wall_seconds']:.1f} s with {versions}"]
    for title in ("inputs", "outputs"):
        for role, file in stage[title].items():
            lines.append(f"  {title[:-1]} {role}: {file['path']} (sha256 {file['sha256'][:12]})")
    rows = [
        (name.replace("_", "-"), show_setting(value), stage["origins"].get(name, ""))
        for name, value in stage["settings"].items()
    ]
    widths = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
    lines += [f"  {name:{widths[0]}}  {value:{widths[1]}}  {origin}".rstrip() for name, value, origin in rows]
    return lines
