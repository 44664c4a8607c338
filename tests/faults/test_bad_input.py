"""Data files that cannot be used: each is refused in one sentence, and nothing on disk changes."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

PENDULUM = "fetch-data --dataset ./logs.h5 --env InvertedPendulum-v5"
Columns = dict[str, np.ndarray[Any, Any]]


def good_columns() -> Columns:
    """Forty steps of a four-dimensional state that moves on, four episodes of ten."""
    rng = np.random.default_rng(0)
    states = rng.normal(size=(41, 4)).astype(np.float32)
    terminals = np.arange(40) % 10 == 9
    return {
        "observations": states[:-1],
        "actions": rng.uniform(-3, 3, size=(40, 1)).astype(np.float32),
        "rewards": np.ones(40, np.float32),
        "next_observations": states[1:] + terminals[:, None],
        "terminals": terminals,
        "timeouts": np.zeros(40, bool),
    }


@pytest.fixture(autouse=True)
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A good file, logs.h5, in the working directory."""
    monkeypatch.chdir(tmp_path)
    write(good_columns())
    return Path("logs.h5")


def write(columns: Columns) -> None:
    with h5py.File("logs.h5", "w") as file:
        for name, column in columns.items():
            file[name] = column


def test_the_good_file_is_taken(mopo: Any) -> None:
    assert mopo(PENDULUM).code == 0


def changed(name: str, value: Callable[[np.ndarray[Any, Any]], Any]) -> Columns:
    columns = good_columns()
    columns[name] = value(columns[name].copy())
    return columns


def without(name: str) -> Columns:
    columns = good_columns()
    del columns[name]
    return columns


def with_entry(place: tuple[int, ...], value: float) -> Callable[[np.ndarray[Any, Any]], Any]:
    def put(column: np.ndarray[Any, Any]) -> Any:
        column[place] = value
        return column

    return put


BAD_COLUMNS = {
    "observations missing": (without("observations"), "observations"),
    "terminals missing": (without("terminals"), "terminals"),
    "observations flat": (changed("observations", np.ravel), "observations"),
    "observations cubic": (changed("observations", lambda c: c[:, :, None]), "observations"),
    "actions flat": (changed("actions", np.ravel), "actions"),
    "rewards wide": (changed("rewards", lambda c: np.stack([c, c], axis=1)), "rewards"),
    "rewards short": (changed("rewards", lambda c: c[:-1]), "rewards"),
    "terminals short": (changed("terminals", lambda c: c[:-3]), "terminals"),
    "next_observations narrow": (changed("next_observations", lambda c: c[:, :3]), "next_observations"),
    "rewards text": (changed("rewards", lambda c: np.array([b"one"] * len(c))), "rewards"),
    "terminals neither 0 nor 1": (changed("terminals", lambda c: c * 2.0), "terminals"),
    "observations NaN": (changed("observations", with_entry((5, 2), np.nan)), "row 5"),
    "next_observations infinite": (changed("next_observations", with_entry((9, 0), np.inf)), "row 9"),
    "rewards NaN": (changed("rewards", with_entry((7,), np.nan)), "row 7"),
    "actions NaN": (changed("actions", with_entry((0, 0), np.nan)), "row 0"),
    "actions out of range": (changed("actions", with_entry((11, 0), 3.5)), "row 11"),
    "actions too wide": (
        changed("actions", lambda c: np.repeat(c, 2, axis=1)),
        "2 dimensions, but InvertedPendulum-v5 has 1",
    ),
    "episodes not marked": (changed("next_observations", lambda c: c[::-1].copy()), "next_observations differs"),
    "no rows": ({name: column[:0] for name, column in good_columns().items()}, "has no rows"),
}


@pytest.mark.parametrize("fault", BAD_COLUMNS)
def test_columns_that_do_not_fit(refuses: Any, fault: str) -> None:
    columns, said = BAD_COLUMNS[fault]
    write(columns)
    refuses(PENDULUM, 4, said)
    assert not Path("runs").exists()


@pytest.mark.parametrize("size", [0, 10, 2000])
def test_a_file_that_is_cut_short(refuses: Any, logs: Path, size: int) -> None:
    logs.write_bytes(logs.read_bytes()[:size])
    refuses(PENDULUM, 5, "logs.h5")


