"""Methods from the command line to the weights: which are the same, which want another model, what is made anew."""

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch
from probes.runs import run_in, stop_at

from mopo_cli.store.checkpoint import load_tensors

LINE = "--config tiny.yaml --threads 1"
SINGLE = Path("variants/networks-1-n-1")


def policy(run: Path, name: str, seed: int = 0) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    return load_tensors(run / f"policies/{name}/seed-{seed}/policy.safetensors", "cpu")


def same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def records(run: Path) -> dict[str, Any]:
    return json.loads((run / "run.json").read_text())["stages"]


def test_mbpo_is_mopo_without_a_weight_and_mopo_without_a_penalty(tiny_run: Path, mopo: Any) -> None:
    """Bit for bit, where the settings agree; and only there."""
    made = {
        "mbpo_h2": "--method mbpo",
        "mopo-no-pen_h2": "--method mopo-no-pen",
        "mopo_lam0_h2": "--method mopo --lam 0",
        "mopo_lam1_h2": "--method mopo",
        "plain": "--penalty none --lam 3 --name plain",
        "far": "--method mbpo --h 1 --name far",
    }
    for name, line in made.items():
        done = mopo(f"train-policy {LINE} --seed-list 0,4 {line}")
        assert done.code == 0, done.err
        assert (tiny_run / f"policies/{name}").is_dir()
    for seed in (0, 4):
        tensors = {name: policy(tiny_run, name, seed)[0] for name in made}
        for name in ("mopo-no-pen_h2", "mopo_lam0_h2", "plain"):
            assert same(tensors["mbpo_h2"], tensors[name]), name
        assert not same(tensors["mbpo_h2"], tensors["mopo_lam1_h2"])
        assert not same(tensors["mbpo_h2"], tensors["far"])
        logs = {name: (tiny_run / f"policies/{name}/seed-{seed}/metrics.jsonl").read_bytes() for name in made}
        assert logs["mbpo_h2"] == logs["mopo-no-pen_h2"] == logs["mopo_lam0_h2"] == logs["plain"]
    assert records(tiny_run)["train-policy/mbpo_h2"]["settings"]["method"] == "mbpo"
    shown = mopo(f"show {tiny_run}/policies/mbpo_h2/seed-0/policy.safetensors").out
    assert "method mbpo" in shown and ["method", "mbpo", "flag"] in [line.split() for line in shown.splitlines()]


def test_the_method_of_the_default_is_the_default(tiny_run: Path, mopo: Any) -> None:
    assert mopo(f"train-policy {LINE} --method mopo").code == 0
    assert same(policy(tiny_run, "mopo_lam1_h2")[0], policy(tiny_run, "mopo_max-var_lam1_h2")[0])


@pytest.mark.parametrize("method", ["bc", "sac-off"])
def test_a_policy_of_real_data_alone_needs_no_model(tiny_run: Path, mopo: Any, method: str) -> None:
    for path in (*tiny_run.glob("model/*"), tiny_run / "elites.json"):
        path.unlink()
    done = mopo(f"train-policy {LINE} --method {method} --json")
    assert done.code == 0, done.err
    assert set(records(tiny_run)[f"train-policy/{method}"]["inputs"]) == {"dataset"}
    tensors, meta = policy(tiny_run, method)
    assert all(tensor.isfinite().all() for tensor in tensors.values()) and meta["model_seed"] is None
    (first, last) = (json.loads(line) for line in (tiny_run / f"policies/{method}/seed-0/metrics.jsonl").open())
    assert "dead" not in last and last["penalty"] == 0
    assert ("actor_loss" in last) == (method == "bc") and ("q" in last) == (method == "sac-off")
    if method == "bc":
        assert last["actor_loss"] < first["actor_loss"]
    assert mopo(f"evaluate --policy {method} --episodes 1 --json").code == 0


def test_bc_stopped_and_started_again_ends_with_the_same_bytes(tiny_run: Path, mopo: Any, monkeypatch: Any) -> None:
    assert mopo(f"train-policy {LINE} --method bc --name whole").code == 0
    stop_at(1, monkeypatch)
    assert mopo(f"train-policy {LINE} --method bc --name parts").code == 143
    done = mopo(f"train-policy {LINE} --method bc --name parts")
    assert done.code == 0 and "goes on at gradient step" in done.err
    assert same(policy(tiny_run, "whole")[0], policy(tiny_run, "parts")[0])


