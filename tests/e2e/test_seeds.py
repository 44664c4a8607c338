"""Seeds of one policy that are trained one by one, side by side and for longer: the bytes are those of one training."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from probes.forks import Process, forked_mopo
from probes.runs import stop_at, unfinished

from mopo_cli.engine.parallel import can_fork
from mopo_cli.nets.fastest import Measured
from mopo_cli.nets.libraries import all_by
from mopo_cli.stages.common import chosen_products
from mopo_cli.stages.common import policy_training as training
from mopo_cli.stages.runner import Stage
from mopo_cli.store.lock import run_lock

TRAIN = "train-policy --config tiny.yaml --threads 1 --products mkl --name p"
TIMES = ("wall_seconds", "finished")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_BEGIN_SECONDS", 0.0)


def made(name: str = "p", folder: Path = Path("runs/tiny")) -> dict[str, bytes]:
    """All that is kept of a policy: its files but for times, and how run.json records it."""
    places = (folder / f"policies/{name}", folder / f".state/train-policy/{name}")
    files = {path for place in places for path in place.rglob("*") if path.is_file() and path.name != "timing.json"}
    record = json.loads((folder / "run.json").read_text())["stages"][f"train-policy/{name}"]
    rest = {key: value for key, value in record.items() if key not in TIMES}
    rest["settings"] = {key: value for key, value in rest["settings"].items() if key not in ("seeds", "seed_list")}
    rest["extra"] = {key: value for key, value in rest["extra"].items() if key != "origins"}
    return {str(path.relative_to(folder)): path.read_bytes() for path in files} | {"record": json.dumps(rest).encode()}


def seeds_of(result: str) -> list[int]:
    return sorted(map(int, json.loads(result)["returns"]))


@pytest.fixture(scope="module")
def whole(finished_run: Path, tmp_path_factory: pytest.TempPathFactory, child: Any) -> Any:
    """What one training of the seeds and epochs makes, by its flags; each is made once."""
    kept: dict[str, dict[str, bytes]] = {}

    def make(flags: str) -> dict[str, bytes]:
        if flags not in kept:
            folder = tmp_path_factory.mktemp("whole") / "work"
            shutil.copytree(finished_run, folder)
            assert child(folder, f"{TRAIN} {flags}").code == 0
            kept[flags] = made(folder=folder / "runs/tiny")
        return kept[flags]

    return make


def test_seeds_trained_one_by_one_are_those_of_a_stack(tiny_run: Path, mopo: Any, whole: Any) -> None:
    first = mopo(f"{TRAIN} --seed-list 1 --json")
    second = mopo(f"{TRAIN} --seed-list 2,0 --json")
    assert first.code == second.code == 0
    assert (seeds_of(first.out), seeds_of(second.out)) == ([1], [0, 1, 2])
    assert made() == whole("--seeds 3")
    assert json.loads(second.out)["wall_seconds"] > json.loads(first.out)["wall_seconds"]
    for flags in ("--seed-list 1", "--seeds 3", "--seed-list 2,1"):
        again = mopo(f"{TRAIN} {flags} --json")
        assert json.loads(again.out)["up_to_date"] and seeds_of(again.out) == [0, 1, 2]
    evaluation = json.loads(mopo("evaluate --policy p --episodes 1 --threads 1 --json").out)
    assert evaluation["seeds"] == [0, 1, 2]
    assert unfinished(tiny_run) == []


def test_only_what_is_missing_or_changed_is_trained(tiny_run: Path, mopo: Any, whole: Any) -> None:
    assert mopo(f"{TRAIN} --seeds 2").code == 0
    joining = mopo(f"{TRAIN} --seeds 3")
    assert "train-policy/p has seeds 0, 1; now seed 2 is trained" in joining.err
    (tiny_run / "policies/p/seed-1/policy.safetensors").write_bytes(b"?")
    mended = mopo(f"{TRAIN} --seeds 3")
    assert "has seeds 0, 2; now seed 1 is trained (files of seed 1 are missing or were changed)" in mended.err
    assert made() == whole("--seeds 3")


@pytest.mark.parametrize(
    ("flags", "goes"),
    [
        ("", ("--seed-list 1 --epochs 2", "--seed-list 0,2 --epochs 2", "--seeds 3 --epochs 4")),
        ("", ("--seeds 2 --epochs 1", "--seeds 2 --epochs 3", "--seeds 3 --epochs 4")),
        ("--eval-every 3", ("--seeds 3 --epochs 2", "--seeds 3 --epochs 4")),
        ("--method drop --dice-steps 3 --dice-pretrain 5", ("--seeds 3 --epochs 2", "--seeds 3 --epochs 4")),
        ("--method td3-bc", ("--seeds 3 --epochs 3", "--seeds 3 --epochs 4")),
        ("--pool-epochs 2", ("--seed-list 0,2 --epochs 3", "--seeds 3 --epochs 3", "--seeds 3 --epochs 4")),
    ],
)
def test_longer_training_goes_on_and_ends_as_an_uninterrupted_one(
    flags: str, goes: tuple[str, ...], tiny_run: Path, mopo: Any, whole: Any
) -> None:
    for go in goes:
        outcome = mopo(f"{TRAIN} {flags} {go}")
        assert outcome.code == 0, outcome.err
    epoch = goes[-2].split()[-1]
    assert f"training goes on from epoch {epoch} (finished earlier)" in outcome.err
    assert "are kept in runs/tiny/.state/train-policy/p/finished" in outcome.err
    assert made() == whole(f"{flags} --seeds 3 --epochs 4".strip())
    assert unfinished(tiny_run) == []


@pytest.mark.skipif(not can_fork(), reason="needs processes that can be forked")
def test_longer_training_by_several_processes_that_is_stopped(
    tiny_run: Path, mopo: Any, whole: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    longer = f"{TRAIN} --seeds 3 --epochs 4".replace("--threads 1", "--threads 2")
    assert mopo(f"{TRAIN} --seeds 3 --epochs 2").code == 0
    with monkeypatch.context() as patch:
        patch.setattr(Stage, "should_stop", lambda stage: bool(setattr(stage, "signal", 15) or stage.signal))
        assert mopo(longer).code == 143
    assert "training goes on at gradient step" in (outcome := mopo(longer)).err and outcome.code == 0
    assert made() == whole("--seeds 3 --epochs 4")


def test_the_time_of_what_was_trained_earlier_is_counted(tiny_run: Path, mopo: Any) -> None:
    assert mopo(f"{TRAIN} --seeds 2").code == 0
    for seed in (0, 1):
        (tiny_run / f"policies/p/seed-{seed}/timing.json").write_text('{"wall_seconds": 1000}')
    assert mopo(f"{TRAIN} --seeds 2 --epochs 3").code == 0
    timing = json.loads((tiny_run / "policies/p/seed-0/timing.json").read_text())
    assert 1000 < timing["wall_seconds"] < 1100


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        ("--seeds 2 --epochs 1", 3, "train-policy/p in runs/tiny has 2 epochs, more than the 1 of this command."),
        ("--seeds 2 --gamma 0.5", 3, "was trained with other settings: gamma 0.99 -> 0.5."),
        ("--seed-list 5 --gamma 0.5", 3, "Try: --name OTHER trains another policy, --force replaces this one"),
        ("--seeds 2 --gamma 0.5 --epochs 3", 3, "epochs 2 -> 3, gamma 0.99 -> 0.5."),
        ("--seed-list 0,4 --epochs 3", 3, "train-policy/p also has seed 1."),
        ("--seed-list 0,4 --epochs 3", 3, "Try: --seed-list 0,1,4, or --name OTHER"),
    ],
)
def test_what_would_be_lost_is_refused(
    flags: str, code: int, said: str, tiny_run: Path, mopo: Any, refuses: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert mopo(f"{TRAIN} --seeds 2").code == 0
    monkeypatch.setenv("COLUMNS", "300")
    refuses(f"{TRAIN} {flags}", code, said)


def test_a_schedule_that_depends_on_the_number_of_epochs(tiny_run: Path, mopo: Any, refuses: Any) -> None:
    assert mopo(f"{TRAIN} --actor-schedule cosine").code == 0
    refuses(f"{TRAIN} --actor-schedule cosine --epochs 3", 3, "with actor-schedule cosine")
    assert mopo(f"{TRAIN} --actor-schedule cosine --epochs 3 --force").code == 0


def test_training_states_that_are_gone_or_damaged(tiny_run: Path, mopo: Any, refuses: Any) -> None:
    assert mopo(f"{TRAIN} --seeds 2").code == 0
    state = tiny_run / ".state/train-policy/p/finished/seed-1_epoch-2.safetensors"
    content = state.read_bytes()
    state.write_bytes(content[:-3])
    refuses(f"{TRAIN} --seeds 2 --epochs 3", 5, "seed-1_epoch-2.safetensors")
    state.write_bytes(state.with_name("seed-0_epoch-2.safetensors").read_bytes())
    refuses(f"{TRAIN} --seeds 2 --epochs 3", 4, "is of another training")
    state.unlink()
    refuses(f"{TRAIN} --seeds 2 --epochs 3", 4, "the training state of seed 1 is not kept any more")
    assert json.loads(mopo(f"{TRAIN} --seeds 2 --json").out)["up_to_date"]
    assert mopo(f"{TRAIN} --seeds 2 --epochs 3 --force").code == 0
    assert mopo(f"{TRAIN} --seeds 2 --epochs 4").code == 0


def test_force_trains_seeds_again_and_keeps_the_others_of_the_same_training(
    tiny_run: Path, mopo: Any, whole: Any
) -> None:
    assert mopo(f"{TRAIN} --seeds 3").code == 0
    forced = mopo(f"{TRAIN} --seed-list 1 --force --json")
    assert seeds_of(forced.out) == [0, 1, 2] and not json.loads(forced.out)["up_to_date"]
    assert made() == whole("--seeds 3")
    other = mopo(f"{TRAIN} --seed-list 1 --gamma 0.5 --force")
    assert "seeds 0, 2 will be dropped, as settings or inputs changed" in other.err
    assert seeds_of(mopo(f"{TRAIN} --seed-list 1 --gamma 0.5 --json").out) == [1]
    states = tiny_run / ".state/train-policy/p/finished"
    assert [path.name for path in states.iterdir()] == ["seed-1_epoch-2.safetensors"]


def test_after_the_model_changed_the_policy_is_trained_again(tiny_run: Path, mopo: Any) -> None:
    assert mopo(f"{TRAIN} --seeds 2").code == 0
    assert mopo("train-model --config tiny.yaml --threads 1 --max-epochs 1").code == 0
    assert mopo("select-elites --n 2").code == 0
    again = mopo(f"{TRAIN} --seed-list 1")
    assert again.code == 0 and "the model and the elites changed: train-policy/p is trained again" in again.err
    joining = mopo(f"{TRAIN} --seed-list 0 --json")
    assert seeds_of(joining.out) == [0, 1]


def test_only_the_seeds_asked_for_make_the_command_fail(
    tiny_run: Path, mopo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(
            "mopo_cli.agents.algorithm.Agent.finite", lambda agent: agent.actor.flat[:, 0] != agent.actor.flat[:, 0]
        )
        assert mopo(f"{TRAIN} --seed-list 3").code == 7
    joining = mopo(f"{TRAIN} --seed-list 0 --json")
    assert joining.code == 0 and json.loads(joining.out)["diverged"] == ["seed 3"]
    assert mopo(f"{TRAIN} --seed-list 0,3").code == 7
    longer = mopo(f"{TRAIN} --seed-list 0,3 --epochs 3 --json")
    assert longer.code == 7 and json.loads(longer.out)["diverged"] == ["seed 3"] and seeds_of(longer.out) == [0]


def test_longer_training_multiplies_by_the_same_library(
    tiny_run: Path, mopo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where another one is faster now, so that its bits are those of an uninterrupted training."""
    train = TRAIN.replace("--products mkl ", "")
    for fastest, epochs in ((all_by("onednn"), 2), (all_by("mkl"), 4)):
        monkeypatch.setattr(chosen_products, "measured_here", partial(Measured, fastest, {}))
        assert mopo(f"{train} --epochs {epochs}").code == 0
    record = json.loads((tiny_run / "run.json").read_text())["stages"]["train-policy/p"]
    assert record["versions"]["products"] == "onednn"


