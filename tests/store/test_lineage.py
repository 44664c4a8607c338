"""What run.json says of a stage, and when a stage is up to date."""

import hashlib
import json
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from mopo_cli.errors import CorruptError, InputError
from mopo_cli.store.lineage import (
    StageRecord,
    command_again,
    describe_files,
    is_up_to_date,
    read_lineage,
    record_stage,
    tool_versions,
)
from mopo_cli.store.run import RunFolder

SETTINGS = {"lam": 1.0, "h": 5, "seed_list": (0, 3), "name": None}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "run")
    run.model_dir.mkdir(parents=True)
    run.model.write_bytes(b"weights")
    (tmp_path / "dataset.h5").write_bytes(b"data")
    return run


def record(run: RunFolder) -> StageRecord:
    return StageRecord(
        settings=SETTINGS,
        inputs=describe_files(run, {"dataset": run.root.parent / "dataset.h5"}),
        outputs=describe_files(run, {"model": run.model}),
        versions=tool_versions(),
        wall_seconds=1.5,
        finished="2026-01-01T00:00:00+00:00",
    )


def test_files_inside_the_run_are_relative_and_hashed(run: RunFolder) -> None:
    described = describe_files(run, {"model": run.model, "dataset": run.root.parent / "dataset.h5"})
    assert described["model"] == {
        "path": "model/ensemble.safetensors",
        "sha256": hashlib.sha256(b"weights").hexdigest(),
    }
    assert described["dataset"]["path"] == str((run.root.parent / "dataset.h5").resolve())


def test_records_come_back_and_keep_each_other(run: RunFolder) -> None:
    assert read_lineage(run) == {}
    record_stage(run, "train-model", record(run))
    record_stage(run, "rollout/a", replace(record(run), wall_seconds=2.0))
    lineage = read_lineage(run)
    assert sorted(lineage) == ["rollout/a", "train-model"]
    assert lineage["train-model"] == replace(record(run), settings={**SETTINGS, "seed_list": [0, 3]})
    document = json.loads(run.lineage.read_text())
    assert document["format"] == 1 and document["stages"]["rollout/a"]["wall_seconds"] == 2.0


def test_up_to_date_only_with_equal_settings_inputs_and_outputs(run: RunFolder) -> None:
    inputs = record(run).inputs
    key = "train-model"
    assert not is_up_to_date(run, key, SETTINGS, inputs)
    record_stage(run, key, record(run))
    assert is_up_to_date(run, key, SETTINGS, inputs)
    moved: Any = {"dataset": {**inputs["dataset"], "path": "/elsewhere"}}
    assert is_up_to_date(run, key, dict(reversed(SETTINGS.items())), moved)
    assert not is_up_to_date(run, key, {**SETTINGS, "lam": 2.0}, inputs)
    assert not is_up_to_date(run, key, {**SETTINGS, "new": 1}, inputs)
    assert not is_up_to_date(run, key, SETTINGS, {"dataset": {"path": "x", "sha256": "0" * 64}})
    assert not is_up_to_date(run, key, SETTINGS, {})
    run.model.write_bytes(b"weightz")
    assert not is_up_to_date(run, key, SETTINGS, inputs)
    run.model.unlink()
    assert not is_up_to_date(run, key, SETTINGS, inputs)


def test_a_moved_run_is_still_up_to_date(run: RunFolder, tmp_path: Path) -> None:
    record_stage(run, "train-model", record(run))
    moved = RunFolder(tmp_path / "moved")
    run.root.rename(moved.root)
    assert is_up_to_date(moved, "train-model", SETTINGS, record(moved).inputs)


def test_versions_name_what_a_result_depends_on() -> None:
    result = tool_versions()
    assert sorted(result) == ["gymnasium", "mopo", "mujoco", "numpy", "python", "torch"]
    assert result["numpy"] == version("numpy")


@pytest.mark.parametrize(
    "document",
    [
        "[]",
        "{}",
        '{"format": 1, "stages": []}',
        '{"format": 1, "stages": {"a": 3}}',
        '{"format": 1, "stages": {"a": {"settings": {}}}}',
        '{"format": 1, "stages": {"a": {"settings": {}, "inputs": {"d": {"path": 1, "sha256": "s"}}, '
        '"outputs": {}, "versions": {}, "wall_seconds": 1, "finished": "", "extra": {}}}}',
    ],
)
def test_a_damaged_lineage_is_corrupt(run: RunFolder, document: str) -> None:
    run.lineage.write_text(document)
    with pytest.raises(CorruptError, match=r"run\.json"):
        read_lineage(run)


def test_a_newer_format_is_refused(run: RunFolder) -> None:
    run.lineage.write_text('{"format": 2, "stages": {}}')
    with pytest.raises(InputError, match="format 2"):
        read_lineage(run)


@pytest.mark.parametrize(
    ("key", "inputs", "command"),
    [
        ("evaluate/foo", {}, "mopo evaluate --episodes 3 --policy foo --run r --force"),
        ("evaluate/foo/bound", {}, "mopo evaluate --episodes 3 --policy foo --bound --run r --force"),
        ("evaluate/foo/ope", {}, "mopo evaluate --episodes 3 --policy foo --ope --run r --force"),
        (
            "evaluate/foo",
            {"returns": {"path": "my returns.csv", "sha256": "0" * 64}},
            "mopo evaluate --episodes 3 --policy foo --returns 'my returns.csv' --run r --force",
        ),
        ("rollout/uniform_h5/map", {}, "mopo rollout --episodes 3 --map --run r --force"),
    ],
)
def test_the_command_that_does_a_stage_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, inputs: dict[str, Any], command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    run = RunFolder(Path("r"))
    extra = {"origins": {"episodes": "flag", "seed": "default"}}
    settings = {"episodes": 3, "seed": 0, "fqe": {"critics": 8}}
    record_stage(run, key, StageRecord(settings, inputs, {}, {}, 1.0, "2026-01-01T00:00:00", extra))
    assert command_again(run, key) == command