def test_a_method_that_wants_another_model_is_refused_with_the_command(tiny_run: Path, mopo: Any, refuses: Any) -> None:
    for method, wanted in (("mbpo-no-ens", "networks 1"), ("mopo-v1", "spectral-norm per-network")):
        error = f"The method {method} needs {wanted}, but the train-model of {tiny_run} has other settings."
        hint = f"mopo train-model --method {method}"
        refuses(f"train-policy {LINE} --method {method}", 4, f"Error: {error}\nTry: {hint}\n")

    # What is asked for is then taken; the file's own number of networks would beat the method's.
    text = Path("tiny.yaml").read_text().replace("networks: 3, ", "").replace("select-elites: {n: 2}\n", "")
    Path("tiny.yaml").write_text(text)
    for stage in ("train-model", "select-elites", "train-policy"):
        done = mopo(f"{stage} {LINE} --method mbpo-no-ens")
        assert done.code == 0, done.err
    assert records(tiny_run)["train-model"]["settings"]["networks"] == 1
    assert json.loads((tiny_run / "elites.json").read_text())["elites"] == {"0": [0]}


METHODS = "mopo,mbpo-no-ens,bc,mbpo,mopo-no-pen"
CELLS = ("mopo_lam1_h2", "bc", "mbpo_h2", "mopo-no-pen_h2")


