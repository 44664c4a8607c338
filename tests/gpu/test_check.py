"""The check of a GPU, where there is none: every step at tiny sizes, and what it makes of steps that go wrong."""

import faulthandler
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from gpu import check, steps
from gpu.check import BUDGETS, Check, Failed, main, run_step
from gpu.parity import difference
from gpu.profiles import occupancy, summary
from probes.forks import ended, forked


def test_every_step_runs_and_says_what_it_finds(tmp_path: Path) -> None:
    output = tmp_path / "check.json"
    words = ["--device", "cpu", "--quick", "--output", str(output)]
    done = ended(forked(lambda: main(words), stdout=subprocess.PIPE, stderr=subprocess.PIPE), 300)
    document = json.loads(output.read_text())
    assert done.code == 0 and document["ok"] and document["quick"], done.out
    assert document["about"]["torch"] == torch.__version__
    result = document["steps"]
    assert list(result) == list(BUDGETS) and all(step["status"] == "ok" for step in result.values())
    assert result["tests"]["tests"] == result["tests"]["skipped"] == 1
    for of in result["parity"]["precisions"].values():
        assert {"train-model", "sac", "drop"} == of.keys()
        assert all(each == {"difference": 0.0, "eager_twice": 0.0, "doubt": None} for each in of.values())
    assert result["parity"]["precisions"].keys() == {"fp32", "bf16"} and result["parity"]["largest"] == 0
    assert result["quickstart"]["evaluation"]["return_mean"] > 0
    assert result["bench"]["seeds"]["2"]["rates"]["policy updates, 2 seeds"] > 0
    profiles = result["hopper"]["profiles"]
    assert profiles.keys() == {f"train-{what}, {how}" for what in ("model", "policy") for how in ("recorded", "eager")}
    for each in profiles.values():
        assert each["launches_per_update"] > 50 and 0 < each["busy_share"] <= 1 and each["doubt"] is None
        assert 0 <= each["gap_median_us"] <= each["gap_90_percent_us"] <= each["gap_longest_us"]
    assert result["hopper"]["train-policy_seconds"] > 0 and not result["hopper"]["full_epochs"]
    assert list(result["memory"]["memory"])[:2] == ["train-model", "train-policy, mopo, 1 seeds"]
    assert all(each["peak_bytes"] > each["estimate_bytes"] > 0 for each in result["memory"]["memory"].values())
    assert result["resume"] | {"seconds": 0} == {
        **{"status": "ok", "seconds": 0, "checkpoints": 1, "resumed": True, "differences": [0.0, 0.0]}
    }


def test_it_is_started_as_a_module() -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-m", "gpu", "--help"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "--quick" in done.stdout


def of(folder: Path, seconds: float = 60.0) -> Check:
    return Check("cpu", True, folder, seconds, "parity")


def crash(_: Check) -> None:
    faulthandler.disable()  # its report would be read as one of these tests
    os.kill(os.getpid(), signal.SIGSEGV)


def fail(check: Check) -> None:
    check.note(seen=1)
    raise Failed("2 is not 3")


def raise_error(_: Check) -> None:
    raise ValueError("nobody expects this")


@pytest.mark.parametrize(
    ("step", "status", "why"),
    [
        (lambda check: check.note(seen=1), "ok", None),
        (fail, "failed", "2 is not 3"),
        (crash, "failed", "it ended with -11"),
        (raise_error, "failed", "it ended with 1"),
    ],
)
def test_a_step_that_goes_wrong_costs_nothing_else(
    tmp_path: Path, step: Callable[[Check], None], status: str, why: str | None
) -> None:
    result = run_step(step, of(tmp_path))
    assert (result["status"], result.get("why")) == (status, why)
    assert ("seen" in result) == (step not in (crash, raise_error))
    assert step is not raise_error or result["log"][-1] == "ValueError: nobody expects this"


