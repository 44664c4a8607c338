"""metrics.jsonl is whole at any time."""

import json
from contextlib import AbstractContextManager
from io import FileIO
from pathlib import Path
from typing import Any

import pytest

from mopo_cli.errors import InputError
from mopo_cli.report import json_lines
from mopo_cli.report.console import Mode, Report
from mopo_cli.report.json_lines import JsonLines
from mopo_cli.report.metrics import Metrics, open_metrics
from mopo_cli.report.sink import Curves
from mopo_cli.store.publication import Publication

RECORDS = [{"epoch": 1, "return": 0.1 + 0.2, "actor_loss": -1e-300}, {"return": float("nan"), "epoch": 2, "dead": 3}]
LINES = '{"actor_loss": -1e-300, "epoch": 1, "return": 0.30000000000000004}\n{"dead": 3, "epoch": 2, "return": null}\n'


def opened(folder: Path, members: list[str], mode: Mode = "quiet") -> AbstractContextManager[Metrics]:
    return open_metrics(folder, Curves(folder, "train-policy/p", members), Report(mode))


def test_a_line_per_epoch_appears_at_once(tmp_path: Path) -> None:
    first, second = tmp_path / "seed-0/metrics.jsonl", tmp_path / "seed-1/metrics.jsonl"
    with opened(tmp_path, ["seed-0", "seed-1"]) as log:
        assert first.read_text() == second.read_text() == ""
        log.log_records("seed-0", RECORDS[:1])
        assert first.read_text() == LINES.splitlines(keepends=True)[0] and second.read_text() == ""
        log.log_records("seed-0", RECORDS[1:])
        assert first.read_text() == LINES


def test_it_starts_empty_whatever_a_killed_process_left(tmp_path: Path) -> None:
    with opened(tmp_path, ["model"]) as log:
        log.log_records("model", RECORDS)
    path = tmp_path / "model/metrics.jsonl"
    path.write_text(LINES + '{"dead": 3, "epo')
    with opened(tmp_path, ["model"]) as log:
        log.log_records("model", RECORDS[:1])
        assert [json.loads(line)["epoch"] for line in path.read_text().splitlines()] == [1]


def test_a_line_is_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[bytes] = []

    class Recording(FileIO):
        def __init__(self, path: Path, mode: str, buffering: int) -> None:
            assert buffering == 0
            super().__init__(path, mode)

        def write(self, content: Any) -> int:
            writes.append(content)
            return super().write(content)

    monkeypatch.setattr(json_lines, "open", Recording, raising=False)
    lines = JsonLines(tmp_path, ["model"])
    long = {"epoch": 1, **{f"seed {seed}": [0.1] * 100 for seed in range(100)}}
    lines.log("model", 1, long)
    assert len(writes) == 1 and len(writes[0]) > 40_000
    assert json.loads((tmp_path / "model/metrics.jsonl").read_text()) == long


def test_the_user_is_shown_where_to_look(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for members, where in (
        (["model"], "model"),
        (["seed-3"], "seed-3"),
        (["seed-0", "seed-1"], "*"),
        (["mopo_h1/seed-0", "mopo_h2/seed-0"], "*/*"),
    ):
        with opened(tmp_path, members, "human"):
            (line,) = capfd.readouterr().err.splitlines()
            assert line.endswith(f"tail -F {tmp_path}/{where}/metrics.jsonl")


def test_the_file_is_published_beside_what_was_learned(tmp_path: Path) -> None:
    with opened(tmp_path / "live", ["seed-0", "seed-1"]) as log:
        log.log_records("seed-0", RECORDS)
    out, folder = Publication(tmp_path / "staged"), tmp_path / "policies/p/seed-0"
    assert log.stage_files("seed-0", out, folder) == {"metrics": folder / "metrics.jsonl"}
    assert not folder.exists()
    out.commit()
    assert (folder / "metrics.jsonl").read_text() == LINES
    assert not (tmp_path / "live/seed-0/metrics.jsonl").exists()


def test_a_file_that_is_gone_or_cannot_be_written_is_an_input_error(tmp_path: Path) -> None:
    with opened(tmp_path / "live", ["seed-0"]) as log:
        (tmp_path / "live/seed-0/metrics.jsonl").unlink()
        with pytest.raises(InputError, match="seed-0 cannot be written"):
            log.log_records("seed-0", RECORDS)
    with pytest.raises(InputError, match="cannot be written"):
        log.stage_files("seed-0", Publication(tmp_path / "staged"), tmp_path / "policies")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file is a file, not a folder\."), opened(tmp_path / "file", ["seed-0"]):
        pass
