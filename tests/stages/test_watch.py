"""Policies played while training goes on: what comes of it, who may do it, and what happens when one of them dies."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from probes.forks import forked, forked_python
from probes.runs import stop_at

from mopo_cli.agents.actor import Actor
from mopo_cli.errors import STOP_SIGNALS, InputError
from mopo_cli.evaluation.play import evaluate_returns, open_environments
from mopo_cli.nets import libraries
from mopo_cli.nets.libraries import LIBRARIES, all_by
from mopo_cli.nets.products import can_use_onednn, possible
from mopo_cli.nets.stacked import mlp_layout
from mopo_cli.report.console import Report
from mopo_cli.stages.common import watch as watching
from mopo_cli.stages.common.options import Options
from mopo_cli.stages.common.policies import greedy_policy
from mopo_cli.stages.common.watch import Game, Outcome, Watch, free_processes, open_watch

ENV = "InvertedPendulum-v5"
LAYOUT = mlp_layout((4, 8, 2))
GAME = Game(ENV, {}, 3, np.array([-3], np.float32), np.array([3], np.float32))


def actor(seed: int) -> Actor:
    flat = 0.5 * torch.randn(1, LAYOUT.size, generator=torch.Generator().manual_seed(seed))
    return Actor(flat, LAYOUT, -5.0, 2.0)


def wanted(seed: int) -> Outcome:
    with open_environments(ENV, 3) as environments:
        policy = greedy_policy(actor(seed), GAME.action_low, GAME.action_high)
        result = evaluate_returns(policy, environments, seed + 7)
    return Outcome(result.returns.mean(), result.lengths.mean())


@pytest.fixture
def forks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that play are forked from this one, and need no imports."""
    start = partial(forked_python, text=False)
    monkeypatch.setattr(watching, "subprocess", SimpleNamespace(Popen=start, DEVNULL=subprocess.DEVNULL))


@pytest.fixture
def beside() -> Iterator[Watch]:
    with open_watch(GAME, 2, Report()) as watch:
        yield watch


def test_the_outcome_does_not_tell_where_it_was_played(beside: Watch) -> None:
    played = [beside.play(actor(seed), seed + 7) for seed in range(4)]
    with open_watch(GAME, 0, Report()) as here:
        for seed in range(4):
            now = here.play(actor(seed), seed + 7)
            assert now.done and now.result() == wanted(seed) == played[seed].result()
    assert beside.processes == 2 and played[0].done and len({one.result().value for one in played}) > 1


@pytest.mark.usefixtures("forks")
def test_the_actor_that_is_played_is_that_of_the_moment(beside: Watch) -> None:
    learning = actor(0)
    played = [beside.play(learning, 7) for _ in range(4)]  # not all can be handed over at once
    learning.flat.zero_()
    assert {one.result() for one in played} == {wanted(0)}


@pytest.mark.usefixtures("forks")
@pytest.mark.parametrize("busy", [True, False])
def test_when_one_process_dies_training_plays_itself(
    busy: bool, beside: Watch, capfd: pytest.CaptureFixture[str]
) -> None:
    first = [beside.play(actor(seed), seed + 7) for seed in range(3)]
    if not busy:
        assert [played.result() for played in first] == [wanted(seed) for seed in range(3)]
    until_there_are(2, beside)
    beside.players[-1].process.kill()  # the first to be given work
    beside.players[-1].process.wait()
    later = [beside.play(actor(seed), seed + 7) for seed in range(3, 6)]
    assert [played.result() for played in (*first, *later)] == [wanted(seed) for seed in range(6)]
    assert beside.players == [] and beside.processes == 0
    assert beside.play(actor(6), 13).done
    assert capfd.readouterr().err.count("has ended") == 1


def until_there_are(count: int, watch: Watch) -> None:
    """Plays until so many processes have been started."""
    while len(watch.players) < count:
        [played.result() for played in [watch.play(actor(0), 7) for _ in range(8)]]


