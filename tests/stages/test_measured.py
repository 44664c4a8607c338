"""`mopo evaluate --returns`: statistics of returns that were measured elsewhere, derived again with NumPy and SciPy."""

import csv
import hashlib
import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from conftest import TINY
from probes.runs import run_in

from mopo_cli.__main__ import main

NAME = "mopo_max-var_lam1_h2"
LINE = "evaluate --returns measured.csv"


@pytest.fixture(scope="module")
def plant_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, runs/plant, whose data name no environment, and a behaviour-cloned policy of two seeds."""
    folder = tmp_path_factory.mktemp("plant")
    rng = np.random.default_rng(0)
    ends = np.arange(120) % 20 == 19
    names = "obs=temp,action=valve,reward=yield,timeout=last"
    rows = zip(*rng.uniform(0, 5, (3, 120)).round(4).tolist(), ends.tolist(), strict=True)
    with (folder / "plant.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("temp", "valve", "yield", "last"), *rows])
    fetch = f"fetch-data --dataset ./plant.csv --columns {names}"
    return run_in(folder, [fetch, "train-policy --method bc --config tiny.yaml --seeds 2 --threads 1"], TINY)


@pytest.fixture
def plant(plant_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder to work in; the run's path."""
    shutil.copytree(plant_run, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return Path("runs/plant")


def dataset_of(run: Path) -> dict[str, str]:
    """Path and sha256 of the run's data set."""
    file: dict[str, str] = json.loads((run / "run.json").read_text())["stages"]["fetch-data"]["outputs"]["dataset"]
    return file


def write_returns(returns: Any, path: str = "measured.csv") -> None:
    """Returns `[seeds, episodes]` as a file, the last row first."""
    rows = [(seed, k, float(value)) for seed, row in enumerate(returns) for k, value in enumerate(row)]
    lines = [f"{value!r},{seed},{k}" for seed, k, value in reversed(rows)]
    Path(path).write_text("\n".join(["return,seed,episode", *lines]) + "\n")


def test_the_seeds_that_diverged_are_named(plant: Path, mopo: Any) -> None:
    run = json.loads((plant / "run.json").read_text())
    (record,) = (each for key, each in run["stages"].items() if key.startswith("train-policy/"))
    record["extra"]["diverged"] = ["seed 2"]
    (plant / "run.json").write_text(json.dumps(run))
    write_returns(np.ones((2, 3)))
    outcome = mopo(f"{LINE} --json")
    assert outcome.code == 0 and "as they diverged in training: seed 2." in outcome.err
    assert json.loads(outcome.out)["diverged_seeds"] == ["seed 2"]


def test_statistics_of_a_plant_without_an_environment(plant: Path, mopo: Any) -> None:
    returns = np.random.default_rng(1).normal(50, 9, (2, 12))
    write_returns(returns)
    outcome = mopo(f"{LINE} --json")
    assert outcome.code == 0, outcome.err
    result = json.loads(outcome.out)
    name = result["policy"]
    document = json.loads((plant / f"evaluations/{name}.json").read_text())
    assert document.items() <= result.items()
    assert (result["environment"], result["episodes"], result["seeds"]) == (None, 12, [0, 1])
    means = returns.mean(axis=1)
    assert list(result["return_per_seed"].values()) == pytest.approx(means)
    assert (result["return_mean"], result["return_std"]) == pytest.approx((means.mean(), np.std(means)))
    assert result["return_iqm"] == pytest.approx(scipy.stats.trim_mean(returns.ravel(), 0.25))
    low, high = result["return_iqm_95"]
    assert returns.min() <= low <= result["return_iqm"] <= high <= returns.max()
    source = {"file": "measured.csv", "sha256": hashlib.sha256(Path("measured.csv").read_bytes()).hexdigest()}
    assert result["source"] == source
    recorded = json.loads((plant / "run.json").read_text())["stages"][f"evaluate/{name}"]
    assert recorded["settings"] == {"policy": None}  # mopo's episodes and starts were not used
    with (plant / f"evaluations/{name}.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(int(row["seed"]), int(row["episode"])) for row in rows] == [(s, k) for s in (0, 1) for k in range(12)]
    assert np.array_equal(np.reshape([float(row["return"]) for row in rows], (2, 12)), returns)

    shown = mopo(f"show {plant}/evaluations/{name}.json")
    assert f"source: file: measured.csv, sha256: {source['sha256']}" in shown.out
    assert "input returns: " in shown.out
    again = mopo(LINE)
    assert again.code == 0 and f"evaluate/{name} is up to date" in again.err


def test_a_video_of_a_plant_is_refused(plant: Path, refuses: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mopo_cli.stages.analysis.video.ffmpeg", lambda: "ffmpeg")
    refuses("evaluate --video a.mp4", 4, "--video needs an environment, and ")


def test_played_returns_measured_again_are_the_same_evaluation(tiny_run: Path, mopo: Any) -> None:
    files = {kind: tiny_run / f"evaluations/{NAME}.{kind}" for kind in ("json", "csv", "png")}
    played = {kind: path.read_bytes() for kind, path in files.items()}
    Path("measured.csv").write_bytes(played["csv"])
    outcome = mopo(LINE)
    assert outcome.code == 0, outcome.err
    assert f"{NAME} as measured in measured.csv, 1 seed x 2 episodes" in outcome.err
    measured = json.loads(files["json"].read_text())
    assert measured.pop("source")["file"] == "measured.csv"
    assert measured == json.loads(played["json"])
    assert files["csv"].read_bytes() == played["csv"] and files["png"].read_bytes() == played["png"]
    # What was measured does not count as played, nor the other way round.
    assert "is up to date" not in mopo("evaluate --config tiny.yaml --threads 1").err
    assert {kind: path.read_bytes() for kind, path in files.items()} == played
    assert "is up to date" not in mopo(LINE).err


@pytest.mark.parametrize("fault", ["gone", "changed"])
def test_the_command_that_is_suggested_brings_the_data_back(plant: Path, mopo: Any, fault: str) -> None:
    dataset = Path(dataset_of(plant)["path"])
    before = dataset.read_bytes()
    try:
        dataset.unlink() if fault == "gone" else dataset.write_bytes(before + b"x")
        refused = mopo("export --to numpy")
        assert refused.code == (4 if fault == "gone" else 5)
        suggested = refused.err[refused.err.index("mopo fetch-data") :]
        assert main(shlex.split(suggested)[1:]) == 0
    finally:
        dataset.write_bytes(before)
    assert dataset_of(plant)["sha256"] == hashlib.sha256(before).hexdigest()
    assert Path(dataset_of(plant)["path"]).read_bytes() == before and mopo("export --to numpy").code == 0


def test_some_of_the_seeds_and_lengths(plant: Path, mopo: Any) -> None:
    Path("measured.csv").write_text("length,return,seed\n9,1.5,1\n8,2.5,1\n")
    outcome = mopo(f"{LINE} --json")
    assert outcome.code == 0, outcome.err
    result = json.loads(outcome.out)
    assert (result["seeds"], result["return_per_seed"]) == ([1], {"1": 2.0})
    table = Path(result["outputs"]["episodes"]).read_text()
    assert table == "seed,episode,return,length\n1,0,1.5,9\n1,1,2.5,8\n"


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        (LINE, 4, "The returns measured.csv does not exist."),
        ("evaluate --returns runs", 4, "The returns runs cannot be read: it is a folder, not a file."),
        ("evaluate --returns bad.csv", 4, "bad.csv: column seed, row 0: '4' is no seed of the policy"),
        (f"{LINE} --video a.mp4", 2, "--returns only reads a file: leave out --video."),
        (f"{LINE} --bound", 2, "--returns only reads a file: leave out --bound."),
        (f"{LINE} --ope", 2, "--returns only reads a file: leave out --ope."),
        (f"{LINE} --episodes 3", 2, "--returns only reads a file: leave out --episodes."),
        (f"{LINE} --seed 3", 2, "--returns only reads a file: leave out --seed."),
        (f"{LINE} --policy other", 4, "has no policy other"),
    ],
)
def test_refused_and_nothing_is_changed(tiny_run: Path, refuses: Any, line: str, code: int, says: str) -> None:
    Path("bad.csv").write_text("return,seed\n1,4\n")
    refuses(line, code, says)
