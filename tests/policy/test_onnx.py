"""ONNX graphs, run by onnxruntime alone, against the actors of torch that they were made of."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from probes.policies import HIGH, LOW, RANGE, ROWS, assert_same_actions, far, make_actor, policy_file, standardised

from mopo_cli import load_policy
from mopo_cli.errors import CorruptError, InputError
from mopo_cli.policy.files import WRITERS, read_weights
from mopo_cli.policy.weights import joined

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

ABOUT: dict[str, Any] = {
    "format": 1,
    "mopo": "0.1.0",
    "environment": None,
    "method": "mopo",
    "seeds": [0],
    "obs_dim": 3,
    "act_dim": 2,
    "action_low": LOW,
    "action_high": HIGH,
    "observation_range": RANGE,
    "dataset_id": "log",
    "dataset_sha256": "0" * 64,
    "policy_sha256": ["0" * 64],
    "verdict": None,
    "golden": {"observation": [[0.0, 0.0, 0.0]], "action": [[0.0, 0.0]]},
}
ACTORS = {
    "plain": make_actor(),
    "standardised": standardised(make_actor(), [0.1, -2.0, 1.5], [0.5, 11.0, 0.3]),
    "offset": make_actor(offset=(1.7e9, 0.0, 0.0)),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "policy.onnx"


def write(path: Path, *policies: Path, **about: Any) -> None:
    _, writer = WRITERS["onnx"]
    writer(path, joined([read_weights(policy)[0] for policy in policies]), ABOUT | about)


@pytest.mark.parametrize("name", ACTORS)
def test_the_graph_gives_the_actors_actions(name: str, path: Path) -> None:
    act = policy_file(path.with_name("p.safetensors"), ACTORS[name])
    write(path, path.with_name("p.safetensors"))
    onnx.checker.check_model(onnx.load(path), full_check=True)
    session = onnxruntime.InferenceSession(path)
    (entry,), (leaving,) = session.get_inputs(), session.get_outputs()
    assert (entry.name, entry.shape, leaving.name, leaving.shape) == ("observation", ["N", 3], "action", ["N", 2])
    assert (entry.type, leaving.type) == ("tensor(double)" if name == "offset" else "tensor(float)", "tensor(float)")
    rows = far(ROWS) if name != "offset" else far(ROWS.astype(np.float64)) + np.array([1.7e9, 0, 0])
    assert_same_actions(session.run(None, {"observation": rows})[0], act(rows))
    assert_same_actions(session.run(None, {"observation": rows[:1]})[0], act(rows[:1]))


def test_several_seeds_in_one_give_their_mean_action(path: Path) -> None:
    files = [path.with_name(f"{seed}.safetensors") for seed in range(3)]
    acts = [policy_file(file, make_actor(seed)) for seed, file in enumerate(files)]
    write(path, *files)
    mean = np.mean([act(far(ROWS)).astype(np.float64) for act in acts], axis=0)
    assert_same_actions(load_policy(path)(far(ROWS)), mean, 2e-6)
    write(path, files[0])
    assert np.abs(load_policy(path)(ROWS) - mean[: len(ROWS)]).max() > 1


def test_a_file_is_a_policy_again_and_says_what_it_is(path: Path) -> None:
    policy_file(path.with_name("p.safetensors"), make_actor(offset=(1.7e9, 0.0, 0.0)))
    limits = {name: [values[0] + 1.7e9, *values[1:]] for name, values in RANGE.items()}
    write(path, path.with_name("p.safetensors"), observation_range=limits, observation_offset=[1.7e9, 0.0, 0.0])
    policy = load_policy(path)
    assert policy.inside([1.7e9 + 1, 0, 1.5]).all() and not policy.inside([1.7e9 + 3, 0, 1.5]).all()
    assert policy([1.7e9, 0, 1.5]).shape == (2,)
    (text,) = onnx.load(path).metadata_props
    assert (text.key, json.loads(text.value)) == ("mopo", policy.about)
    first = path.read_bytes()
    write(path, path.with_name("p.safetensors"), observation_range=limits, observation_offset=[1.7e9, 0.0, 0.0])
    assert path.read_bytes() == first


def test_other_files_are_refused_in_one_sentence(path: Path) -> None:
    policy_file(path.with_name("p.safetensors"), make_actor())
    write(path, path.with_name("p.safetensors"))
    whole = path.read_bytes()
    model = onnx.load(path)
    del model.metadata_props[:]
    for content, error, said in (
        (whole[: len(whole) // 2], CorruptError, "is damaged or not an ONNX file"),
        (b"", CorruptError, "is damaged or not an ONNX file"),
        (model.SerializeToString(), InputError, "was not written by mopo export"),
    ):
        path.write_bytes(content)
        with pytest.raises(error, match=said):
            load_policy(path)
    write(path, path.with_name("p.safetensors"), format=2)
    with pytest.raises(InputError, match="has format 2; this version of mopo reads format 1"):
        load_policy(path)
    write(path, path.with_name("p.safetensors"), golden=None)
    with pytest.raises(CorruptError, match="field golden"):
        load_policy(path)