@contextmanager
def paused(flags: str, patience: float = 100) -> Iterator[Process]:
    """A process that trains and waits for a line in the middle of it."""

    def should_stop(stage: Any) -> bool:
        if not getattr(stage, "paused", False):
            stage.paused = True
            print("training")
            sys.stdin.readline()
        return look(stage)

    look = Stage.should_stop
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stage, "should_stop", should_stop)
        patch.setattr(training, "_PUBLISH_SECONDS", patience)
        patch.setattr(training, "_BEGIN_SECONDS", 60.0)
        started = forked_mopo(f"{TRAIN} {flags}", **pipes)
    with started as process:
        try:
            assert process.stdout and process.stdout.readline() == "training\n"
            yield process
        finally:
            process.kill()


def test_processes_train_side_by_side_and_join(tiny_run: Path, mopo: Any, whole: Any, refuses: Any) -> None:
    with paused("--seed-list 0") as first, paused("--seed-list 2") as second:
        refuses(f"{TRAIN} --seed-list 0", 6, "is training seed 0 of train-policy/p")
        refuses(f"{TRAIN} --seed-list 0,1", 6, "is training seed 0 of train-policy/p")
        refuses(f"{TRAIN} --seed-list 0 --force", 6, "is training seed 0 of train-policy/p")
        refuses(f"{TRAIN} --seed-list 1 --gamma 0.5", 6, "with other settings (gamma 0.99 -> 0.5)")
        (half := tiny_run / ".state/train-policy/p/seeds-0/.checkpoint.0123abcd.mopo-tmp.safetensors").touch()
        assert mopo("rollout --config tiny.yaml --threads 1 --name other").code == 0
        assert mopo(f"{TRAIN} --seed-list 1").code == 0
        assert half.exists(), "the first may be writing it"
        for process in (first, second):
            process.communicate("go on\n", timeout=60)
            assert process.returncode == 0
    assert made() == whole("--seeds 3")
    assert unfinished(tiny_run) == []


