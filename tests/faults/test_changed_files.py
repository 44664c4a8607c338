"""Files that are not what their producer recorded, or not what was written into them; links; wrong metadata."""

import json
from pathlib import Path
from typing import Any

import h5py
import pytest
from probes.runs import record_anew

from mopo_cli.store.atomic import read_json, write_json
from mopo_cli.store.checkpoint import load_tensors, save_tensors

TINY = "--config tiny.yaml --threads 1"
POLICY = "policies/mopo_max-var_lam1_h2/seed-0/policy.safetensors"
METRICS = "policies/mopo_max-var_lam1_h2/seed-0/metrics.jsonl"
ROLLOUTS = "rollouts/uniform_h2.h5"
FROM_FILE = f"train-policy {TINY} --epochs 1 --name new --rollouts"
ROLLOUT = f"rollout {TINY} --name new"
READERS = [
    ("model/ensemble.safetensors", "select-elites --n 1", "train-model"),
    ("model/ensemble.safetensors", ROLLOUT, "train-model"),
    ("elites.json", f"train-policy {TINY} --name new", "select-elites"),
    (ROLLOUTS, f"{FROM_FILE} runs/tiny/{ROLLOUTS}", "rollout"),
    (POLICY, "evaluate --episodes 1 --threads 1", "train-policy"),
    (POLICY, f"{ROLLOUT} --actions runs/tiny/{POLICY}", "train-policy"),
    (METRICS, "evaluate --episodes 1 --threads 1", "train-policy"),
]


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(("name", "line", "stage"), READERS)
def test_one_bit_is_enough(tiny_run: Path, refuses: Any, name: str, line: str, stage: str) -> None:
    flip(tiny_run / name, -1)
    refuses(line, 5, f"{tiny_run / name} is not what {stage}")
    refuses(line, 5, f"or make it again: mopo {stage} ")
    refuses(line, 5, f"--run {tiny_run} --force")


