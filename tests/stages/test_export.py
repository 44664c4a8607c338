"""mopo export, from a run to a file, and what it refuses."""

import json
import shutil
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mopo_cli import __version__, load_policy
from mopo_cli.__main__ import main
from mopo_cli.data.transition_files import read_dataset
from mopo_cli.policy import agreement, files, onnx_file
from mopo_cli.stages.common.policies import greedy_policy, open_policy
from mopo_cli.store.atomic import read_json, sha256_file, write_json
from mopo_cli.store.checkpoint import load_tensors, save_tensors

NAME = "mopo_max-var_lam1_h2"
POLICY = Path(f"runs/tiny/policies/{NAME}/seed-0/policy.safetensors")
EXPORTED = Path(f"runs/tiny/exports/{NAME}/seed-0.npz")
KINDS = ["numpy", pytest.param("onnx", marks=pytest.mark.skipif(not find_spec("onnxruntime"), reason="needs onnx"))]


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_acts_as_the_policy_and_says_what_it_is(tiny_run: Path, mopo: Any, kind: str) -> None:
    outcome = mopo(f"export --to {kind} --json")
    assert outcome.code == 0, outcome.err
    result = json.loads(outcome.out)
    path = EXPORTED.with_suffix(".npz" if kind == "numpy" else ".onnx")
    assert result["outputs"] == {"seed-0": str(path)} and result["policy"] == NAME
    assert 0 <= result["difference"] <= 1e-5
    exported, dataset = (
        load_policy(path),
        read_json(tiny_run / "run.json")["stages"]["fetch-data"]["outputs"]["dataset"],
    )
    transitions, info = read_dataset(Path(dataset["path"]))
    actor, meta = open_policy(POLICY, torch.device("cpu"))
    act, rows = greedy_policy(actor, [-3.0], [3.0]), transitions.observations
    np.testing.assert_allclose(exported(rows), act(rows), atol=6e-6)
    about = exported.about
    assert about["environment"] == info.env_id == "InvertedPendulum-v5" and about["mopo"] == __version__
    assert about["dataset_sha256"] == dataset["sha256"] and about["policy_sha256"] == [sha256_file(POLICY)]
    assert (about["seeds"], about["verdict"], about["algorithm"]) == ([0], None, "sac")
    assert about["observation_range"] == meta["observation_range"]
    golden = {name: np.array(values) for name, values in about["golden"].items()}
    assert golden["observation"].shape == (3, 4)
    assert (golden["observation"][:, None] == rows).all(axis=2).any(axis=1).all()
    np.testing.assert_allclose(exported(golden["observation"]), golden["action"], atol=6e-6)
    shown = mopo(f"show {path}").out.splitlines()
    assert shown[0] == f"{path}: exported policy"
    assert "  algorithm: sac" in shown and any(line.startswith("  verdict: ") for line in shown)


def test_a_path_will_do_and_seeds_have_a_file_each_or_one(tiny_run: Path, mopo: Any, monkeypatch: Any) -> None:
    assert mopo("train-policy --config tiny.yaml --threads 1 --epochs 1 --seeds 2 --eval-every 0 --name two").code == 0
    assert mopo("export --to numpy -o two.npz").code == 0  # the policy trained last
    assert mopo("export two --to numpy -o mean.npz --ensemble").code == 0
    one, other, mean = (load_policy(f"{name}.npz") for name in ("two-seed-0", "two-seed-1", "mean"))
    rows = np.random.default_rng(0).normal(size=(20, 4))
    np.testing.assert_allclose(mean(rows), (one(rows) + other(rows)) / 2, atol=6e-6)
    assert mean.about["seeds"] == [0, 1] and np.abs(one(rows) - other(rows)).max() > 1e-3
    shutil.copy("runs/tiny/policies/two/seed-1/policy.safetensors", "my policy.safetensors")
    assert main(["export", "my policy.safetensors", "--to", "numpy", "-o", "copy.npz"]) == 0
    assert load_policy("copy.npz").about["method"] is None
    # Without --run, the run of a file is the one that it is in.
    monkeypatch.chdir("runs")
    assert mopo("export tiny/policies/two/seed-1/policy.safetensors --to numpy -o ../again.npz").code == 0
    assert Path("../again.npz").read_bytes() == Path("../two-seed-1.npz").read_bytes()


