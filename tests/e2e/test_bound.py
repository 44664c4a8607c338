"""evaluate --bound: three returns of one policy, each derived a second time with NumPy from the files of the run."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from probes.runs import run_in

from mopo_cli.data.transition_files import read_dataset
from mopo_cli.engine.streams import stream
from mopo_cli.evaluation.play import episode_seed
from mopo_cli.store.checkpoint import load_tensors

Floats = NDArray[np.float64]
SMALL = "--config tiny.yaml --threads 1"
GAMMA, LAM, STARTS, EPISODES, SEED = 0.9, 2.0, 100, 3, 4
BOUND = f"evaluate {SMALL} --policy b --episodes {EPISODES} --seed {SEED} --bound"


@pytest.fixture(scope="module")
def bound(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run whose model is good for more than a step, a policy b of two seeds, and its bound."""
    folder = tmp_path_factory.mktemp("bound") / "here"
    shutil.copytree(finished_run, folder)
    lines = [
        f"train-model {SMALL} --max-epochs 25 --hidden 32",
        f"select-elites {SMALL}",
        f"train-policy {SMALL} --name b --seeds 2 --lam {LAM} --gamma {GAMMA}",
        BOUND,
    ]
    return run_in(folder, lines)


@pytest.fixture
def here(bound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder to work in; the run's path."""
    shutil.copytree(bound, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return Path("runs/tiny")


def written(run: Path) -> tuple[dict[str, Any], dict[tuple[int, str], Floats]]:
    """The JSON, and by seed and place the columns discounted, undiscounted and length of the CSV, `[n, 3]`."""
    result = json.loads((run / "evaluations/b-bound.json").read_text())
    episodes: dict[tuple[int, str], list[list[float]]] = {}
    with (run / "evaluations/b-bound.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            values = [float(row[name]) for name in ("discounted", "undiscounted", "length")]
            place = episodes.setdefault((int(row["seed"]), row["where"]), [])
            assert int(row["episode"]) == len(place)
            place.append(values)
    return result, {key: np.array(values) for key, values in episodes.items()}


def greedy(run: Path, seed: int) -> Callable[[Floats], Floats]:
    """The deterministic policy in [-1, 1], in float64."""
    tensors, meta = load_tensors(run / f"policies/b/seed-{seed}/policy.safetensors")
    net = {name: tensor.double().numpy()[0] for name, tensor in tensors.items()}

    def act(observation: Floats) -> Floats:
        x = observation
        for layer in range(meta["layers"]):
            x = np.maximum(x @ net[f"w{layer}"] + net[f"b{layer}"], 0)
        return np.tanh((x @ net[f"w{meta['layers']}"] + net[f"b{meta['layers']}"])[:, : meta["act_dim"]])

    return act


def softplus(x: Floats) -> Floats:
    return np.logaddexp(x, 0)


def predictions(run: Path) -> tuple[Callable[[Floats], tuple[Floats, Floats]], list[int]]:
    """What all networks predict of (s, a) `[B, 5]`: mean and std `[K, B, 5]`; and the elites."""
    tensors, meta = load_tensors(run / "model/ensemble.safetensors")
    net = {name.removeprefix("seed-0/"): tensor.double().numpy() for name, tensor in tensors.items()}

    def predict(inputs: Floats) -> tuple[Floats, Floats]:
        x = (inputs - net["input_mean"]) / net["input_std"]
        for layer in range(meta["layers"]):
            x = x @ net[f"w{layer}"] + net[f"b{layer}"]
            x = x / (1 + np.exp(-x))
        logvar = x @ net["w_logvar"] + net["b_logvar"]
        logvar = net["max_logvar"] - softplus(net["max_logvar"] - logvar)
        logvar = net["min_logvar"] + softplus(logvar - net["min_logvar"])
        return x @ net["w_mean"] + net["b_mean"], np.exp(logvar / 2)

    return predict, json.loads((run / "elites.json").read_text())["elites"]["0"]


def first_states(run: Path) -> Floats:
    dataset = json.loads((run / "run.json").read_text())["stages"]["fetch-data"]["outputs"]["dataset"]["path"]
    data, _ = read_dataset(Path(dataset))
    ends = (data.terminals | data.timeouts)[:-1]
    return data.observations[np.concatenate([[True], ends])].astype(np.float64)


def imagined(run: Path, seed: int, lam: float) -> Floats:
    """Sums of gamma^t r, r, and the same of r - lam u, and the length of every episode in the model, `[100, 5]`."""
    predict, elites = predictions(run)
    act, states = greedy(run, seed), first_states(run)
    drawn = torch.randint(len(states), (STARTS,), generator=stream(SEED, "returns/start"))
    state, alive = states[drawn.numpy()], np.arange(STARTS)
    noise, sums = stream(seed, "returns/model"), np.zeros((STARTS, 5))
    for t in range(1000):
        if not len(alive):
            break
        member = np.array(elites)[torch.randint(len(elites), (len(alive),), generator=noise).numpy()]
        z = torch.randn(len(alive), 5, generator=noise).double().numpy()
        mean, std = predict(np.concatenate([state, act(state)], axis=1))
        rows = np.arange(len(alive))
        sample = mean[member, rows] + std[member, rows] * z
        u = np.linalg.norm(std, axis=2).max(axis=0)
        r, p = sample[:, 4], sample[:, 4] - lam * u
        sums[alive] += np.stack([GAMMA**t * r, r, GAMMA**t * p, p, np.ones(len(alive))], axis=1)
        state = state + sample[:, :4]
        on = np.abs(state[:, 1]) <= 0.2
        state, alive = state[on], alive[on]
    return sums


@pytest.mark.parametrize("seed", [0, 1])
def test_the_model_s_returns(bound: Path, seed: int) -> None:
    run = bound / "runs/tiny"
    expected = imagined(run, seed, LAM)
    _, episodes = written(run)
    model, penalised = episodes[seed, "model"], episodes[seed, "penalised"]
    np.testing.assert_allclose(model, expected[:, [0, 1, 4]], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(penalised, expected[:, [2, 3, 4]], rtol=1e-3, atol=1e-3)
    assert expected[:, 4].max() > 5 and (model[:, 0] != model[:, 1]).any()


@pytest.mark.parametrize("seed", [0, 1])
def test_the_real_returns(bound: Path, seed: int) -> None:
    run = bound / "runs/tiny"
    act, environment = greedy(run, seed), gymnasium.make("InvertedPendulum-v5")
    rows = []
    for episode in range(EPISODES):
        observation, _ = environment.reset(seed=episode_seed(SEED, episode))
        discounted = undiscounted = length = 0.0
        over = False
        while not over:
            action = 3 * act(observation[None])[0]
            observation, reward, ended, cut, _ = environment.step(action.astype(np.float32))
            discounted += GAMMA**length * float(reward)
            undiscounted, length, over = undiscounted + float(reward), length + 1, ended or cut
        rows.append([discounted, undiscounted, length])
    environment.close()
    _, episodes = written(run)
    np.testing.assert_allclose(episodes[seed, "real"], rows, rtol=1e-6)
    evaluation = json.loads((run / "evaluations/b.json").read_text())
    assert evaluation["return_per_seed"][str(seed)] == pytest.approx(np.mean(rows, axis=0)[1])


def test_the_json_says_what_the_episodes_do(bound: Path) -> None:
    result, episodes = written(bound / "runs/tiny")
    assert (result["penalty"], result["lam"], result["gamma"]) == ("max-var", LAM, GAMMA)
    assert (result["starts"], result["horizon"], result["environment"]) == (STARTS, 1000, "InvertedPendulum-v5")
    held = 0
    for seed in (0, 1):
        report = result["seeds"][str(seed)]
        for where, count in (("real", EPISODES), ("model", STARTS), ("penalised", STARTS)):
            rows = episodes[seed, where]
            assert len(rows) == report[where]["episodes"] == count
            assert report[where]["length"] == pytest.approx(rows[:, 2].mean())
            for column, kind in enumerate(("discounted", "undiscounted")):
                error = np.sqrt(((rows[:, column] - rows[:, column].mean()) ** 2).sum() / (count - 1) / count)
                assert report[where][kind] == pytest.approx({"mean": rows[:, column].mean(), "standard_error": error})
        real, penalised = (report[where]["discounted"] for where in ("real", "penalised"))
        gap = real["mean"] - penalised["mean"]
        error = (real["standard_error"] ** 2 + penalised["standard_error"] ** 2) ** 0.5
        assert report["gap"] == pytest.approx({"mean": gap, "standard_error": error})
        assert report["held"] == (gap >= 0)
        held += gap >= 0
    assert (result["held"], result["compared"]) == (held, 2)
    for where in ("real", "model", "penalised"):
        means = [result["seeds"][str(seed)][where]["discounted"]["mean"] for seed in (0, 1)]
        report = result["over_seeds"][where]["discounted"]
        assert report == pytest.approx({"mean": sum(means) / 2, "std": abs(means[0] - means[1]) / 2})


def test_again_it_is_up_to_date_and_one_object_holds_both(here: Path, mopo: Any, contents: Any) -> None:
    before = contents(Path())
    again = mopo(f"{BOUND} --json")
    assert again.code == 0 and again.err == "" and contents(Path()) == before
    result = json.loads(again.out)
    assert result["up_to_date"] and result["bound"]["up_to_date"]
    assert result["bound"]["held"] == written(here)[0]["held"]
    assert set(result["bound"]["outputs"]) == {"bound", "episodes"}


def test_people_are_shown_the_three_returns_and_the_verdict(here: Path, mopo: Any) -> None:
    done = mopo(f"{BOUND} --force")
    assert done.code == 0
    for words in (
        "discounted by 0.9",
        "real eta_M",
        "plain model",
        "penalised eta_M~",
        "(max-var, lam 2)",
        "undiscounted",
    ):
        assert words in done.err, words
    assert f"held for {written(here)[0]['held']} of 2" in done.err
    assert "100 episodes per seed of at most 1,000 steps" in done.err


def test_a_policy_without_a_penalty_has_one_model(here: Path, mopo: Any) -> None:
    assert mopo(f"train-policy {SMALL} --method bc --name b --force").code == 0
    done = mopo(f"evaluate {SMALL} --policy b --bound")
    assert done.code == 0 and "has no penalty" in done.err
    result, episodes = written(here)
    assert result["penalty"] == "none"
    assert np.array_equal(episodes[0, "model"], episodes[0, "penalised"])
    assert result["seeds"]["0"]["model"] == result["seeds"]["0"]["penalised"]


def test_without_an_environment_the_model_s_two_returns_are_told(here: Path, mopo: Any) -> None:
    (dataset,) = Path("cache/datasets").rglob("dataset.h5")
    with h5py.File(dataset) as file:
        columns = {name: file[name][...] for name in file if isinstance(file[name], h5py.Dataset)}
    np.savez("logs.npz", **columns)
    line = f"fetch-data --dataset logs.npz --termination inverted-pendulum --run {here} --config tiny.yaml"
    assert mopo(line).code == 0
    for stage in ("train-model", "select-elites", "train-policy --name b --force"):
        assert mopo(f"{stage} {SMALL}").code == 0
    done = mopo(f"{BOUND} --json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["skipped"]
    result, episodes = written(here)
    assert result["environment"] is result["held"] is None and result["compared"] == 0
    assert set(episodes) == {(0, "model"), (0, "penalised")}
    assert set(result["over_seeds"]) == {"model", "penalised"}
    assert result["seeds"]["0"]["gap"] is result["seeds"]["0"]["held"] is None
    longest = int(np.diff(np.flatnonzero(columns["terminals"] | columns["timeouts"]), prepend=-1).max())
    assert result["horizon"] == longest
    done = mopo(f"{BOUND} --force")
    assert "The return in the real environment cannot be had: the dataset names none." in done.err
    assert "held for" not in done.err and done.out.startswith("logs.npz names no environment")


def test_a_run_without_a_model_is_told_to_train_one(tiny_run: Path, mopo: Any, refuses: Any) -> None:
    assert mopo("fetch-data --config tiny.yaml --dataset generate:InvertedPendulum-v5:random --run bare").code == 0
    assert mopo(f"train-policy {SMALL} --method bc --epochs 1 --run bare").code == 0
    for said in ("has no model yet", "mopo train-model --run bare"):
        refuses(f"evaluate {SMALL} --bound --run bare", 4, said)


def test_a_model_that_was_trained_anew_is_not_the_policy_s(here: Path, mopo: Any) -> None:
    assert mopo(f"train-model {SMALL} --max-epochs 1").code == 0
    assert mopo(f"select-elites {SMALL}").code == 0
    (here / "evaluations/b-bound.json").unlink()
    refused = mopo(BOUND)
    assert refused.code == 4 and "was trained in another model" in refused.err and "--allow-mismatch" in refused.err
    assert not (here / "evaluations/b-bound.json").exists()
    allowed = mopo(f"{BOUND} --allow-mismatch")
    assert allowed.code == 0 and "Warning: The policy" in allowed.err
    assert (here / "evaluations/b-bound.json").exists()


def test_the_oracle_penalty_is_the_model_s_true_error(here: Path, mopo: Any) -> None:
    """By it, r - lam u needs the simulator in the rollouts: what is taken off is lam times a distance, no std."""
    assert mopo(f"train-policy {SMALL} --name b --penalty oracle --lam {LAM} --gamma {GAMMA} --force").code == 0
    done = mopo(BOUND)
    assert done.code == 0 and "the oracle knows nothing" in done.err
    result, episodes = written(here)
    assert result["penalty"] == "oracle" and 0 <= result["rollouts"]["0"]["unknown"] <= 1
    taken_off = episodes[0, "model"][:, 1] - episodes[0, "penalised"][:, 1]
    by_max_var = imagined(here, 0, LAM)
    np.testing.assert_allclose(episodes[0, "model"], by_max_var[:, [0, 1, 4]], rtol=1e-3, atol=1e-3)
    assert (taken_off > 0).all() and not np.allclose(taken_off, by_max_var[:, 1] - by_max_var[:, 3], rtol=0.05)
