"""A file is published whole or not at all."""

import errno
import hashlib
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mopo_cli.errors import CorruptError, InputError
from mopo_cli.store.atomic import (
    discard_leftovers,
    publish,
    read_json,
    read_jsonl,
    sha256_file,
    write_json,
)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_publish_replaces_and_leaves_only_the_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "plot.png"
    for text in ("old", "new"):
        with publish(path) as temporary:
            assert temporary.parent == path.parent and temporary.suffix == ".png"
            temporary.write_text(text)
    assert path.read_text() == "new"
    assert files(path.parent) == ["plot.png"]


@pytest.mark.parametrize(
    ("error", "raised"),
    [(ZeroDivisionError("mine"), ZeroDivisionError), (OSError(errno.ENOSPC, "No space left on device"), InputError)],
)
def test_an_error_while_writing_keeps_the_old_file(tmp_path: Path, error: Exception, raised: type[Exception]) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    match = str(tmp_path) if raised is InputError else "mine"
    with pytest.raises(raised, match=match) as caught, publish(path) as temporary:
        temporary.write_text("half")
        raise error
    assert getattr(caught.value, "hint", "") == (
        "free some space there, or use another folder" if match != "mine" else ""
    )
    assert path.read_text() == "old"
    assert files(tmp_path) == ["a.json"]


def test_a_killed_publish_keeps_the_old_file_and_its_leftover_is_discarded(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    mine = tmp_path / ".notes.tmp"
    mine.write_text("not ours to delete")
    script = (
        "import os, signal, sys; from pathlib import Path; from mopo_cli.store.atomic import publish\n"
        "with publish(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", script, str(path)]).returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    assert len(files(tmp_path)) == 3
    discard_leftovers(tmp_path)
    assert files(tmp_path) == [".notes.tmp", "a.json"]


def test_file_and_folder_reach_the_disk_around_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    events: list[str] = []
    fsync, replace = os.fsync, os.replace

    def record_fsync(descriptor: int) -> None:
        is_folder = os.path.samestat(os.fstat(descriptor), tmp_path.stat())
        events.append("folder" if is_folder else "file")
        fsync(descriptor)

    def record_replace(source: Path, target: Path) -> None:
        events.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "replace", record_replace)
    with publish(path) as temporary:
        temporary.write_text("x")
    assert events == ["file", "rename", "folder"]


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    blocker = tmp_path / "blocker"
    blocker.write_text("a file where a folder should be")
    for folder in (blocker / "sub", blocker):
        with pytest.raises(InputError) as caught, publish(folder / "a.json"):
            pytest.fail("the body must not run")
        assert caught.value.message == f"{blocker} is a file, not a folder."
        assert caught.value.hint == "use another folder"
    assert files(tmp_path) == ["blocker"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match=tmp_path.name), publish(tmp_path / "a.json"):
        pytest.fail("the body must not run")


def test_a_folder_in_the_place_of_the_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.json").mkdir()
    with pytest.raises(InputError, match=r"a\.json is a folder, not a file\."), publish(tmp_path / "a.json"):
        pytest.fail("the body must not run")
    assert files(tmp_path) == ["a.json"]


def test_json_is_sorted_strict_and_ends_the_line(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"b": (1, math.nan), "a": Path("x/y"), "λ": np.float32(0.5), "v": np.arange(2)})
    assert path.read_text(encoding="utf-8") == (
        '{\n  "a": "x/y",\n  "b": [\n    1,\n    null\n  ],\n  "v": [\n    0,\n    1\n  ],\n  "λ": 0.5\n}\n'
    )
    assert read_json(path) == {"a": "x/y", "b": [1, None], "v": [0, 1], "λ": 0.5}


def test_a_value_that_is_not_json_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, 1)
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert path.read_text() == "1\n"


@pytest.mark.parametrize("content", [b"", b'{"a": ', b"\xff\xfe", b"[" * 100_000])
def test_damaged_json_is_corrupt_and_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(content)
    with pytest.raises(CorruptError, match=r"run\.json"):
        read_json(path)


def test_absent_files_are_input_errors(tmp_path: Path) -> None:
    for read in (read_json, sha256_file):
        with pytest.raises(InputError, match="absent"):
            read(tmp_path / "absent")
        with pytest.raises(InputError):
            read(tmp_path)


def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    content = json.dumps(list(range(1000))).encode() * 1000
    (tmp_path / "a").write_bytes(content)
    assert sha256_file(tmp_path / "a") == hashlib.sha256(content).hexdigest()


def test_json_lines_come_back_exactly(tmp_path: Path) -> None:
    records = [{"epoch": 1, "return": 0.1 + 0.2}, {"epoch": 2, "return": -1e-300}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert read_jsonl(tmp_path / "metrics.jsonl") == records
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1}\n{"epoch"')
    with pytest.raises(CorruptError, match=r"metrics\.jsonl"):
        read_jsonl(tmp_path / "metrics.jsonl")
    with pytest.raises(InputError, match=r"absent\.jsonl"):
        read_jsonl(tmp_path / "absent.jsonl")
