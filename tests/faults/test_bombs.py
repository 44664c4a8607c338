"""Files made to fill the memory, to hold a reader for ever, or to exhaust it: each is refused in one sentence."""

import gzip
import io
import os
import signal
import socket
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from mopo_cli.store import columns, machine
from mopo_cli.store.yaml_text import BadYamlError, parse_yaml

CHECK = "fetch-data --check --dataset"
MAP = "fetch-data --check --dataset ./table.csv --columns"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "table.csv").write_text("a,b,c\n1,2,3\n4,5,6\n")
    return tmp_path


def small_columns(file: h5py.File) -> None:
    file["actions"], file["rewards"], file["terminals"] = np.zeros((9, 1)), np.zeros(9), np.zeros(9, bool)


def gzip_bomb(path: Path) -> None:
    """80 MB of zeros in less than 100 kB."""
    with h5py.File(path, "w") as file:
        small_columns(file)
        file.create_dataset(
            "observations", data=np.zeros((5_000_000, 4), "f4"), compression="gzip", chunks=(500_000, 4)
        )


def large_block(path: Path) -> None:
    """Nine numbers in a compressed block for a thousand million."""
    with h5py.File(path, "w") as file:
        small_columns(file)
        file.create_dataset("observations", (9, 1), "f4", maxshape=(None, 1), chunks=(10**9, 1), compression="gzip")


def zip_bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, rows in (("observations", 5_000_000), ("actions", 9), ("rewards", 9), ("terminals", 9)):
            content = io.BytesIO()
            np.save(content, np.zeros((rows, 4), "f4"))
            archive.writestr(f"{name}.npy", content.getvalue())


def wide_parquet(path: Path) -> None:
    parquet.write_table(pa.table({f"c{i}": [0.0] for i in range(10_001)}), path)


def nested_groups(path: Path) -> None:
    with h5py.File(path, "w") as file:
        small_columns(file)
        group = file
        for _ in range(3000):
            group = group.create_group("g")


def many_objects(path: Path) -> None:
    with h5py.File(path, "w") as file:
        small_columns(file)
        for i in range(1001):
            file[f"group/{i}"] = 0


def gzip_of(text: Callable[[], str]) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(gzip.compress(text().encode(), 1))


def list_bomb(path: Path) -> None:
    """Lists of ten million zeros in a few kB."""
    zeros = pa.array(np.zeros(10_000_000, np.float32))
    lists = pa.ListArray.from_arrays(pa.array([0, 5_000_000, 10_000_000], pa.int32()), zeros)
    parquet.write_table(pa.table({"obs_0": lists, "action_0": [0.0, 0.1], "reward": [0.0, 0.1]}), path)


BOMBS: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "gzip": ("logs.h5", gzip_bomb, "declares 80,000"),
    "a large block": ("logs.h5", large_block, "declares 4,000,000"),
    "zip": ("logs.npz", zip_bomb, "declares 80,000"),
    "columns of a CSV": ("logs.csv", lambda path: path.write_text(",".join(["a"] * 100_000)), "100,000 columns"),
    "columns in a CSV's second line": (
        "logs.csv",
        lambda path: path.write_text('"a\n",' + ",".join(["a"] * 100_000)),
        "100,001 columns",
    ),
    "heading of a CSV": ("logs.csv", lambda path: path.write_text("a" * 2_000_000 + "\n1\n"), "has no header line"),
    "gzip of a CSV": (
        "logs.csv.gz",
        gzip_of(lambda: "obs_0,action_0,reward\n" + "0,0,0\n" * 13_000_000),
        "bytes of columns, but",
    ),
    "gzip of a line": (
        "logs.jsonl.gz",
        gzip_of(lambda: f'{{"obs": [{"0," * 17_000_000}0]}}'),
        "is longer than 33,554,432 bytes",
    ),
    "gzip of no lines": ("logs.json.gz", gzip_of(lambda: (" " * 99 + "\n") * 800_000), "bytes of columns, but"),
    "gzip of many lines": (
        "logs.jsonl.gz",
        gzip_of(lambda: ('{"obs": [' + "0," * 50_000 + '0], "action": [0], "reward": 0}\n') * 200),
        "bytes of columns, but",
    ),
    "lists of a Parquet": ("logs.parquet", list_bomb, "declares 80,000"),
    "columns of a Parquet": ("logs.parquet", wide_parquet, "10,001 columns"),
    "nested groups": ("logs.h5", nested_groups, "nested deeper than 64"),
    "many objects": ("logs.h5", many_objects, "more than 1,000 groups and columns"),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused(refuses: Any, mopo: Any, monkeypatch: pytest.MonkeyPatch, bomb: str) -> None:
    monkeypatch.setattr(columns, "_MOST_OBJECTS", 1000)
    name, make, said = BOMBS[bomb]
    make(Path(name))
    refuses(f"show {name}", 4, said)
    outcome = mopo(f"{CHECK} ./{name}")
    assert outcome.code == 4 and said in outcome.err and "Traceback" not in outcome.err


