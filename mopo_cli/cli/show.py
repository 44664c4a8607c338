"""``mopo show``: what a path is, how and with which settings it was made, and what its data are like"""

import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mopo_cli.cli.context import fetched
from mopo_cli.cli.describe import RUN, describe, open_dataset
from mopo_cli.cli.options import Call, command, plain_option
from mopo_cli.config.fields import written
from mopo_cli.data.registry import parse_dataset
from mopo_cli.errors import CorruptError, InputError, UsageError
from mopo_cli.report import Report
from mopo_cli.report.console import format_value
from mopo_cli.report.dataset import recipe_text, statistics_text, with_names, wrap
from mopo_cli.report.tables import columns
from mopo_cli.store.documents import CachedDataset, as_key, read_document
from mopo_cli.store.files import expand
from mopo_cli.store.run import cache_dir, dataset_slug, resolve_run

if TYPE_CHECKING:
    from mopo_cli.data.statistics import DatasetStatistics

EXAMPLES = (
    "mopo show runs/quickstart",
    "mopo show runs/quickstart/model/ensemble.safetensors",
    "mopo show hopper-medium --plot hopper.png",
)


@command(execution=("json",))
def show(
    call: Call,
    path: Annotated[
        str,
        typer.Argument(metavar="PATH|DATASET", help="a run folder, a file made by mopo, or a data set (name or file)"),
    ],
    plot: Annotated[Path | None, plain_option("--plot", "draw the data set to this file", "FILE.png")] = None,
) -> None:
    """Show what a run folder, file or data set is, how it was made, and statistics of its data."""
    if plot is not None and plot.suffix.lower() != ".png":
        raise UsageError(f"--plot {plot} must end in .png.")
    report = call.report
    described = describe(find(path, report))
    picture = shown = None
    if dataset := open_dataset(described):
        from mopo_cli.data.ranges import column_names
        from mopo_cli.data.statistics import dataset_statistics
        from mopo_cli.data.validate import doubts

        described["about"].setdefault("source", dataset[1].source)  # what was done to a foreign file to read it
        picture = dataset_statistics(*dataset)
        shown = with_names(picture, column_names(*dataset))
        for warning in (check.warning for check in doubts(*dataset) if check.warning):
            report.warn(warning)
    if plot is not None:
        _draw(plot, described, shown)
        report.say(f"Drawn: {plot}")
    report.result(described | ({"portrait": asdict(picture)} if picture else {}), _text(described, shown))


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
    rows = [(as_key(name), written(value), stage["origins"].get(name, "")) for name, value in stage["settings"].items()]
    lines += columns(rows, indent="  ")
    return lines


def find(text: str, report: Report) -> Path:
    """The path ``text``, else the dataset of that name: the one of its run here, else the newest in the cache.

    ``report`` says which file a name stands for. Raises InputError if there is neither.
    """
    path = expand(text)
    if path.exists():
        return path
    try:
        name, fault = parse_dataset(text), None
    except InputError as error:
        name, fault = None, error
    if path.name != text and name and name.path is not None:
        raise InputError(f"{path} does not exist.")
    if (file := _in_run(text)) is not None:
        report.say(f"{text}: {file} (the data of {resolve_run(None, text).root})")
        return file
    if not (cached := _in_cache(text, name.dataset_id if name else text)):
        if fault:
            raise InputError(f"No path {text} exists; {fault.message[:1].lower()}{fault.message[1:]}", fault.hint)
        if name and name.path is not None:
            raise InputError(f"{text} does not exist.")
        raise InputError(f"The dataset {text} has not been fetched yet.", hint=f"mopo fetch-data --dataset {text}")
    newest = max(cached, key=lambda file: (file.stat().st_mtime_ns, str(file)))
    which = f"the newest of {len(cached)} in the cache" if len(cached) > 1 else "from the cache"
    report.say(f"{text}: {newest} ({which})")
    return newest


def _in_run(name: str) -> Path | None:
    run = resolve_run(None, name)
    record = fetched(run)
    if record is None or "dataset" not in record.outputs:
        return None
    path = run.root / record.outputs["dataset"]["path"]
    return path if path.is_file() else None


def _in_cache(name: str, dataset_id: str) -> list[Path]:
    """The cached files that were fetched under this name, or under another one of the same dataset."""
    folder_name = re.compile(re.escape(dataset_slug(name)) + r"-[0-9a-f]{12}")
    files = (cache_dir() / "datasets").glob("*/dataset.h5")
    return [file for file in files if folder_name.fullmatch(file.parent.name) or _is_of(file, dataset_id)]


def _is_of(file: Path, dataset_id: str) -> bool:
    try:
        recorded = read_document(file.with_name("dataset.json"), CachedDataset)
    except (InputError, CorruptError):
        return False
    return bool(recorded["dataset_id"] == dataset_id)
