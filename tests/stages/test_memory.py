"""What training takes in memory, and that it is refused where that is not there."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mopo_cli.agents.replay import Pool
from mopo_cli.config.schema import TrainModel, TrainPolicy
from mopo_cli.dynamics.fit import start_fit
from mopo_cli.dynamics.split import FitData
from mopo_cli.dynamics.training import advance
from mopo_cli.engine.processes import can_team
from mopo_cli.engine.rows import Rows
from mopo_cli.errors import SettingsError
from mopo_cli.stages import memory, train_model
from mopo_cli.stages.memory import check_memory, model_bytes, policy_bytes
from mopo_cli.stages.train_model import fit_settings
from mopo_cli.store import machine_memory

CPU = torch.device("cpu")
ROWS = Rows(11, 3, 3)
POLICY = TrainPolicy(rollout_batch=700, pool_epochs=3)


def test_pools_take_what_is_said() -> None:
    needed = policy_bytes(POLICY, ROWS, 1000, [5, 2, 1])
    pool = Pool([700 * 3 * h for h in (5, 2, 1)], ROWS.width)
    assert needed["pools"] == pool.rows.numel() * pool.rows.element_size()


def test_every_process_makes_rollouts_of_its_own() -> None:
    alone, together = (policy_bytes(POLICY, ROWS, 1000, [5, 2, 1], processes) for processes in (1, 3))
    step = "a rollout step"
    assert together[step] == 3 * alone[step] and together == alone | {step: together[step]}


def test_what_imagines_nothing_needs_the_data_alone() -> None:
    assert list(policy_bytes(TrainPolicy(real_ratio=1.0), ROWS, 1000, [5])) == ["data"]


def test_ensembles_take_what_is_said() -> None:
    settings, rows = TrainModel(networks=3, hidden=20, layers=2, weight_decay=(0, 0, 0), seeds=2), 1000  # type: ignore[arg-type]
    needed = model_bytes(settings, rows, 6, 5)
    columns = torch.randn(rows, 4), torch.randn(rows, 2), torch.randn(rows), torch.randn(rows, 4)
    data = FitData.of(*columns)
    fit = start_fit(data, fit_settings(settings), (0, 1))
    advance(fit, data, 1)
    assert fit.order is not None
    permuted = sum(part.numel() * part.element_size() for split in fit.splits for part in (split.train, split.holdout))
    in_order = fit.order.numel() * fit.order.element_size()
    assert needed["orders"] == permuted + 2 * in_order * rows // fit.order.shape[1]
    assert needed["networks"] == 7 * fit.flat.numel() * fit.flat.element_size()
    assert needed["scaling"] == 2 * data.inputs.double().nbytes
    together = model_bytes(settings, rows, 6, 5, processes=3)
    networks = "networks"
    assert together[networks] == needed[networks] + 2 * fit.adam.grad.nbytes
    assert together == needed | {networks: together[networks]}


def test_a_model_that_does_not_fit_is_refused(tiny_run: Path, mopo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_memory, "_free_of_machine", lambda: 1000)
    outcome = mopo("train-model --config tiny.yaml --threads 1 --force")
    assert outcome.code == 3 and "0.0 GB free" in outcome.err and "fewer --networks" in outcome.err
    assert (tiny_run / "model/ensemble.safetensors").is_file()


def test_a_model_s_processes_are_counted(tiny_run: Path, mopo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def noted(*given: Any) -> dict[str, int]:
        asked.append(given[4])
        return model_bytes(*given)

    monkeypatch.setattr(train_model, "model_bytes", noted)
    for threads in (1, 2):
        assert mopo(f"train-model --config tiny.yaml --threads {threads} --force").code == 0
    assert asked == [1, 2 if can_team() else 1]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(machine_memory, "_CGROUP", tmp_path)
    monkeypatch.setattr(machine_memory, "_free_of_machine", lambda: 8_000_000_000)
    return tmp_path


def test_too_much_is_refused_by_name_and_with_the_mend(machine: Path) -> None:
    check_memory({"data": 1_000_000_000, "pools": 6_900_000_000}, CPU)
    with pytest.raises(SettingsError) as caught:
        check_memory({"data": 1_000_000_000, "pools": 7_100_000_000}, CPU)
    assert caught.value.message == "Training needs about 8.1 GB (data 1.0, pools 7.1), and cpu has 8.0 GB free."
    assert "--rollout-batch" in caught.value.hint


@pytest.mark.parametrize(("limit", "refused"), [("4000000000", True), ("max", False), ("5100000000", False)])
def test_a_containers_limit_counts(machine: Path, limit: str, refused: bool) -> None:
    (machine / "memory.max").write_text(f"{limit}\n")
    (machine / "memory.current").write_text("1100000000\n")
    (machine / "memory.stat").write_text("anon 90000000\ninactive_file 1000000000\nactive_file 10000000\n")
    if refused:
        with pytest.raises(SettingsError, match=r"3\.9 GB free"):
            check_memory({"pools": 4_000_000_000}, CPU)
    else:
        check_memory({"pools": 4_000_000_000}, CPU)


def test_this_machine_has_memory() -> None:
    free = memory._free_bytes(CPU)
    assert free is not None and 10**7 < free < 10**15