def test_a_run_that_is_held_while_policies_are_published_is_waited_for(tiny_run: Path, mopo: Any, whole: Any) -> None:
    with paused("--seeds 3", patience=0) as process, run_lock(tiny_run):
        _, text = process.communicate("go on\n", timeout=60)
    assert process.returncode == 6 and "Another mopo process is working in runs/tiny" in text
    again = mopo(f"{TRAIN} --seeds 3")
    assert again.code == 0 and "goes on at gradient step 100" in again.err, "all is trained"
    assert made() == whole("--seeds 3")
    with paused("--seed-list 3") as process:
        with run_lock(tiny_run):
            assert process.stdin and process.stderr
            process.stdin.write("go on\n")
            process.stdin.flush()
            while "waiting" not in (line := process.stderr.readline()):
                assert line
        process.communicate(timeout=60)
    assert process.returncode == 0 and seeds_of(mopo(f"{TRAIN} --json").out) == [0, 1, 2, 3]


def test_an_input_that_changes_meanwhile_is_noticed(tiny_run: Path, mopo: Any, refuses: Any) -> None:
    before = (tiny_run / "elites.json").read_bytes(), (tiny_run / "run.json").read_bytes()
    with paused("") as process:
        assert mopo("select-elites --n 1").code == 0
        _, text = process.communicate("go on\n", timeout=60)
    assert process.returncode == 4 and "The elites changed while train-policy/p was trained" in text
    refuses(TRAIN, 4, "The elites changed after train-policy/p was interrupted")
    assert not (tiny_run / "policies/p").exists()
    for name, content in zip(("elites.json", "run.json"), before, strict=True):
        (tiny_run / name).write_bytes(content)
    assert mopo(TRAIN).code == 0 and unfinished(tiny_run) == []


