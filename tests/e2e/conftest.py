"""Commands in processes of their own that can be killed, without waiting for their imports each time."""

import multiprocessing
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from probes.behaviours import TINY

import mopo_cli.stages.ablation.train_cells as cells

# Imported once, by the process that all the others are forked from.
MODULES = ["__main__", "torch._dynamo", "gymnasium", "mujoco", "matplotlib.figure", "mopo_cli.cli.app"]
MODULES += [f"mopo_cli.stages.{stage}" for stage in ("behaviour", "fetch_data", "train_model", "train_policy")]

# A moment is a publish about to reach the disk or to be renamed, or a look at the signals between two blocks of
# work; the process sends itself the signal when it has come to the moment with the number `fatal`.
CHILD = """
import os, sys
from pathlib import Path
os.chdir(folder)
os.environ["MOPO_HOME"] = str(folder / "cache")
os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
from mopo_cli.stages import runner, train_model
from mopo_cli.stages.common import train_behaviour as behaviour
from mopo_cli.stages.common import policy_stack
behaviour.RECIPE = tiny_recipe
policy_stack.free_processes = lambda *_: 0
from mopo_cli.nets.fastest import Measured
from mopo_cli.nets.products import usual
from mopo_cli.stages.common import chosen_products as products
products.measured_here = lambda: Measured(usual(), {})
if checkpoint_always:
    train_model._SAVE_SECONDS = policy_stack._SAVE_SECONDS = behaviour._SAVE_SECONDS = -1.0
    behaviour._SAVE_SHARE = float("inf")
moments = 0
def watched(function):
    def call(*args, **kwargs):
        global moments
        moments += 1
        if moments == fatal:
            os.kill(os.getpid(), signum)
        return function(*args, **kwargs)
    return call
os.replace, os.fsync = watched(os.replace), watched(os.fsync)
runner.Stage.should_stop = watched(runner.Stage.should_stop)
from mopo_cli.__main__ import main
code = main(line.split())
Path(log).with_suffix(".moments").write_text(str(moments))
sys.exit(code)
"""


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


@pytest.fixture(scope="session")
def processes() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(MODULES)
    return context


@pytest.fixture(scope="session")
def child(processes: Any, tmp_path_factory: pytest.TempPathFactory) -> Child:
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
        names = {"folder": folder, "line": line, "log": str(log), "fatal": fatal, "signum": int(signum)}
        names |= {"tiny_recipe": TINY}
        process = processes.Process(target=exec, args=(CHILD, names | {"checkpoint_always": checkpoint_always}))
        process.start()
        process.join(kill_after or 120)
        if process.is_alive():
            process.kill()
            process.join()
        moments = log.with_suffix(".moments")
        counted = int(moments.read_text()) if moments.exists() else 0
        moments.unlink(missing_ok=True)
        err = log.read_text() if log.exists() else ""
        assert "Traceback" not in err and "bug" not in err
        return Ended(process.exitcode, err, counted)

    return run