@pytest.mark.parametrize("name", ["logs.h5", "logs.npz", "logs.csv", "logs.parquet"])
def test_a_file_for_which_there_is_no_memory_is_refused(
    refuses: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    rows = 3_000_000
    column = np.random.default_rng(0).random(rows, np.float32)
    if name.endswith(".h5"):
        with h5py.File(name, "w") as file:
            small_columns(file)
            file["observations"] = np.repeat(column[:, None], 6, axis=1)
    elif name.endswith(".npz"):
        np.savez(
            name, observations=np.repeat(column[:, None], 6, axis=1), actions=column, rewards=column, terminals=column
        )
    elif name.endswith(".csv"):
        Path(name).write_text("obs_0,action_0,reward\n" + "0.12345,0.12345,0.12345\n" * rows)
    else:
        parquet.write_table(pa.table(dict.fromkeys(("obs_0", "action_0", "reward"), column)), name)
    monkeypatch.setattr(machine, "_free_of_machine", lambda: 100_000_000)
    refuses(f"show {name}", 4, "more than half of the 0.1 GB of free memory")


SPECIAL = {
    "pipe": lambda path: os.mkfifo(path),
    "socket": lambda path: socket.socket(socket.AF_UNIX).bind(path),
    "device": lambda path: Path(path).symlink_to("/dev/zero"),
    "folder": lambda path: Path(path).mkdir(),
}
LINES = [
    ("logs.h5", f"{CHECK} ./logs.h5"),
    ("logs.csv", f"{CHECK} ./logs.csv"),
    ("logs.h5", "show logs.h5"),
    ("logs.npz", "show logs.npz"),
    ("logs.csv", "show logs.csv"),
    ("logs.parquet", "show logs.parquet"),
    ("logs.csv.gz", f"{CHECK} ./logs.csv.gz"),
    ("logs.tsv", "show logs.tsv"),
    ("logs.jsonl", f"{CHECK} ./logs.jsonl"),
    ("logs.json.gz", "show logs.json.gz"),
    ("file.json", "show file.json"),
    ("file.safetensors", "show file.safetensors"),
    ("file", "show file"),
    ("map.yaml", f"{MAP} map.yaml"),
    ("mine.yaml", "train-policy --run tiny --config mine.yaml"),
    ("runs/current", "train-model"),
]


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize(("name", "line"), LINES)
def test_only_files_are_opened(refuses: Any, name: str, line: str, kind: str) -> None:
    Path(name).parent.mkdir(exist_ok=True)
    SPECIAL[kind](name)
    said = "not a file"
    if kind == "folder" and line.startswith("show"):
        said = "no run.json"
    elif kind == "folder" and f"--dataset ./{name}" in line:
        said = "holds no file of logs"
    refuses_quickly(refuses, line, said)


@pytest.mark.parametrize(
    "line",
    [
        "train-policy --config tiny.yaml --rollouts file --name new",
        "rollout --config tiny.yaml --actions file --name new",
        "train-policy --config tiny.yaml --name new",
    ],
)
def test_only_files_are_opened_in_a_run(tiny_run: Path, refuses: Any, line: str) -> None:
    name = Path("file") if "file" in line.split() else tiny_run / "run.json"
    name.unlink(missing_ok=True)
    os.mkfifo(name)
    refuses_quickly(refuses, line, str(name))


def refuses_quickly(refuses: Any, line: str, said: str) -> None:
    """As `refuses`; what waits for a pipe is woken, and fails as it was not to wait."""

    def wake(*_: Any) -> None:
        raise AssertionError(f"{line} waits")

    before = signal.signal(signal.SIGALRM, wake)
    signal.alarm(60)
    try:
        refuses(line, 4, said)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def laughs(merged: bool) -> str:
    lines = ["a0: &a0 {x: 1, y: 2}" if merged else "a0: &a0 [l, l, l]"]
    for i in range(9):
        names = ", ".join([f"*a{i}"] * 9)
        lines.append(f"a{i + 1}: &a{i + 1} {{<<: [{names}]}}" if merged else f"a{i + 1}: &a{i + 1} [{names}]")
    return "\n".join(lines)


YAML = {
    "deep in brackets": ("train-policy: {lam: " + "[" * 20_000, "is nested deeper than 30 levels"),
    "deep in lines": ("\n".join(" " * i + "a:" for i in range(1000)), "is nested deeper than 30 levels"),
    "deep in dashes": ("- " * 5000 + "a", "is nested deeper than 30 levels"),
    "deep by aliases": (
        "\n".join(["a0: &a0 [x]", *(f"a{i}: &a{i} [[*a{i - 1}]]" for i in range(1, 20))]),
        "is nested deeper than 30 levels",
    ),
    "holds itself": ("obs: &a [*a]", "contains itself (line 1)"),
    "holds itself as a mapping": ("train-policy: &a\n  lam: *a", "contains itself (line 1)"),
    "merges itself": ("train-policy: &a\n  <<: *a\n  lam: 1", "contains itself"),
    "laughs": (laughs(merged=False), "holds more than"),
    "merges and laughs": (laughs(merged=True), "holds more than"),
    "many keys": ("\n".join(f"a{i}: 1" for i in range(60_000)), "holds more than"),
    "a number of 5000 digits": ("obs: " + "9" * 5000, "holds a number of 5000 characters (line 1)"),
    "a number in hexadecimal": ("obs: 0x" + "f" * 5000, "holds a number of 5002 characters (line 1)"),
    "a number in sixties": ("obs: 1" + ":11" * 5000, "holds a number of 15001 characters (line 1)"),
    "no date": ("obs: 2001-99-99", "is not valid YAML"),
    "no truth": ("obs: !!bool maybe", "is not valid YAML"),
    "no time": ("obs: !!timestamp now", "is not valid YAML"),
    "NUL": ("obs: a\0b", "is not valid YAML"),
    "twice": ("obs: a\naction: b\nobs: c", "gives obs twice (line 3)"),
}


@pytest.mark.parametrize("fault", YAML)
def test_yaml_that_is_no_small_tree(refuses: Any, fault: str) -> None:
    text, said = YAML[fault]
    Path("mine.yaml").write_text(text)
    refuses("train-policy --run tiny --config mine.yaml", 3, f"mine.yaml {said}")
    refuses(f"{MAP} mine.yaml", 4, f"The column map mine.yaml {said}")


def test_yaml_of_many_megabytes(refuses: Any) -> None:
    Path("mine.yaml").write_text("# nothing\n" * 200_000)
    refuses("train-policy --run tiny --config mine.yaml", 4, "mine.yaml is larger than 1,000,000 bytes")
    refuses(f"{MAP} mine.yaml", 4, "mine.yaml is larger than 1,000,000 bytes")


@pytest.mark.parametrize("bound", ["1" + "0" * 90, "1.0e+50", "-4.0e+38"])
def test_a_bound_that_is_no_float32(refuses: Any, bound: str) -> None:
    Path("map.yaml").write_text(f"obs: a\naction: b\nreward: c\naction_low: [0]\naction_high: [{bound}]\n")
    refuses(f"{MAP} map.yaml", 2, "gives action_high a number that is too large")


def test_aliases_that_make_a_tree_are_read() -> None:
    text = "base: &base {a: 1, b: [x, y]}\none: {<<: *base, a: 2}\ntwo: *base\n"
    base = {"a": 1, "b": ["x", "y"]}
    assert parse_yaml(text) == {"base": base, "one": base | {"a": 2}, "two": base}
    assert parse_yaml("") is None
    with pytest.raises(BadYamlError, match="more than 5 keys"):
        parse_yaml(text, most_nodes=5)


def test_more_faults_than_one_reads_are_counted(mopo: Any) -> None:
    Path("mine.yaml").write_text("train-policy:\n" + "".join(f"  k{i}: 1\n" for i in range(1000)))
    outcome = mopo("train-policy --run tiny --config mine.yaml")
    assert outcome.code == 3 and "has 1000 errors" in outcome.err and "and 970 more" in outcome.err
    assert len(outcome.err.splitlines()) < 40
