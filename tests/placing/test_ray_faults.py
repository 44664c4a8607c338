"""What goes wrong with a cluster of Ray, without one: each fault is told in a sentence, and other nodes take over."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mopo_cli.errors import InputError, NetworkError, SettingsError
from mopo_cli.placing import by_ray, ray_cluster, ray_node
from mopo_cli.placing.board import Board
from mopo_cli.placing.engine import Resources
from mopo_cli.placing.ray_node import Outcome, Task
from mopo_cli.report.console import Report
from mopo_cli.store.atomic import write_json

FULL = "The folder /tmp/mopo-inputs-0 cannot be written: No space left on device"


@pytest.mark.parametrize(
    ("module", "unfit"),
    [
        ("import absent.part", "the package absent is not installed there"),
        ("raise ImportError('libx.so: no file')", "mopo cannot be imported there: libx.so: no file"),
        ("import os; os.kill(os.getpid(), 9)", ""),
    ],
)
@pytest.mark.parametrize("package", ["typer", "torch"])
def test_a_node_that_lacks_something_says_what(
    package: str, module: str, unfit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that was killed lacks nothing."""
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / f"{package}.py").write_text(module)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "packages"))
    write_json(tmp_path / "job.json", {})
    process = ray_node.start_job_here(tmp_path)
    code = process.wait(60)
    assert ray_node._unfit(code, (tmp_path / "log").read_text()) == unfit
    assert (code == -9) == (unfit == "")


