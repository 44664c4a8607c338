"""A file whose columns have units far apart, from the file to the policy."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from probes.runs import run_in
from safetensors.torch import load_file

from mopo_cli.data.transition_files import read_dataset
from mopo_cli.stages.common.policies import greedy_policy, open_policy

MAP = "obs=clock+flow+count,action=valve,reward=reward,episode=batch"
OFFSETS, UNITS = np.array([1.7e9, 2e-6, 5e6]), np.array([1.0, 1e-7, 100.0])
MODEL = (
    "train-model --networks 3 --hidden 24 --layers 2 --weight-decay 1e-5,1e-5,1e-5 --max-epochs 30 --judge-share 0 "
    "--threads 1"
)
POLICY = (
    "train-policy --h 2 --epochs 3 --steps-per-epoch 100 --rollout-every 100 --rollout-batch 200 --batch-size 64 "
    "--hidden 24 --eval-every 0 --threads 1"
)


def log(path: Path, si: bool) -> NDArray[np.float64]:
    """A line that fills a tank, in SI units or in units of each column's size; returns its states in SI units."""
    draw, rows, states = np.random.default_rng(0), ["batch,clock,flow,count,valve,reward"], []
    seconds = 0.0
    for batch in range(40):
        flow, count = draw.normal(0, 2), draw.normal(0, 5)
        for _ in range(50):
            valve = draw.uniform(0, 1)
            state = np.array([seconds, flow, count])
            states.append(state * UNITS + OFFSETS)
            logged = state * UNITS + OFFSETS if si else state
            numbers = ",".join(f"{number:.12g}" for number in logged)
            rows.append(f"{batch},{numbers},{valve:.6f},{-abs(flow - 3):.6f}")
            seconds, flow, count = seconds + 60, flow + valve - 0.5 + 0.1 * draw.normal(), count + 0.2 * valve
    path.write_text("\n".join(rows) + "\n")
    return np.array(states)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, NDArray[np.float64]]:
    """Runs "si" and "plain" with a model and elites: the same rows in other units. Not to be written to."""
    folder = tmp_path_factory.mktemp("units")
    states = log(folder / "si.csv", si=True)
    log(folder / "plain.csv", si=False)
    lines = ("fetch-data --dataset ./{0}.csv --columns " + MAP, MODEL, "select-elites --n 2")
    run_in(folder, [f"{line.format(name)} --run {name}" for name in ("si", "plain") for line in lines])
    return folder, states


@pytest.fixture
def states(
    trained: tuple[Path, NDArray[np.float64]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> NDArray[np.float64]:
    """The states of the log in SI units; copies of the runs are in the working directory."""
    for name in ("si", "plain"):
        shutil.copytree(trained[0] / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return trained[1]


def recorded(run: str, stage: str) -> Any:
    return json.loads(Path(run, "run.json").read_text())["stages"][stage]


def explained(run: str) -> list[float]:
    return [d["explained_variance"] for d in json.loads(Path(run, "model/model.json").read_text())["dimensions"]]


def test_si_units_are_learned_as_well_as_any_and_the_policy_reacts(states: NDArray[np.float64], mopo: Any) -> None:
    assert recorded("si", "train-model")["settings"]["target_scale"] == "standardised"
    assert recorded("si", "train-model")["extra"]["origins"]["target_scale"] == "data file"
    np.testing.assert_allclose(explained("si")[1:], explained("plain")[1:], atol=0.02)
    assert min(explained("si")[1:]) > 0.8

    outcome = mopo(f"{POLICY} --run si --json")
    assert outcome.code == 0, outcome.err
    file = json.loads(outcome.out)["outputs"]["policy/seed-0"]
    actor, meta = open_policy(Path(file), torch.device("cpu"))
    _, info = read_dataset(Path(recorded("si", "fetch-data")["outputs"]["dataset"]["path"]))
    assert info.observation_offset is not None and tuple(info.observation_offset) == actor.offset
    actions = greedy_policy(actor, meta["action_low"], meta["action_high"])(states[::4])
    assert len(np.unique(actions.round(4))) > 0.2 * len(actions)

    # A rollout file in the user's units serves as data for a policy, and a policy makes one.
    assert mopo("rollout --run si --h 2 --batch 200 --threads 1").code == 0
    done = mopo(f"{POLICY} --run si --name file --rollouts si/rollouts/uniform_h2.h5")
    assert done.code == 0 and "The penalty is in standard deviations of the model's targets" in done.err
    assert mopo(f"rollout --run si --name own --h 1 --batch 200 --actions {file} --threads 1").code == 0


def test_where_nothing_says_that_a_run_is_of_a_file_it_goes_on_in_raw_units(
    states: NDArray[np.float64], mopo: Any
) -> None:
    flags = "--target-scale raw --max-epochs 1 --force"
    assert mopo(f"{MODEL} --run plain {flags}").code == 0
    assert "seed-0/target_mean" not in load_file(Path("plain/model/ensemble.safetensors"))
    document = json.loads(Path("plain/run.json").read_text())
    del document["stages"]["fetch-data"]["extra"]["kind"]
    Path("plain/run.json").write_text(json.dumps(document))
    outcome = mopo(f"{MODEL} --run plain --max-epochs 1 --json")
    assert outcome.code == 0 and json.loads(outcome.out)["up_to_date"]
    assert mopo("select-elites --n 2 --run plain").code == 0
    assert mopo(f"{POLICY} --run plain").code == 0
    settings = recorded("plain", "train-policy/mopo_max-var_lam1_h2")["settings"]
    assert (settings["input_scale"], settings["penalty_scale"]) == ("raw", "raw")


@pytest.mark.parametrize("algorithm", ["combo", "mobile", "morel", "drop"])
def test_methods_that_use_the_model_train_in_standard_deviations(
    states: NDArray[np.float64], mopo: Any, algorithm: str
) -> None:
    more = "--dice-pretrain 20 --dice-steps 2" if algorithm == "drop" else ""
    outcome = mopo(f"{POLICY} --run si --algorithm {algorithm} --penalty none --json {more}")
    assert outcome.code == 0, outcome.err
    policy = json.loads(outcome.out)["outputs"]["policy/seed-0"]
    record = Path(policy).with_name("metrics.jsonl").read_text().splitlines()[-1]
    assert abs(json.loads(record)["q"]) < 1e3
    if algorithm == "drop":
        assert mopo(f"rollout --run si --h 1 --batch 100 --actions {policy} --threads 1").code == 0
