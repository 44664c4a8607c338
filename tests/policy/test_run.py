"""What users list of a run, and what they load from there."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mopo_cli import load_model, load_policy, open_run
from mopo_cli.data.transition_files import read_dataset
from mopo_cli.errors import CorruptError, InputError
from mopo_cli.stages.common.policies import greedy_policy, open_policy

NAME = "mopo_max-var_lam1_h2"


def test_a_run_lists_what_it_holds(finished_run: Path) -> None:
    root = finished_run / "runs/tiny"
    run = open_run(str(root))
    assert run.path == root and run.model == root / "model/ensemble.safetensors"
    assert run.policies == {NAME: {0: root / f"policies/{NAME}/seed-0/policy.safetensors"}}
    assert run.evaluations[NAME]["environment"] == "InvertedPendulum-v5"
    assert run.dataset is not None and run.dataset.is_file()


def test_what_is_published_acts_predicts_and_knows_its_data(finished_run: Path) -> None:
    run = open_run(finished_run / "runs/tiny")
    assert run.dataset is not None and run.model is not None
    transitions, _ = read_dataset(run.dataset)
    file = run.policies[NAME][0]
    policy = load_policy(file)
    actor, meta = open_policy(file, torch.device("cpu"))
    rows = transitions.observations[:300]
    np.testing.assert_allclose(policy(rows), greedy_policy(actor, [-3.0], [3.0])(rows), atol=6e-6)
    assert policy.inside(transitions.observations).all()
    for name, share in (("p1", 0.01), ("p99", 0.99)):
        below = (transitions.observations < np.array(meta["observation_range"][name])).mean(axis=0)
        np.testing.assert_allclose(below, share, atol=2e-3)
    assert meta["activation"] == "relu"
    step = load_model(run.model).predict(rows, transitions.actions[:300])
    assert step.next_observation.shape == rows.shape and np.isfinite(step.reward_std).all()


def test_an_empty_or_other_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is not a run folder: it holds no run\.json"):
        open_run(tmp_path)
    (tmp_path / "run.json").write_text('{"format": 1, "stages": {}}')
    run: Any = open_run(tmp_path)
    assert (run.dataset, run.model, run.policies, run.evaluations) == (None, None, {}, {})
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(CorruptError, match="not valid JSON"):
        open_run(tmp_path)
