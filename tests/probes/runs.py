"""Run folders: made by command lines, or with files that a test has changed on purpose."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from mopo_cli.store.atomic import read_json, sha256_file, write_json


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


def record_anew(run: Path) -> None:
    """Make run.json record the files of its stages as they are now."""
    document = read_json(run / "run.json")
    for stage in document["stages"].values():
        for file in stage["outputs"].values():
            if (path := run / file["path"]).is_file():
                file["sha256"] = sha256_file(path)
    write_json(run / "run.json", document)
