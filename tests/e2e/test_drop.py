"""DROP from the command line: its ratios are published, stored with rollouts, compared, and copied with the policy."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from probes.runs import record_anew, run_in
from safetensors.numpy import load_file

from mopo_cli.store.atomic import sha256_file
from mopo_cli.store.checkpoint import load_tensors, save_tensors

# Appended to the settings of the finished run.
OWN = """\
methods:
  drop: {train-policy: {dice-steps: 3, dice-pretrain: 5}}
"""
SEED = "policies/drop_h2/seed-0"
COMMON = "--run runs/tiny --config tiny.yaml --threads 1"


@pytest.fixture(scope="module")
def dropped(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished run in which a policy of DROP is trained too. Not to be written to."""
    folder = tmp_path_factory.mktemp("dropped") / "work"
    shutil.copytree(finished_run, folder, ignore=shutil.ignore_patterns("evaluations"))
    with (folder / "tiny.yaml").open("a") as file:
        file.write(OWN)
    return run_in(folder, [f"train-policy --method drop {COMMON}"])


@pytest.fixture
def run(dropped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run in a folder of its own, to do anything with."""
    shutil.copytree(dropped, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return Path("runs/tiny")


def lineage(run: Path, stage: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((run / "run.json").read_text())["stages"][stage]
    return record


def roll(name: str, more: str = "") -> str:
    return f"rollout --actions runs/tiny/{SEED}/policy.safetensors --name {name} {COMMON} {more}"


def columns(path: Path) -> dict[str, Any]:
    with h5py.File(path) as file:
        results: dict[str, Any] = {}
        file.visititems(lambda name, node: results.update({name: node[()]}) if isinstance(node, h5py.Dataset) else None)
        return results | {"ratio_sha256": file.attrs.get("ratio_sha256")}


def test_the_ratios_lie_beside_the_policy_and_belong_to_it(run: Path) -> None:
    assert sorted(path.name for path in (run / SEED).iterdir()) == [
        *("metrics.jsonl", "policy.safetensors", "ratio.safetensors", "timing.json")
    ]
    output = lineage(run, "train-policy/drop_h2")["outputs"]["ratio/seed-0"]
    assert output == {"path": f"{SEED}/ratio.safetensors", "sha256": sha256_file(run / SEED / "ratio.safetensors")}
    tensors, meta = load_tensors(run / SEED / "ratio.safetensors")
    assert meta["inputs"]["model"] == sha256_file(run / "model/ensemble.safetensors")
    assert meta["policy_sha256"] == sha256_file(run / SEED / "policy.safetensors")
    assert (meta["kind"], meta["obs_dim"], meta["act_dim"], meta["seed"], meta["model_seed"]) == ("ratio", 4, 1, 0, 0)
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {
        **{"w0": (2, 5, 64), "b0": (2, 1, 64), "w1": (2, 64, 64), "b1": (2, 1, 64), "w2": (2, 64, 1), "b2": (2, 1, 1)},
        **{"input_mean": (5,), "input_std": (5,), "networks": (2,)},
    }
    assert tensors["networks"].tolist() == json.loads((run / "elites.json").read_text())["elites"]["0"]
    record, _ = map(json.loads, (run / SEED / "metrics.jsonl").read_text().splitlines())
    assert record["ratio_p10"] < record["ratio_p50"] < record["ratio_p90"]
    assert 0 <= record["clipped"] <= 1 and np.isfinite(record["dice_loss"])


def test_rollouts_hold_the_ratio_of_the_network_that_drew_the_row(run: Path, mopo: Any) -> None:
    done = mopo(roll("with"))
    assert done.code == 0 and "ratio" in done.err
    stored = columns(run / "rollouts/with.h5")
    weights, model = load_file(run / SEED / "ratio.safetensors"), load_file(run / "model/ensemble.safetensors")
    x = np.hstack([stored["observations"], stored["actions"] / 3])  # the pendulum's actions are within 3
    x = (x - model["seed-0/input_mean"]) / model["seed-0/input_std"]
    expected = np.empty(len(x))
    for place, k in enumerate(weights["networks"]):
        hidden = x[stored["network"] == k].astype(np.float64)
        for i in (0, 1):
            hidden = np.maximum(hidden @ weights[f"w{i}"][place] + weights[f"b{i}"][place], 0)
        expected[stored["network"] == k] = (hidden @ weights["w2"][place] + weights["b2"][place])[:, 0]
    assert len(set(stored["network"])) == 2 and expected.std() > 1e-3
    np.testing.assert_allclose(stored["uncertainty/ratio"], expected, rtol=1e-3, atol=1e-5)
    digest = sha256_file(run / SEED / "ratio.safetensors")
    assert stored["ratio_sha256"] == digest.encode()
    assert lineage(run, "rollout/with")["inputs"]["ratio"]["sha256"] == digest
    assert "up to date" in mopo(roll("with")).err

    # Without the file there is no such column, and all else is the same.
    (run / SEED / "ratio.safetensors").unlink()
    assert mopo(roll("without")).code == 0
    plain = columns(run / "rollouts/without.h5")
    assert stored.keys() - plain.keys() == {"uncertainty/ratio"} and plain.pop("ratio_sha256") is None
    assert all(np.array_equal(column, stored[name]) for name, column in plain.items())
    assert "ratio" not in lineage(run, "rollout/without")["inputs"]
    assert mopo(roll("with")).code == 0
    assert "uncertainty/ratio" not in columns(run / "rollouts/with.h5"), "it was made anew"


def test_the_ratio_is_compared_with_the_true_error(run: Path, mopo: Any) -> None:
    done = mopo(roll("with", "--diagnose --json"))
    assert done.code == 0
    result = json.loads(done.out)
    assert "ratio" in result["diagnosis"]["uncertainties"]
    quantiles = [row for row in result["quantiles"] if row["uncertainty"] == "ratio"]
    assert [row["step"] for row in quantiles] == [0, 1]
    values = columns(run / "rollouts/with.h5")
    first = values["uncertainty/ratio"][values["step"] == 0]
    expected = np.quantile(first, [0.05, 0.5, 0.95])
    assert [quantiles[0][name] for name in ("q5", "q50", "q95")] == pytest.approx(expected, rel=1e-4)


Change = Callable[[dict[str, Any]], dict[str, Any]]
WRONG: dict[str, tuple[Change, int, str]] = {
    "another model": (
        lambda meta: meta | {"inputs": meta["inputs"] | {"model": "0" * 64}},
        *(4, f"was made with another model: sha256 {'0' * 64}, now "),
    ),
    "another policy": (lambda meta: meta | {"policy_sha256": "1" * 64}, 4, "was made with another policy: sha256 111"),
    "another ensemble": (
        lambda meta: meta | {"model_seed": 7},
        *(4, "is of the ensemble with seed 7, but --seed 0 uses that with seed 0"),
    ),
    "another kind": (lambda meta: meta | {"kind": "policy"}, 4, "is not a ratio but a policy"),
    "shapes of its own": (lambda meta: meta | {"act_dim": 2}, 5, "is damaged, its parts do not fit"),
    "nothing of its origin": (lambda meta: {k: v for k, v in meta.items() if k != "inputs"}, 5, "is damaged"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_ratio_file_that_does_not_go_with_the_rest_is_refused(run: Path, mopo: Any, what: str) -> None:
    change, code, sentence = WRONG[what]
    path = run / SEED / "ratio.safetensors"
    tensors, meta = load_tensors(path)
    save_tensors(path, tensors, change(meta))
    record_anew(run)
    done = mopo(roll("with"))
    assert done.code == code and sentence in done.err.replace("\n", " ") and str(path) in done.err.replace("\n", "")
    assert "Traceback" not in done.err and not (run / "rollouts/with.h5").exists()


def test_a_ratio_file_of_other_dimensions_is_refused(run: Path, mopo: Any) -> None:
    path = run / SEED / "ratio.safetensors"
    tensors, meta = load_tensors(path)
    wider = {name: tensor[..., [0, 0, 1, 2, 3, 4]] for name, tensor in tensors.items() if name.startswith("input")}
    wider["w0"] = tensors["w0"][:, [0, 0, 1, 2, 3, 4]]
    save_tensors(path, tensors | wider, meta | {"obs_dim": 5})
    record_anew(run)
    done = mopo(roll("with"))
    assert done.code == 4 and "is for 5 observations and 1 actions, the dataset has 4 and 1" in done.err
    assert "The ratio file" in done.err and "Try: give --actions a policy" in done.err


def test_a_ratio_file_without_the_elites_in_use_is_refused(run: Path, mopo: Any) -> None:
    path = run / SEED / "ratio.safetensors"
    tensors, meta = load_tensors(path)
    save_tensors(path, tensors | {"networks": tensors["networks"] + 5}, meta)
    record_anew(run)
    done = mopo(roll("with"))
    assert done.code == 4 and "was made with other elites: network" in " ".join(done.err.split())


@pytest.mark.parametrize("how", ["cut short", "a scaler that is too narrow", "more networks than numbers"])
def test_a_damaged_ratio_file_is_named(run: Path, mopo: Any, how: str) -> None:
    path = run / SEED / "ratio.safetensors"
    if how == "cut short":
        path.write_bytes(path.read_bytes()[:100])
    else:
        tensors, meta = load_tensors(path)
        name = "input_std" if "scaler" in how else "networks"
        save_tensors(path, tensors | {name: tensors[name][:1]}, meta)
        record_anew(run)
    done = mopo(roll("with"))
    assert done.code == 5 and "ratio.safetensors" in done.err and "Traceback" not in done.err


def test_an_ablation_takes_the_ratios_over_with_the_policy(run: Path, mopo: Any, trained: list[int]) -> None:
    ablate = f"ablate --method drop --seeds 2 {COMMON}"
    assert mopo(f"{ablate} --name one").code == 0
    assert trained == [1], "the other seed is there"
    files = ("policy.safetensors", "metrics.jsonl", "ratio.safetensors")
    cell = run / "ablations/one/cells/drop_h2"
    for name in files:
        assert (cell / "seed-0" / name).read_bytes() == (run / SEED / name).read_bytes()
    recorded = json.loads((cell / "cell.json").read_text())["files"]
    assert recorded == {f"seed-{s}/{n}": sha256_file(cell / f"seed-{s}" / n) for s in (0, 1) for n in files}
    assert mopo(f"{ablate} --name two").code == 0
    assert trained == [1]
    other = run / "ablations/two/cells/drop_h2"
    assert all((cell / file).read_bytes() == (other / file).read_bytes() for file in (*recorded, "cell.json"))
    # A cell whose ratios are lost is not there, and one that is damaged is not taken over.
    (other / "seed-1/ratio.safetensors").unlink()
    assert mopo(f"{ablate} --name two").code == 0
    assert (other / "seed-1/ratio.safetensors").read_bytes() == (cell / "seed-1/ratio.safetensors").read_bytes()
    for folder in (run / SEED, cell / "seed-0", other / "seed-0"):
        (folder / "ratio.safetensors").write_bytes(b"?")
    assert mopo(f"{ablate} --name two").code == 0
    assert trained == [1, 0]


def test_a_policy_that_takes_its_place_has_no_ratios(run: Path, mopo: Any) -> None:
    train = f"train-policy --name drop_h2 {COMMON}"
    assert mopo(f"{train} --epochs 1 --force").code == 0
    assert not (run / SEED / "ratio.safetensors").exists()
    assert "ratio/seed-0" not in lineage(run, "train-policy/drop_h2")["outputs"]


def test_what_drop_cannot_learn_from_is_refused(run: Path, mopo: Any) -> None:
    for more in ("--real-ratio 1", "--rollouts runs/tiny/rollouts/uniform_h2.h5"):
        done = mopo(f"train-policy --method drop --name other {more} {COMMON}")
        assert done.code == 2 and "algorithm drop uses the model itself" in done.err
    done = mopo(f"train-policy --eta 2 {COMMON}")
    assert done.code == 2 and "--eta is a setting of drop" in done.err
