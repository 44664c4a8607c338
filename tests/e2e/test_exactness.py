"""Stopped or killed at any moment and started again, alone or in a stack: the bytes are the same."""

import hashlib
import json
import os
import random
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from probes.runs import run_in, unfinished

from mopo_cli.agents.parallel_members import Crew
from mopo_cli.engine.parallel import can_fork
from mopo_cli.stages.common import saving

# Seed 1 stops before seed 2 does.
MODEL = "train-model --config tiny.yaml --threads 1 --max-epochs 5 --patience 1 --min-gain 0.75 --batch-size 16"
MODEL += " --seed-list 1,2"
POLICY = "train-policy --config tiny.yaml --threads 1 --name p --seeds 2 --epochs 4 --pool-epochs 2"
ABLATE = "ablate --config tiny.yaml --threads 1 --name grid --seeds 2 --lam 1,5 --h 2"
CELLS = ("mopo_max-var_lam1_h2", "mopo_max-var_lam5_h2", "mopo_none_h2")


def policies(folder: str) -> tuple[str, ...]:
    """The files of seeds 0 and 1."""
    return tuple(f"{folder}/seed-{seed}/{file}" for seed in (0, 1) for file in ("policy.safetensors", "metrics.jsonl"))


COMMANDS = {
    "train-model": (MODEL, ("model/ensemble.safetensors", "model/model.json", "model/metrics.jsonl")),
    "train-policy": (POLICY, policies("policies/p")),
    "ablate": (
        ABLATE,
        (*(file for cell in CELLS for file in policies(f"ablations/grid/cells/{cell}")), "ablations/grid/table.json"),
    ),
}
TRAINING = ("train-model", "train-policy")


def start(finished_run: Path, folder: Path) -> Path:
    """A folder in which the stage of interest has never run."""
    shutil.copytree(finished_run, folder, ignore=shutil.ignore_patterns("policies", "evaluations", "rollouts"))
    return folder


def digests(folder: Path, files: tuple[str, ...]) -> dict[str, str]:
    return {name: hashlib.sha256((folder / "runs/tiny" / name).read_bytes()).hexdigest() for name in files}


