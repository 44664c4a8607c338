"""`mopo rollout --diagnose` from the command line, its figures made a second time by hand."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import mujoco
import numpy as np
import pytest
import scipy.stats
import torch
from matplotlib.image import imread
from numpy.typing import NDArray
from probes.runs import run_in
from safetensors.numpy import load_file

from mopo_cli.__main__ import main
from mopo_cli.dynamics.penalties import UNCERTAINTIES
from mopo_cli.stages.analysis import diagnose

TINY = """\
fetch-data: {transitions: 600}
train-model: {networks: 3, hidden: 16, layers: 2, weight-decay: [1e-5, 1e-5, 1e-5], max-epochs: 2}
select-elites: {networks: [0, 2]}
rollout: {h: 3, batch: 60}
"""
FILES = ("uniform_h3-diagnosis.json", "uniform_h3-diagnosis.png", "uniform_h3.h5")


def do(line: str) -> int:
    return main(f"{line} --run run --config tiny.yaml --threads 1".split())


@pytest.fixture(scope="module")
def modelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of HalfCheetah that has a model. Not to be written to."""
    lines = ("fetch-data --dataset generate:HalfCheetah-v5:random", "train-model")
    flags = "--run run --config tiny.yaml --threads 1"
    return run_in(tmp_path_factory.mktemp("modelled"), [f"{line} {flags}" for line in lines], TINY)


