"""Whole commands on a GPU that computes on the CPU: from --device to the files, and what is begun on a CPU there."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from probes.behaviours import TINY
from probes.fake_cuda import FakeCuda, fake_cuda
from probes.runs import stop_at
from probes.stacks import OWN

from mopo_cli.agents.algorithms import NAMES, load
from mopo_cli.bench import measure, timing, workloads
from mopo_cli.errors import UsageError
from mopo_cli.stages.common.device import open_device, open_recorder
from mopo_cli.stages.common.options import Options

SMALL = "--config tiny.yaml --threads 1 --json"
SHORT = "--epochs 1 --steps-per-epoch 10 --rollout-every 10 --rollout-batch 50 --eval-episodes 1"
POLICY = "runs/tiny/policies/mopo_max-var_lam1_h2/seed-0/policy.safetensors"


@pytest.fixture
def cuda(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    """The device, in the folder of a finished run."""
    monkeypatch.setattr("mopo_cli.stages.common.train_behaviour.RECIPE", TINY)
    with fake_cuda() as device:
        yield device


def done(mopo: Any, line: str) -> dict[str, Any]:
    """What a command says that computes there."""
    outcome = mopo(f"{line} {SMALL}")
    assert outcome.code == 0 and "eagerly" not in outcome.err, outcome.err
    return json.loads(outcome.out)


@pytest.mark.parametrize("asked", ["auto", "cuda", "cuda:0"])
def test_the_device_is_opened_by_its_number(cuda: FakeCuda, asked: str) -> None:
    device = open_device(Options(device=asked))
    assert device == torch.device("cuda:0") and open_recorder(Options(), device) is not None
    assert open_device(Options(device="cpu")) == torch.device("cpu")


@pytest.mark.parametrize("name", NAMES)
def test_policies_are_trained_and_published(cuda: FakeCuda, name: str, mopo: Any) -> None:
    flags = " ".join(f"--{key.replace('_', '-')} {value}" for key, value in OWN[name].items())
    real = "--real-ratio 1" if load(name).learns_from == "real" else ""
    result = done(mopo, f"train-policy --algorithm {name} --name new --seeds 2 {real} {SHORT} {flags}")
    assert result["diverged"] == [] and cuda.recorded > 0
    for seed in (0, 1):
        assert Path(f"runs/tiny/policies/new/seed-{seed}/policy.safetensors").is_file()


LINES = {
    "all uncertainties against the true error": f"rollout --force --diagnose --name new --actions {POLICY}",
    "a map": "rollout --force --map --rollout-precision bf16 --penalty-scale standardised --penalty-networks elite",
    "evaluation": "evaluate --force",
    "the bound": "evaluate --bound",
    "a rollout file": f"train-policy --rollouts runs/tiny/rollouts/uniform_h2.h5 --name new {SHORT}",
    "a simulator's penalty": f"train-policy --penalty oracle --name new --update-precision tf32 {SHORT}",
    "an ablation": f"ablate --method mopo,mbpo-no-ens,bc --name new --rank offline {SHORT}",
    "behaviours": "fetch-data --dataset generate:InvertedPendulum-v5:medium --behaviour-steps 120 --transitions 50 "
    "--medium-return 1 --run runs/other",
}


@pytest.mark.parametrize("what", LINES)
def test_whole_commands(cuda: FakeCuda, what: str, mopo: Any) -> None:
    done(mopo, LINES[what])
    assert cuda.fetched and cuda.sent, "it computed there"


@pytest.mark.parametrize("norm", ["none", "per-network"])
def test_a_model_begun_on_a_cpu_is_finished_there(cuda: FakeCuda, norm: str, mopo: Any, monkeypatch: Any) -> None:
    """By streams that draw the same there as here; those of a real GPU do not."""
    train = f"train-model --update-precision bf16 --spectral-norm {norm}"
    assert mopo(f"{train} {SMALL} --device cpu").code == 0
    wanted = json.loads(Path("runs/tiny/model/model.json").read_text())["holdout_mse"]["0"]
    Path("runs/tiny/model/model.json").unlink()
    with monkeypatch.context() as patch:
        stop_at(0, patch)
        assert mopo(f"{train} {SMALL} --device cpu").code == 143
    assert done(mopo, train)["holdout_mse"]["0"] == pytest.approx(wanted, rel=1e-2)
    assert cuda.recorded == 1


def test_policies_begun_on_a_cpu_are_finished_there(cuda: FakeCuda, mopo: Any, monkeypatch: Any) -> None:
    train = f"train-policy --name new --seeds 2 {SHORT} --epochs 2"
    with monkeypatch.context() as patch:
        stop_at(0, patch)
        assert mopo(f"{train} {SMALL} --device cpu").code == 143
    done(mopo, train)
    assert cuda.recorded == 1
    records = Path("runs/tiny/policies/new/seed-1/metrics.jsonl").read_text().splitlines()
    assert [json.loads(record)["epoch"] for record in records] == [1, 2]


def test_the_benchmark(cuda: FakeCuda, mopo: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(timing, "_LEAST", 2), monkeypatch.setattr(timing, "_PATIENCE", 0)
    monkeypatch.setattr(measure, "MODEL_STEPS", 5), monkeypatch.setattr(workloads, "MODEL_STEPS", 5)
    Path("tiny.yaml").write_text(
        "train-model: {networks: 2, hidden: 16, layers: 1, weight-decay: [0.1, 0.1], batch-size: 8}\n"
        "train-policy: {hidden: 16, batch-size: 8, rollout-batch: 20, h: 2, steps-per-epoch: 5, rollout-every: 5}\n"
    )
    result = done(mopo, "bench --preset generate-InvertedPendulum-v5-random --rows 1000 --seconds 0.1 --seeds 2")
    assert result["device"] == "cuda:0" and result["engine"] == "cudagraph"
    assert all(rate["per_second"] > 0 and not rate.get("note") for rate in result["rates"].values())
    assert {"rollouts in tf32", "policy updates in bf16, 2 seeds"} <= result["rates"].keys()


def test_a_device_that_is_not_there(tiny_run: Path) -> None:
    with pytest.raises(UsageError, match="--device cuda:77 is not usable here"):
        open_device(Options(device="cuda:77"))
