"""``mopo show``: what a path is, how and with which settings it was made, and what its data are like"""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mopo_cli.cli.describe import RUN, describe, open_dataset
from mopo_cli.cli.lookup import find
from mopo_cli.cli.options import Json, plain_option
from mopo_cli.cli.options import show as show_setting
from mopo_cli.errors import UsageError
from mopo_cli.report import Report
from mopo_cli.report.console import format_value
from mopo_cli.report.dataset import recipe_text, statistics_text, wrap
from mopo_cli.report.tables import columns

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
        typer.Argument(metavar="PATH|DATASET", help="a run folder, a file made by mopo, or a data set (name or file)"),
    ],
    plot: Annotated[Path | None, plain_option("--plot", "draw the data set to this file", "FILE.png")] = None,
    json: Json = False,
) -> None:
    """Show what a run folder, file or data set is, how it was made, and statistics of its data."""
    if plot is not None and plot.suffix.lower() != ".png":
        raise UsageError(f"--plot {plot} must end in .png.")
    report = Report("json" if json else "human")
    described = describe(find(path, report))
    picture = None
    if dataset := open_dataset(described):
        from mopo_cli.data.statistics import dataset_statistics
        from mopo_cli.data.validate import doubts

        described["about"].setdefault("source", dataset[1].source)  # what was done to a foreign file to read it
        picture = dataset_statistics(*dataset)
        for warning in (check.warning for check in doubts(*dataset) if check.warning):
            report.warn(warning)
    if plot is not None:
        _draw(plot, described, picture)
        report.say(f"Drawn: {plot}")
    report.result(described | ({"portrait": asdict(picture)} if picture else {}), _text(described, picture))


def _draw(plot: Path, described: dict[str, Any], picture: "DatasetStatistics | None") -> None:
    if picture is None:
        raise UsageError(f"--plot draws data sets, but {described['path']} is not one ({described['kind']}).")
    from mopo_cli.report.plots import dataset_plot

    dataset_plot(plot, str(described["about"].get("dataset_id", described["path"])), picture)


def _text(described: dict[str, Any], picture: "DatasetStatistics | None") -> str:
    hidden = ("recipe", "doubts")  # the one is told below, the other by warnings
    about = [
        f"  {name}: {_value(name, value) or '-'}" for name, value in described["about"].items() if name not in hidden
    ]
    lines = [f"{described['path']}: {described['kind']}", *(about if picture is None else map(wrap, about))]
    if data := _data_file(described):
        lines.append(f"  what its data are like: mopo show {data}")
    if picture is not None:
        recipe = described["about"].get("recipe")
        lines += [recipe_text(recipe)] if recipe else []
        lines += ["", statistics_text(picture)]
    for stage in described["stages"]:
        lines += ["", *_stage_lines(stage)]
    return "\n".join(lines)


def _value(name: str, value: Any) -> str:
    # Of an offset every digit counts.
    exact = name == "observation_offset" and isinstance(value, list)
    return " ".join(f"{number:.15g}" for number in value) if exact else format_value(value)


def _data_file(described: dict[str, Any]) -> Path | None:
    """The dataset that a run folder was made from."""
    fetched = (stage for stage in described["stages"] if described["kind"] == RUN and stage["stage"] == "fetch-data")
    files = (stage["outputs"].get("dataset") for stage in fetched)
    return next((Path(described["path"]) / file["path"] for file in files if file), None)


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
    lines += columns(rows, indent="  ")
    return lines
