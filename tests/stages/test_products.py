"""Which library multiplies: measured once and kept, named by a flag, resumed with a stage, written into run.json."""

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from mopo_cli.errors import Stopped, UsageError
from mopo_cli.nets import libraries
from mopo_cli.nets.fastest import Measured
from mopo_cli.nets.libraries import KINDS, Choice, Kind, Library, all_by, named
from mopo_cli.nets.products import can_use_onednn, usual
from mopo_cli.report.console import Report
from mopo_cli.stages.common import chosen_products as module
from mopo_cli.stages.common.chosen_products import measured_here
from mopo_cli.stages.common.device import open_device
from mopo_cli.stages.common.options import Options
from mopo_cli.stages.runner import Stage, stage_envelope
from mopo_cli.store.checkpoint import load_tensors, save_tensors
from mopo_cli.store.lineage import read_lineage, tool_versions
from mopo_cli.store.run import RunFolder

MIXED: Choice = {**all_by("mkl"), "float32 layer": "onednn", "bfloat16 silu": "onednn"}
SPEEDS: dict[Kind, dict[Library, float]] = {kind: {"mkl": 50.0, "onednn": 100.0} for kind in KINDS}


@pytest.fixture
def measurements(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One is added whenever the machine is measured; it finds MIXED."""
    made: list[int] = []
    monkeypatch.setattr(module, "fastest", lambda *clocks: made.append(1) or Measured(MIXED, dict(SPEEDS)))
    monkeypatch.setattr(module, "possible", dict)
    monkeypatch.setattr(module, "measured_here", measured_here)
    return made


def cached() -> Path:
    (path,) = (Path(os.environ["MOPO_HOME"]) / "products").iterdir()
    return path


def test_a_machine_is_measured_once(measurements: list[int]) -> None:
    assert measured_here() == measured_here() == Measured(MIXED, SPEEDS)
    assert measurements == [1]
    open_device(Options(device="cpu"))
    assert libraries.in_use() == MIXED and measurements == [1]


@pytest.mark.parametrize("name", ["torch", "processor", "kinds"])
def test_what_another_machine_measured_does_not_count(measurements: list[int], name: str) -> None:
    measured_here()
    content = json.loads(cached().read_text())
    content["machine"][name] = "another"
    cached().write_text(json.dumps(content))
    assert measured_here().choice == MIXED and measurements == [1, 1]
    assert measured_here().choice == MIXED and measurements == [1, 1]


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b"\xff\x00", b'{"machine": {}, "choice": {"float32 layer": "blas"}, "speeds": {}}']
)
def test_a_damaged_file_is_measured_anew(measurements: list[int], damage: bytes) -> None:
    measured_here()
    cached().write_bytes(damage)
    assert measured_here().choice == MIXED and measurements == [1, 1]
    assert measured_here().choice == MIXED and measurements == [1, 1]


def test_without_a_cache_folder_it_goes_on(measurements: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    home = Path(os.environ["MOPO_HOME"])
    home.parent.mkdir(parents=True)
    home.write_text("a file")
    assert measured_here().choice == MIXED and measurements == [1]


def test_a_flag_overrides(measurements: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    open_device(Options(device="cpu", products="mkl"))
    assert libraries.in_use() == all_by("mkl")
    open_device(Options(device="cpu", products="onednn"))
    assert libraries.in_use() == all_by("onednn") and measurements == []
    monkeypatch.setattr(module, "possible", lambda choice: all_by("mkl"))
    with pytest.raises(UsageError, match="--products onednn: torch has no oneDNN for this processor") as caught:
        open_device(Options(device="cpu", products="onednn"))
    assert caught.value.hint == "--products mkl"


def test_a_name_that_is_none(mopo: Any) -> None:
    outcome = mopo("bench --products blas")
    assert outcome.code == 2 and "--products must be auto, mkl or onednn, not 'blas'" in outcome.err


def test_the_choice_in_words() -> None:
    assert "products" not in tool_versions()
    for choice, words in (
        (all_by("mkl"), "mkl"),
        (all_by("onednn"), "onednn"),
        (MIXED, "float32: small mkl, layer onednn, gradient mkl; bfloat16: layer mkl, gradient mkl, silu onednn"),
    ):
        libraries.use(choice)
        assert named(choice) == words == tool_versions()["products"]


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    texts: list[str] = []
    monkeypatch.setattr(Report, "warn", lambda self, text: texts.append(text))
    return texts


def interrupted(choice: Choice) -> RunFolder:
    """A run with a stage that was stopped while it multiplied so."""
    run = RunFolder(Path("runs/one"))
    libraries.use(choice)
    with pytest.raises(Stopped), stage_envelope(run, "train-model", {}, {}, Options(), Report("quiet")) as stage:
        stage.save_state({"w": torch.ones(2)}, {})
        raise Stopped(15)
    return run


def resumed(run: RunFolder, **options: Any) -> Choice | None:
    """What the stage multiplies by when it goes on, from its beginning: processes may be forked before it is loaded."""
    with stage_envelope(run, "train-model", {}, {}, Options(**options), Report("quiet")) as stage:
        choice = libraries.in_use()
        stage.load_state()
        stage.finish({}, {})
    assert choice == libraries.in_use()
    return choice


@pytest.mark.usefixtures("measurements")
def test_an_interrupted_stage_keeps_its_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warned: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = interrupted(all_by("onednn"))
    libraries.use(MIXED)
    assert resumed(run) == all_by("onednn") and warned == []
    assert read_lineage(run)["train-model"].versions["products"] == "onednn"
    libraries.use(MIXED)
    assert resumed(run, force=True) == MIXED


@pytest.mark.usefixtures("measurements")
def test_a_flag_overrides_that_too_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warned: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = interrupted(all_by("onednn"))
    libraries.use(all_by("mkl"))
    assert resumed(run, products="mkl") == all_by("mkl")
    assert warned == [
        "train-model was begun with --products onednn and goes on with --products mkl: the result differs from an "
        "uninterrupted run's in the last bits."
    ]
    run = interrupted(all_by("onednn"))
    assert resumed(run, products="onednn") == all_by("onednn") and len(warned) == 1


def test_a_library_that_is_not_here_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warned: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    run = interrupted(MIXED)
    libraries.use(all_by("mkl"))
    monkeypatch.setattr(module, "possible", lambda choice: all_by("mkl"))
    assert resumed(run) == all_by("mkl")
    assert warned == [
        "train-model was begun with oneDNN's products, which torch does not have for this processor; it goes on with "
        "MKL's, and the result differs from an uninterrupted run's in the last bits."
    ]


@pytest.mark.parametrize("recorded", [None, 7])
def test_a_checkpoint_from_before_goes_on_as_by_the_processor_s_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warned: list[str], recorded: object
) -> None:
    monkeypatch.chdir(tmp_path)
    run = interrupted(all_by("onednn"))
    path = run.state("train-model") / "checkpoint.safetensors"
    tensors, meta = load_tensors(path)
    del meta["products"]
    save_tensors(path, tensors, meta if recorded is None else meta | {"products": None})
    libraries.use({**MIXED, "float32 small": "onednn"})
    assert resumed(run) == usual() and warned == []


def test_on_a_gpu_there_is_nothing_to_choose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warned: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = interrupted(all_by("onednn"))
    libraries.use(None)
    assert resumed(run) is None and warned == []
    assert "products" not in read_lineage(run)["train-model"].versions


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("line", ["train-model", "train-policy --seeds 2 --name p"])
def test_stopped_and_resumed_where_another_library_is_faster_the_bytes_are_the_same(
    tiny_run: Path, mopo: Any, monkeypatch: pytest.MonkeyPatch, line: str, threads: int
) -> None:
    if not can_use_onednn(torch.float32):
        pytest.skip("torch has no oneDNN here")
    # Sums of up to 384 products are added up alike by both, on some processors.
    line = f"{line} --config short.yaml --threads {threads} --batch-size 64 --hidden 400"
    settings = Path("tiny.yaml").read_text()
    Path("short.yaml").write_text(re.sub("(steps-per-epoch|rollout-every): [0-9]+", r"\1: 6", settings))
    file = tiny_run / ("model/ensemble" if "model" in line else "policies/p/seed-1/policy")

    def run(choice: Choice, flags: str = "") -> bytes:
        monkeypatch.setattr(module, "measured_here", lambda: Measured(choice, {}))
        outcome = mopo(f"{line} {flags}")
        assert outcome.code == 0 and ("goes on at" in outcome.err) == (not flags)
        return file.with_suffix(".safetensors").read_bytes()

    with monkeypatch.context() as patch:
        patch.setattr(module, "measured_here", lambda: Measured(all_by("onednn"), {}))
        patch.setattr(Stage, "should_stop", lambda stage: setattr(stage, "signal", signal.SIGTERM) or True)
        assert mopo(line).code == 143
    resumed = run(all_by("mkl"))
    assert resumed == run(all_by("onednn"), "--force") != run(all_by("mkl"), "--force")
