"""The metrics seam: every sink gets what is logged, and the JSON lines are whole at any time."""

import json
from collections.abc import Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import Any

import pytest

from mopo_cli.errors import InputError
from mopo_cli.report import json_lines, metrics
from mopo_cli.report.console import Report
from mopo_cli.report.json_lines import JsonLines
from mopo_cli.report.metrics import open_metrics
from mopo_cli.store.publication import Publication

STAGE = "train-policy/p"
RECORDS = [{"epoch": 1, "return": 0.1 + 0.2, "actor_loss": -1e-300}, {"return": float("nan"), "epoch": 2, "dead": 3}]
LINES = '{"actor_loss": -1e-300, "epoch": 1, "return": 0.30000000000000004}\n{"dead": 3, "epoch": 2, "return": null}\n'


def quiet() -> Report:
    return Report("quiet")


def test_a_line_per_epoch_appears_at_once(tmp_path: Path) -> None:
    first, second = tmp_path / "seed-0/metrics.jsonl", tmp_path / "seed-1/metrics.jsonl"
    with open_metrics(tmp_path, ["seed-0", "seed-1"], quiet()) as log:
        assert first.read_text() == second.read_text() == ""
        log.log_records(STAGE, "seed-0", RECORDS[:1])
        assert first.read_text() == LINES.splitlines(keepends=True)[0] and second.read_text() == ""
        log.log_records(STAGE, "seed-0", RECORDS[1:])
        assert first.read_text() == LINES


def test_it_starts_empty_whatever_a_killed_process_left(tmp_path: Path) -> None:
    with open_metrics(tmp_path, ["model"], quiet()) as log:
        log.log_records("train-model", "model", RECORDS)
    path = tmp_path / "model/metrics.jsonl"
    path.write_text(LINES + '{"dead": 3, "epo')
    with open_metrics(tmp_path, ["model"], quiet()) as log:
        log.log_records("train-model", "model", RECORDS[:1])
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
    sink = JsonLines(tmp_path, ["model"])
    long = {"epoch": 1, **{f"seed {seed}": [0.1] * 100 for seed in range(100)}}
    sink.log("train-model", "model", 1, long)
    assert len(writes) == 1 and len(writes[0]) > 40_000
    assert json.loads((tmp_path / "model/metrics.jsonl").read_text()) == long


def test_the_user_is_shown_where_to_look(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for members, where in (
        (["model"], "model"),
        (["seed-3"], "seed-3"),
        (["seed-0", "seed-1"], "*"),
        (["mopo_h1/seed-0", "mopo_h2/seed-0"], "*/*"),
    ):
        with open_metrics(tmp_path, members, Report()):
            (line,) = capfd.readouterr().err.splitlines()
            assert line.endswith(f"tail -F {tmp_path}/{where}/metrics.jsonl")


class Memory:
    """A sink as one would add it."""

    where = "in memory"

    def __init__(self, folder: Path, members: Sequence[str]) -> None:
        self.logged: list[tuple[str, str, int, dict[str, Any]]] = []
        self.file = folder / members[0] / "picture.png"
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.closed = False

    def log(self, stage: str, member: str, step: int, values: Mapping[str, Any]) -> None:
        self.logged.append((stage, member, step, dict(values)))

    def files(self, member: str) -> list[Path]:
        return [self.file] if self.file.parent.name == member else []

    def close(self) -> None:
        self.file.write_bytes(b"picture")
        self.closed = True


def test_another_sink_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    made: list[Memory] = []

    def make(folder: Path, members: Sequence[str]) -> Memory:
        made.append(Memory(folder, members))
        return made[-1]

    monkeypatch.setattr(metrics, "SINKS", (*metrics.SINKS, make))
    with open_metrics(tmp_path / "live", ["seed-0", "seed-1"], Report()) as log:
        log.log_records(STAGE, "seed-0", RECORDS[:1])
        log.log_records(STAGE, "seed-1", [{"epoch": 7, "q": 1.5}])
        assert not made[0].closed
    assert made[0].closed and "in memory" in capfd.readouterr().err
    assert made[0].logged == [
        (STAGE, "seed-0", 1, {"return": 0.1 + 0.2, "actor_loss": -1e-300}),
        (STAGE, "seed-1", 7, {"q": 1.5}),
    ]
    out, folder = Publication(tmp_path / "staged"), tmp_path / "policies/p/seed-0"
    assert log.stage_files("seed-0", out, folder) == {
        "metrics": folder / "metrics.jsonl",
        "picture": folder / "picture.png",
    }
    assert not folder.exists()
    out.commit()
    assert (folder / "metrics.jsonl").read_text() == LINES.splitlines(keepends=True)[0]
    assert (folder / "picture.png").read_bytes() == b"picture"
    assert not (tmp_path / "live/seed-0/metrics.jsonl").exists()


def test_a_file_that_is_gone_or_cannot_be_written_is_an_input_error(tmp_path: Path) -> None:
    with open_metrics(tmp_path / "live", ["seed-0"], quiet()) as log:
        (tmp_path / "live/seed-0/metrics.jsonl").unlink()
        with pytest.raises(InputError, match="seed-0 cannot be written"):
            log.log_records(STAGE, "seed-0", RECORDS)
    with pytest.raises(InputError, match="cannot be written"):
        log.stage_files("seed-0", Publication(tmp_path / "staged"), tmp_path / "policies")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"), open_metrics(tmp_path / "file", ["seed-0"], quiet()):
        pass
