"""A run folder whose files a test has changed on purpose."""

from pathlib import Path

from mopo_cli.store.atomic import read_json, sha256_file, write_json


def record_anew(run: Path) -> None:
    """Make run.json record the files of its stages as they are now."""
    document = read_json(run / "run.json")
    for stage in document["stages"].values():
        for file in stage["outputs"].values():
            if (path := run / file["path"]).is_file():
                file["sha256"] = sha256_file(path)
    write_json(run / "run.json", document)
