"""A behaviour whose training is stopped or killed at any moment and started again: the bytes are the same."""

import random
import signal
from pathlib import Path
from typing import Any

import pytest

LINE = "fetch-data --dataset generate:InvertedPendulum-v5:medium-expert --run runs/one --device cpu --threads 1"
LINE += " --transitions 100 --behaviour-steps 300 --medium-return 1"


def made(folder: Path) -> tuple[bytes, bytes]:
    """The dataset, and the training that stays in the cache."""
    (dataset,) = folder.glob("cache/datasets/*/dataset.h5")
    (training,) = folder.glob("cache/behaviours/*/behaviour.safetensors")
    return dataset.read_bytes(), training.read_bytes()


def nothing_left_over(folder: Path) -> bool:
    return not any("mopo-tmp" in path.name or "staged" in path.name for path in folder.rglob("*"))


def start(child: Any, folder: Path, **how: Any) -> Any:
    folder.mkdir(exist_ok=True)
    return child(folder, LINE, **how)


@pytest.fixture(scope="module")
def uninterrupted() -> dict[str, Any]:
    return {}


@pytest.fixture(autouse=True)
def whole(uninterrupted: dict[str, Any], child: Any, tmp_path: Path) -> tuple[bytes, bytes]:
    """What an ordinary process makes, which saves nothing on the way."""
    if not uninterrupted:
        assert start(child, tmp_path / "whole", checkpoint_always=False).code == 0
        uninterrupted["made"] = made(tmp_path / "whole")
        uninterrupted["moments"] = start(child, tmp_path / "watched").moments
        assert made(tmp_path / "watched") == uninterrupted["made"]
    result: tuple[bytes, bytes] = uninterrupted["made"]
    return result


@pytest.mark.parametrize("seed", range(2))
def test_killed_at_random_moments_and_started_again_it_ends_with_the_same_bytes(
    seed: int, tmp_path: Path, child: Any, whole: tuple[bytes, bytes], uninterrupted: dict[str, Any]
) -> None:
    chance, moments, went_on = random.Random(seed), uninterrupted["moments"], 0
    assert moments > 40
    for _ in range(3):
        ended = start(child, tmp_path / "killed", fatal=chance.randint(moments // 8, moments // 3))
        assert ended.code == -signal.SIGKILL
        went_on += "goes on at" in ended.err
    last = start(child, tmp_path / "killed")
    assert last.code == 0 and went_on + ("goes on at" in last.err) >= 2
    assert made(tmp_path / "killed") == whole
    assert nothing_left_over(tmp_path / "killed")


def test_killed_while_publishing(
    tmp_path: Path, child: Any, whole: tuple[bytes, bytes], uninterrupted: dict[str, Any]
) -> None:
    for before_the_end in (3, 7, 10, 14):
        folder = tmp_path / str(before_the_end)
        ended = start(child, folder, fatal=uninterrupted["moments"] - before_the_end)
        assert ended.code == -signal.SIGKILL
        assert start(child, folder).code == 0
        assert made(folder) == whole and nothing_left_over(folder)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_the_same_command_goes_on(
    signum: signal.Signals, code: int, tmp_path: Path, child: Any, whole: tuple[bytes, bytes]
) -> None:
    for fatal in (4, 6):
        # No checkpoint but the one the signal calls for.
        ended = start(child, tmp_path / "stopped", fatal=fatal, signum=signum, checkpoint_always=False)
        assert ended.code == code
        assert f"{signum.name}: saving" in ended.err and "same command again" in ended.err
        assert ("goes on at" in ended.err) == (fatal == 6)
    last = start(child, tmp_path / "stopped", checkpoint_always=False)
    assert last.code == 0 and "goes on at" in last.err
    assert made(tmp_path / "stopped") == whole
