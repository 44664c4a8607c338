"""`--on ray` on a cluster in this machine, whose nodes and drivers are lost."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")

ABLATE = (
    "ablate --config tiny.yaml --run runs/tiny --threads 1 --penalty max-var,none --h 2 --eval-every 0 --products mkl"
)
FILES = ("policy.safetensors", "metrics.jsonl", "cell.json", "table.json")
DRIVER = """\
import sys
from mopo_cli.__main__ import main
from mopo_cli.placing import by_ray
from mopo_cli.stages.jobs import hand_out
execution, kept = hand_out._execution, by_ray.kept
hand_out._execution = lambda *given: execution(*given) | {"save_seconds": 0.5}
by_ray.kept = lambda folder: print("given", *(parcel := kept(folder)), file=sys.stderr) or parcel
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A cluster of a head and another node, each of one CPU; what workers write is in the folder of `TMPDIR`."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", "/tmp")  # the paths of sockets must be short
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("workers")))
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        cluster.other = cluster.add_node(num_cpus=1)
        cluster.workers = os.environ["TMPDIR"]
        yield cluster
        cluster.shutdown()


@pytest.fixture
def cluster(nodes: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("RAY_ADDRESS", nodes.address)
    return nodes


def start(line: str, output: Path) -> "subprocess.Popen[bytes]":
    """A driver whose jobs save every half second; it also writes into a file what a job is given to go on from."""
    with output.open("wb") as err:
        return subprocess.Popen([sys.executable, "-c", DRIVER, *line.split()], stdout=subprocess.PIPE, stderr=err)


def published(run: Path) -> dict[str, bytes]:
    folder = run / "ablations"
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.name in FILES}


def jobs_at_work(cluster: Any) -> list[int]:
    """The processes that carry out jobs on this cluster."""
    results = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if b"mopo_cli\0job\0" in (process / "cmdline").read_bytes():
                mine = f"TMPDIR={cluster.workers}".encode() in (process / "environ").read_bytes().split(b"\0")
                results += [int(process.name)] * mine
        except OSError:
            continue
    return results


def until(true: Callable[[], Any], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not (value := true()) and time.monotonic() < end:
        time.sleep(0.1)
    return bool(value)


def test_neither_a_lost_node_nor_a_killed_driver_changes_a_byte(
    cluster: Any, tiny_run: Path, mopo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree("runs", "local/runs")
    shutil.copy("tiny.yaml", "local/tiny.yaml")
    line = f"{ABLATE} --lam 1 --epochs 96"  # a job for each node, long enough to be lost in the middle
    output = Path("driver.log")
    driver = start(f"{line} --on ray", output)
    saved = "jobs/*/.state/ablate/job/checkpoint.safetensors"
    assert until(lambda: len([*tiny_run.glob(saved)]) == 2 or driver.poll() is not None, 120)
    cluster.remove_node(cluster.other, allow_graceful=False)
    cluster.add_node(num_cpus=1)
    assert until(lambda: "its node was lost" in output.read_text() or driver.poll() is not None, 60)
    given = "given .state/ablate/job/checkpoint.safetensors"
    assert until(lambda: given in output.read_text() or driver.poll() is not None, 60)
    assert given in output.read_text()
    assert until(lambda: jobs_at_work(cluster), 30)
    driver.kill()
    driver.communicate()
    assert until(lambda: not jobs_at_work(cluster), 30)
    finished = len([*tiny_run.glob("jobs/*/run.json")])
    assert finished < 2
    again = start(f"{line} --on ray --json", output)
    with monkeypatch.context() as here:
        here.chdir("local")
        assert mopo(line).code == 0
    out, _ = again.communicate()
    assert again.returncode == 0, output.read_text()
    assert len(out.splitlines()) == 1
    assert output.read_text().count('"state": "done"') == 2 - finished
    assert len(published(tiny_run)) == 2 * 3 + 1
    assert published(tiny_run) == published("local" / tiny_run)


def test_a_job_that_fails_leaves_the_others(cluster: Any, tiny_run: Path, mopo: Any) -> None:
    line = ABLATE.replace("max-var,none", "none")
    done = mopo(f"{line} --grid rollout-batch=200,1000000000000 --on ray")
    assert done.code == 7
    assert "needs about" in next(text for text in done.err.splitlines() if text.startswith("failed "))
    assert "Error: A cell could not be trained" in done.err
    assert len([*tiny_run.glob("ablations/*/cells/*/cell.json")]) == 1


def test_resources_that_no_node_has(cluster: Any, tiny_run: Path, mopo: Any) -> None:
    done = mopo(f"{ABLATE} --on ray --gpus-per-job 1")
    assert done.code == 3
    assert "1 CPUs and 1 GPUs, but the nodes of the cluster have 1 CPUs and 0 GPUs." in done.err


def test_nobody_at_the_address(tiny_run: Path, mopo: Any) -> None:
    done = mopo(f"{ABLATE} --on ray://127.0.0.1:9")
    assert done.code == 8
    assert "Error: Nothing answers at ray://127.0.0.1:9: Connection refused." in done.err
