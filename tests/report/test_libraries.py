"""What the libraries have of a training that was stopped and resumed, read back from their files."""

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from probes.sinks import Rows, numbers, tensorboard_rows

from mopo_cli.report.console import Report
from mopo_cli.report.metrics import SINKS, open_metrics
from mopo_cli.report.sink import Curves

MEMBERS = ["p/seed-0", "p/seed-1"]
RECORDS = [
    {"epoch": 1, "return": 0.1 + 0.2, "q": -1e-30, "x/y": 3},
    {"epoch": 2, "return": 5.5},
    {"epoch": 3, "q": 2.0},
]


@pytest.fixture(autouse=True)
def nothing_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TRACKIO_DIR", "WANDB_MODE", "WANDB_PROJECT", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


def trackio_rows(folder: Path) -> dict[str, Rows]:
    import sqlite3

    (database,) = folder.glob("*.db")
    rows: dict[str, Rows] = {}
    with sqlite3.connect(database) as connection:
        for name, step, text in connection.execute("select run_name, step, metrics from metrics"):
            rows.setdefault(name, []).extend((step, tag, value) for tag, value in json.loads(text).items())
    return rows


def wandb_rows(folder: Path) -> dict[str, Rows]:
    from wandb.proto.wandb_internal_pb2 import Record

    rows: dict[str, Rows] = {}
    for file in folder.glob("wandb/offline-run-*/*.wandb"):
        name = ""
        for content in leveldb_records(file.read_bytes()):
            record = Record.FromString(content)
            name = record.run.display_name or name
            items = {item.key or item.nested_key[0]: item.value_json for item in record.history.item}
            rows.setdefault(name, []).extend(
                (record.history.step.num, tag, json.loads(text)) for tag, text in items.items() if tag[0] != "_"
            )
        rows.pop("", None)
    return rows


def leveldb_records(content: bytes) -> Iterator[bytes]:
    """The records of a log as LevelDB writes them, in blocks of 32 KiB, after a header of 7 bytes."""
    place, record = 7, b""
    while place + 7 <= len(content):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        _, size, kind = struct.unpack_from("<IHB", content, place)
        record = (b"" if kind in (1, 2) else record) + content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):
            yield record


def mlflow_rows(folder: Path) -> dict[str, Rows]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    rows: dict[str, Rows] = {}
    for experiment in client.search_experiments():
        for run in client.search_runs([experiment.experiment_id]):
            history = [m for key in run.data.metrics for m in client.get_metric_history(run.info.run_id, key)]
            rows.setdefault(run.info.run_name, []).extend((m.step, m.key, m.value) for m in history)
    return rows


READ: dict[str, Callable[[Path], dict[str, Rows]]] = {
    "tensorboard": tensorboard_rows,
    "trackio": trackio_rows,
    "wandb": wandb_rows,
    "mlflow": mlflow_rows,
}


def expected(name: str, logged: dict[int, dict[str, float]]) -> Rows:
    rows = [(epoch, tag, value) for epoch, values in logged.items() for tag, value in values.items()]
    # TensorBoard's scalars are float32.
    return sorted((e, tag, float(np.float32(v)) if name == "tensorboard" else v) for e, tag, v in rows)


def test_all_sinks_are_tried() -> None:
    assert READ.keys() == SINKS.keys()


@pytest.mark.parametrize("name", READ)
def test_a_library_has_every_epoch_once(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip(SINKS[name].library)
    curves = Curves(tmp_path, "ablate/grid", MEMBERS)
    others = Curves(tmp_path, "train-policy/q", ["seed-0"])
    with open_metrics(tmp_path / "other", others, Report("json"), [name]) as log:
        log.log_records("seed-0", RECORDS)
    for done in (RECORDS[:2], RECORDS[:1]):  # the second attempt goes on from an earlier epoch than the first reached
        with open_metrics(tmp_path, curves, Report("json"), [name]) as log:
            for member in MEMBERS:
                log.log_records(member, done)
            if done == RECORDS[:1]:
                for record in RECORDS[1:]:
                    log.log_records(MEMBERS[1], [record])
    rows = {curve: sorted(each) for curve, each in READ[name](tmp_path / "logs" / name).items()}
    logged = {member: numbers(tmp_path / member / "metrics.jsonl") for member in MEMBERS}
    logged_by_curve = {f"ablate/grid/{member}": epochs for member, epochs in logged.items()}
    logged_by_curve["train-policy/q/seed-0"] = numbers(tmp_path / "other/seed-0/metrics.jsonl")
    assert rows == {curve: expected(name, epochs) for curve, epochs in logged_by_curve.items()}
    assert [len(each) for each in logged.values()] == [1, 3]
    assert capfd.readouterr() == ("", "")
