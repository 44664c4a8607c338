"""fetch-data of Minari's sets: from the library's files to a trained model, and what becomes of sets that change."""

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete
from minari.serialization import serialize_space
from probes.minari_sets import buffers, change_metadata, log, walk, write

from mopo_cli.data.minari.sets import minari_root
from mopo_cli.data.transition_files import read_dataset
from mopo_cli.store.lineage import read_lineage
from mopo_cli.store.run import RunFolder

TINY = "--networks 2 --hidden 8 --layers 1 --weight-decay 0,0 --max-epochs 1 --threads 1"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_from_the_librarys_set_to_an_evaluated_policy(mopo: Any) -> None:
    environment = gym.make("InvertedPendulum-v5", max_episode_steps=20)
    logged = log(environment, 40)
    write("pend/random-v0", buffers(logged), env=environment, ref_min_score=0.0, ref_max_score=20.0)
    outcome = mopo("fetch-data --dataset minari:pend/random-v0 --json")
    assert (outcome.code, outcome.err) == (0, "")
    result = json.loads(outcome.out)
    steps = sum(map(len, logged))
    assert (result["dataset_id"], result["env_id"]) == ("minari:pend/random-v0", "InvertedPendulum-v5")
    assert (result["transitions"], result["episodes"]) == (steps, 40)
    run = RunFolder(Path("runs/minari-pend-random-v0"))
    record = read_lineage(run)["fetch-data"]
    assert {Path(file["path"]).name for file in record.inputs.values()} == {"metadata.json", "main_data.hdf5"}
    transitions, info = read_dataset(Path(result["outputs"]["dataset"]))
    assert len(transitions) == steps and info.env_kwargs == {"max_episode_steps": 20}
    assert (info.reference_min, info.reference_max) == (0.0, 20.0)

    assert mopo(f"train-model {TINY}").code == 0
    assert mopo("select-elites --n 1").code == 0
    short = "--epochs 1 --steps-per-epoch 20 --rollout-batch 50 --hidden 8 --h 1 --eval-every 0 --threads 1"
    assert mopo(f"train-policy {short}").code == 0
    evaluated = mopo("evaluate --episodes 2 --threads 1 --json")
    assert evaluated.code == 0
    result = json.loads(evaluated.out)
    assert result["return_mean"] <= 20  # an episode of the rebuilt environment ends after 20 steps
    assert result["score_mean"] == pytest.approx(100 * result["return_mean"] / 20)


def test_a_set_without_an_environment_trains_a_model(mopo: Any) -> None:
    write("toy-v0", buffers(walk(20)))
    assert mopo(f"train-model --dataset minari:toy-v0 {TINY}").code == 0


def test_an_environment_named_for_a_set_that_names_none(mopo: Any) -> None:
    environment = gym.make("InvertedPendulum-v5", max_episode_steps=6)
    spaces = {"observation_space": Box(-9, 9, (4,), np.float64), "action_space": Box(-3, 3, (1,))}
    write("pend-v0", buffers(log(environment, 4)), **spaces)
    outcome = mopo("fetch-data --dataset minari:pend-v0 --env InvertedPendulum-v5 --json")
    assert outcome.code == 0 and json.loads(outcome.out)["env_id"] == "InvertedPendulum-v5"
    assert mopo("fetch-data --dataset minari:pend-v0 --env InvertedPendulum-v5 --check").code == 0
    write("own-v0", buffers(log(environment, 2)), env=environment)
    outcome = mopo("fetch-data --dataset minari:own-v0 --env Hopper-v5")
    assert outcome.code == 2 and "which names its environment InvertedPendulum-v5" in outcome.err
    assert not Path("runs/minari-own-v0").exists()


@pytest.mark.parametrize(
    ("role", "space", "hint"),
    [
        ("action", Discrete(3), "mopo fetch-data --list"),
        ("observation", Dict(x=Box(-9, 9, (2,)), lamp=Discrete(2)), "--columns 'obs=x'"),
    ],
)
def test_a_refused_check_ends_with_what_to_try(mopo: Any, role: str, space: Any, hint: str) -> None:
    data = write("toy-v0", buffers(walk()))
    change_metadata(data, lambda metadata: metadata.update({f"{role}_space": serialize_space(space)}))
    outcome = mopo("fetch-data --dataset minari:toy-v0 --check")
    assert outcome.code == 4 and outcome.err.rstrip().endswith(f"Try: {hint}")


def test_the_same_set_is_up_to_date_and_a_changed_one_is_read_anew(mopo: Any) -> None:
    def fetch(run: str = "one") -> dict[str, Any]:
        return json.loads(mopo(f"fetch-data --dataset minari:toy-v0 --run {run} --json").out)

    write("toy-v0", buffers(walk(seed=0)))
    first = fetch()
    assert fetch()["up_to_date"] and fetch("two")["outputs"] == first["outputs"]
    shutil.rmtree(minari_root())
    write("toy-v0", buffers(walk(seed=1)))
    second = fetch()
    assert not second["up_to_date"] and second["outputs"] != first["outputs"]
    assert second["source"] != first["source"]


def test_a_set_that_is_nowhere_to_be_had(mopo: Any, monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # the discard port: nobody listens
    began = time.monotonic()
    outcome = mopo("fetch-data --dataset minari:mujoco/hopper/medium-v0")
    assert (outcome.code, outcome.out) == (8, "")
    assert "mujoco/hopper/medium-v0 cannot be downloaded" in outcome.err
    assert time.monotonic() - began < 60
    assert list(place.iterdir()) == [] and not Path(os.environ["MOPO_HOME"]).exists() and not minari_root().exists()


@pytest.mark.parametrize(
    ("file", "content", "code"),
    [
        ("main_data.hdf5", b"\x89HDF", 5),
        ("metadata.json", b"{", 5),
        ("metadata.json", None, 5),
        ("main_data.hdf5", None, 5),
    ],
)
def test_a_damaged_set_ends_with_its_code(
    mopo: Any, place: Path, file: str, content: bytes | None, code: int, contents: Any
) -> None:
    path = write("toy-v0", buffers(walk())) / file
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    before = contents(minari_root())
    outcome = mopo("fetch-data --dataset minari:toy-v0")
    assert (outcome.code, outcome.out) == (code, "")
    assert f"Try: move {minari_root() / 'toy-v0'} away" in outcome.err
    assert contents(minari_root()) == before
    assert list(place.iterdir()) == [] and not Path(os.environ["MOPO_HOME"]).exists()


@pytest.mark.parametrize("name", ["minari:../toy-v0", "minari:/toy-v0", "minari:toy/../../toy-v0", "minari:toy//a-v0"])
def test_ids_that_lead_out_of_minaris_folder(mopo: Any, name: str) -> None:
    assert mopo(f"fetch-data --dataset {name}").code == 4
