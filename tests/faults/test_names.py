"""Names that cannot be opened, written or understood: one sentence says what the path is."""

import json
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

LONG = "a" * 300
PENDULUM = "fetch-data --dataset ./logs.h5 --env InvertedPendulum-v5"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a file, a loop of links, a link to nothing and a pipe."""
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    Path("loop").symlink_to("loop")
    Path("dangling").symlink_to("nowhere")
    os.mkfifo("pipe")
    (tmp_path / "table.csv").write_text("a,b,c\n1,2,3\n4,5,6\n")
    return tmp_path


@pytest.mark.parametrize("user", ["~nosuchuser/x", "~nosuchuser/x.h5"])
@pytest.mark.parametrize(
    "line", ["show {}", "fetch-data --dataset {}", "run {}", "fetch-data --check --dataset ./table.csv --columns {}"]
)
def test_the_home_of_nobody(refuses: Any, line: str, user: str) -> None:
    refuses(line.format(user), 4, f"{user} is not a valid path: that user has no home folder")


@pytest.mark.parametrize(
    "line",
    [
        f"show {LONG}",
        f"show ./{LONG}.h5",
        f"{PENDULUM} --run {LONG}",
        f"fetch-data --dataset ./{LONG}.h5",
        f"fetch-data --check --dataset ./table.csv --columns {LONG}",
        f"train-model --run {LONG}",
        f"train-policy --run new --config {LONG}.yaml",
    ],
)
def test_a_name_that_is_too_long(refuses: Any, line: str) -> None:
    refuses(line, 4, "File name too long")


RUNS = {
    "file": "The run folder file is a file, not a folder",
    "pipe": "The run folder pipe is a file, not a folder",
    "file/x": "The run folder file/x cannot be a folder: Not a directory",
    "loop": "The run folder loop cannot be a folder: Too many levels of symbolic links",
    "loop/x": "The run folder loop/x cannot be a folder: Too many levels of symbolic links",
    "dangling": "The run folder dangling is a link to a missing folder",
    "r\udcff": "The run folder 'r\\udcff' cannot be used: its name is not valid UTF-8",
}


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("line", ["train-model", "evaluate", "fetch-data --dataset hopper-medium", "run hopper-medium"])
def test_a_run_that_is_no_folder(refuses: Any, line: str, run: str) -> None:
    refuses(f"{line} --run {run}", 4, RUNS[run])


@pytest.mark.parametrize("run", RUNS)
def test_a_run_in_the_environment_that_is_no_folder(refuses: Any, monkeypatch: pytest.MonkeyPatch, run: str) -> None:
    monkeypatch.setenv("MOPO_RUN", run)
    refuses("train-model", 4, RUNS[run])


@pytest.mark.parametrize("home", RUNS)
@pytest.mark.parametrize("line", [f"{PENDULUM} --run new", "fetch-data --list", "show hopper-medium"])
def test_a_cache_that_is_no_folder(refuses: Any, monkeypatch: pytest.MonkeyPatch, line: str, home: str) -> None:
    with h5py.File("logs.h5", "w"):
        pass
    monkeypatch.chdir("/proc/self/cwd")
    monkeypatch.setattr("mopo_cli.store.run.os.environ", os.environ | {"MOPO_HOME": home})
    refuses(line, 4, RUNS[home].replace("run folder", "cache folder"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a\0b", r"The current run 'runs/a\x00b', named in runs/current, does not exist any more"),
        (b"\x1b[31mred", r"The current run 'runs/\x1b[31mred', named in runs/current, does not exist any more"),
        (b"\xff\xfe", "runs/current cannot be read: it is not UTF-8 text"),
        (b"x" * 4000, "does not exist any more"),
        (b"x" * 40_000, "runs/current is larger than"),
        (b"", "does not exist any more"),
        (None, "runs/current cannot be read: it is a folder, not a file"),
    ],
)
def test_a_current_run_that_is_none(refuses: Any, content: bytes | None, said: str) -> None:
    current = Path("runs/current")
    if content is None:
        current.mkdir(parents=True)
    else:
        current.parent.mkdir()
        current.write_bytes(content)
    refuses("train-model", 4, said)
    refuses("evaluate", 4, said)


def test_a_record_that_names_no_path(tiny_run: Path, refuses: Any) -> None:
    record = tiny_run / "run.json"
    record.write_text(record.read_text().replace("dataset.h5", "data\\u0000set.h5"))
    refuses("train-policy --config tiny.yaml --force", 5, "inputs.dataset.path: ")


def test_a_kind_of_file_that_is_not_read(refuses: Any, mopo: Any) -> None:
    Path("logs.foo").write_text("hello")
    kinds = "HDF5 (.h5, .hdf5), NPZ (.npz), CSV (.csv, .tsv), Parquet (.parquet) or JSON (.json, .jsonl) file"
    refuses("show logs.foo", 4, f"logs.foo is not an {kinds}")
    outcome = mopo("fetch-data --check --dataset ./logs.foo")
    assert outcome.code == 4 and kinds in outcome.err


@pytest.mark.parametrize("name", ["logs.mat", "logs.HDF", "logs", "logs.H5"])
def test_an_hdf5_file_of_another_name_is_read(mopo: Any, name: str) -> None:
    with h5py.File(name, "w") as file:
        rng = np.random.default_rng(0)
        file["observations"], file["actions"] = rng.normal(size=(40, 4)), rng.uniform(-3, 3, size=(40, 1))
        file["rewards"], file["terminals"] = np.ones(40), np.arange(40) % 10 == 9
    assert mopo(f"fetch-data --check --dataset ./{name}").code == 0
    outcome = mopo(f"show {name} --json")
    assert outcome.code == 0 and json.loads(outcome.out)["portrait"]["summary"]["transitions"] == 40


def test_not_all_of_very_many_columns_are_listed(mopo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mopo_cli.cli.describe._MOST_LISTED", 3)
    with h5py.File("logs.h5", "w") as file:
        for name in ("a/a", "a/b", "b", "c", "d/e/f"):
            file[name] = 0
        file.attrs["long"] = np.zeros(8000)
    outcome = mopo("show logs.h5")
    listed = [line for line in outcome.out.splitlines() if "column" in line]
    assert [line.split(":")[0].strip() for line in listed] == ["column a/a", "column b", "column c", "columns besides"]
    assert listed[-1].endswith(": 2")


def test_advice_on_a_table_is_for_the_command_that_has_the_flag(refuses: Any) -> None:
    refuses("show table.csv", 4, "Try: mopo fetch-data --dataset table.csv --columns ... --check")
