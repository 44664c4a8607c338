"""Runs whose files are missing, damaged, changed or of another run: each is refused, and nothing on disk changes."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from probes.forks import forked, forked_mopo
from probes.runs import record_anew, unfinished

from mopo_cli.stages.common import policy_training as training
from mopo_cli.stages.runner import Stage
from mopo_cli.store.atomic import read_json, sha256_file, write_json
from mopo_cli.store.checkpoint import load_tensors, save_tensors
from mopo_cli.store.lock import run_lock

POLICY = "policies/mopo_max-var_lam1_h2/seed-0/policy.safetensors"
TRAIN = "train-policy --config tiny.yaml --threads 1 --name new"
ROLLOUT = "rollout --config tiny.yaml --threads 1 --name new"
ABLATE = "ablate --config tiny.yaml --threads 1"
FROM_FILE = f"{TRAIN} --rollouts runs/tiny/rollouts/uniform_h2.h5"


DAMAGES = {
    "cut": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "text": lambda content: b"no such thing " * 100,
}
READERS = [
    ("model/ensemble.safetensors", "select-elites --n 1"),
    ("model/ensemble.safetensors", ROLLOUT),
    ("model/ensemble.safetensors", TRAIN),
    ("model/ensemble.safetensors", ABLATE),
    ("elites.json", ROLLOUT),
    ("elites.json", TRAIN),
    ("rollouts/uniform_h2.h5", FROM_FILE),
    (POLICY, "evaluate --episodes 1"),
    (POLICY, f"{ROLLOUT} --actions runs/tiny/{POLICY}"),
    ("run.json", TRAIN),
    ("run.json", "fetch-data --dataset generate:InvertedPendulum-v5:random --run runs/tiny"),
    ("run.json", "show runs/tiny"),
    ("elites.json", "show runs/tiny/elites.json"),
    (POLICY, f"show runs/tiny/{POLICY}"),
    ("rollouts/uniform_h2.h5", "show runs/tiny/rollouts/uniform_h2.h5"),
]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(("name", "line"), READERS)
def test_a_damaged_file(tiny_run: Path, refuses: Any, name: str, line: str, damage: str) -> None:
    path = tiny_run / name
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    refuses(line, 5, path.name)


@pytest.mark.parametrize(
    "content", ["{}", "[]", '{"elites": {}}', '{"format": 1, "stages": {"fetch-data": 1}}', "null"]
)
@pytest.mark.parametrize("name", ["elites.json", "run.json"])
def test_json_of_another_shape(tiny_run: Path, refuses: Any, name: str, content: str) -> None:
    (tiny_run / name).write_text(content)
    if name != "run.json":
        record_anew(tiny_run)
    refuses(TRAIN, 5, name)


@pytest.mark.parametrize("elites", [[0, 7], [-1], [], ["0"], None, 5])
def test_elites_that_the_model_does_not_have(tiny_run: Path, refuses: Any, elites: Any) -> None:
    path = tiny_run / "elites.json"
    write_json(path, read_json(path) | {"elites": {"0": elites}})
    record_anew(tiny_run)
    refuses(ROLLOUT, 5, "elites.json")


def test_a_run_of_a_newer_mopo(tiny_run: Path, refuses: Any) -> None:
    path = tiny_run / "run.json"
    write_json(path, read_json(path) | {"format": 2})
    refuses(TRAIN, 4, "format 2")


@pytest.mark.parametrize(
    ("name", "line", "hint"),
    [
        ("model/ensemble.safetensors", TRAIN, "mopo train-model"),
        ("model/ensemble.safetensors", "select-elites --n 1", "mopo train-model"),
        ("elites.json", TRAIN, "mopo select-elites"),
        ("elites.json", ROLLOUT, "mopo select-elites"),
        ("rollouts/uniform_h2.h5", FROM_FILE, "mopo rollout"),
        (POLICY, "evaluate --episodes 1", "mopo train-policy"),
        (POLICY, f"{ROLLOUT} --actions runs/tiny/{POLICY}", "mopo train-policy"),
    ],
)
def test_a_missing_file_and_the_command_that_makes_it(
    tiny_run: Path, refuses: Any, name: str, line: str, hint: str
) -> None:
    (tiny_run / name).unlink()
    refuses(line, 4, Path(name).name)
    refuses(line, 4, f"Try: {hint}")


def test_a_name_that_the_run_does_not_have(tiny_run: Path, refuses: Any) -> None:
    refuses("evaluate --policy nothing", 4, "it has mopo_max-var_lam1_h2")
    refuses(f"{ROLLOUT} --actions nothing", 4, "nothing")
    refuses(f"{TRAIN} --rollouts nothing", 4, "nothing")
    refuses("train-policy --run runs/nowhere", 4, "runs/nowhere has no")
    refuses("train-policy --run runs/nowhere --rollouts runs/tiny/rollouts/uniform_h2.h5", 4, "runs/nowhere has no")


def test_files_that_hold_something_else(tiny_run: Path, refuses: Any) -> None:
    refuses(f"{ROLLOUT} --actions runs/tiny/model/ensemble.safetensors", 4, "is not a policy but a model")
    refuses(f"{ROLLOUT} --actions tiny.yaml", 5, "tiny.yaml")
    refuses(f"{TRAIN} --rollouts runs/tiny/run.json", 5, "run.json")
    dataset = json.loads((tiny_run / "run.json").read_text())["stages"]["fetch-data"]["outputs"]["dataset"]["path"]
    refuses(f"{TRAIN} --rollouts {dataset}", 4, "is not a rollouts file")
    shutil.copy(tiny_run / POLICY, tiny_run / "model/ensemble.safetensors")
    refuses("select-elites --n 1", 5, "is not what train-model wrote")
    record_anew(tiny_run)
    refuses("select-elites --n 1", 4, "is not a model but a policy")
    refuses("show tiny.yaml", 4, "tiny.yaml")


def test_tensors_that_do_not_fit_what_the_header_says(tiny_run: Path, refuses: Any) -> None:
    for name, line in (("model/ensemble.safetensors", ROLLOUT), (POLICY, "evaluate --episodes 1")):
        path, elites = tiny_run / name, tiny_run / "elites.json"
        tensors, meta = load_tensors(path)
        first = min(tensors)
        for others in (
            tensors | {first: tensors[first][..., :-1]},
            {name: tensor for name, tensor in tensors.items() if name != first},
        ):
            save_tensors(path, others, meta)
            if name != POLICY:
                write_json(elites, read_json(elites) | {"model_sha256": sha256_file(path)})
            record_anew(tiny_run)
            refuses(line, 5, f"{path.name} is damaged, its parts do not fit")


def test_elites_of_a_model_that_was_trained_anew(tiny_run: Path, mopo: Any, refuses: Any) -> None:
    assert mopo("train-model --config tiny.yaml --threads 1 --max-epochs 1").code == 0
    for line in (TRAIN, ROLLOUT, ABLATE):
        refuses(line, 4, "elites.json was made for another model")
        refuses(line, 4, "Try: mopo select-elites")
    assert mopo("select-elites --n 2").code == 0
    assert mopo(ROLLOUT).code == 0


def test_what_was_made_from_other_data(tiny_run: Path, mopo: Any, refuses: Any) -> None:
    before = json.loads((tiny_run / "run.json").read_text())["stages"]["fetch-data"]["outputs"]["dataset"]["sha256"]
    assert mopo("fetch-data --transitions 1500 --seed 1").code == 0
    now = json.loads((tiny_run / "run.json").read_text())["stages"]["fetch-data"]["outputs"]["dataset"]["sha256"]
    evaluate = "evaluate --policy mopo_max-var_lam1_h2 --episodes 1 --threads 1"
    for line in (TRAIN, ROLLOUT, ABLATE, FROM_FILE, evaluate):
        refuses(line, 4, f"made from other data: sha256 {before}, now {now}")
        refuses(line, 4, "--allow-mismatch")
    for line in (TRAIN, ROLLOUT, evaluate):
        outcome = mopo(f"{line} --allow-mismatch --json")
        assert outcome.code == 0
        assert outcome.err.startswith("Warning: ") and now in outcome.err
        assert json.loads(outcome.out)["up_to_date"] is False


def test_what_was_made_for_other_dimensions_is_of_no_use_even_where_allowed(
    tiny_run: Path, mopo: Any, refuses: Any
) -> None:
    assert mopo("fetch-data --dataset generate:Pendulum-v1:random --transitions 500 --run runs/tiny").code == 0
    for line in (TRAIN, ROLLOUT, ABLATE, FROM_FILE, "evaluate --episodes 1 --threads 1"):
        refuses(f"{line} --allow-mismatch", 4, "4 observations and 1 actions, the dataset has 3 and 1")


def test_a_policy_of_other_dimensions(tiny_run: Path, refuses: Any) -> None:
    tensors, meta = load_tensors(tiny_run / POLICY)
    wide = {"w0": torch.zeros(1, 11, 16), "w2": torch.zeros(1, 16, 6), "b2": torch.zeros(1, 1, 6)}
    made_for = {"obs_dim": 11, "act_dim": 3, "action_low": [-1.0] * 3, "action_high": [1.0] * 3}
    other = {name: value for name, value in meta.items() if name not in ("observation_range", "columns")}
    save_tensors(Path("hopper.safetensors"), tensors | wide, other | made_for)
    refuses(f"{ROLLOUT} --actions hopper.safetensors", 4, "is for 11 observations and 3 actions")


def test_a_seed_that_the_model_does_not_have(tiny_run: Path, mopo: Any, refuses: Any) -> None:
    assert mopo("train-model --config tiny.yaml --threads 1 --max-epochs 1 --seed-list 0,2").code == 0
    assert mopo("select-elites --n 2").code == 0
    refuses(f"{TRAIN} --seed-list 0,1", 4, "none for seed 1")
    refuses(f"{ROLLOUT} --seed 1", 4, "none for seed 1")


def stopped(line: str) -> bool:
    """Whether a process that gets SIGTERM as soon as it looks for signals has ended by it."""

    def should_stop(stage: Stage) -> bool:
        os.kill(os.getpid(), signal.SIGTERM)
        return look(stage)

    look = Stage.should_stop
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stage, "should_stop", should_stop)
        process = forked_mopo(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return process.wait(60) == 128 + signal.SIGTERM


def test_a_checkpoint_that_cannot_be_used(tiny_run: Path, mopo: Any, refuses: Any) -> None:
    assert stopped(TRAIN)
    refuses(f"{TRAIN} --gamma 0.5", 3, "gamma 0.99 -> 0.5")
    (checkpoint,) = (tiny_run / ".state").rglob("checkpoint.safetensors")
    whole = checkpoint.read_bytes()
    for damage in DAMAGES.values():
        checkpoint.write_bytes(damage(whole))
        refuses(TRAIN, 5, "checkpoint.safetensors")
        refuses(TRAIN, 5, "Try: --force starts again")
    tensors, meta = load_tensors(tiny_run / POLICY)
    save_tensors(checkpoint, tensors, meta)
    refuses(TRAIN, 5, "checkpoint.safetensors")
    assert mopo(f"{TRAIN} --force").code == 0
    assert unfinished(tiny_run) == []


@pytest.mark.parametrize("command", [TRAIN, "train-model --config tiny.yaml --max-epochs 3"])
def test_a_checkpoint_whose_tensors_have_other_shapes(tiny_run: Path, refuses: Any, command: str) -> None:
    assert stopped(command)
    (checkpoint,) = (tiny_run / ".state").rglob("checkpoint.safetensors")
    tensors, meta = load_tensors(checkpoint)
    for name, tensor in tensors.items():
        save_tensors(checkpoint, tensors | {name: tensor[None].expand(2, *tensor.shape).contiguous()}, meta)
        refuses(command, 5, "checkpoint.safetensors")


def hold(run: Path) -> None:
    with run_lock(run):
        print("held")
        sys.stdin.read()


def test_a_run_that_another_process_works_in(
    tiny_run: Path, refuses: Any, mopo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_BEGIN_SECONDS", 0.0)
    with forked(lambda: hold(tiny_run), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout and holder.stdout.readline() == "held\n"
        refuses(TRAIN, 6, str(tiny_run))
        assert mopo("show runs/tiny").code == 0
        holder.kill()
    assert mopo("select-elites --n 1").code == 0


def test_a_policy_of_which_every_seed_diverged(tiny_run: Path, mopo: Any, refuses: Any) -> None:
    outcome = mopo(f"{TRAIN} --actor-lr 1e30 --seeds 2")
    assert outcome.code == 7
    assert "seed 0, seed 1" in outcome.err
    assert "2/2" in outcome.err  # the epochs are counted on
    refuses("evaluate --policy new", 4, "diverged")


def test_learning_from_a_file_has_no_rollouts_to_count(tiny_run: Path, mopo: Any) -> None:
    outcome = mopo(FROM_FILE)
    assert outcome.code == 0
    assert "nan" not in outcome.err


def test_a_record_without_the_data_set_s_name(tiny_run: Path, refuses: Any) -> None:
    path = tiny_run / "run.json"
    document = read_json(path)
    del document["stages"]["fetch-data"]["settings"]["dataset"]
    write_json(path, document)
    refuses(TRAIN, 5, "run.json holds a damaged record of fetch-data")
    refuses("select-elites --n 1", 5, "run.json holds a damaged record of fetch-data")