def test_unfinished_seeds_are_finished_first(
    tiny_run: Path, mopo: Any, refuses: Any, whole: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_at(1, patch)
        assert mopo(f"{TRAIN} --seed-list 0,1").code == 143
    refuses(f"{TRAIN} --seeds 3", 3, "The training of seeds 0, 1 of train-policy/p in runs/tiny was begun")
    refuses(f"{TRAIN} --seeds 3", 3, "finish it first (--seed-list 0,1), or --force to drop it")
    refuses(f"{TRAIN} --seed-list 2 --gamma 0.5", 3, "with other settings (gamma 0.99 -> 0.5)")
    assert mopo(f"{TRAIN} --seed-list 2").code == 0
    assert "goes on at gradient step" in mopo(f"{TRAIN} --seeds 3").err
    assert made() == whole("--seeds 3") and unfinished(tiny_run) == []


def test_what_a_killed_process_left_does_not_bar_the_way(tiny_run: Path, mopo: Any, whole: Any) -> None:
    with paused("--seed-list 0,1") as process:
        process.kill()
    assert unfinished(tiny_run) != []
    assert mopo(f"{TRAIN} --seeds 3").code == 0
    assert made() == whole("--seeds 3") and unfinished(tiny_run) == []


def test_what_an_older_version_left_unfinished_goes_on(
    tiny_run: Path, mopo: Any, whole: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its checkpoint lies in the folder of the policy, and nothing says which seeds are in it but its settings."""
    with paused("--seeds 2") as process:
        process.send_signal(signal.SIGTERM)
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.close()
        assert process.wait(60) == 143
    state = tiny_run / ".state/train-policy/p"
    (state / "seeds-0-1/checkpoint.safetensors").rename(state / "checkpoint.safetensors")
    shutil.rmtree(state / "seeds-0-1")
    for left in (*state.glob("seeds-*.json"), *state.glob("seeds-*.lock")):
        left.unlink()
    other = mopo(f"{TRAIN} --seeds 3")
    assert other.code == 3 and "The training of seeds 0, 1 of train-policy/p" in other.err
    again = mopo(f"{TRAIN} --seeds 2")
    assert again.code == 0 and "training goes on at gradient step" in again.err
    assert made() == whole("--seeds 2") and unfinished(tiny_run) == []


@pytest.mark.parametrize("longer", [False, True])
def test_killed_while_seeds_join(
    longer: bool, finished_run: Path, tmp_path: Path, child: Any, mopo: Any, whole: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = f"{TRAIN} {'--seeds 3 --epochs 4' if longer else '--seed-list 0,2'}"
    before = tmp_path / "before"
    shutil.copytree(finished_run, before)
    assert child(before, f"{TRAIN} {'--seeds 3' if longer else '--seed-list 1'}").code == 0
    shutil.copytree(before, tmp_path / "undisturbed")
    moments = child(tmp_path / "undisturbed", line, checkpoint_always=False).moments
    # From the time when the checkpoint is saved for the last time to the end.
    for back in range(1, 36, 9):
        folder = tmp_path / str(back)
        shutil.copytree(before, folder)
        assert child(folder, line, fatal=moments - back, checkpoint_always=False).code == -signal.SIGKILL
        monkeypatch.chdir(folder)
        record = json.loads(Path("runs/tiny/run.json").read_text())["stages"]["train-policy/p"]
        assert {*record["extra"]["returns"]} in ({"1"}, {"0", "1", "2"})
        if not longer:
            assert mopo("evaluate --policy p --episodes 1 --threads 1").code == 0
        assert child(folder, line).code == 0
        assert made() == whole("--seeds 3 --epochs 4" if longer else "--seeds 3")
        assert unfinished(folder) == [] and not any("mopo-tmp" in path.name for path in folder.rglob("*"))
    assert os.listdir(tmp_path / "1/runs/tiny/policies/p")
