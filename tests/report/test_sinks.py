"""The metrics seam: every sink gets what is logged, and none of them can stop what logs."""

import math
from pathlib import Path
from typing import Any

import pytest
from probes.sinks import Failing, Memory

from mopo_cli.errors import SettingsError, UsageError
from mopo_cli.report import metrics
from mopo_cli.report.console import Report
from mopo_cli.report.metrics import check_sinks, open_metrics
from mopo_cli.report.sink import Curves, identity, scalars

RECORDS = [{"epoch": 1, "return": 0.1 + 0.2, "q": -1e-300}, {"return": float("nan"), "epoch": 2, "dead": 3}]
ANOTHER = {"epoch": 3, "return": 7.0}


def test_another_sink_is_one_line(tmp_path: Path, sinks: list[Memory], capfd: pytest.CaptureFixture[str]) -> None:
    curves = Curves(tmp_path, "train-policy/p", ["seed-0", "seed-1"])
    with open_metrics(tmp_path / "live", curves, Report(), ["memory"]) as log:
        log.log_records("seed-0", RECORDS)
        log.log_records("seed-1", [ANOTHER])
        log.log_records("seed-1", [])
        (sink,) = sinks
        assert sink.logged == [
            ("seed-0", 1, {"return": 0.1 + 0.2, "q": -1e-300}),
            ("seed-0", 2, {"dead": 3.0}),
            ("seed-1", 3, {"return": 7.0}),
        ]
        assert not sink.closed
    assert sink.closed and sink.folder == tmp_path / "logs/memory" and sink.curves is curves
    out, err = capfd.readouterr()
    assert out == "" and [line.rpartition(": ")[2] for line in err.splitlines()][1:] == ["in memory"]


@pytest.mark.parametrize(
    ("moment", "why"),
    [
        ("make", "OSError: [Errno 28] No space left on device"),
        ("log", "ValueError: the second epoch is too much"),
        ("close", "RuntimeError"),
    ],
)
def test_a_sink_that_fails_is_told_once_and_stops_nothing(
    tmp_path: Path, sinks: list[Memory], monkeypatch: Any, capfd: Any, moment: str, why: str
) -> None:
    monkeypatch.setattr(Failing, "moment", moment)
    curves = Curves(tmp_path, "train-policy/p", ["seed-0"])
    with open_metrics(tmp_path, curves, Report("json"), ["failing", "memory"]) as log:
        for record in (*RECORDS, ANOTHER):
            log.log_records("seed-0", [record])
    out, err = capfd.readouterr()
    assert out == "" and err.count("Warning: ") == 1
    warning = " ".join(err.split())
    assert f"({why})" in warning and f"mopo export-logs {tmp_path} --to failing" in warning
    failing, memory = sinks
    assert list(memory.of("seed-0")) == [1, 2, 3] and memory.closed
    assert list(failing.of("seed-0")) == {"make": [], "log": [1, 2], "close": [1, 2, 3]}[moment]
    assert failing.closed == (moment != "make")
    assert (tmp_path / "seed-0/metrics.jsonl").read_text().count("\n") == 3


def test_what_a_library_shows_are_finite_numbers() -> None:
    values = {"nll": {"0": [1.5, math.inf], "7": [-2.0]}, "return": None, "q": math.nan, "dead": 3, "penalty": 0.5}
    assert scalars(values) == {
        "nll/seed-0/network-0": 1.5,
        "nll/seed-7/network-0": -2.0,
        "dead": 3.0,
        "penalty": 0.5,
    }


def test_names_and_libraries_are_checked(tmp_path: Path, sinks: list[Memory], monkeypatch: Any) -> None:
    check_sinks("--log", ["memory", "failing"])
    with pytest.raises(UsageError, match="--log must be one of tensorboard, trackio, wandb, mlflow, memory"):
        check_sinks("--log", ["memory", "tensorbord"])
    monkeypatch.setattr(Memory, "library", "no_such_library")
    with pytest.raises(SettingsError, match="--to memory needs the package no_such_library") as caught:
        check_sinks("--to", ["memory"])
    assert caught.value.hint == "pip install no_such_library"
    (tmp_path / "no_such_library").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SettingsError):  # a folder of that name is no library
        check_sinks("--to", ["memory"])


def test_every_sink_has_an_extra_that_installs_its_library() -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    for name, sink in metrics.SINKS.items():
        assert any(each.startswith(sink.library) for each in project["optional-dependencies"][name])


def test_a_member_has_the_same_identity_in_every_attempt_and_in_no_other_folder(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    names = ["train-policy/p/seed-0", "train-policy/p/seed-1"]
    first = [identity(folder, name) for folder in (one, other) for name in names]
    assert len(set(first)) == 4 and {len(digits) for digits in first} == {16}
    assert first == [identity(folder, name) for folder in (one, other) for name in names]


def test_a_project_has_a_name_that_libraries_take(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert Curves(Path("runs/hopper medium#1?"), "train-model", ["model"]).project == "hopper-medium-1-"
    assert Curves(Path(), "train-model", ["model"]).project == tmp_path.name