@pytest.fixture
def rollouts(modelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of rollouts of a copy of the run, yet to come."""
    shutil.copytree(modelled, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return Path("run/rollouts")


def by_hand(path: Path) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
    """The true error of every row of a rollout file and its columns: network by numpy, truth by the environment."""
    with h5py.File(path) as file:
        stored = {name: file[name][()] for name in ("observations", "actions", "network", "step")}
        stored |= {name: file[f"uncertainty/{name}"][()] for name in file["uncertainty"]}
    weights = load_file("run/model/ensemble.safetensors")
    environment: Any = gym.make("HalfCheetah-v5").unwrapped
    errors = []
    for state, action, member in zip(stored["observations"], stored["actions"], stored["network"], strict=True):
        params = {name.split("/")[1]: value for name, value in weights.items()}
        x = (np.concatenate([state, action]) - params["input_mean"]) / params["input_std"]
        for layer in range(2):
            x = x @ params[f"w{layer}"][member] + params[f"b{layer}"][member, 0]
            x = x / (1 + np.exp(-x))
        expected = state + (x @ params["w_mean"][member] + params["b_mean"][member, 0])[:-1]
        mujoco.mj_resetData(environment.model, environment.data)
        environment.set_state(np.concatenate([[0], state[:8]]), state[8:].astype("f8"))
        errors.append(np.linalg.norm(expected - environment.step(action)[0]))
    return np.array(errors), stored


def test_the_figures_are_those_made_by_hand(rollouts: Path, mopo: Any) -> None:
    done = mopo("rollout --diagnose --run run --config tiny.yaml --threads 1 --json")
    assert (done.code, done.err) == (0, "")
    assert sorted(path.name for path in rollouts.iterdir()) == sorted(FILES)
    result, kept = json.loads(done.out)["diagnosis"], json.loads((rollouts / FILES[0]).read_text())
    assert kept["dataset"] == "generate:HalfCheetah-v5:random"
    assert {name: result[name] for name in kept if name in result}.items() >= {
        **{"environment": "HalfCheetah-v5", "stored": 180, "rows": 180, "unknown": 0},
        **{name: kept[name] for name in ("uncertainties", "steps")},
    }.items()

    error, stored = by_hand(rollouts / FILES[2])
    assert len(set(stored["network"])) == 2
    for place, step in enumerate(kept["steps"]):
        here = error[stored["step"] == place]
        figures = place + 1, len(here), here.mean(), np.median(here), np.quantile(here, 0.9)
        assert (step["step"], step["rows"], *(step[name] for name in ("mean", "median", "p90"))) == pytest.approx(
            figures, rel=1e-3
        )
    assert set(kept["uncertainties"]) == {*UNCERTAINTIES}
    for name, result in kept["uncertainties"].items():
        line = scipy.stats.linregress(stored[name].astype("f8"), error)
        assert (result["slope"], result["intercept"]) == pytest.approx((line.slope, line.intercept), rel=1e-2)
        assert result["pearson"] == pytest.approx(line.rvalue, abs=1e-3)
        assert result["spearman"] == pytest.approx(scipy.stats.spearmanr(stored[name], error).statistic, abs=1e-3)
        assert sum(b["rows"] for b in result["calibration"]) == 180
    assert 0.01 < (imread(rollouts / FILES[1])[..., :3] < 0.9).any(axis=2).mean() < 0.5


def test_a_rollout_file_that_is_there_is_diagnosed_as_it_is(rollouts: Path, mopo: Any) -> None:
    assert do("rollout") == 0
    assert [path.name for path in rollouts.iterdir()] == [FILES[2]]
    before = (rollouts / FILES[2]).stat()
    done = mopo("rollout --diagnose --run run --config tiny.yaml")
    assert done.code == 0
    assert (rollouts / FILES[2]).stat().st_mtime_ns == before.st_mtime_ns
    assert "rollout/uniform_h3 is up to date" in done.err
    assert "True error of the model against its uncertainties, 180 rows" in done.err
    for word in ("max-var", "Spearman", "True error by step"):
        assert word in done.err

    made = {name: (rollouts / name).read_bytes() for name in FILES}
    done = mopo("rollout --diagnose --run run --config tiny.yaml")
    assert done.code == 0 and "rollout/uniform_h3/diagnosis is up to date" in done.err
    assert do("rollout --diagnose --force") == 0
    assert made == {name: (rollouts / name).read_bytes() for name in FILES}
    (rollouts / FILES[1]).unlink()
    assert do("rollout --diagnose") == 0
    assert (rollouts / FILES[1]).read_bytes() == made[FILES[1]]
    assert "rollout/uniform_h3/diagnosis: made" in mopo("show run").out
    assert mopo(f"show {rollouts / FILES[0]}").out.startswith(f"{rollouts / FILES[0]}: diagnosis\n")


def test_only_a_part_of_many_rows_is_compared(rollouts: Path, mopo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnose, "_ROWS", 90)
    monkeypatch.setattr(diagnose, "_PART", 40)
    result = json.loads(mopo("rollout --diagnose --run run --config tiny.yaml --json").out)["diagnosis"]
    assert (result["stored"], result["rows"], result["unknown"]) == (180, 90, 0)
    shares = [step["rows"] for step in result["steps"]]
    assert len(shares) == 3 and max(shares) < 60  # the first 90 rows would be of two steps
    error, stored = by_hand(rollouts / FILES[2])
    assert result["steps"][1]["mean"] == pytest.approx(error[stored["step"] == 1].mean(), rel=0.2)


def stand_in(monkeypatch: pytest.MonkeyPatch, oracle: Any) -> list[Any]:
    """Replaces the simulator; gives what it is opened with."""
    given: list[Any] = []

    @contextmanager
    def opened(*args: Any) -> Iterator[Any]:
        given.append(args)
        yield oracle

    monkeypatch.setattr(diagnose, "open_oracle", opened)
    return given


def test_rows_that_the_simulator_does_not_know_are_left_out(
    rollouts: Path, mopo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def some(observation: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        return torch.where(observation[:, 0] > observation[:, 0].median(), torch.nan, 1.0)

    given = stand_in(monkeypatch, some)
    done = mopo("rollout --diagnose --run run --config tiny.yaml --threads 1")
    assert "90 rows more are left out: a velocity lies at the bound" in done.err
    env_id, kwargs, low, high, threads = given[0]
    assert (env_id, kwargs, low.tolist(), high.tolist(), threads) == ("HalfCheetah-v5", {}, [-1] * 6, [1] * 6, 1)
    kept = json.loads((rollouts / FILES[0]).read_text())
    assert (kept["rows"], kept["unknown"], kept["uncertainties"]["ens"]["pearson"]) == (90, 90, None)


def test_nothing_known_is_told_and_nothing_written(rollouts: Path, mopo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, lambda observation, *_: torch.full((len(observation),), torch.nan))
    done = mopo("rollout --diagnose --run run --config tiny.yaml")
    assert done.code == 4
    assert "known of none of the 180 rows" in done.err and "Traceback" not in done.err
    assert [path.name for path in rollouts.iterdir()] == [FILES[2]]


def test_a_signal_ends_it_between_two_parts(rollouts: Path, mopo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(observation: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        os.kill(os.getpid(), signal.SIGINT)
        return torch.ones(len(observation))

    stand_in(monkeypatch, interrupted)
    done = mopo("rollout --diagnose --run run --config tiny.yaml")
    assert done.code == 130
    assert [path.name for path in rollouts.iterdir()] == [FILES[2]]


def test_data_without_a_simulator_are_told_before_any_work(tmp_path: Path, mopo: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(TINY.replace("{transitions: 600}", "{}"))
    draw = np.random.default_rng(0)
    with h5py.File("plant.h5", "w") as file:
        file["observations"] = draw.normal(size=(400, 3)).astype("f4")
        file["actions"] = draw.uniform(-1, 1, (400, 2)).astype("f4")
        file["rewards"] = np.zeros(400, "f4")
        file["terminals"], file["timeouts"] = np.zeros(400, bool), np.arange(400) % 50 == 49
    assert do("fetch-data --dataset ./plant.h5") == 0
    assert do("train-model") == 0
    mopo("show run")  # what was printed up to here
    done = mopo("rollout --diagnose --run run --config tiny.yaml")
    assert (done.code, done.out) == (4, "")
    assert done.err.strip() == (
        "Error: The true dynamics of data that name no environment are not available, only those of HalfCheetah, "
        "Hopper, Walker2d, Ant, InvertedPendulum (-v4 and -v5), mopo/HalfCheetahJump-v0 and mopo/AntAngle-v0."
    )
    assert not Path("run/rollouts").exists() and not Path("run/elites.json").exists()
