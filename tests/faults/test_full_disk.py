"""A disk that is full at any moment of any stage: the run is as it was or as it should be, nothing between."""

import resource
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import DATASET
from probes.forks import ended, forked

from mopo_cli.__main__ import main
from mopo_cli.store.atomic import read_json, sha256_file

TINY = "--config tiny.yaml --threads 1"
LINES = {
    "fetch-data": f"fetch-data --dataset {DATASET} --run runs/tiny {TINY} --seed 1",
    "train-model": f"train-model {TINY} --max-epochs 1",
    "select-elites": "select-elites --n 1",
    "rollout": f"rollout {TINY} --h 3 --name uniform_h2",
    "map": f"rollout {TINY} --map",
    "train-policy": f"train-policy {TINY} --seeds 2 --epochs 1 --name mopo_max-var_lam1_h2 --force",
    "evaluate": "evaluate --episodes 1 --threads 1",
    "ablate": f"ablate {TINY} --penalty max-var,none --epochs 1",
}
# Bytes that a file may have; the least are not enough for the lock, the most for all files but the largest.
LIMITS = (0, 3_000, 12_000, 60_000)


def limited(line: str, limit: int) -> tuple[int, str]:
    """Exit code of a command in a process whose files may have so many bytes, and what it told."""

    def work() -> int:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        return main(line.split())

    outcome = ended(forked(work, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE))
    return outcome.code, outcome.err


def tree(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if path.name != ".lock"
    }


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("stage", LINES)
def test_a_stage_that_cannot_write_leaves_the_old_state(tiny_run: Path, stage: str, limit: int) -> None:
    before = tree(tiny_run)
    code, output = limited(LINES[stage], limit)
    assert code in (0, 4), output
    assert "Traceback" not in output and output.count("Error: ") == (code == 4), output
    if code == 0:
        for record in read_json(tiny_run / "run.json")["stages"].values():
            for file in record["outputs"].values():
                assert sha256_file(tiny_run / file["path"]) == file["sha256"]
        return
    cells = str(tiny_run / "ablations")  # every cell is published when it is done
    left = {name: content for name, content in tree(tiny_run).items() if ".state" not in name and cells not in name}
    assert left == {name: content for name, content in before.items() if ".state" not in name}
    shutil.rmtree(tiny_run / ".state", ignore_errors=True)
    assert main(LINES[stage].split()) == 0


@pytest.mark.parametrize("line", [LINES["train-policy"], LINES["train-model"]])
def test_a_disk_that_fills_up_while_metrics_are_logged(tiny_run: Path, line: str) -> None:
    before = tree(tiny_run)
    longer = f"{line.replace('epochs 1', 'epochs 12')} --force"
    code, output = limited(longer, 3_000)
    assert code == 4 and output.count("Error: ") == 1 and "Traceback" not in output
    assert "/live/" in output and "File too large" in output
    assert tree(tiny_run) == before
    assert main(longer.split()) == 0