def test_a_file_that_is_not_hdf5(refuses: Any, logs: Path) -> None:
    logs.write_text("observations,actions\n" * 1000)
    refuses(PENDULUM, 5, "logs.h5 is not an HDF5 file")


def test_a_run_whose_data_are_there_is_left_alone_by_a_bad_file(refuses: Any, mopo: Any) -> None:
    assert mopo(PENDULUM).code == 0
    write(without("actions"))
    refuses(PENDULUM, 4, "actions")


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("fetch-data --dataset ./gone.h5 --env Hopper-v5", 4, "gone.h5 does not exist"),
        ("fetch-data --dataset ./ --env Hopper-v5", 4, "4 dimensions, but Hopper-v5 has 11"),
        ("fetch-data --dataset ./logs.h5 --env Hopper-v5", 4, "4 dimensions, but Hopper-v5 has 11"),
        ("fetch-data --dataset ./logs.h5 --env NoSuchTask-v1", 4, "NoSuchTask-v1"),
        ("fetch-data --dataset ./logs.h5 --env os:path", 4, "The module 'os' was imported, but"),
        ("fetch-data --dataset ./logs.h5 --env CartPole-v1", 4, "Discrete(2)"),
        ("fetch-data --dataset generate:NoSuchTask-v1:random", 4, "NoSuchTask-v1"),
        ("fetch-data --dataset generate:NoSuchTask-v1:expert", 4, "NoSuchTask-v1"),
        ("fetch-data --dataset generate:CartPole-v1:random", 4, "Discrete(2)"),
        ("fetch-data --dataset generate:CartPole-v1:medium --behaviour-steps 50", 4, "Discrete(2)"),
        ("fetch-data --dataset generate:Pendulum-v1:medium --behaviour-steps 50", 4, "--medium-return"),
        ("fetch-data --dataset generate:InvertedPendulum-v5:random --transitions 1", 4, "1 transition is not enough"),
        ("fetch-data --dataset generate:Hopper-v5:novice", 4, "'novice'"),
        ("fetch-data --dataset generate:Hopper-v5:random --env Walker2d-v5", 2, "contradicts"),
        ("fetch-data --dataset walker2d-full-replay-v0", 4, "D4RL has no walker2d-full-replay-v0"),
        ("fetch-data --dataset walker2d-medium --mirror my.server", 2, "--mirror must be an http"),
        ("fetch-data --dataset walker2d-medium --env Walker2d-v5", 2, "--env Walker2d-v5 contradicts"),
        ("fetch-data --dataset walker2d-medum", 4, "did you mean 'walker2d-medium'"),
        ("train-model --dataset walker2d-full-replay-v0", 4, "D4RL has no"),
        ("run walker2d-full-replay-v0", 4, "D4RL has no"),
        ("run ./gone.h5", 4, "gone.h5"),
        ("show gone.h5", 4, "gone.h5"),
    ],
)
def test_a_name_that_stands_for_nothing_usable(refuses: Any, line: str, code: int, said: str) -> None:
    refuses(line, code, said)
    assert not Path("runs").exists()


def test_a_file_in_place_of_a_folder(refuses: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("file").write_text("")
    refuses(f"{PENDULUM} --run file", 4, "file")
    refuses(f"{PENDULUM} --run file/run", 4, "file")
    monkeypatch.setenv("MOPO_HOME", str(Path("file").resolve()))
    refuses(f"{PENDULUM} --run there", 4, "file")


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_a_cached_data_set_that_is_damaged(refuses: Any, mopo: Any, damage: str) -> None:
    assert mopo(PENDULUM).code == 0
    (cached,) = Path(os.environ["MOPO_HOME"]).rglob("dataset.h5")
    content = bytearray(cached.read_bytes())
    content[len(content) // 2] ^= 255
    if damage == "gone":
        cached.unlink()
    else:
        cached.write_bytes(content[:1000] if damage == "cut" else content)
    small = "--networks 2 --hidden 8 --layers 1 --weight-decay 0,0 --max-epochs 1 --threads 1"
    if damage == "gone":  # it is brought anew
        assert mopo(f"train-model {small}").code == 0
    else:
        refuses(f"train-model {small}", 5, "dataset.h5")
        assert mopo(PENDULUM).code == 0  # the same command mends it
        assert mopo(f"train-model {small}").code == 0