@pytest.fixture(scope="module")
def compared(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished run in which methods of two models have been compared. Not to be written to."""
    folder = tmp_path_factory.mktemp("compared")
    shutil.copytree(finished_run, folder, dirs_exist_ok=True)
    return run_in(folder, [f"ablate {LINE} --name t --seeds 2 --method {METHODS}"])


@pytest.fixture
def table(compared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run of a copy of it."""
    shutil.copytree(compared, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("cache"))
    monkeypatch.chdir(tmp_path)
    return Path("runs/tiny")


def test_methods_of_two_models_are_in_one_table(table: Path, mopo: Any) -> None:
    result = json.loads((table / "ablations/t/table.json").read_text())["cells"]
    assert [cell["cell"] for cell in result] == [CELLS[0], "mbpo-no-ens_h2", *CELLS[1:]]
    assert [cell["method"] for cell in result] == METHODS.split(",")
    assert [cell["penalty"] for cell in result] == ["max-var", "none", "none", "none", "none"]
    assert [cell["lam"] for cell in result] == [1, None, None, None, None]
    assert [cell["h"] for cell in result] == [2, 2, None, 2, 2]
    assert all(set(cell["returns"]) == {"0", "1"} and cell["diverged"] == [] for cell in result)
    markdown = (table / "ablations/t/table.md").read_text().splitlines()
    assert [line.split("|")[1].strip() for line in markdown if line.startswith("| m") or line.startswith("| b")][
        -5:
    ] == METHODS.split(",")
    csv = (table / "ablations/t/table.csv").read_text().splitlines()
    assert len(csv) == 1 + 5 * 2
    assert result[3]["returns"] == result[4]["returns"] != result[0]["returns"]


def test_the_other_model_is_made_once_from_the_same_data(table: Path) -> None:
    assert sorted(path.name for path in (table / "variants").iterdir()) == [SINGLE.name]
    one, other = records(table), records(table / SINGLE)
    tensors, meta = load_tensors(table / SINGLE / "model/ensemble.safetensors", "cpu")
    assert meta["networks"] == 1 and {len(tensor) for name, tensor in tensors.items() if "/w" in name} == {1}
    assert json.loads((table / SINGLE / "elites.json").read_text())["elites"] == {"0": [0]}
    assert other["fetch-data"]["outputs"]["dataset"]["sha256"] == one["fetch-data"]["outputs"]["dataset"]["sha256"]
    settings = one["train-model"]["settings"]
    assert other["train-model"]["settings"] == {**settings, "networks": 1} != settings
    assert load_tensors(table / "model/ensemble.safetensors", "cpu")[1]["networks"] == 3, "the run's own stays"
    assert Path("runs/current").read_text() == "tiny\n"


def test_a_second_run_changes_nothing(table: Path, mopo: Any, contents: Any) -> None:
    before = contents(Path())
    done = mopo(f"ablate {LINE} --name t --seeds 2 --method {METHODS}")
    assert done.code == 0
    assert "Training" not in done.err and done.err.count("ablate/t is up to date") == 2
    assert contents(Path()) == before


@pytest.mark.parametrize(
    ("lost", "trained"),
    [
        ("ablations/t/cells/bc/cell.json", "bc"),
        ("ablations/t/cells/mopo_lam1_h2/seed-1/policy.safetensors", "mopo_lam1_h2"),
        (f"{SINGLE}/ablations/t/cells/mbpo-no-ens_h2/cell.json", "mbpo-no-ens_h2"),
    ],
)
def test_a_cell_that_is_gone_is_the_only_one_trained_again(table: Path, mopo: Any, lost: str, trained: str) -> None:
    cells = {p: p.stat().st_mtime_ns for p in table.rglob("policy.safetensors") if trained not in p.parts}
    whole = {path: path.read_bytes() for path in table.rglob("*.safetensors")}
    (table / lost).unlink()
    done = mopo(f"ablate {LINE} --name t --seeds 2 --method {METHODS}")
    assert done.code == 0, done.err
    assert [line.split(":")[0] for line in done.err.splitlines() if line.startswith("Training ")] == [
        f"Training {trained}"
    ]
    assert cells == {path: path.stat().st_mtime_ns for path in cells}
    assert whole == {path: path.read_bytes() for path in table.rglob("*.safetensors")}


def test_the_cells_are_those_that_train_policy_makes(table: Path, mopo: Any) -> None:
    assert mopo(f"train-policy {LINE} --method mopo --seed-list 1").code == 0
    cell, _ = load_tensors(table / "ablations/t/cells/mopo_lam1_h2/seed-1/policy.safetensors", "cpu")
    assert same(policy(table, "mopo_lam1_h2", 1)[0], cell)
    single = f"--run {table / SINGLE}"
    assert mopo(f"train-policy {LINE} {single} --method mbpo-no-ens").code == 0
    cell, _ = load_tensors(table / SINGLE / "ablations/t/cells/mbpo-no-ens_h2/seed-0/policy.safetensors", "cpu")
    assert same(policy(table / SINGLE, "mbpo-no-ens_h2")[0], cell)


def test_a_file_that_is_gone_or_changed_since_it_was_fetched_does_not_matter(
    finished_run: Path, tiny_run: Path, mopo: Any
) -> None:
    """All cells of a table are of the very data that were fetched."""
    with h5py.File("mine.h5", "w") as ours, h5py.File(next((finished_run / "cache").rglob("dataset.h5"))) as theirs:
        for name in ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts"):
            ours[name] = theirs[name][:600]
    assert mopo("fetch-data --dataset ./mine.h5 --env InvertedPendulum-v5").code == 0
    assert mopo(f"train-model {LINE}").code == 0
    Path("mine.h5").unlink()
    done = mopo(f"ablate {LINE} --epochs 1 --method mbpo,mbpo-no-ens")
    assert done.code == 0, done.err
    runs = Path("runs/mine"), Path("runs/mine") / SINGLE
    assert len({records(run)["train-model"]["inputs"]["dataset"]["sha256"] for run in runs}) == 1


def test_a_stop_in_the_other_model_leaves_the_current_run_as_it_was(
    tiny_run: Path, mopo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mopo_cli.stages import runner

    def should_stop(stage: Any) -> bool:
        stage.signal = 15 if "variants" in str(stage.run.root) else 0
        return bool(stage.signal)

    line = f"ablate {LINE} --name t --method mbpo-no-ens,mopo-v1"
    with monkeypatch.context() as patch:
        patch.setattr(runner.Stage, "should_stop", should_stop)
        assert mopo(line).code == 143
    assert Path("runs/current").read_text() == "tiny\n"
    done = mopo(line)
    assert done.code == 0 and "train-model goes on at" in done.err
    assert sorted(path.name for path in (tiny_run / "variants").iterdir()) == [SINGLE.name, "spectral-norm-per-network"]
    result = json.loads((tiny_run / "ablations/t/table.json").read_text())["cells"]
    assert [cell["cell"] for cell in result] == ["mbpo-no-ens_h2", "mopo-v1_lam1_h2"], "none is the run's own"


def test_the_simulator_s_penalty_trains_beside_the_others(tiny_run: Path, mopo: Any) -> None:
    line = f"{LINE} --seed-list 4"
    done = mopo(f"ablate {line} --name t --method mopo,mopo-true-pen,mbpo")
    assert done.code == 0, done.err
    assert "mopo_lam1_h2, mopo-true-pen_lam1_h2, mbpo_h2: 3 policies as one stack" in done.err
    result = {cell["cell"]: cell for cell in json.loads((tiny_run / "ablations/t/table.json").read_text())["cells"]}
    assert result["mopo-true-pen_lam1_h2"]["unknown"] == 0, "this task's states are all known"
    assert "unknown" not in result["mopo_lam1_h2"]
    assert mopo(f"train-policy {line} --method mopo").code == 0
    cells = tiny_run / "ablations/t/cells"
    beside, _ = load_tensors(cells / "mopo_lam1_h2/seed-4/policy.safetensors", "cpu")
    assert same(policy(tiny_run, "mopo_lam1_h2", 4)[0], beside), "the same without a simulator beside it"
    last = json.loads((cells / "mopo-true-pen_lam1_h2/seed-4/metrics.jsonl").read_text().splitlines()[-1])
    assert last["penalty"] > 0 and last["unknown"] == 0
