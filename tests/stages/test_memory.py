"""Whether it fits: what is free, and what is said of settings that need more."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from mopo_cli.config.learners import with_algorithm
from mopo_cli.config.schema import Rollout, TrainModel, TrainPolicy
from mopo_cli.engine.rows import RowLayout
from mopo_cli.errors import SettingsError
from mopo_cli.stages.common import memory
from mopo_cli.stages.common.inputs import dataset_path
from mopo_cli.stages.common.memory import cells_that_fit, check_memory
from mopo_cli.store import machine
from mopo_cli.store.run import RunFolder

CPU = torch.device("cpu")
GB = 1_000_000_000


def by_rows(settings: TrainPolicy) -> dict[str, int]:
    """A kilobyte per row of a batch and seed, and a hundred kilobytes per unit."""
    return {"steps": settings.seed_count * settings.batch_size * 1000, "networks": settings.hidden * 100_000}


def test_a_model_that_does_not_fit_is_refused(tiny_run: Path, refuses: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_free_of_machine", lambda: 1000)
    refuses("train-model --config tiny.yaml --threads 1 --force", 3, "0.0 GB free")


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    monkeypatch.setattr(machine, "_free_of_machine", lambda: 8 * GB)
    return tmp_path


@pytest.mark.parametrize(
    ("given", "said", "hint"),
    [
        (
            {"batch_size": 10_000_000},
            "--batch-size 10000000 with 1 seed needs about 10.0 GB (steps 10.0), and cpu has 8.0 GB free.",
            "--batch-size of at most about 7,900,000",  # 7,974,400 by the formula, to two digits
        ),
        (
            {"batch_size": 1_000_000, "seeds": 20},
            "--batch-size 1000000 with 20 seeds needs about 20.0 GB (steps 20.0), and cpu has 8.0 GB free.",
            "--batch-size of at most about 390,000",
        ),
        (
            {"seeds": 100_000},
            "--seeds 100000 needs about 25.6 GB (steps 25.6), and cpu has 8.0 GB free.",
            "--seeds of at most about 31,000",
        ),
        (
            {"seed_list": tuple(range(40_000))},
            "--seed-list of 40000 seeds needs about 10.3 GB (steps 10.2), and cpu has 8.0 GB free.",
            "--seed-list of at most about 31,000",
        ),
        (
            {"hidden": 2**60},
            "--hidden 1152921504606846976 with 1 seed needs about 115,292,150,460,685 GB (networks 115,292,150,460,685)"
            ", and cpu has 8.0 GB free.",
            "--hidden of at most about 79,000",
        ),
        (
            {"batch_size": 10**10, "hidden": 10**9},
            "--hidden 1000000000 with 1 seed needs about 110,000 GB (networks 100,000, steps 10,000), and cpu has 8.0"
            " GB free.",
            "smaller --hidden",
        ),
    ],
)
def test_the_setting_that_matters_most_is_named(cgroup: Path, given: dict[str, Any], said: str, hint: str) -> None:
    with pytest.raises(SettingsError) as caught:
        check_memory(TrainPolicy(**given), by_rows, CPU)
    assert (caught.value.message, caught.value.hint) == (said, hint)


def test_what_is_said_to_fit_fits_and_a_little_more_does_not(cgroup: Path) -> None:
    def size(batch: int) -> TrainPolicy:
        return TrainPolicy(batch_size=batch, seeds=3)

    with pytest.raises(SettingsError) as caught:
        check_memory(size(10**7), by_rows, CPU)
    fits = int(caught.value.hint.rpartition(" ")[2].replace(",", ""))
    check_memory(size(fits), by_rows, CPU)
    with pytest.raises(SettingsError):
        check_memory(size(fits * 11 // 10), by_rows, CPU)


def test_where_no_setting_matters_none_is_named(cgroup: Path) -> None:
    needed = {"data": 8 * GB, "pools": GB // 10, "orders": 1}
    for settings in (Rollout(), TrainModel(seeds=2)):
        with pytest.raises(SettingsError) as caught:
            check_memory(settings, lambda some: needed, CPU)
        assert caught.value.message == "Training needs about 8.1 GB (data 8.0), and cpu has 8.0 GB free."
        assert "--" not in caught.value.hint
    check_memory(Rollout(), lambda some: {"data": 8 * GB}, CPU)


def test_the_schedule_is_not_what_is_named(cgroup: Path) -> None:
    settings = TrainPolicy(batch_size=300, epochs=10**9, steps_per_epoch=10**9)

    def estimate(some: TrainPolicy) -> dict[str, int]:
        return {"steps": some.epochs * some.steps_per_epoch * some.batch_size}

    with pytest.raises(SettingsError, match=r"^--batch-size 300 with 1 seed needs"):
        check_memory(settings, estimate, CPU)


@pytest.mark.parametrize(("limit", "refused"), [("4000000000", True), ("max", False), ("5100000000", False)])
def test_a_containers_limit_counts(cgroup: Path, limit: str, refused: bool) -> None:
    (cgroup / "memory.max").write_text(f"{limit}\n")
    (cgroup / "memory.current").write_text("1100000000\n")
    (cgroup / "memory.stat").write_text("anon 90000000\ninactive_file 1000000000\nactive_file 10000000\n")
    with pytest.raises(SettingsError, match=r"3\.9 GB free") if refused else nullcontext():
        check_memory(Rollout(), lambda some: {"rows": 4 * GB}, CPU)


def test_this_machine_has_memory() -> None:
    free = memory._free_bytes(CPU)
    assert free is not None and 10**7 < free < 10**15


def test_as_many_cells_train_together_as_their_pools_leave_room_for(finished_run: Path) -> None:
    dataset = dataset_path(RunFolder(finished_run / "runs/tiny"))
    settings = with_algorithm(TrainPolicy, "sac")(seeds=2, h=5, rollout_batch=1_000_000, pool_epochs=10)
    row = RowLayout(4, 1, 1).width * 4
    pools = 2 * 5 * 1_000_000 * 10 * row  # bytes of a cell; all else is small beside them
    assert [cells_that_fit(settings, dataset, pools * share) for share in (0.1, 1.2, 2.2, 5.2)] == [1, 1, 2, 5]