def test_a_step_whose_time_is_up_is_ended_with_all_that_it_started_and_keeps_what_it_found(tmp_path: Path) -> None:
    def sleep(check: Check) -> None:
        child = subprocess.Popen(["sleep", "1000"])
        check.note(child=child.pid)
        child.wait()

    checked, waited = of(tmp_path, 0.5), time.monotonic() + 60
    result = run_step(sleep, checked)
    while "child" not in result:  # the machine is too busy to start anything in that time
        checked.seconds *= 2
        result = run_step(sleep, checked)
    assert (result["status"], result["why"]) == ("timeout", "its time was up")
    while Path(f"/proc/{result['child']}").exists() and "Z" not in state(result["child"]):
        assert time.monotonic() < waited
        time.sleep(0.01)


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def nothing(_: Check) -> None:
    pass


def run_main(tmp_path: Path, *flags: str) -> tuple[int, dict[str, Any]]:
    output = tmp_path / "check.json"
    code = main(["--device", "cpu", "--output", str(output), *flags])
    return code, json.loads(output.read_text())


def test_one_step_that_fails_fails_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[list[str]] = []

    def watch(path: Path, document: dict[str, Any]) -> None:
        written.append(list(document.get("steps", ())))
        write(path, document)

    write = check.write
    monkeypatch.setattr(check, "about", nothing)
    for name in BUDGETS:
        monkeypatch.setattr(steps, name, nothing)
    assert run_main(tmp_path)[0] == 0
    monkeypatch.setattr(steps, "parity", fail)
    monkeypatch.setattr(check, "write", watch)
    code, document = run_main(tmp_path)
    assert code == 1 and not document["ok"] and document["steps"]["parity"]["why"] == "2 is not 3"
    assert [step["status"] for step in document["steps"].values()].count("ok") == len(BUDGETS) - 1
    assert written == [list(BUDGETS)[: count + 1] for count in range(len(BUDGETS))], "after every step"


def test_no_step_begins_when_the_time_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "about", nothing)
    code, document = run_main(tmp_path, "--seconds", "0")
    assert code == 1 and {step["status"] for step in document["steps"].values()} == {"skipped"}
    assert sum(BUDGETS.values()) == check.SECONDS < 600


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_says_so_in_one_sentence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--output", str(tmp_path / "check.json")]) == 2
    said = capfd.readouterr().err
    assert said.startswith("no CUDA device is usable here: ") and said.count("\n") == 1
    assert said.endswith("; run this on a machine with an NVIDIA GPU\n") and not list(tmp_path.iterdir())


def test_gaps_and_the_busy_share_are_those_of_what_runs_at_once() -> None:
    result = occupancy([(10, 20), (0, 4), (12, 15), (30, 40), (20, 24)])
    assert result == pytest.approx(
        {"busy_share": 28 / 40, "gap_median_us": 3.0, "gap_90_percent_us": 6.0, "gap_longest_us": 6.0}
    )
    assert occupancy([(3, 5)])["busy_share"] == 1 and set(occupancy([]).values()) == {None}


def test_a_gpu_s_launches_and_kernels_are_counted() -> None:
    def event(name: str, kind: str, begin: float, end: float, **more: bool) -> SimpleNamespace:
        span = SimpleNamespace(start=begin, end=end)
        return SimpleNamespace(name=name, device_type=SimpleNamespace(name=kind), time_range=span, **more)

    events = [
        event("aten::mm", "CPU", 0, 9),
        *(event(name, "CPU", 1, 2) for name in ("cudaLaunchKernel", "cudaLaunchKernelExC", "cudaGraphLaunch")),
        event("cudaDeviceSynchronize", "CPU", 3, 30),
        event("sgemm", "CUDA", 10, 14),
        event("Memcpy DtoD", "CUDA", 18, 20),
        event("mopo", "CUDA", 0, 100, is_user_annotation=True),
    ]
    result = summary(events, 2, cuda=True)
    assert (result["launches_per_update"], result["kernels_per_update"]) == (1.5, 1.0)
    assert (result["busy_share"], result["gap_longest_us"]) == (0.6, 4.0)


def test_the_difference_is_the_largest_and_what_is_no_number_is_infinite() -> None:
    one = {"a": torch.tensor([3.0, 4.0]), "b": torch.ones(2)}
    assert difference(one, one) == 0
    assert difference(one | {"a": torch.tensor([3.0, 4.5])}, one) == pytest.approx(0.1)
    assert difference(one | {"b": torch.tensor([1.0, torch.nan])}, one) == float("inf")