def test_a_process_that_cannot_be_started_is_done_without(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", "/no/python")
        with open_watch(GAME, 2, Report()) as watch:
            assert watch.play(actor(0), 7).result() == wanted(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watching, "_SERVE", "raise SystemExit(3)")
        with open_watch(GAME, 2, Report()) as watch:
            assert watch.play(actor(0), 7).result() == wanted(0)
    assert capfd.readouterr().err.count("has ended") == 2


def test_signals_are_for_the_process_that_trains(beside: Watch) -> None:
    """Those to its group, as Ctrl-C and a batch system send them, do not reach the others."""
    beside.play(actor(0), 7).result()
    assert all(os.getpgid(player.process.pid) != os.getpgid(0) for player in beside.players)


@pytest.mark.usefixtures("forks")
@pytest.mark.parametrize("signum", STOP_SIGNALS)
def test_signals_that_are_sent_to_every_process_end_none(signum: signal.Signals, beside: Watch) -> None:
    beside.play(actor(0), 7).result()
    for player in beside.players:
        os.kill(player.process.pid, signum)
    assert beside.play(actor(1), 8).result() == wanted(1)
    assert beside.processes == 2 and all(player.process.poll() is None for player in beside.players)


@pytest.mark.usefixtures("forks")
def test_what_is_left_at_the_end_is_not_waited_for() -> None:
    ones = np.ones(6, np.float32)
    slow = replace(GAME, env_id="HalfCheetah-v5", episodes=50, action_low=-ones, action_high=ones)
    wide = Actor(torch.zeros(1, mlp_layout((17, 8, 12)).size), mlp_layout((17, 8, 12)), -5.0, 2.0)
    with open_watch(slow, 1, Report()) as watch:
        played = [watch.play(wide, 0) for _ in range(20)]
        while watch.players[0].work is None:
            assert not played[0].done
        (process,) = (player.process for player in watch.players)
    assert process.returncode == -signal.SIGKILL


@pytest.mark.usefixtures("forks")
def test_a_process_multiplies_as_this_one_does() -> None:
    """Sixteen games of a policy with a wide layer, whose returns show the last bits of its products."""
    layout = mlp_layout((3, 400, 400, 2))  # shorter sums are alike
    game = Game("Pendulum-v1", {}, 16, np.array([-2], np.float32), np.array([2], np.float32))
    wide = Actor(torch.randn(1, layout.size, generator=torch.Generator().manual_seed(0)), layout, -5.0, 2.0)
    results: list[Outcome] = []
    for library in LIBRARIES:
        libraries.use(possible(all_by(library)))
        with open_watch(game, 1, Report()) as beside, open_watch(game, 0, Report()) as here:
            played = beside.play(wide, 7).result()
            assert beside.processes == 1 and played == here.play(wide, 7).result()
            results.append(played)
    assert results[0] != results[1] or not can_use_onednn(torch.float32)


def open_and_wait() -> None:
    with open_watch(replace(GAME, episodes=1), 1, Report()) as watch:
        print(watch.players[0].process.pid)
        sys.stdin.read()


def test_a_process_does_not_outlive_the_one_that_trains() -> None:
    with forked(open_and_wait, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        worker = int(parent.stdout.readline())
        os.kill(worker, 0)
        parent.kill()
    deadline = time.monotonic() + 30
    while alive(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(worker)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_what_is_wrong_with_an_environment_is_told_before_training() -> None:
    with (
        pytest.raises(InputError, match="No-v0"),
        open_watch(Game("No-v0", {}, 1, GAME.action_low, GAME.action_high), 2, Report()),
    ):
        raise AssertionError


@pytest.mark.parametrize(
    ("cores", "threads", "device", "members", "processes"),
    [
        (2, 2, "cpu", 3, 0),
        (2, 1, "cpu", 1, 1),
        (8, 8, "cpu", 1, 5),
        (8, 8, "cpu", 3, 0),
        (8, 4, "cpu", 3, 4),
        (1, 1, "cpu", 1, 0),
        (1, 4, "cpu", 4, 0),
        (64, 4, "cpu", 2, 16),
        (8, 8, "cuda", 6, 7),
        (1, 1, "cuda", 6, 0),
    ],
)
def test_the_cores_that_training_leaves_free(
    cores: int, threads: int, device: str, members: int, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "cpu_count", lambda: cores)
    assert free_processes(Options(threads=threads), torch.device(device), members) == processes


@pytest.mark.parametrize(("cores", "crew", "processes"), [(2, 2, 1), (9, 9, 3), (8, 4, 4), (32, 1, 16)])
def test_beside_a_crew_some_evaluate_in_any_case(
    cores: int, crew: int, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "cpu_count", lambda: cores)
    assert free_processes(Options(threads=crew), torch.device("cpu"), 9, crew) == processes


TRAIN = "train-policy --config tiny.yaml --threads 1 --name {} --seeds 2 --epochs 6 --steps-per-epoch 25 --force"


def records(run: Path, name: str) -> list[bytes]:
    return [(run / f"policies/{name}/seed-{seed}/metrics.jsonl").read_bytes() for seed in (0, 1)]


@pytest.mark.usefixtures("forks")
@pytest.mark.parametrize("processes", [1, 3])
def test_training_is_the_same_with_its_games_beside_it(
    processes: int, tiny_run: Path, mopo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert mopo(TRAIN.format("here")).code == 0
    monkeypatch.setattr("mopo_cli.stages.common.policy_stack.free_processes", lambda *_: processes)
    outcome = mopo(TRAIN.format("beside"))
    assert outcome.code == 0 and records(tiny_run, "here") == records(tiny_run, "beside")
    # Every epoch has its row, in order, with its returns.
    lines = [json.loads(line) for line in records(tiny_run, "here")[0].splitlines()]
    shown = [line for line in outcome.err.splitlines() if "/6 " in line and "passed" not in line]
    assert [line.split()[:2] for line in shown] == [
        [f"{k + 1}/6", f"{one['return']:.1f}"] for k, one in enumerate(lines)
    ]


def test_a_crew_leaves_room_for_its_games(tiny_run: Path, mopo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    sizes = {1: 0, 2: 2}
    monkeypatch.setattr("mopo_cli.stages.common.policy_stack.crew_size", lambda members, *_: sizes[members])

    def free(options: Options, device: torch.device, members: int, crew: int) -> int:
        asked.append((members, crew))
        return 0

    monkeypatch.setattr("mopo_cli.stages.common.policy_stack.free_processes", free)
    for seeds in (1, 2):
        assert mopo(f"train-policy --config tiny.yaml --threads 1 --name p{seeds} --seeds {seeds} --epochs 1").code == 0
    assert asked == [(1, 0), (2, 2)]


@pytest.mark.usefixtures("forks")
def test_what_is_stopped_waits_for_its_games_and_goes_on(
    tiny_run: Path, mopo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert mopo(TRAIN.format("here")).code == 0
    monkeypatch.setattr("mopo_cli.stages.common.policy_stack.free_processes", lambda *_: 1)
    stop_at(3, monkeypatch)
    line = TRAIN.format("beside").removesuffix(" --force")
    assert mopo(line).code == 143
    outcome = mopo(line)
    assert outcome.code == 0 and "goes on at gradient step 100" in outcome.err
    assert records(tiny_run, "here") == records(tiny_run, "beside")