def test_a_dataset_with_another_bit(tiny_run: Path, refuses: Any) -> None:
    dataset = Path(read_json(tiny_run / "run.json")["stages"]["fetch-data"]["outputs"]["dataset"]["path"])
    whole = dataset.read_bytes()
    try:
        flip(dataset, len(whole) // 2)
        for line in (f"train-model {TINY} --force", ROLLOUT, "evaluate --episodes 1 --threads 1"):
            refuses(line, 5, "dataset.h5 is not what fetch-data wrote")
    finally:
        dataset.write_bytes(whole)


@pytest.mark.parametrize("flag", ["--diagnose", "--map"])
def test_an_empty_rollout_file_is_made_anew(tiny_run: Path, mopo: Any, flag: str) -> None:
    path = tiny_run / ROLLOUTS
    whole = path.read_bytes()
    assert mopo(f"rollout {TINY} {flag}").code == 0
    path.write_bytes(b"")
    assert "up to date" not in mopo(f"rollout {TINY} {flag} --json").err
    assert path.read_bytes() == whole


def test_a_cell_s_policy_is_compared_with_its_cell(tiny_run: Path, mopo: Any, refuses: Any) -> None:
    assert mopo(f"ablate {TINY} --penalty max-var --epochs 1 --name table").code == 0
    (policy,) = tiny_run.glob("ablations/table/cells/*/seed-0/policy.safetensors")
    flip(policy, -1)
    refuses(f"{ROLLOUT} --actions {policy}", 5, f"{policy} is not what ablate/table wrote")
    assert mopo(f"ablate {TINY} --penalty max-var --epochs 1 --name table").code == 0
    assert mopo(f"{ROLLOUT} --actions {policy}").code == 0


def test_files_from_elsewhere_are_checked_by_what_is_in_them(tiny_run: Path, mopo: Any, refuses: Any) -> None:
    policy, rollouts = Path("theirs.safetensors"), Path("theirs.h5")
    policy.write_bytes((tiny_run / POLICY).read_bytes())
    rollouts.write_bytes((tiny_run / ROLLOUTS).read_bytes())
    assert mopo(f"{ROLLOUT} --actions {policy}").code == 0
    assert mopo(f"{FROM_FILE} {rollouts}").code == 0
    flip(policy, -1)
    with h5py.File(rollouts, "r+") as file:
        file["rewards"][0] += 1  # HDF5's own checksums agree with it
    refuses(f"{ROLLOUT} --force --actions {policy}", 5, "its content does not match its checksum")
    refuses(f"{FROM_FILE} {rollouts} --force", 5, "its content does not match its checksum")


def test_files_of_versions_that_wrote_no_digest_are_read(tiny_run: Path, mopo: Any) -> None:
    tensors, meta = load_tensors(tiny_run / POLICY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mopo_cli.store.checkpoint._content_digest", lambda *_: None)
        save_tensors(Path("old.safetensors"), tensors, meta)
    assert b"content_sha256" in (tiny_run / POLICY).read_bytes()
    assert mopo(f"{ROLLOUT} --actions old.safetensors").code == 0


@pytest.mark.parametrize("place", [".state", "model", "policies", ".lock", "elites.json"])
def test_nothing_is_done_through_links(tiny_run: Path, refuses: Any, place: str) -> None:
    theirs = Path("theirs")
    theirs.mkdir()
    (theirs / "precious").write_text("precious")
    path = tiny_run / place
    if path.exists():
        path.rename(theirs / path.name)
        path.symlink_to((theirs / path.name).resolve())
    else:
        path.symlink_to(theirs.resolve())
    for line in (f"train-model {TINY} --force", "select-elites --n 1", f"train-policy {TINY} --force"):
        refuses(line, 4, f"{path} is a symbolic link")
    assert (theirs / "precious").read_text() == "precious"


def test_links_among_the_files_of_wandb_are_let_be(tiny_run: Path, mopo: Any, refuses: Any) -> None:
    theirs = tiny_run / "logs/wandb/wandb"
    theirs.mkdir(parents=True)
    (theirs / "latest-run").symlink_to("/nowhere")
    assert mopo("select-elites --n 1 --threads 1").code == 0
    (theirs.parent / "link").symlink_to("/nowhere")
    refuses("select-elites --n 2 --threads 1", 4, f"{theirs.parent / 'link'} is a symbolic link")


def test_a_run_folder_may_itself_be_a_link(tiny_run: Path, mopo: Any) -> None:
    tiny_run.rename("elsewhere")
    tiny_run.symlink_to(Path("elsewhere").resolve())
    assert mopo(f"{ROLLOUT} --run runs/tiny").code == 0


@pytest.mark.parametrize(
    ("name", "line", "field", "value"),
    [
        ("model/ensemble.safetensors", "select-elites --n 1", "holdout_mse.0", [1.0]),
        ("model/ensemble.safetensors", "select-elites --n 1", "holdout_mse.0", "x"),
        ("model/ensemble.safetensors", ROLLOUT, "layers", 10**9),
        ("model/ensemble.safetensors", ROLLOUT, "obs_dim", None),
        ("model/ensemble.safetensors", ROLLOUT, "seeds", 0),
        (POLICY, "evaluate --episodes 1 --threads 1", "action_low", ["a"]),
        (POLICY, "evaluate --episodes 1 --threads 1", "inputs", []),
        (POLICY, "evaluate --episodes 1 --threads 1", "inputs", {"model": "0" * 64}),
        (POLICY, "evaluate --episodes 1 --threads 1", "log_std_min", "low"),
        ("elites.json", ROLLOUT, "elites.0", 5),
        ("elites.json", ROLLOUT, "model_sha256", 1),
        ("run.json", "show runs/tiny", "stages.train-model.wall_seconds", "long"),
        ("run.json", "show runs/tiny", "stages.train-model.versions", [1]),
        ("run.json", "evaluate --episodes 1", "stages.train-model.outputs.model.path", "a\x00b"),
        ("run.json", ROLLOUT, "stages.fetch-data.outputs", {}),
        ("run.json", "show runs/tiny", "stages.train-model.extra.origins", "none"),
    ],
)
def test_metadata_of_the_wrong_type(tiny_run: Path, refuses: Any, name: str, line: str, field: str, value: Any) -> None:
    path, (*above, last) = tiny_run / name, field.split(".")
    tensors, document = load_tensors(path) if path.suffix == ".safetensors" else ({}, read_json(path))
    inner = document
    for key in above:
        inner = inner[key]
    inner[last] = value
    save_tensors(path, tensors, document) if tensors else write_json(path, document)
    if name != "run.json":
        record_anew(tiny_run)
    refuses(line, 5, path.name)
    if value != {}:
        refuses(line, 5, above[-1] if last == "0" else last)


def test_epochs_that_have_no_number(tiny_run: Path, refuses: Any) -> None:
    path = tiny_run / METRICS
    path.write_text('{"return": 1.0}\n' * 2)
    record_anew(tiny_run)
    refuses("evaluate --episodes 1 --threads 1", 5, "metrics.jsonl")


def test_a_table_without_cells_is_not_ranked(tiny_run: Path, mopo: Any, refuses: Any) -> None:
    line = f"ablate {TINY} --penalty max-var --epochs 1 --name table"
    assert mopo(line).code == 0
    path = tiny_run / "ablations/table/table.json"
    write_json(path, read_json(path) | {"cells": []})
    record_anew(tiny_run)
    refuses(f"{line} --rank offline", 5, "field cells")


def test_a_cell_whose_description_is_of_the_wrong_type_is_made_anew(tiny_run: Path, mopo: Any) -> None:
    line = f"ablate {TINY} --penalty max-var --epochs 1 --name table --json"
    first = json.loads(mopo(line).out)
    (description,) = tiny_run.glob("ablations/table/cells/*/cell.json")
    whole = description.read_bytes()
    odds: tuple[dict[str, Any], ...] = ({"files": []}, {"returns": {"0": 1}}, {"diverged": {}}, {"inputs": None})
    for odd in odds:
        write_json(description, read_json(description) | odd)
        assert json.loads(mopo(line).out)["cells"][0]["policies"] == first["cells"][0]["policies"]
        assert description.read_bytes() == whole