def test_the_verdict_is_that_of_these_very_policies(tiny_run: Path, mopo: Any) -> None:
    run = read_json(tiny_run / "run.json")
    words = {"verdict": "not shown to be better", "seeds": {"0": {"verdict": "better"}, "1": {"verdict": "worse"}}}
    judged = deepcopy(run["stages"][f"evaluate/{NAME}"]) | {"extra": words}
    run["stages"][f"evaluate/{NAME}/ope"] = judged
    write_json(tiny_run / "run.json", run)
    assert mopo("export --to numpy").code == 0
    assert load_policy(EXPORTED).about["verdict"] == "better", "that of its own seed"
    judged["inputs"]["policy/0"]["sha256"] = "0" * 64
    write_json(tiny_run / "run.json", run)
    assert mopo("export --to numpy --force").code == 0
    assert load_policy(EXPORTED).about["verdict"] is None


def test_what_cannot_be_exported_is_refused(tiny_run: Path, mopo: Any, refuses: Any, monkeypatch: Any) -> None:
    refuses("export nothing --to numpy", 4, f"has no policy nothing; it has {NAME}")
    refuses("export nothing --to numpy", 4, f"mopo export {NAME} --to numpy")
    refuses("export nothing.safetensors --to numpy", 4, "nothing.safetensors does not exist")
    refuses("export runs/tiny/model/ensemble.safetensors --to numpy", 4, "is not a policy but a model")
    refuses("export --to numpy -o policy.onnx", 2, "must end in .npz for --to numpy")
    refuses("export --to torch", 2, "'torch'")
    refuses("export", 2, "--to")
    monkeypatch.setattr(onnx_file, "find_spec", lambda name: None)
    refuses("export --to onnx", 4, "needs onnx and onnxruntime")
    refuses("export --to onnx", 4, "pip install onnx onnxruntime")
    assert mopo("export --to numpy").code == 0
    refuses("export --to numpy", 4, f"{EXPORTED} is there already")
    assert mopo("export --to numpy --force").code == 0
    Path("folder.npz").mkdir()
    for force in ("", " --force"):
        refuses(f"export --to numpy -o folder.npz{force}", 4, "folder.npz is a folder, not a file.")
    shutil.rmtree(tiny_run / "policies" / NAME / "seed-0")
    refuses("export --to numpy --force", 4, "does not exist")


def test_what_diverged_is_not_just_trained_again(tiny_run: Path, refuses: Any) -> None:
    run = read_json(tiny_run / "run.json")
    run["stages"][f"train-policy/{NAME}"]["outputs"] = {}
    write_json(tiny_run / "run.json", run)
    said = f"The policy {NAME} has no files: all its seeds diverged.\nTry: mopo train-policy with a lower --critic-lr"
    refuses("export --to numpy", 4, said)


def test_a_policy_of_other_data_or_another_content_is_refused(tiny_run: Path, refuses: Any) -> None:
    tensors, meta = load_tensors(POLICY)
    save_tensors(Path("other.safetensors"), tensors, meta | {"inputs": {"dataset": "0" * 64}})
    refuses("export other.safetensors --to numpy", 4, f"was made from other data: sha256 {'0' * 64}, not ")
    content = bytearray(POLICY.read_bytes())
    changed = bytes(content).replace(meta["inputs"]["dataset"].encode(), b"0" * 64)
    POLICY.write_bytes(changed)
    refuses("export --to numpy", 5, "is not what train-policy")
    content[-1] ^= 1
    Path("mine.safetensors").write_bytes(content)
    refuses("export mine.safetensors --to numpy", 5, "does not match its checksum")


@pytest.mark.parametrize("wrong", ["weights", "activation"])
def test_a_file_that_would_act_otherwise_is_not_written(
    tiny_run: Path, refuses: Any, monkeypatch: Any, wrong: str
) -> None:
    def write(path: Path, weights: Any, about: Any) -> None:
        (weight, bias), *rest = weights.layers
        changed = weight * np.float32(1.001) if wrong == "weights" else -weight
        files.write_npz(path, type(weights)(((changed, bias), *rest), weights.low, weights.high, weights.offset), about)

    monkeypatch.setitem(files.WRITERS, "numpy", (".npz", write))
    refuses("export --to numpy", 1, "of their range away from the policy's")


def test_nan_is_a_difference() -> None:
    weights: Any = type("Weights", (), {"low": np.zeros(1), "high": np.ones(1), "double": lambda self: self})()
    weights.act = lambda rows: np.zeros((len(rows), 1))
    off, most = agreement.difference(
        weights, weights.act, lambda rows: np.full((len(rows), 1), np.nan), np.ones((2, 1))
    )
    assert off == np.inf and most == 1e-5
