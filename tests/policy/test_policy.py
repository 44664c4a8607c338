"""Policies by numpy against the actors of torch that they were published from, and what they tell of their inputs."""

import re
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from probes.histories import HIGH as HISTORY_HIGH
from probes.histories import LOW as HISTORY_LOW
from probes.histories import log_of
from probes.policies import (
    HIGH,
    LOW,
    RANGE,
    ROWS,
    assert_same_actions,
    far,
    make_actor,
    policy_file,
    standardised,
)
from probes.stacks import start
from safetensors.torch import save_file

import mopo_cli
from mopo_cli import load_policy
from mopo_cli.agents.algorithms import NAMES
from mopo_cli.agents.loop import advance
from mopo_cli.data.history import stack_history
from mopo_cli.data.ranges import observation_range
from mopo_cli.errors import CorruptError, InputError
from mopo_cli.policy.files import read_weights, write_npz
from mopo_cli.policy.onnx_file import read_onnx, write_onnx

CLOCK = 1.7e9


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "policy.safetensors"


@pytest.mark.parametrize("name", NAMES)
def test_policies_of_every_algorithm_act_as_in_torch(name: str, path: Path) -> None:
    loop, world = start(name)
    for _ in range(3):
        advance(loop, world)
    rows = far(world.start.numpy())
    for m in range(2):
        act = policy_file(path, loop.agent.policy(m))
        assert_same_actions(load_policy(path)(rows), act(rows))


def test_an_actor_of_standardised_inputs_takes_them_as_they_are(path: Path) -> None:
    mean, divisor = [0.1, -2.0, 1.5], [0.5, 11.0, 0.3]
    actor = make_actor()
    policy_file(path, standardised(actor, mean, divisor))
    x = torch.from_numpy(far(ROWS)).double()
    greedy = actor.greedy(((x - torch.tensor(mean)) / torch.tensor(divisor)).float()).double().numpy()
    assert len(np.unique(greedy[:, 0].round(2))) > 20
    assert_same_actions(load_policy(path)(far(ROWS)), np.array(LOW) + (greedy + 1) / 2 * (np.array(HIGH) - LOW), 2e-6)


def test_numbers_that_float32_cannot_hold_keep_their_digits(path: Path) -> None:
    act = policy_file(path, make_actor(offset=(CLOCK, 0.0, 0.0)))
    rows = ROWS.astype(np.float64) + np.array([CLOCK, 0, 0])
    policy = load_policy(path)
    assert_same_actions(policy(rows), act(rows))
    assert np.abs(policy(rows) - policy(rows.astype(np.float32))).max() > 1


def test_one_observation_gives_one_action_within_the_bounds(path: Path) -> None:
    policy_file(path, make_actor())
    policy = load_policy(path)
    one = policy(ROWS[3].tolist())
    assert one.shape == (2,)
    np.testing.assert_allclose(one, policy(ROWS)[3], rtol=1e-6)
    actions = policy(1e4 * ROWS)
    assert (actions >= np.array(LOW, np.float32)).all() and (actions <= np.array(HIGH, np.float32)).all()
    assert [bound.tolist() for bound in policy.bounds] == [
        np.array(LOW, np.float32).tolist(),
        np.array(HIGH, np.float32).tolist(),
    ]
    assert policy(np.empty((0, 3))).shape == (0, 2)
    for wrong in ([1.0, 2.0], [[[1.0, 2.0, 3.0]]], 1.0):
        with pytest.raises(InputError, match=r"takes observations \[3\] or \[N, 3\], not \["):
            policy(wrong)


def write_onnx_file(path: Path, policy: Path) -> Path:
    write_onnx(path, read_weights(policy)[0], {"mopo": "{}"})
    return path


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 1e300, 3e38])
def test_what_cannot_be_computed_with_is_nan_and_outside_without_a_warning(path: Path, wrong: float) -> None:
    policy_file(path, make_actor(), observation_range=RANGE)
    policy, usual = load_policy(path), [0.0, 0.0, 1.5]
    rows = np.array([usual, [wrong, -wrong, wrong]])
    actions = policy(rows)
    np.testing.assert_array_equal(actions[0], policy([usual])[0])
    assert np.isnan(actions[1]).all() and not policy.inside(rows)[1].any() and policy.inside(rows)[0].all()
    if find_spec("onnx") and find_spec("onnxruntime"):
        act, _ = read_onnx(write_onnx_file(path.with_suffix(".onnx"), path))
        assert np.isnan(act(rows)[1]).all() and not np.isnan(act(rows)[0]).any()


@pytest.mark.parametrize("wrong", [["a", "b", "c"], [[1.0, 2.0, 3.0], [1.0, 2.0]], [1j, 0.0, 0.0], {"clock": 1.0}])
def test_what_is_no_number_is_refused_in_one_sentence(path: Path, wrong: Any) -> None:
    policy_file(path, make_actor(), observation_range=RANGE)
    policy, usual = load_policy(path), [[0.0, 0.0, 1.5]]
    said = re.escape(f"The policy {path} takes numbers, in rows of one length.")
    for call in (policy, policy.inside, lambda o: policy.stack(o, []), lambda a: policy.stack(usual, a)):
        with pytest.raises(InputError, match=said):
            call(wrong)


def test_what_is_outside_the_data_is_said(path: Path) -> None:
    columns = {"observation": ["clock", "level", "flow"], "action": ["valve", "pump"]}
    policy_file(path, make_actor(), observation_range=RANGE, columns=columns)
    policy = load_policy(path)
    assert policy.inside([0, 21, 1.5]).tolist() == [True, False, True]
    assert policy.inside([[-2.1, 0, 2.1], [2, -20, np.nan]]).tolist() == [[False, True, False], [True, True, False]]
    assert policy.columns == columns


