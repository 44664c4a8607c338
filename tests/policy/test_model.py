"""The dynamics model by numpy against the ensemble of torch that it was published from."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from probes.models import ACT, ELITES, OBS, make_ensemble

from mopo_cli import load_model
from mopo_cli.dynamics.ensemble import Ensemble
from mopo_cli.errors import CorruptError, InputError
from mopo_cli.store.atomic import sha256_file, write_json
from mopo_cli.store.checkpoint import save_tensors

LOW, HIGH = np.array([100.0, -3e-3]), np.array([250.0, 1e-3])
DRAW = np.random.default_rng(0)
OBSERVATIONS, ACTIONS = DRAW.normal(size=(50, OBS)), DRAW.uniform(LOW, HIGH, (50, ACT))


def model_file(path: Path, ensembles: dict[int, Ensemble], **meta: Any) -> None:
    tensors: dict[str, torch.Tensor] = {}
    for seed, ensemble in ensembles.items():
        parts = ensemble.layout.views(ensemble.flat)
        for name in ("input_mean", "input_std", "target_mean", "target_std"):
            parts |= {name: part} if (part := getattr(ensemble, name)) is not None else {}
        tensors |= {f"seed-{seed}/{name}": part for name, part in parts.items()}
    errors = {str(seed): [1.0] * 4 for seed in ensembles}
    about = {"kind": "model", "obs_dim": OBS, "act_dim": ACT, "hidden": 16, "layers": 2, "networks": 4}
    about |= {"seeds": [*ensembles], "holdout_mse": errors, "holdout_nll": errors}
    about |= {"dataset_id": "log", "dataset_sha256": "0" * 64, "action_low": LOW.tolist(), "action_high": HIGH.tolist()}
    save_tensors(path, tensors, {name: value for name, value in (about | meta).items() if value is not None})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model/ensemble.safetensors"


def expected(ensemble: Ensemble, networks: tuple[int, ...]) -> tuple[Any, Any]:
    """Mean and standard deviation of the mixture of the networks, of torch's means and deviations."""
    unit = torch.from_numpy(2 * (ACTIONS - LOW) / (HIGH - LOW) - 1).float()
    mean, std = ensemble.predict(torch.from_numpy(OBSERVATIONS).float(), unit)
    means, stds = (part[list(networks)].double().numpy() for part in (mean, std))
    first = means.mean(axis=0)
    return first, np.sqrt((stds**2 + means**2).mean(axis=0) - first**2)


@pytest.mark.parametrize("scaled", [False, True])
def test_the_elites_predict_as_in_torch(scaled: bool, path: Path) -> None:
    ensemble = make_ensemble()
    if scaled:
        mean, std = torch.tensor([0.1, 0.2, -3.0, 4.0, 50.0]), torch.tensor([1e-3, 2.0, 30.0, 4.0, 500.0])
        ensemble = replace(ensemble, target_mean=mean, target_std=std)
    model_file(path, {0: make_ensemble(5), 3: ensemble})
    chosen = {"elites": {"0": [1], "3": list(ELITES)}, "model_sha256": sha256_file(path)}
    write_json(path.parents[1] / "elites.json", chosen)
    step = load_model(path, seed=3).predict(OBSERVATIONS, ACTIONS)
    mean, std = expected(ensemble, ELITES)
    np.testing.assert_allclose(step.next_observation - OBSERVATIONS, mean[:, :-1], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(step.reward, mean[:, -1], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(step.next_observation_std, std[:, :-1], rtol=1e-4)
    np.testing.assert_allclose(step.reward_std, std[:, -1], rtol=1e-4)
    one = load_model(path, seed=3).predict(OBSERVATIONS[7], ACTIONS[7])
    assert one.next_observation.shape == (OBS,) and one.reward.shape == ()
    np.testing.assert_allclose(one.next_observation, step.next_observation[7], rtol=1e-6)


def test_without_elites_of_this_model_all_networks_predict(path: Path) -> None:
    model_file(path, {0: make_ensemble()})
    mean, _ = expected(make_ensemble(), (0, 1, 2, 3))
    write_json(path.parents[1] / "elites.json", {"elites": {"0": [1]}, "model_sha256": "1" * 64})
    step = load_model(path).predict(OBSERVATIONS, ACTIONS)
    np.testing.assert_allclose(step.reward, mean[:, -1], rtol=1e-4, atol=1e-5)


def test_an_offset_is_taken_off_in_double_precision(path: Path) -> None:
    model_file(path, {0: make_ensemble()}, observation_offset=[1.7e9, 0.0, 0.0, 0.0])
    step = load_model(path).predict(OBSERVATIONS + np.array([1.7e9, 0, 0, 0]), ACTIONS)
    mean, _ = expected(make_ensemble(), (0, 1, 2, 3))
    change = step.next_observation - OBSERVATIONS - np.array([1.7e9, 0, 0, 0])
    np.testing.assert_allclose(change, mean[:, :-1], rtol=1e-4, atol=1e-5)


def test_what_does_not_fit_is_refused_in_one_sentence(path: Path) -> None:
    model_file(path, {0: make_ensemble(), 2: make_ensemble(1)})
    with pytest.raises(InputError, match=r"takes observations \[N, 4\] and actions \[N, 2\], not \[50, 4\] and \[2\]"):
        load_model(path).predict(OBSERVATIONS, ACTIONS[0])
    with pytest.raises(InputError, match=r"takes numbers, in rows of one length\."):
        load_model(path).predict([["a"] * 4], ACTIONS[:1])
    with pytest.raises(InputError, match="has ensembles for the seeds 0, 2, none for seed 1"):
        load_model(path, seed=1)
    for meta, error, said in (
        ({"action_low": None}, InputError, "does not say the bounds of actions: an older version"),
        ({"kind": "ratio"}, InputError, "is not a model but a ratio"),
        ({"layers": 3}, CorruptError, r"its parts do not fit \(w2\)"),
        ({"action_low": [0.0]}, CorruptError, "its bounds or offsets"),
    ):
        model_file(path, {0: make_ensemble()}, **meta)
        with pytest.raises(error, match=said):
            load_model(path)
