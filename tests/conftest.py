"""What all tests share: one CPU thread, a data cache of their own, and a tiny run made once."""

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mopo_cli.nets import libraries

if TYPE_CHECKING:
    from probes.sinks import Memory

# Read when torch is first imported; the processes that tests start take it over.
os.environ["OMP_NUM_THREADS"] = "1"

DATASET = "generate:InvertedPendulum-v5:random"
TINY = """\
fetch-data: {transitions: 2000}
train-model: {networks: 3, hidden: 16, layers: 2, weight-decay: [1e-5, 1e-5, 1e-5], max-epochs: 2}
select-elites: {n: 2}
rollout: {h: 2, batch: 200}
train-policy:
  {h: 2, epochs: 2, steps-per-epoch: 50, rollout-every: 25, rollout-batch: 200, hidden: 16, eval-episodes: 2}
evaluate: {episodes: 2}
"""
STAGES = ("fetch-data", "train-model", "select-elites", "rollout", "train-policy", "evaluate")


@dataclass(frozen=True)
class Outcome:
    """How a command ended: exit code and what it printed."""

    code: int
    out: str
    err: str


Mopo = Callable[[str], Outcome]


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: tests wait for the processes that they start."""
    return 1 + (os.cpu_count() or 1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest come first, so that no core idles in the end."""
    items.sort(key=lambda item: "placing" not in item.path.parts)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") is not None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folders that are not there yet, each of another name."""
    base = tmp_path_factory.mktemp("outside")
    return (base / str(number) for number in itertools.count())


@pytest.fixture(autouse=True)
def no_outside_run(places: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    place = next(places)
    monkeypatch.setenv("MOPO_HOME", str(place / "home" / "cache"))
    for name in ("MOPO_RUN", "MOPO_DEBUG", "FORCE_COLOR", "COLUMNS", "MOPO_D4RL_MIRROR", "D4RL_DATASET_DIR"):
        monkeypatch.delenv(name, raising=False)
    # Minari's folder and the place it downloads from.
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(place / "minari" / "datasets"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session", autouse=True)
def evaluated_here() -> Iterator[None]:
    """Policies in training are played in this process: to start others takes longer than the games of these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mopo_cli.stages.common.policy_stack.free_processes", lambda *_: 0)
        yield


@pytest.fixture(scope="session", autouse=True)
def nothing_measured() -> Iterator[None]:
    """`--products auto` multiplies as by the processor's name, so that no test depends on how fast anything is."""
    from mopo_cli.nets.fastest import Measured
    from mopo_cli.nets.products import usual

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mopo_cli.stages.common.chosen_products.measured_here", lambda: Measured(usual(), {}))
        yield


@pytest.fixture(autouse=True)
def usual_products() -> Iterator[None]:
    """Every test begins as a process does, before products are chosen."""
    yield
    libraries.use(None)


@pytest.fixture
def use_threads() -> Iterator[Callable[[int], None]]:
    """Sets the number of threads for the rest of the test."""
    from mopo_cli.engine.parallel import use_threads as use

    yield use
    use(1)


@pytest.fixture
def mopo(capfd: pytest.CaptureFixture[str]) -> Mopo:
    """Runs a command line in this process."""
    from mopo_cli.__main__ import main

    def run(line: str) -> Outcome:
        code = main(line.split())
        return Outcome(code, *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def contents() -> Callable[[Path], dict[str, bytes | None]]:
    """Gives the bytes of every file under a folder, and None for every folder."""
    return lambda folder: {
        str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def disk(contents: Any) -> Callable[[], dict[str, bytes | None]]:
    """Gives what is in the working directory and around the cache."""
    return lambda: contents(Path()) | contents(Path(os.environ["MOPO_HOME"]).parent)


@pytest.fixture
def refuses(mopo: Mopo, disk: Any) -> Callable[[str, int, str], None]:
    """Checks that a command line ends with ``code`` and one error that says ``said``, and changes nothing on disk."""

    def check(line: str, code: int, said: str) -> None:
        before = disk()
        outcome = mopo(line)
        assert outcome.code == code, outcome.err
        assert outcome.out == ""
        assert said in outcome.err
        errors = [text for text in outcome.err.splitlines() if text.startswith("Error: ")]
        assert len(errors) == 1 and errors[0][7:].strip()
        sentence = outcome.err[outcome.err.index("Error: ") :].splitlines()
        assert all(text.startswith(("Error: ", "  ", "Try: ")) for text in sentence)
        assert "Traceback" not in outcome.err
        assert disk() == before

    return check


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny.yaml and runs/tiny, in which every stage but ablate is finished. Not to be written to."""
    from probes.runs import run_in

    flags = {stage: f"--dataset {DATASET}" if stage == "fetch-data" else "--threads 1" for stage in STAGES}
    lines = [f"{stage} --run runs/tiny --config tiny.yaml {flag}" for stage, flag in flags.items()]
    return run_in(tmp_path_factory.mktemp("finished"), lines, TINY)


@pytest.fixture
def tiny_run(finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished run, runs/tiny, to do anything with; it is the current run of the working directory."""
    for name in ("runs", "tiny.yaml"):
        source = finished_run / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return Path("runs/tiny")


@pytest.fixture
def sinks(monkeypatch: pytest.MonkeyPatch) -> "list[Memory]":
    """The metrics sinks that were made, of those called memory and failing."""
    from probes.sinks import Failing, Memory

    from mopo_cli.report import metrics

    made: list[Memory] = []
    monkeypatch.setattr(Memory, "attempts", made, raising=False)
    monkeypatch.setitem(metrics.SINKS, "memory", Memory)
    monkeypatch.setitem(metrics.SINKS, "failing", Failing)
    return made
