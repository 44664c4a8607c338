"""Branches that the guard ends: in the rollout file, in the rows that a policy learns from, and in what is said."""

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from probes.runs import record_anew, run_in

from mopo_cli.config.schema import TrainPolicy
from mopo_cli.report.console import Report
from mopo_cli.stages.common import open_world as module
from mopo_cli.stages.common.open_world import open_world, policy_inputs
from mopo_cli.stages.common.options import Options
from mopo_cli.stages.runner import stage_envelope
from mopo_cli.store.checkpoint import load_tensors
from mopo_cli.store.run import RunFolder

TINY = """\
fetch-data: {transitions: 400}
train-model: {networks: 3, hidden: 16, layers: 2, weight-decay: [1e-5, 1e-5, 1e-5], max-epochs: 2}
select-elites: {n: 2}
rollout: {h: 2, batch: 100}
train-policy: {h: 2, epochs: 1, steps-per-epoch: 10, rollout-every: 10, rollout-batch: 100, hidden: 16, eval-every: 0}
"""
FILE = "run/rollouts/uniform_h2.h5"
LEARN = f"train-policy --rollouts {FILE} --name file"


@pytest.fixture(scope="module")
def modelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of Pendulum, whose rewards are all negative, with a model. Not to be written to."""
    lines = ("fetch-data --dataset generate:Pendulum-v1:random", "train-model", "select-elites")
    flags = "--run run --config tiny.yaml --threads 1"
    return run_in(tmp_path_factory.mktemp("modelled"), [f"{line} {flags}" for line in lines], TINY)


@pytest.fixture
def do(modelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mopo: Any) -> Any:
    """Runs a command in a copy of that run, in which a guard ends every branch that comes to cos(angle) > 0."""
    shutil.copytree(modelled, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    guard_where(monkeypatch, 0.0)
    return lambda line: mopo(f"{line} --run run --config tiny.yaml --threads 1")


def guard_where(monkeypatch: pytest.MonkeyPatch, bound: float) -> None:
    monkeypatch.setattr(module, "guard_rule", lambda *_: lambda _s, _a, following: following[..., 0] > bound)


def learned_rows(gamma: float = 0.99) -> tuple[torch.Tensor, ...]:
    """Reward and terminal of the rows that a policy learns from the file, and the least reward of the data."""
    run, settings = RunFolder(Path("run")), TrainPolicy(rollouts=FILE, gamma=gamma)
    inputs = policy_inputs(run, settings)
    with (
        stage_envelope(run, "train-policy/x", settings.model_dump(), inputs, Options(), Report("quiet")) as stage,
        open_world(stage, settings, inputs, torch.device("cpu"), [settings.penalty]) as opened,
    ):
        buffer = opened.world.buffer
        assert buffer is not None
        rows = opened.world.row_layout.split(buffer)
        return rows.reward, rows.terminal, opened.data.reward.min()


def test_in_the_file_a_guarded_row_is_a_timeout_and_in_learning_it_pays_for_what_would_follow(do: Any) -> None:
    made = do("rollout")
    assert made.code == 0 and "stored as timeouts, with the model's own reward" in made.err
    with h5py.File(FILE) as file:
        columns = {name: file[name][()] for name in ("rewards", "terminals", "timeouts", "next_observations", "step")}
    wild = columns["next_observations"][:, 0] > 0
    assert (columns["timeouts"] == wild).all() and not columns["terminals"].any() and 20 < wild.sum() < len(wild) - 20
    share = json.loads(Path("run/run.json").read_text())["stages"]["rollout/uniform_h2"]["extra"]["guarded_share"]
    assert share == pytest.approx(wild.mean())
    for gamma in (0.5, 0.99):
        reward, terminal, least = learned_rows(gamma)
        assert (terminal.numpy() == wild).all() and least < 0
        expected = columns["rewards"] + np.where(wild, gamma * float(least) / (1 - gamma), 0)
        np.testing.assert_allclose(reward.numpy(), expected, rtol=1e-5)


def test_a_file_from_before_is_read_as_before(do: Any) -> None:
    """There a guarded row was terminal, and no row a timeout."""
    assert do("rollout").code == 0
    with h5py.File(FILE, "r+") as file:
        wild, rewards = file["timeouts"][()], file["rewards"][()]
        file["terminals"][...], file["timeouts"][...] = wild, np.zeros_like(wild)
        del file.attrs["content_sha256"]
    record_anew(Path("run"))
    reward, terminal, _ = learned_rows()
    assert (terminal.numpy() == wild).all() and (reward.numpy() == rewards).all()


def test_learning_says_how_it_takes_them_and_the_other_readers_cope(do: Any, mopo: Any) -> None:
    assert do("rollout --map").code == 0
    for line in (LEARN, "train-policy"):
        done = do(line)
        assert done.code == 0, done.err
        assert done.err.count("If the guard ends a branch, every later step counts as the data's least reward, -1") == 1
    refused = do(f"{LEARN} --gamma 1 --force")
    assert refused.code == 3 and "gamma 1 gives no finite value" in refused.err and "Traceback" not in refused.err
    assert mopo(f"show {FILE}").code == 0


def test_what_never_comes_is_not_spoken_of(do: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    guard_where(monkeypatch, 1e9)
    for line in ("rollout", LEARN, "train-policy"):
        done = do(line)
        assert done.code == 0 and "the guard ended counts as" not in done.err and "Warning: " not in done.err, done.err


@pytest.mark.parametrize("line", ["rollout", "train-policy"])
def test_branches_that_all_end_at_once_are_warned_of(do: Any, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    guard_where(monkeypatch, -1e9)
    done = do(line)
    assert done.code == 0, done.err
    text = " ".join(done.err.split())
    assert text.count("Warning: 100% of the branches end in their first step (100% by the guard)") == 1


MOBILE = "train-policy --algorithm mobile --penalty none --mobile-samples 2 --name mobile --epochs 1 --eval-every 0"


def check_floor(done: Any, run: str, floor: str, lowest: str) -> None:
    assert done.code == 0, done.err
    assert f"target-floor is {floor}, as the data's lowest discounted return is {lowest}" in done.err
    _, meta = load_tensors(Path(run) / "policies/mobile/seed-0/policy.safetensors", "cpu")
    assert meta["target_floor"] == floor


def test_mobile_has_no_floor_where_returns_are_negative_and_says_so(do: Any) -> None:
    check_floor(do(MOBILE), "run", "none", "-")


def test_mobile_has_a_floor_where_they_are_not_and_says_so(tiny_run: Path, mopo: Any) -> None:
    done = mopo(f"{MOBILE} --run {tiny_run} --config tiny.yaml --threads 1")
    check_floor(done, str(tiny_run), "zero", "0")
    asked = mopo(f"{MOBILE} --run {tiny_run} --config tiny.yaml --threads 1 --target-floor none --force")
    assert asked.code == 0 and "target-floor" not in asked.err