@pytest.mark.skipif(sys.platform != "linux", reason="the system cannot tell a process that its parent died")
def test_a_job_ends_with_the_worker_that_waits_for_it(tmp_path: Path) -> None:
    waits = "import sys, time; print('begun', flush=True, file=sys.stderr); time.sleep(60)"
    (tmp_path / "typer.py").write_text(waits)
    worker = (
        "import sys, time, pathlib; from mopo_cli.placing import ray_node; "
        "print(ray_node.start_job_here(pathlib.Path(sys.argv[1])).pid, flush=True); time.sleep(60)"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    with subprocess.Popen(
        [sys.executable, "-c", worker, str(tmp_path)], stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": path}
    ) as process:
        assert process.stdout
        job = int(process.stdout.readline())
        while "begun" not in (tmp_path / "log").read_text():
            time.sleep(0.02)
        process.kill()
    with pytest.raises(ProcessLookupError):
        for _ in range(1000):
            os.kill(job, 0)
            time.sleep(0.01)


class Cluster:
    """Stands for Ray: nodes take the jobs, each the first that is not excluded, and end them as ``end`` says."""

    def __init__(self, nodes: int, end: Callable[[str, int], Outcome], has: Sequence[float] = (2e9, 2e9)) -> None:
        self.names, self.end, self.has = [f"n{number}" for number in range(nodes)], end, has
        self.exceptions = SimpleNamespace(RayError=ConnectionError)
        self.util = SimpleNamespace(client=SimpleNamespace(ray=SimpleNamespace(is_connected=lambda: True)))
        self.began: list[tuple[str, str]] = []
        self.outcomes: list[Outcome] = []
        self.memory: list[int] = []

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(get_node_id=lambda: "0" * 56)

    def nodes(self) -> list[dict[str, Any]]:
        each = zip(self.names, self.has, strict=False)
        return [{"NodeID": name, "Alive": True, "Resources": {"CPU": 1, "memory": memory}} for name, memory in each]

    def remote(self, **_: Any) -> Callable[[Any], Any]:
        empty = SimpleNamespace(remote=dict)
        keeper = SimpleNamespace(take=empty, stop=empty)
        return lambda what: SimpleNamespace(remote=lambda: keeper, options=self._options)

    def _options(self, label_selector: dict[str, str] | None, memory: int) -> Any:
        self.memory.append(memory)
        excluded = (label_selector or {}).get("ray.io/node-id", "!in()")
        assert excluded.startswith("!in(")

        def begin(task: Task, keeper: Any) -> int:
            node = next(name for name in self.names if name not in excluded[4:-1].split(","))
            assert len(self.began) < 20
            self.began.append((task.name, node))
            self.outcomes.append(self.end(node, task.attempt))
            return len(self.outcomes) - 1

        return SimpleNamespace(remote=begin)

    def wait(self, tasks: list[Any], **_: Any) -> tuple[list[Any], list[Any]]:
        return tasks[:1], tasks[1:]

    def get(self, given: Any) -> Any:
        return self.outcomes[given] if isinstance(given, int) else given


@pytest.fixture
def study(tmp_path: Path) -> Callable[..., Board]:
    """Carries out two jobs on a cluster, which take so much memory."""
    pytest.importorskip("ray")

    def carry_out(cluster: Cluster, memory: tuple[int, int] = (0, 0)) -> Board:
        files = [tmp_path / "a.json", tmp_path / "b.json"]
        for file, size in zip(files, memory, strict=True):
            write_json(file, {"inputs": {}, "memory": size})
        board = Board({"a": "a", "b": "b"}, Report())
        by_ray._Study(cluster, Resources(), files, board).carry_out(lambda: False)
        return board

    return carry_out


def test_a_node_with_a_full_disk_is_told_once_and_gets_no_more(study: Any, capsys: Any) -> None:
    def end(node: str, attempt: int) -> Outcome:
        return Outcome("here", node, unfit=FULL) if node == "n0" else Outcome("here", node, 0, results={})

    cluster = Cluster(2, end)
    assert study(cluster).count("done") == 2
    assert cluster.began == [("a", "n0"), ("b", "n0"), ("a", "n1"), ("b", "n1")], "both were handed out at first"
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"waiting  a on here: The worker here cannot carry out jobs: {FULL}."


def test_jobs_get_the_memory_that_they_take_and_what_no_node_has_is_not_waited_for(study: Any) -> None:
    """A node has 2 GB. A job that takes more is begun, and refuses by itself, so that the others are made."""
    cluster = Cluster(1, lambda node, attempt: Outcome("here", node, 0, results={}))
    study(cluster, (1_500_000_000, 3_000_000_000))
    assert cluster.memory == [1_500_000_000, 0]


def test_a_job_does_not_wait_for_the_memory_of_a_node_that_gets_no_more(study: Any) -> None:
    def end(node: str, attempt: int) -> Outcome:
        return Outcome("here", node, unfit=FULL) if node == "n0" else Outcome("here", node, 0, results={})

    cluster = Cluster(2, end, has=(4e9, 2e9))
    study(cluster, (3_000_000_000, 1_500_000_000))
    assert cluster.memory == [3_000_000_000, 1_500_000_000, 0, 1_500_000_000]


def test_what_waits_for_a_node_that_is_gone_is_handed_out_again(study: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job of 3 GB waits for the node that has 4. Without it, it is begun anyway, and says itself what it lacks."""
    monkeypatch.setattr(by_ray, "_IDLE_SECONDS", 0.0)
    cluster = Cluster(2, lambda node, attempt: Outcome("here", node, 0, results={}), has=(4e9, 2e9))
    cancelled: list[int] = []

    def wait(tasks: list[int], **_: Any) -> tuple[list[int], list[int]]:
        if 0 in tasks:
            cluster.names.remove("n0")
            cluster.has = (2e9,)
            return [], tasks
        return tasks[:1], tasks[1:]

    cluster.wait, cluster.cancel = wait, cancelled.append  # type: ignore[method-assign, attr-defined]
    assert study(cluster, (3_000_000_000, 1_500_000_000)).count("done") == 2
    assert cancelled[:2] == [0, 1] and cluster.memory[:4] == [3_000_000_000, 1_500_000_000, 0, 1_500_000_000]


@pytest.mark.parametrize(("gpus", "notes"), [(0.0, 1), (1.0, 0)])
def test_gpus_that_no_job_uses_are_told(gpus: float, notes: int, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    pytest.importorskip("ray")
    has = {"CPU": 8, "GPU": 2}
    cluster = SimpleNamespace(
        nodes=lambda: [{"NodeID": "n", "Alive": True, "Resources": has}],
        cluster_resources=lambda: has,
        exceptions=SimpleNamespace(RayError=ConnectionError),
    )
    monkeypatch.setattr(by_ray, "joined", lambda _: nullcontext(cluster))
    monkeypatch.setattr(by_ray, "_Study", lambda *_: SimpleNamespace(carry_out=lambda _: None))
    engine = by_ray.Ray(None, Resources(1, gpus))
    for _ in ("models", "cells"):
        engine.place([], Board({}, Report()), lambda: False)
    assert capsys.readouterr().err.count("The cluster has GPUs, which these jobs do not use") == notes


def test_without_a_node_that_is_fit_the_study_ends(study: Any) -> None:
    with pytest.raises(InputError, match=rf"^The worker here cannot carry out jobs: {FULL}\.$"):
        study(Cluster(2, lambda node, attempt: Outcome("here", node, unfit=FULL)))


def test_a_job_that_is_killed_again_and_again_is_marked(study: Any) -> None:
    cluster = Cluster(1, lambda node, attempt: Outcome("here", node, -9))
    why = study(cluster).failures()["a"]
    assert why.startswith("its process was killed by SIGKILL, perhaps for lack of memory")
    assert len(cluster.began) == 6, "three attempts each"


def test_a_head_that_is_lost_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    address = f"127.0.0.1:{listener.getsockname()[1]}"
    ray = Cluster(1, lambda node, attempt: Outcome("", ""))
    ray.util.client.ray.is_connected = lambda: False
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address=address))
    monkeypatch.setattr(ray_cluster, "_LOST_SECONDS", 0.0)
    head = ray_cluster.Head(ray)
    head.check()
    listener.close()
    with pytest.raises(NetworkError, match=f"^The cluster {address} was lost"):
        head.check()


def test_other_versions_are_told_once() -> None:
    utils = pytest.importorskip("ray._private.utils")
    with pytest.raises(RuntimeError) as raised:
        utils.check_version_info({"ray_version": "2.61.0", "python_version": "3.10.1"}, "node 10.0.0.1:7")
    ray, python = utils.compute_version_info()[:2]
    said = ray_cluster.sentence(raised.value, "head:6379")
    assert said.exit_code == 4
    assert said.message == (
        "The cluster head:6379 has other versions of Ray or Python than this machine: "
        f"Ray 2.61.0 and Python 3.10.1 there, Ray {ray} and Python {python} here."
    )


@pytest.mark.parametrize(
    ("printed", "message"),
    [
        (
            "RuntimeError: Ray version mismatch: cluster has Ray version 2.59.0 but local Ray version is 2.60.0",
            "than this machine: Ray 2.59.0 there, Ray 2.60.0 here.",
        ),
        ("AuthenticationError: InvalidAuthToken: Authentication token is missing or incorrect.", "wants its token."),
        ("RuntimeError: else", "No cluster of Ray answers at 127.0.0.1:"),
    ],
)
def test_what_ray_status_says_of_a_cluster(printed: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = SimpleNamespace(returncode=1, stderr=printed.encode())
    monkeypatch.setattr("subprocess.run", lambda *_, **__: answer)
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises((NetworkError, InputError)) as raised:
        ray_cluster._check_reachable(f"127.0.0.1:{listener.getsockname()[1]}")
    assert message in str(raised.value)


def test_an_address_of_another_service_is_refused() -> None:
    with pytest.raises(SettingsError, match="no address of a cluster"):
        ray_cluster._check_reachable("http://head:8265")


def test_joining_does_not_take_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(*_: Any, **__: Any) -> None:
        time.sleep(9)

    monkeypatch.setattr(ray_cluster, "_JOIN_SECONDS", 0.1)
    began = time.monotonic()
    with pytest.raises(ConnectionError, match="timeout"):
        ray_cluster._join(SimpleNamespace(init=init), "ray://head:10001")
    assert time.monotonic() - began < 5
