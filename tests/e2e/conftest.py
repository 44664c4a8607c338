"""Commands in processes of their own that can be killed."""

import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from probes.behaviours import TINY
from probes.forks import forked

import mopo_cli.stages.ablation.train_cells as cells
from mopo_cli.__main__ import main
from mopo_cli.stages.common import saving, train_behaviour
from mopo_cli.stages.runner import Stage


@dataclass(frozen=True)
class Ended:
    """How a child process ended: its exit code (negative: killed by that signal), stderr, and the moments counted."""

    code: int
    err: str
    moments: int


Child = Callable[..., Ended]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds of every stack that an ablation trains."""
    seeds: list[int] = []

    def train_stack(stage: Any, opened: Any, members: Any, *rest: Any) -> Any:
        seeds.extend(member.seed for member in members)
        return original(stage, opened, members, *rest)

    original = vars(cells)["train_stack"]
    monkeypatch.setattr(cells, "train_stack", train_stack)
    return seeds


def carry_out(folder: Path, line: str, fatal: int, signum: int, checkpoint_always: bool, counted: Path) -> int:
    """Be a process that carries out a command line, and counts moments until it sends itself a signal.

    A moment is a publish about to reach the disk or to be renamed, or a look at the signals between two blocks of
    work; the signal comes at the moment with the number `fatal`.
    """
    os.environ["MOPO_HOME"] = str(folder / "cache")
    train_behaviour.RECIPE = TINY
    if checkpoint_always:
        vars(saving).update(SAVE_SECONDS=-1.0, SAVE_SHARE=float("inf"))
    moments = 0

    def watched(function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal moments
            moments += 1
            if moments == fatal:
                os.kill(os.getpid(), signum)
            return function(*args, **kwargs)

        return call

    for place, name in ((os, "replace"), (os, "fsync"), (Stage, "should_stop")):
        setattr(place, name, watched(getattr(place, name)))
    code = main(line.split())
    counted.write_text(str(moments))
    return code


@pytest.fixture(scope="session")
def child(tmp_path_factory: pytest.TempPathFactory) -> Child:
    """Runs a command line in a folder; `fatal` and `signum` as above, `kill_after` seconds kills it from outside."""
    log = tmp_path_factory.mktemp("child") / "stderr"

    def run(
        folder: Path,
        line: str,
        *,
        fatal: int = 0,
        signum: int = signal.SIGKILL,
        checkpoint_always: bool = True,
        kill_after: float | None = None,
    ) -> Ended:
        counted = log.with_suffix(".moments")
        work = partial(carry_out, folder, line, fatal, int(signum), checkpoint_always, counted)
        with log.open("wb") as err:
            process = forked(work, cwd=folder, stdout=subprocess.DEVNULL, stderr=err)
        try:
            process.wait(kill_after or 120)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        moments = int(counted.read_text()) if counted.exists() else 0
        counted.unlink(missing_ok=True)
        err_text = log.read_text()
        assert "Traceback" not in err_text and "bug" not in err_text
        return Ended(process.returncode, err_text, moments)

    return run
