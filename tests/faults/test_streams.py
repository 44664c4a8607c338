"""Streams that cannot be written and machines that allow little: no traceback, and the exit code that is due."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from probes.forks import ended, forked

from mopo_cli.__main__ import main

ASCII = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a good file."""
    monkeypatch.chdir(tmp_path)
    with h5py.File("café.h5", "w") as file:
        rng = np.random.default_rng(0)
        file["observations"], file["actions"] = rng.normal(size=(40, 4)), rng.uniform(-3, 3, size=(40, 1))
        file["rewards"], file["terminals"] = np.ones(40), np.arange(40) % 10 == 9
    return tmp_path


def shell(line: str, **environment: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command line of bash in which ``mopo`` is this one."""
    package = str(Path(__file__).parents[2])
    done = subprocess.run(
        ["bash", "-c", f'mopo() {{ "{sys.executable}" -m mopo_cli "$@"; }}; {line}'],
        env={**os.environ, "PYTHONPATH": package, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=300,
    )
    out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    assert "Traceback" not in err and "Exception ignored" not in err and "bug in mopo" not in err
    return done.returncode, out, err


@pytest.mark.parametrize("environment", [ASCII, {"PYTHONIOENCODING": "ascii"}])
@pytest.mark.parametrize("line", ["mopo train-policy --help", "mopo presets show quickstart"])
def test_an_encoding_without_our_letters(line: str, environment: dict[str, str]) -> None:
    code, out, err = shell(line, **environment)
    assert (code, err) == (0, "") and out.isascii() and len(out) > 500


def test_a_file_s_name_in_an_encoding_that_lacks_its_letters() -> None:
    code, out, _ = shell("mopo show café.h5", **ASCII)
    assert code == 0 and out.startswith("caf?") and "40 x 4" in out


def test_a_run_in_a_name_that_cannot_be_written_down() -> None:
    code, _, err = shell("mopo fetch-data --dataset hopper-medium --run café", **ASCII)
    assert code == 4 and "cannot be used: its name is not valid UTF-8" in err
    code, _, err = shell(r"mopo fetch-data --dataset hopper-medium --run $'caf\xe9'")
    assert code == 4 and r"'caf\udce9' cannot be used: its name is not valid UTF-8" in err


def test_a_result_that_cannot_be_written() -> None:
    line = "mopo presets ls"
    code, _, err = shell(f"{line} >/dev/full")
    assert code == 4 and err.startswith("Error: ") and len(err.splitlines()) <= 2
    assert shell(f"{line} >/dev/full 2>/dev/full") == (4, "", "")
    assert shell(f"{line} >/dev/full 2>&-") == (4, "", "")
    # Who closes a stream wants nothing of it.
    assert shell(f"{line} >&-") == (0, "", "")
    assert shell(f"{line} <&- >&- 2>&-") == (0, "", "")


@pytest.mark.parametrize("to", ["/dev/full", "&-"])
def test_messages_that_cannot_be_written(to: str) -> None:
    assert shell(f"mopo show nothing.h5 2>{to}") == (4, "", "")
    assert shell(f"mopo nonsense 2>{to}") == (2, "", "")
    code, out, _ = shell(f"mopo fetch-data --dataset ./café.h5 --env InvertedPendulum-v5 --json 2>{to}")
    assert code == 0 and out.startswith("{")
    assert list(Path("runs").glob("*/run.json"))


def test_no_file_takes_a_closed_stream_s_place() -> None:
    assert shell("mopo fetch-data --dataset ./café.h5 --env InvertedPendulum-v5 <&- >&- 2>&-") == (0, "", "")
    code, out, _ = shell("mopo show caf --json")
    assert code == 0 and json.loads(out)["portrait"]["summary"]["transitions"] == 40


def test_no_file_may_be_written(mopo: Any) -> None:
    def work() -> int:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        return main(line.split())

    line = "fetch-data --dataset ./café.h5 --env InvertedPendulum-v5"
    outcome = ended(forked(work, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE))
    assert outcome.code == 4 and "Error: " in outcome.err and "Traceback" not in outcome.err
    assert not list(Path().rglob("run.json"))
    assert mopo(line).code == 0