def test_every_row_of_the_data_is_inside_also_less_an_offset(path: Path) -> None:
    rows = CLOCK + 60.3 * np.arange(50)[:, None]
    log, info = log_of((20, 30))
    log = replace(log, observations=(rows - CLOCK).astype(np.float32))
    limits = observation_range(log, replace(info, observation_offset=np.array([CLOCK])))
    assert limits["p1"] == pytest.approx([CLOCK + 0.49 * 60.3], abs=1e-3)
    policy_file(path, make_actor(obs_dim=1, offset=(CLOCK,)), observation_range=limits)
    policy = load_policy(path)
    assert policy.inside(rows).all() and not policy.inside([rows[-1] + 1, rows[0] - 1]).any()


def test_a_file_of_an_older_version_acts_and_says_what_it_lacks(path: Path) -> None:
    act = policy_file(path, make_actor())
    policy = load_policy(path)
    assert_same_actions(policy(ROWS), act(ROWS))
    assert policy.columns == {}
    with pytest.raises(InputError, match=r"does not say how the observations of the data ranged: an older version"):
        policy.inside(ROWS)


@pytest.mark.parametrize("history", [1, 2, 4])
def test_an_episode_so_far_is_stacked_as_the_data_are(history: int, path: Path) -> None:
    log, info = log_of((3, 7))
    rows = stack_history(log, info, history)[0].observations
    bounds = {"action_low": HISTORY_LOW.tolist(), "action_high": HISTORY_HIGH.tolist()}
    policy_file(path, make_actor(obs_dim=rows.shape[1]), history=history, **bounds)
    policy = load_policy(path)
    for first, length in ((0, 3), (3, 7)):
        for t in range(length):
            so_far, taken = log.observations[first : first + t + 1], log.actions[first : first + t]
            np.testing.assert_allclose(policy.stack(so_far, taken), rows[first + t], atol=1e-6)
    latest = policy.stack(log.observations[10 - history :], log.actions[10 - history : 9])  # no more than it needs
    np.testing.assert_allclose(latest, rows[9], atol=1e-6)
    wrong: list[tuple[Any, Any]] = [(so_far[:, :1], taken), (so_far[:0], taken[:0]), (so_far, taken.ravel())]
    wrong += [([], []), (so_far, taken[:, :1]), (so_far, taken.reshape(-1, 1))]
    if history > 1:
        wrong += [(so_far, taken[:0]), (so_far[:1], taken[:1]), (so_far[: history - 1], taken[: history - 1])]
    for observations, actions in wrong:
        with pytest.raises(InputError, match="The policy takes the last"):
            policy.stack(observations, actions)


def test_the_function_in_the_documentation_runs_an_exported_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    act = policy_file(path, make_actor(offset=(CLOCK, 0.0, 0.0)))
    monkeypatch.chdir(path.parent)
    write_npz(Path("controller.npz"), read_weights(path)[0], {})
    page = (Path(mopo_cli.__file__).parent / "policy/README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(import numpy.*?)```", page, flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    rows = far(ROWS.astype(np.float64)) + np.array([CLOCK, 0, 0])
    assert_same_actions(names["act"](rows), act(rows))


def test_no_torch_is_imported(path: Path) -> None:
    policy_file(path, make_actor())
    script = (
        "import sys\n"
        "from mopo_cli import load_model, load_policy, open_run\n"
        "assert not {'numpy', 'pydantic', 'torch'} & set(sys.modules)\n"
        "load_policy(sys.argv[1])([0.0, 0.0, 0.0])\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script, str(path)], check=True)


def test_other_names_of_the_package_are_as_ever() -> None:
    assert {"load_model", "load_policy", "open_run"} == {*mopo_cli.__all__}
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        mopo_cli.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_other_files_are_refused_in_one_sentence(path: Path) -> None:
    policy_file(path, make_actor())
    whole = path.read_bytes()
    files: dict[str, tuple[bytes, type[Exception], str]] = {
        "short.safetensors": (whole[:-9], CorruptError, "is damaged or not a safetensors file"),
        "flipped.safetensors": (whole[:-1] + bytes([whole[-1] ^ 1]), CorruptError, "does not match its checksum"),
        "empty.npz": (b"", CorruptError, "is not an NPZ file"),
        "policy.pt": (whole, InputError, r"is not a policy file: these end in \.safetensors, \.npz or \.onnx"),
    }
    for name, (content, error, said) in files.items():
        (path.parent / name).write_bytes(content)
        with pytest.raises(error, match=said):
            load_policy(path.parent / name)
    np.savez(path.parent / "other.npz", x=np.ones(3))
    save_file({"x": torch.ones(2)}, path.parent / "other.safetensors")
    save_file({"x": torch.ones(2, dtype=torch.bfloat16)}, path.parent / "bfloat16.safetensors")
    for name in ("other.npz", "other.safetensors", "bfloat16.safetensors"):
        with pytest.raises(InputError, match="was not written by mopo"):
            load_policy(path.parent / name)
    with pytest.raises(InputError, match="does not exist"):
        load_policy(path.parent / "nothing.onnx")


@pytest.mark.parametrize(
    ("meta", "said"),
    [
        ({"obs_dim": 4}, "its parts do not fit"),
        ({"action_low": [0.0]}, "not one action bound per action"),
        ({"observation_range": {name: values[:2] for name, values in RANGE.items()}}, "not one range per number"),
        ({"columns": {"observation": ["clock"]}}, "columns does not name every number"),
        ({"activation": "silu"}, "field activation"),
    ],
)
def test_a_header_that_does_not_fit_is_damage(meta: dict[str, Any], said: str, path: Path) -> None:
    policy_file(path, make_actor(), **meta)
    with pytest.raises(CorruptError, match=said):
        load_policy(path)
