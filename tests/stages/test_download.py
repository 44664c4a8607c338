"""fetch-data of D4RL's sets: from a mirror, from copies on disk, from a file whose hash is known, after a signal."""

import hashlib
import json
import os
import re
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from conftest import Mopo, Outcome
from probes.runs import record_anew
from probes.web import Handler, file, serving, status

from mopo_cli.data import d4rl_files
from mopo_cli.data.d4rl_files import D4rlFile, table
from mopo_cli.data.generate import generate_random
from mopo_cli.data.transition_files import read_dataset, write_dataset
from mopo_cli.data.transitions import COLUMNS, DatasetInfo, Transitions
from mopo_cli.report import progress
from mopo_cli.stages.common.inputs import open_data
from mopo_cli.store.checkpoint import load_tensors

FETCH = "fetch-data --dataset hopper-medium-v2"
AT = "/gym_mujoco_v2/hopper_medium-v2.hdf5"
NAME = "hopper_medium-v2.hdf5"


@pytest.fixture(scope="module")
def logged() -> Transitions:
    return generate_random("Hopper-v4", 3000, seed=0)[0]


@pytest.fixture
def content(logged: Transitions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The bytes of what stands for hopper-medium-v2; the working directory and the home are empty."""
    with h5py.File(tmp_path / "made.hdf5", "w") as made:
        for name in ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts"):
            made[name] = getattr(logged, name)
    content = (tmp_path / "made.hdf5").read_bytes()
    set_file = D4rlFile(
        "hopper-medium-v2", table()["hopper-medium-v2"].url, len(content), hashlib.sha256(content).hexdigest()
    )
    monkeypatch.setattr(d4rl_files, "table", lambda: {set_file.dataset_id: set_file})
    for name in ("MOPO_D4RL_MIRROR", "D4RL_DATASET_DIR", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return content


def downloads() -> Path:
    return Path(os.environ["MOPO_HOME"]) / "downloads" / "d4rl"


def held(outcome: Outcome, logged: Transitions) -> Any:
    """The fetched dataset is the logged one; gives its description."""
    assert outcome.code == 0, outcome.err
    transitions, info = read_dataset(Path(json.loads(outcome.out)["outputs"]["dataset"]))
    for name in ("observations", "next_observations", "actions", "rewards", "terminals", "timeouts"):
        assert np.array_equal(getattr(transitions, name), getattr(logged, name)), name
    assert (info.dataset_id, info.env_id, info.reference_max) == ("hopper-medium-v2", "Hopper-v4", 3234.3)
    return info


@pytest.mark.parametrize("named", ["flag", "environment"])
def test_a_mirror_gives_the_set(
    mopo: Mopo, content: bytes, logged: Transitions, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(file(content)) as web:
        mirror = f"{web.url}/pub/d4rl/"
        if named == "environment":
            monkeypatch.setenv("MOPO_D4RL_MIRROR", mirror)
        line = f"{FETCH} --json" + (f" --mirror {mirror}" if named == "flag" else "")
        info = held(mopo(line), logged)
        assert web.asked == [(f"/pub/d4rl{AT}", None)]
        assert web.url not in info.source and "rail.eecs.berkeley.edu" in info.source
        assert (downloads() / NAME).read_bytes() == content
        held(mopo(f"{line} --run runs/two"), logged)
        held(mopo(f"{line} --force"), logged)
        assert len(web.asked) == 1  # what was downloaded is there


def test_what_is_going_on_is_told(mopo: Mopo, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "HEARTBEAT_SECONDS", 0.0)
    with serving(file(content, cut=len(content) // 2), file(content)) as web:
        shown = mopo(f"{FETCH} --mirror {web.url}").err
    assert f"Downloading {web.url}{AT} to " in shown
    assert "The connection was lost: trying again in 1 s." in shown
    assert re.search(rf"{NAME}  \d/\d MB \(\d+%\)  0:00:0\d passed  0:00:0\d left  [\d,.]+ MB/s", shown)
    assert f"Found on disk: {downloads() / NAME}" in mopo(f"{FETCH} --force").err


@pytest.mark.parametrize("place", ["D4RL_DATASET_DIR", "home", "cache"])
def test_a_copy_on_disk_needs_no_network(
    mopo: Mopo, content: bytes, logged: Transitions, tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = {"home": tmp_path / "home/.d4rl/datasets", "cache": downloads()}.get(place, tmp_path / "own")
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "own"))
    folder.mkdir(parents=True)
    copy = folder / NAME
    copy.write_bytes(content)
    copy.chmod(0o400)
    before = copy.stat()
    held(mopo(f"{FETCH} --json --mirror http://127.0.0.1:9"), logged)
    assert list(folder.iterdir()) == [copy] and copy.read_bytes() == content
    assert (copy.stat().st_mtime_ns, copy.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    assert place == "cache" or not downloads().exists()


def test_a_broken_copy_is_told_and_replaced_by_a_download(
    mopo: Mopo, content: bytes, logged: Transitions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path))
    (tmp_path / NAME).write_bytes(content[:-1])
    with serving(file(content)) as web:
        outcome = mopo(f"{FETCH} --json --mirror {web.url}")
    held(outcome, logged)
    assert f"{tmp_path / NAME} is not the published file" in outcome.err
    assert (tmp_path / NAME).read_bytes() == content[:-1]


def test_a_file_whose_hash_is_known_is_that_set(mopo: Mopo, content: bytes, logged: Transitions) -> None:
    Path("renamed.hdf5").write_bytes(content)
    held(mopo("fetch-data --dataset ./renamed.hdf5 --json"), logged)
    held(mopo("fetch-data --dataset ./renamed.hdf5 --env Hopper-v4 --json"), logged)
    outcome = mopo("fetch-data --dataset ./renamed.hdf5 --env Hopper-v5 --run runs/other")
    assert outcome.code == 2
    assert "--env Hopper-v5 contradicts renamed.hdf5, which is D4RL's hopper-medium-v2" in outcome.err
    assert not Path("runs/other").exists()
    with Path("renamed.hdf5").open("ab") as longer:
        longer.write(b"x")
    outcome = mopo("fetch-data --dataset ./renamed.hdf5 --env Hopper-v5 --run runs/other --json")
    assert json.loads(outcome.out)["dataset_id"] == "renamed.hdf5"


def test_a_failed_download_is_one_sentence_and_leaves_no_run(mopo: Mopo, content: bytes) -> None:
    with serving(status(404)) as web:
        outcome = mopo(f"{FETCH} --mirror {web.url}")
    assert outcome.code == 8 and outcome.out == ""
    error, mend = outcome.err.splitlines()[-2:]
    assert error == f"Error: {web.url}{AT} cannot be downloaded: the server answers 404 Not Found."
    assert "--mirror URL or MOPO_D4RL_MIRROR" in mend and f"put the file at {downloads().resolve() / NAME}" in mend
    assert not Path("runs").exists()
    assert not [path for path in Path(os.environ["MOPO_HOME"]).rglob("*") if path.is_file()]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_keeps_what_came(
    mopo: Mopo, content: bytes, logged: Transitions, number: signal.Signals, code: int
) -> None:
    whole = file(content)

    def interrupted(handler: Handler) -> None:
        os.kill(os.getpid(), number)
        whole(handler)

    with serving(interrupted, whole) as web:
        outcome = mopo(f"{FETCH} --mirror {web.url}")
        assert outcome.code == code and "run the same command again" in outcome.err
        assert not list(Path(os.environ["MOPO_HOME"]).rglob("dataset.h5"))
        kept = (downloads() / f"{NAME}.part").stat().st_size
        assert 0 < kept < len(content)
        held(mopo(f"{FETCH} --mirror {web.url} --json"), logged)
        assert web.ranges == [None, f"bytes={kept}-"]


def test_a_model_leaves_out_rows_whose_next_state_is_unknown(mopo: Mopo, content: bytes, logged: Transitions) -> None:
    with h5py.File("v0.h5", "w") as made:
        for name in ("observations", "actions", "rewards", "terminals", "timeouts"):
            made[name] = getattr(logged, name)
    outcome = mopo("fetch-data --dataset ./v0.h5 --env Hopper-v4 --run runs/one --json")
    path = Path(json.loads(outcome.out)["outputs"]["dataset"])
    shifted, info = read_dataset(path)
    ends = shifted.terminals
    assert ends.sum() == logged.terminals.sum() > 50 and not info.terminal_next_known
    # SAC's batches come from here: the terminals stay.
    assert np.array_equal(open_data(path, torch.device("cpu")).terminal.numpy(), ends)

    def trained(data: Transitions, info: DatasetInfo) -> dict[str, Any]:
        write_dataset(path, data, info)
        record_anew(Path("runs/one"))
        small = "--networks 2 --hidden 8 --layers 1 --weight-decay 0,0 --max-epochs 1 --threads 1"
        assert mopo(f"train-model --run runs/one --force {small}").code == 0
        tensors, meta = load_tensors(Path("runs/one/model/ensemble.safetensors"))
        return {**tensors, "holdout": torch.tensor(meta["holdout_mse"]["0"])}

    fillers = np.where(ends[:, None], np.float32(7), shifted.next_observations)
    left_out = trained(replace(shifted, next_observations=fillers), info)
    columns = {name: getattr(shifted, name)[~ends] for name in COLUMNS}
    without = trained(Transitions(**columns), replace(info, terminal_next_known=True))
    used = trained(replace(shifted, next_observations=fillers), replace(info, terminal_next_known=True))
    for name in left_out:
        assert torch.equal(left_out[name], without[name]), name
    assert not torch.equal(left_out["holdout"], used["holdout"])


def test_a_log_of_terminals_only_has_nothing_for_a_model(mopo: Mopo, content: bytes, logged: Transitions) -> None:
    with h5py.File("v0.h5", "w") as made:
        for name in ("observations", "actions", "rewards"):
            made[name] = getattr(logged, name)[:9]
        made["terminals"], made["timeouts"] = np.arange(9) != 3, np.zeros(9, np.bool_)
    assert mopo("fetch-data --dataset ./v0.h5 --env Hopper-v4").code == 0
    outcome = mopo("train-model --threads 1")
    assert outcome.code == 4 and "v0.h5: the next state is known in 1 rows, 2 are needed." in outcome.err
