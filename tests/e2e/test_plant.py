"""Somebody's own logs, a CSV file and no simulator, through the whole pipeline."""

import csv
import html
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TINY

from mopo_cli import load_policy
from mopo_cli.data.transition_files import read_dataset, read_rollouts
from mopo_cli.evaluation.clone import clone_of
from mopo_cli.evaluation.fitted_q import FqeSettings
from mopo_cli.stages.analysis import evidence, judge

MAP = "obs=temp+pressure,action=valve_*,reward=yield,episode=batch,terminal=failed"
LIMIT = 75.0


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """plant.csv: batches of a reactor that fail when it grows too hot; returns how many did."""
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(TINY)
    rng = np.random.default_rng(1)
    failures = 0
    with open("plant.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["time", "batch", "temp", "pressure", "valve_heat", "valve_vent", "yield", "failed", "remark"])
        for batch in range(12):
            temp, pressure = 60 + rng.normal(), 2.0
            for minute in range(40):
                heat, vent = rng.uniform(0, 100), rng.uniform(0, 1)
                hotter = temp + 0.1 * (heat - 45) - 2 * vent + rng.normal(0, 0.5)
                failed = hotter > LIMIT
                row = [minute, f"B{batch:02}", f"{temp:.3f}", f"{pressure:.3f}", f"{heat:.2f}", f"{vent:.3f}"]
                writer.writerow([*row, f"{-abs(temp - 70):.3f}", str(failed).lower(), "checked, fine"])
                if failed:
                    failures += 1
                    break
                temp, pressure = hotter, 2 + 0.02 * (hotter - 60)
    assert failures >= 2
    return failures


def test_from_a_csv_file_to_a_policy_its_verdict_and_its_use(
    plant: int, mopo: Any, contents: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge, "clone_of", partial(clone_of, steps=100))
    monkeypatch.setattr(judge, "FQE", FqeSettings(critics=2, hidden=16, batch_size=16, first_steps=50, steps=100))
    Path("mine.yaml").write_text(
        TINY.replace("fetch-data: {transitions: 2000}", "fetch-data: {termination: 'obs[0] > 75'}")
    )
    whole = mopo(f"run ./plant.csv --columns {MAP} --config mine.yaml --threads 1 --json")
    assert whole.code == 0, whole.err
    stages = json.loads(whole.out)["stages"]
    assert stages["fetch-data"]["terminals"] == plant and stages["fetch-data"]["episodes"] == 12
    skipped = stages["evaluate"]
    assert skipped["skipped"] is True and skipped["outputs"] == {} and "--env" in skipped["reason"]
    assert skipped["ope"]["unseen"] and skipped["ope"]["episodes"] == 2
    policy = load_policy(stages["export"]["outputs"]["seed-0"])
    assert policy.about["verdict"] == skipped["ope"]["verdict"]
    page = Path(stages["report"]["path"]).read_text()
    assert html.escape(skipped["ope"]["sentence"]) in page
    assert policy([60.0, 2.0]).shape == (2,) and policy.inside([60.0, 2.0]).all()

    _, info = read_dataset(Path(stages["fetch-data"]["outputs"]["dataset"]))
    assert info.termination == "obs[0] > 75" and (info.action_low >= 0).all()
    columns, _ = read_rollouts(Path(stages["rollout"]["outputs"]["rollouts"]))
    assert np.array_equal(columns["terminals"], columns["next_observations"][:, 0] > LIMIT)
    assert columns["actions"].min() >= 0 and columns["actions"][:, 0].max() > 50

    before = contents(Path())
    alone = mopo("evaluate --json")
    assert alone.code == 0 and json.loads(alone.out)["reason"] == skipped["reason"]
    again = mopo("evaluate")
    assert again.code == 0 and again.out.strip() == skipped["ope"]["sentence"]
    assert contents(Path()) == before
    assert {path.name for path in Path("runs/plant/evaluations").iterdir()} == {f"{skipped['policy']}-ope.json"}


def test_a_grid_without_an_environment_is_trained_and_ranked_all_the_same(
    plant: int, mopo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence, "FQE", FqeSettings(critics=2, hidden=8, batch_size=16, first_steps=10, steps=10))
    assert mopo(f"fetch-data --dataset plant.csv --columns {MAP}").code == 0
    small = "--config tiny.yaml --threads 1 --json"
    for stage in ("train-model", "select-elites"):
        assert mopo(f"{stage} --config tiny.yaml --json").code == 0
    outcome = mopo(f"ablate --penalty max-var,none --epochs 1 {small}")
    assert outcome.code == 0, outcome.err
    result = json.loads(outcome.out)
    cells = result["cells"]
    assert result["ranking"]["rank"] == "ope" and len(result["ranking"]["cells"]) == 2
    assert len(cells) == 2 and all(cell["last"] is None and not cell["diverged"] for cell in cells)
    assert Path("runs/plant").joinpath("ablations").is_dir()


def test_a_changed_column_map_is_other_data(plant: int, mopo: Any) -> None:
    named = "obs: [temp, pressure]\naction: valve_*\nreward: yield\nepisode: batch\n"
    Path("map.yaml").write_text(named)
    line = "fetch-data --dataset plant.csv --columns map.yaml --json"
    first, again = json.loads(mopo(line).out), json.loads(mopo(line).out)
    assert again["up_to_date"] and again["terminals"] == 0
    Path("map.yaml").write_text(named + "terminal: failed\n")
    changed = json.loads(mopo(line).out)
    assert not changed["up_to_date"] and changed["terminals"] == plant
    assert changed["outputs"] != first["outputs"]


def test_one_long_episode_is_warned_of(plant: int, mopo: Any) -> None:
    shown = mopo("fetch-data --dataset plant.csv --columns obs=temp+pressure,action=valve_*,reward=yield --json")
    assert shown.code == 0
    assert shown.err.startswith("Warning: Nothing in plant.csv marks where an episode ends") and "episode=" in shown.err


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (f"--columns {MAP.replace('temp', 'tmp')}", 4, "did you mean 'temp'"),
        (f"--columns {MAP.replace('obs', 'state')}", 2, "'state'"),
        (f"--columns {MAP.replace('yield', 'remark')}", 4, "column remark, row 0: 'checked, fine' is not a number"),
        (f"--columns {MAP} --termination obs[2]>1", 4, "obs[0] to obs[1]"),
        (f"--columns {MAP} --termination tmp>75", 4, "'tmp' (character 1)"),
        (f"--columns {MAP} --termination hoper", 4, "did you mean 'hopper'"),
        (f"--columns {MAP} --env Hopper-v5", 4, "2 dimensions, but Hopper-v5 has 11"),
        (f"--columns {MAP} --env CartPole-v1", 4, "mopo learns continuous actions"),
        ("", 4, "there is no column obs_0"),
    ],
)
def test_what_cannot_be_used_changes_nothing(plant: int, refuses: Any, more: str, code: int, said: str) -> None:
    for command in ("fetch-data --dataset", "run"):
        refuses(f"{command} ./plant.csv {more}", code, said)
