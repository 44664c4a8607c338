"""``mopo show PATH``: what is this, how was it made, with which settings, and where each came from"""

from pathlib import Path
from typing import Annotated, Any

import typer

from mopo_cli.cli.describe import describe
from mopo_cli.cli.options import show as show_setting
from mopo_cli.report import Report
from mopo_cli.report.console import format_value

EXAMPLES = ("mopo show runs/quickstart", "mopo show runs/quickstart/model/ensemble.safetensors")


def show(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="a run folder, or a file that mopo made")],
    json: Annotated[bool, typer.Option("--json", help="print one JSON object on stdout", show_default=False)] = False,
) -> None:
    """Tell what a run folder or file is, how it was made, and where each setting came from."""
    found = describe(path)
    Report("json" if json else "human").result(found, _text(found))


def _text(found: dict[str, Any]) -> str:
    lines = [f"{found['path']}: {found['kind']}"]
    lines += [f"  {name}: {format_value(value)}" for name, value in found["about"].items()]
    for stage in found["stages"]:
        lines += ["", *_stage_lines(stage)]
    return "\n".join(lines)


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