@pytest.fixture(scope="module")
def uninterrupted(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """By command, what an ordinary run makes: no checkpoint is saved on the way."""
    made, root = {}, tmp_path_factory.mktemp("uninterrupted")
    for stage, (line, files) in COMMANDS.items():
        made[stage] = digests(run_in(start(finished_run, root / stage), [line]), files)
    assert seeds_by_epoch(root / "train-model/runs/tiny")[-1] == {"2"}
    return made


def nothing_left_over(folder: Path) -> bool:
    return unfinished(folder) == [] and not any("mopo-tmp" in path.name for path in folder.rglob("*"))


def live_epochs(folder: Path, whole: Path) -> int:
    """How many epochs the metrics of an unfinished stage hold: the beginning of those that it publishes in the end.

    Leaves what a process may leave that is killed as it writes: an epoch that no checkpoint holds, and half a line.
    """
    epochs = 0
    published = {str(path): path.read_bytes() for path in (whole / "runs/tiny").rglob("metrics.jsonl")}
    for path in (folder / "runs/tiny/.state").rglob("live/**/metrics.jsonl"):
        member = str(path).partition("/live/")[2]
        (final,) = (content for place, content in published.items() if place.endswith(f"/{member}"))
        content = path.read_bytes()
        assert final.startswith(content) and content[-1:] in (b"", b"\n")
        epochs += content.count(b"\n")
        path.write_bytes(final[: len(content) + 400])
    return epochs


@pytest.mark.parametrize("stage", COMMANDS)
def test_killed_at_random_moments_and_started_again_it_ends_with_the_same_bytes(
    stage: str, finished_run: Path, tmp_path: Path, child: Any, uninterrupted: dict[str, Any]
) -> None:
    line, files = COMMANDS[stage]
    moments = child(start(finished_run, tmp_path / "whole"), line).moments
    assert moments > 20
    folder = start(finished_run, tmp_path / "killed")
    chance = random.Random(stage)
    went_on = epochs = 0
    for _ in range(3):
        ended = child(folder, line, fatal=chance.randint(moments // 8, moments // 4))
        assert ended.code == -signal.SIGKILL
        epochs += live_epochs(folder, tmp_path / "whole")
        went_on += "goes on at" in ended.err
    last = child(folder, line)
    assert last.code == 0
    assert went_on + ("goes on at" in last.err) >= 3 and epochs > 0
    assert digests(folder, files) == uninterrupted[stage]
    assert digests(tmp_path / "whole", files) == uninterrupted[stage]
    assert nothing_left_over(folder)


@pytest.mark.parametrize("stage", TRAINING)
def test_killed_while_publishing(
    stage: str, finished_run: Path, tmp_path: Path, child: Any, uninterrupted: dict[str, Any]
) -> None:
    line, files = COMMANDS[stage]
    moments = child(start(finished_run, tmp_path / "whole"), line).moments
    # Each published file is three moments; the last two are run.json, which is in place 3 before the end, and the
    # current run.
    for before_the_end in (3, *random.Random(stage).sample(range(4, 3 * len(files) + 6), 2)):
        folder = start(finished_run, tmp_path / str(before_the_end))
        assert child(folder, line, fatal=moments - before_the_end).code == -signal.SIGKILL
        assert child(folder, line).code == 0
        assert digests(folder, files) == uninterrupted[stage]
        assert nothing_left_over(folder)


@pytest.mark.parametrize("stage", TRAINING)
def test_killed_from_outside_at_any_time(
    stage: str, finished_run: Path, tmp_path: Path, child: Any, uninterrupted: dict[str, Any]
) -> None:
    line, files = COMMANDS[stage]
    folder = start(finished_run, tmp_path / "killed")
    chance = random.Random(stage)
    for _ in range(3):
        child(folder, line, kill_after=chance.uniform(0.1, 0.6))
    assert child(folder, line).code == 0
    assert digests(folder, files) == uninterrupted[stage]


@pytest.mark.parametrize(
    ("stage", "signum", "code"),
    [
        ("train-model", signal.SIGTERM, 143),
        ("train-policy", signal.SIGTERM, 143),
        ("train-policy", signal.SIGINT, 130),
        ("train-policy", signal.SIGUSR1, 138),
    ],
)
def test_a_signal_saves_and_the_same_command_goes_on_to_the_same_bytes(
    stage: str,
    signum: signal.Signals,
    code: int,
    finished_run: Path,
    tmp_path: Path,
    child: Any,
    uninterrupted: dict[str, Any],
) -> None:
    line, files = COMMANDS[stage]
    folder = start(finished_run, tmp_path / "stopped")
    for fatal in (1, 2):
        # No checkpoint but the one the signal calls for.
        ended = child(folder, line, fatal=fatal, signum=signum, checkpoint_always=False)
        assert ended.code == code
        assert f"{signum.name}: saving" in ended.err and "same command again" in ended.err
        assert len(list((folder / "runs/tiny/.state").rglob("checkpoint.safetensors"))) == 1
        assert ("goes on at" in ended.err) == (fatal == 2)
    last = child(folder, line, checkpoint_always=False)
    assert last.code == 0 and "goes on at" in last.err
    assert digests(folder, files) == uninterrupted[stage]


@pytest.mark.skipif(not can_fork(), reason="needs processes that can be forked")
@pytest.mark.parametrize("stage", COMMANDS)
def test_trained_by_several_processes_stopped_and_killed(
    stage: str, finished_run: Path, tmp_path: Path, child: Any, uninterrupted: dict[str, Any]
) -> None:
    line, files = COMMANDS[stage]
    line = line.replace("--threads 1", "--threads 2")
    folder = start(finished_run, tmp_path / "whole")
    assert child(folder, line).code == 0
    assert digests(folder, files) == uninterrupted[stage]
    folder, went_on, epochs = start(finished_run, tmp_path / "stopped"), 0, 0
    for fatal, signum in ((3, signal.SIGINT), (9, signal.SIGKILL), (6, signal.SIGUSR1)):
        ended = child(folder, line, fatal=fatal, signum=signum)
        assert ended.code in (-signum, 128 + signum)
        epochs += live_epochs(folder, tmp_path / "whole")
        went_on += "goes on at" in ended.err
    assert went_on == 2 and epochs > 0
    child(folder, line, kill_after=0.3)  # by then it may have ended
    assert child(folder, line).code == 0
    assert digests(folder, files) == uninterrupted[stage] and nothing_left_over(folder)


@pytest.mark.skipif(not can_fork(), reason="needs processes that can be forked")
def test_one_of_these_processes_is_killed(
    finished_run: Path, tmp_path: Path, mopo: Any, monkeypatch: pytest.MonkeyPatch, uninterrupted: dict[str, Any]
) -> None:
    line, files = COMMANDS["train-policy"]
    line = line.replace("--threads 1", "--threads 2")
    monkeypatch.chdir(start(finished_run, tmp_path / "killed"))
    monkeypatch.setattr(saving, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(saving, "SAVE_SHARE", float("inf"))
    advance, epochs = Crew.advance, iter(range(100))

    def then_one_is_lost(crew: Crew, *given: Any) -> Any:
        if next(epochs) == 2:
            os.kill(crew.helpers.each[1].process.pid, signal.SIGKILL)
        return advance(crew, *given)

    with monkeypatch.context() as patch:
        patch.setattr(Crew, "advance", then_one_is_lost)
        lost = mopo(line)
    assert lost.code == 3 and "A process that trains has ended" in lost.err and "--threads 1" in lost.err
    again = mopo(line.replace("--threads 2", "--threads 1"))
    assert again.code == 0 and "goes on at gradient step 100" in again.err
    assert digests(Path(), files) == uninterrupted["train-policy"]


@pytest.mark.parametrize("stage", TRAINING)
def test_the_same_seed_twice_gives_the_same_bytes(
    stage: str, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mopo: Any, uninterrupted: Any
) -> None:
    line, files = COMMANDS[stage]
    monkeypatch.chdir(start(finished_run, tmp_path / "again"))
    assert mopo(line).code == 0
    assert digests(Path(), files) == uninterrupted[stage]
    assert mopo(f"{line} --force").code == 0
    assert digests(Path(), files) == uninterrupted[stage]


def test_a_policy_seed_alone_equals_the_seed_in_a_stack_of_four(tiny_run: Path, mopo: Any) -> None:
    train = "train-policy --config tiny.yaml --threads 1 --name p --seed-list"
    files = ("policy.safetensors", "metrics.jsonl")
    assert mopo(f"{train} 0,1,2,3").code == 0
    stacked = {
        seed: [(tiny_run / f"policies/p/seed-{seed}/{file}").read_bytes() for file in files] for seed in range(4)
    }
    assert len({weights for weights, _ in stacked.values()}) == 4
    shutil.rmtree(tiny_run / "policies/p")
    assert mopo(f"{train} 2").code == 0
    assert [(tiny_run / f"policies/p/seed-2/{file}").read_bytes() for file in files] == stacked[2]


def test_a_model_seed_alone_equals_the_seed_in_a_stack_of_four(tiny_run: Path, mopo: Any) -> None:
    from mopo_cli.store.checkpoint import load_tensors

    train = "train-model --config tiny.yaml --threads 1 --max-epochs 6 --patience 1 --min-gain 0.042 --seed-list"
    assert mopo(f"{train} 0,1,2,3").code == 0
    stacked, about = load_tensors(tiny_run / "model/ensemble.safetensors")
    epochs = seeds_by_epoch(tiny_run)
    assert epochs[0] == {"0", "1", "2", "3"}
    stops, goes_on = min(epochs[0] - epochs[-1]), max(epochs[-1])
    for seed in (stops, goes_on):
        assert mopo(f"{train} {seed}").code == 0
        alone, about_alone = load_tensors(tiny_run / "model/ensemble.safetensors")
        assert alone and all(name.startswith(f"seed-{seed}/") for name in alone)
        assert all(torch.equal(tensor, stacked[name]) for name, tensor in alone.items())
        assert about_alone["holdout_mse"][seed] == about["holdout_mse"][seed]
        assert about["holdout_mse"][stops] != about["holdout_mse"][goes_on]


def seeds_by_epoch(run: Path) -> list[set[str]]:
    """Which seeds of the model were still training in each epoch."""
    lines = (run / "model/metrics.jsonl").read_text().splitlines()
    return [set(json.loads(line)["holdout_mse"]) for line in lines]
