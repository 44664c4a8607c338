"""``mopo show`` tells what a thing is, how it was made and where each setting came from."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest


@pytest.fixture
def run(shell: Any) -> Path:
    shell("run quickstart --config")  # wrong on purpose: leaves no run behind
    assert not Path("runs").exists()
    Path("mine.yaml").write_text("train-policy:\n  lam: 2\n")
    assert shell("run quickstart --config mine.yaml") == 0
    return Path("runs/quickstart")


def test_a_run_folder_lists_its_stages_with_settings_and_origins(shell: Any, run: Path) -> None:
    for path in (run, run / "run.json"):
        assert shell(f"show {path}") == 0
        lines = shell.out.splitlines()
        assert lines[0] == "runs/quickstart: run folder"
        words = [line.split() for line in lines]
        assert ["lam", "2", "mine.yaml"] in words
        assert ["seeds", "3", "preset", "quickstart"] in words
        assert ["transitions", "20000", "preset", "quickstart"] in words
        assert ["rollouts", "fresh", "default"] in words
        stages = [line.split(":")[0] for line in lines if ": made " in line]
        assert stages[:3] == ["fetch-data", "train-model", "select-elites"]
        assert stages[-1] == "evaluate"


def test_json_holds_the_same(shell: Any, run: Path) -> None:
    assert shell(f"show {run} --json") == 0
    found = json.loads(shell.out)
    training = next(stage for stage in found["stages"] if stage["stage"].startswith("train-policy"))
    assert (training["settings"]["lam"], training["origins"]["lam"]) == (2.0, "mine.yaml")


def test_a_data_file_shows_its_columns_and_attributes(shell: Any, tmp_path: Path) -> None:
    with h5py.File("data.h5", "w") as file:
        file.attrs["kind"] = "dataset"
        file.attrs["dataset_id"] = "generate:Toy:random"
        file.attrs["action_low"] = np.array([-1.0, -2.0], dtype=np.float32)
        file["observations"] = np.zeros((7, 3), dtype=np.float32)
        file["uncertainty/ens"] = np.zeros(7, dtype=np.float32)
        file["outside"] = h5py.ExternalLink("/etc/hostname", "/")
    assert shell("show data.h5") == 0
    assert shell.out.splitlines()[0] == "data.h5: dataset"
    for piece in ("dataset_id: generate:Toy:random", "action_low: -1 -2", "column observations: 7 x 3 float32"):
        assert piece in shell.out
    assert "column uncertainty/ens: 7 float32" in shell.out
    assert "hostname" not in shell.out


def test_a_file_in_a_run_names_the_stage_that_made_it(shell: Any, run: Path) -> None:
    made = run / "elites.json"
    (run / "select-elites.out").rename(made)
    made.write_text('{"elites": {"0": [1, 2]}}')
    lineage = json.loads((run / "run.json").read_text())
    lineage["stages"]["select-elites"]["outputs"]["dataset"]["path"] = "elites.json"
    (run / "run.json").write_text(json.dumps(lineage))
    assert shell(f"show {made}") == 0
    assert shell.out.startswith(f"{made}: elites\n")
    assert "select-elites: made 2026-01-01" in shell.out
    assert "train-model" not in shell.out


def test_tensors_show_what_they_say_of_themselves(shell: Any) -> None:
    torch = pytest.importorskip("torch")
    from mopo_cli.store.checkpoint import save_tensors

    save_tensors(Path("w.safetensors"), {"a": torch.zeros(2, 3)}, {"kind": "policy", "obs_dim": 4, "more": {"x": 1}})
    assert shell("show w.safetensors") == 0
    assert shell.out.splitlines()[0] == "w.safetensors: policy"
    for piece in ("obs_dim: 4", "tensors: 1", "numbers: 6"):
        assert piece in shell.out


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("missing.h5", None, 4),
        ("not.h5", b"this is no HDF5 file", 5),
        ("truncated.safetensors", b"\x10\x00\x00\x00\x00\x00\x00\x00{}", 5),
        ("broken.json", b"{", 5),
        ("list.json", b"[1]", 4),
        ("notes.txt", b"hello", 4),
    ],
)
def test_what_cannot_be_shown_is_told_in_a_sentence(shell: Any, name: str, content: bytes | None, code: int) -> None:
    if content is not None:
        Path(name).write_bytes(content)
    assert shell(f"show {name}") == code
    assert name in shell.err
    assert shell.out == ""


def test_a_folder_that_is_no_run(shell: Any, tmp_path: Path) -> None:
    assert shell(f"show {tmp_path}") == 4
    assert "run.json" in shell.err
