"""Tasks whose state no single observation shows: with a history the model predicts it, and every stage has it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import DATASET, TINY
from safetensors.torch import load_file

from mopo_cli.data.transition_files import read_dataset, read_rollouts

MODEL = "train-model --networks 3 --hidden 24 --layers 2 --weight-decay 1e-5,1e-5,1e-5 --max-epochs 15 --threads 1"


def springs(path: Path) -> None:
    """Pushed springs, of which only the position is logged."""
    draw, rows = np.random.default_rng(0), ["episode,position,push,reward"]
    for episode in range(75):  # of which the judge keeps 15
        position, speed = draw.normal(size=2)
        for _ in range(50):
            push = draw.uniform(-1, 1)
            rows.append(f"{episode},{position:.6f},{push:.6f},{-abs(position):.6f}")
            speed += 0.5 * (push - position)
            position += 0.5 * speed
    path.write_text("\n".join(rows) + "\n")


def test_positions_alone_are_predicted_with_a_history(tmp_path: Path, mopo: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    springs(Path("springs.csv"))
    explained = {}
    for history in (1, 3):
        run = f"--run h{history}"
        columns = "obs=position,action=push,reward=reward,episode=episode"
        rules = "--termination abs(position)>50 --reward -abs(next_obs[0]) "
        fetched = mopo(f"fetch-data --dataset ./springs.csv --columns {columns} {rules} --history {history} {run}")
        assert fetched.code == 0, fetched.err
        said = "Observations are of 3 steps (--history): 5 numbers each, the 1 newest first."
        assert (said in fetched.err) == (history == 3)
        assert mopo(f"{MODEL} {run}").code == 0
        model = json.loads(Path(f"h{history}/model/model.json").read_text())
        assert [d["target"] for d in model["dimensions"]] == ["change of position", "reward"]
        assert model.get("history", 1) == history
        explained[history] = model["dimensions"][0]["explained_variance"]
    assert explained[1] < 0.6 and explained[3] > 0.95

    # In standard deviations, with rules that name the column, and methods that ask the model themselves.
    assert mopo("select-elites --n 2 --run h3").code == 0
    policy = (
        "train-policy --run h3 --h 3 --epochs 1 --steps-per-epoch 20 --rollout-every 10 --rollout-batch 100 "
        "--batch-size 32 --hidden 16 --eval-every 0 --threads 1 --model-reward known --json"
    )
    for more in ("--algorithm mobile --penalty none", "--algorithm drop --penalty none --dice-pretrain 5", "--lam 1"):
        outcome = mopo(f"{policy} {more}")
        assert outcome.code == 0, outcome.err
    file = json.loads(outcome.out)["outputs"]["policy/seed-0"]
    assert load_file(file)["w0"].shape[1] == 5
    rollout = mopo(f"rollout --run h3 --h 3 --batch 100 --actions {file} --model-reward known --threads 1")
    assert rollout.code == 0, rollout.err
    imagined, attributes = read_rollouts(Path("h3/rollouts/policy_h3.h5"))
    assert attributes["history"] == 3
    before, after = imagined["observations"], imagined["next_observations"]
    np.testing.assert_array_equal(after[:, 1:3], before[:, :2])
    np.testing.assert_array_equal(after[:, 4], before[:, 3])
    np.testing.assert_allclose(imagined["rewards"], -np.abs(after[:, 0]), rtol=1e-5)
    assert mopo(f"{policy} --name file --rollouts h3/rollouts/policy_h3.h5").code == 0


@pytest.fixture
def run(tmp_path: Path, mopo: Any, monkeypatch: Any) -> str:
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(TINY)
    fetched = mopo(f"fetch-data --dataset {DATASET} --history 2 --run run --config tiny.yaml")
    assert fetched.code == 0, fetched.err
    return "--run run --config tiny.yaml --threads 1"


def test_all_stages_go_on_with_the_history_of_the_data(run: str, mopo: Any) -> None:
    stages = (
        "train-model",
        "select-elites",
        "train-policy",
        "evaluate",
        "evaluate --bound",
        "rollout --diagnose --map",
    )
    for stage in stages:
        outcome = mopo(f"{stage} {run} --json")
        assert outcome.code == 0, outcome.err
        result = json.loads(outcome.out.splitlines()[-1])
        if stage == "train-policy":
            file = Path(result["outputs"]["policy/seed-0"])
        if stage == "evaluate":
            assert result["return_mean"] >= 1
    record = json.loads(file.with_name("metrics.jsonl").read_text().splitlines()[-1])
    assert record["length"] >= 1
    shown = mopo(f"show {file} --json")
    assert shown.code == 0 and json.loads(shown.out)["about"]["history"] == 2
    dataset = json.loads(Path("run/run.json").read_text())["stages"]["fetch-data"]["outputs"]["dataset"]["path"]
    transitions, info = read_dataset(Path(dataset))
    assert (transitions.obs_dim, info.history) == (9, 2)
    described = json.loads(mopo(f"show {dataset} --json").out)
    assert described["about"]["history"] == 2
    assert len(described["portrait"]["observations"]) == 4
    again = json.loads(mopo(f"fetch-data {run.removesuffix(' --threads 1')} --dataset {DATASET} --json --force").out)
    assert again["transitions"] == 2000


def test_a_policy_for_another_history_is_refused(run: str, mopo: Any, refuses: Any) -> None:
    for stage in ("train-model", "select-elites", "train-policy"):
        assert mopo(f"{stage} {run}").code == 0
    assert mopo(f"fetch-data --dataset {DATASET} --history 3 --run run --config tiny.yaml").code == 0
    said = "is for observations of 2 steps, the dataset has some of 3 steps."
    for stage in ("evaluate --allow-mismatch", "rollout --allow-mismatch"):
        refuses(f"{stage} {run}", 4, said)


def test_a_history_that_does_not_fit_into_memory_is_refused(tmp_path: Path, monkeypatch: Any, refuses: Any) -> None:
    monkeypatch.chdir(tmp_path)
    springs(Path("springs.csv"))
    line = "fetch-data --dataset ./springs.csv --columns obs=position,action=push,reward=reward,episode=episode --run r"
    refuses(f"{line} --history 1000000000", 3, "--history 1000000000 needs about")
