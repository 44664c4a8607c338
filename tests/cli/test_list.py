"""``mopo fetch-data --list``: a table for people, an object for programs, and nothing done."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from probes.minari_sets import buffers, walk, write

pytestmark = pytest.mark.usefixtures("folder")


def test_people_get_a_table_per_kind(mopo: Any, folder: Path) -> None:
    write("toy-v0", buffers(walk()))
    outcome = mopo("fetch-data --list")
    assert (outcome.code, outcome.out) == (0, "")
    titles = ("Minari, on this machine", "D4RL, to be downloaded", "Generated here")
    assert sorted(titles, key=outcome.err.index) == list(titles)
    for name in ("minari:toy-v0", "walker2d-full-replay-v2", "285.1 MB", "generate:Ant-v5:LEVEL", "hiv"):
        assert name in outcome.err
    assert "Fetched already" not in outcome.err and "to be downloaded from" not in outcome.err
    assert list(folder.iterdir()) == []


def test_a_pattern_narrows_it(mopo: Any) -> None:
    outcome = mopo("fetch-data --list Walker2d-Med*-v2")
    assert outcome.code == 0
    assert "walker2d-medium-replay-v2" in outcome.err and "walker2d-expert-v2" not in outcome.err
    assert "Generated" not in outcome.err


def test_nothing_found_is_a_sentence_and_no_error(mopo: Any) -> None:
    outcome = mopo("fetch-data --list nothing-like-it")
    assert (outcome.code, outcome.out) == (0, "")
    assert "No known data set matches 'nothing-like-it'" in outcome.err
    outcome = mopo("fetch-data --list nothing-like-it --json")
    assert (outcome.code, outcome.err) == (0, "")
    assert json.loads(outcome.out) == {"pattern": "nothing-like-it", "remote": False, "datasets": []}


def test_programs_get_one_object(mopo: Any) -> None:
    assert mopo("fetch-data --dataset generate:Pendulum-v1:random --transitions 60 --json").code == 0
    outcome = mopo("fetch-data --list pendulum --json")
    assert (outcome.code, outcome.err) == (0, "")
    result = json.loads(outcome.out)["datasets"]
    assert [entry["kind"] for entry in result] == ["fetched", *["generate"] * 3]
    fetched = result[0]
    assert (
        Path(fetched["path"]).is_file() and fetched["here"] and fetched["bytes"] == Path(fetched["path"]).stat().st_size
    )
    assert fetched.keys() == {"kind", "name", "environment", "transitions", "bytes", "here", "path", "note"}


def test_the_remote_without_a_network(mopo: Any) -> None:
    outcome = mopo("fetch-data --list --remote --json")
    assert (outcome.code, outcome.out) == (8, "")
    assert "Minari's remote cannot be listed" in outcome.err


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("fetch-data hopper", "mopo fetch-data --dataset hopper"),
        ("fetch-data --remote", "need --list"),
        ("fetch-data --list --dataset hopper-medium", "--list allows only"),
        ("fetch-data --list --seed 3", "--list allows only"),
        ("fetch-data --list --run there", "--list allows only"),
        ("fetch-data --list a b", ""),
    ],
)
def test_what_does_not_go_with_it(mopo: Any, line: str, says: str) -> None:
    outcome = mopo(line)
    assert (outcome.code, outcome.out) == (2, "")
    assert says in outcome.err


def test_it_needs_neither_torch_nor_simulators() -> None:
    write("toy-v0", buffers(walk()))
    script = (
        "import sys\n"
        "from mopo_cli.__main__ import main\n"
        "assert main(['fetch-data', '--list']) == 0\n"
        "heavy = {'torch', 'gymnasium', 'minari', 'mujoco', 'huggingface_hub'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
