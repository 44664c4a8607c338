"""Run folders: made by command lines, or with files that a test has changed on purpose."""

import signal
from collections.abc import Iterable
from itertools import count
from pathlib import Path

import pytest

from mopo_cli.stages.runner import Stage
from mopo_cli.store.atomic import read_json, sha256_file, write_json

OTHERWISE = {
    "penalty_networks": "elite",
    "penalty_scale": "standardised",
    "penalty_reward": "excluded",
    "model_reward": "mean",
    "rollout_precision": "bf16",
    "termination_rules": "paper",
}
"""Another value than the default for every setting of `Imagination`."""


def run_in(folder: Path, lines: Iterable[str], settings: str = "") -> Path:
    """Run command lines in a folder with a cache of its own, and ``settings`` as its tiny.yaml; gives the folder."""
    from mopo_cli.__main__ import main

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MOPO_HOME", str(folder / "cache"))
        patch.delenv("MOPO_RUN", raising=False)
        if settings:
            Path("tiny.yaml").write_text(settings)
        for line in lines:
            assert main(line.split()) == 0, line
    return folder


def stop_at(look: int, patch: pytest.MonkeyPatch) -> None:
    """Let SIGTERM come just before a stage looks for signals, at that look of all from now on, counted from 0."""
    looks = count()

    def should_stop(stage: Stage) -> bool:
        stage.signal = signal.SIGTERM if next(looks) == look else 0
        return stage.signal != 0

    patch.setattr(Stage, "should_stop", should_stop)


def unfinished(folder: Path) -> list[str]:
    """The files of states under a folder, but for those from which finished policies could go on."""
    files = (path for path in folder.rglob("*") if path.is_file() and ".state" in path.parts)
    return [str(path) for path in files if path.parent.name != "finished"]


def record_anew(run: Path) -> None:
    """Make run.json record the files of its stages as they are now."""
    document = read_json(run / "run.json")
    for stage in document["stages"].values():
        for file in stage["outputs"].values():
            if (path := run / file["path"]).is_file():
                file["sha256"] = sha256_file(path)
    write_json(run / "run.json", document)
