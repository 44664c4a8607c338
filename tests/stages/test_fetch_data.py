"""fetch-data: the cache, the lineage, and what happens to names and files that will not do."""

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from filelock import FileLock

import mopo_cli.stages.fetch_data as stage
from mopo_cli.config.schema_data import FetchData
from mopo_cli.data.transition_files import read_dataset
from mopo_cli.errors import InputError, LockedError, Stopped
from mopo_cli.report.console import Report
from mopo_cli.stages.common.options import Options
from mopo_cli.store.atomic import sha256_file
from mopo_cli.store.lineage import read_lineage
from mopo_cli.store.run import RunFolder

GENERATED = "generate:InvertedPendulum-v5:random"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder and a cache of the test's own."""
    monkeypatch.setenv("MOPO_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("MOPO_RUN", raising=False)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def fetch(
    dataset: str = GENERATED, run: str = "runs/one", force: bool = False, mode: Any = "quiet", **settings: Any
) -> dict[str, Any]:
    settings = {"transitions": 60, **settings}
    return stage.run_fetch_data(
        RunFolder(Path(run)), FetchData(dataset=dataset, **settings), Options(force=force), Report(mode)
    )


def my_file(**changes: Any) -> Path:
    """Three one-dimensional steps without an environment, in D4RL's layout."""
    columns = {
        "observations": np.array([[0], [1], [2]], "f4"),
        "actions": np.array([[0], [1], [-1]], "f8"),
        "rewards": np.array([[1], [2], [3]], "f8"),
        "terminals": np.array([0, 0, 1], "u1"),
        "timeouts": np.array([0, 0, 0], "u1"),
        "next_observations": np.array([[1], [2], [3]], "f4"),
    }
    with h5py.File("my logs.h5", "w") as file:
        for name, value in {**columns, **changes}.items():
            file[name] = value
    return Path("my logs.h5")


def test_a_generated_set_lies_in_the_cache_and_the_run_refers_to_it(place: Path) -> None:
    result = fetch()
    record = read_lineage(RunFolder(Path("runs/one")))["fetch-data"]
    path = Path(record.outputs["dataset"]["path"])
    assert path.is_absolute() and path.is_relative_to(place / "cache")
    assert re.fullmatch("generate-InvertedPendulum-v5-random-[0-9a-f]{12}", path.parent.name)
    assert record.outputs["dataset"]["sha256"] == sha256_file(path)
    assert json.loads(path.with_name("dataset.json").read_text())["sha256"] == sha256_file(path)
    transitions, info = read_dataset(path)
    assert (len(transitions), info.seed, info.dataset_id) == (60, 0, GENERATED)
    assert result["outputs"] == {"dataset": str(path)}
    assert (result["transitions"], result["env_id"]) == (60, "InvertedPendulum-v5")
    assert result["episodes"] == result["terminals"] + result["timeouts"]
    assert result["return_mean"] == pytest.approx(transitions.rewards.sum() / result["episodes"])


def test_the_same_request_is_up_to_date(place: Path, contents: Any) -> None:
    assert not fetch()["up_to_date"]
    before = contents(place)
    assert fetch()["up_to_date"]
    assert contents(place) == before


def test_another_run_takes_it_from_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    first = fetch()
    monkeypatch.setattr(stage, "make_dataset", None)
    second = fetch(run="runs/two")
    assert second["outputs"] == first["outputs"] and not second["up_to_date"]
    assert second["return_mean"] == first["return_mean"]


@pytest.mark.parametrize("change", [{"seed": 1}, {"transitions": 61}])
def test_other_settings_are_other_data(change: dict[str, Any]) -> None:
    assert fetch()["outputs"] != fetch(**change)["outputs"]


@pytest.mark.parametrize("damage", ["dataset.h5", "dataset.json"])
def test_a_damaged_cache_is_made_anew(damage: str, contents: Any) -> None:
    path = Path(fetch()["outputs"]["dataset"])
    good = contents(path.parent)
    with (path.parent / damage).open("r+b") as file:
        file.truncate(10)
    assert fetch(run="runs/two")["outputs"]["dataset"] == str(path)
    assert contents(path.parent) == good


def test_what_a_killed_process_left_in_the_cache_goes(contents: Any) -> None:
    path = Path(fetch()["outputs"]["dataset"])
    good = contents(path.parent)
    path.with_name("dataset.json").unlink()
    for leftover in (".staged/0/dataset.h5", ".staged/7/other", ".dataset.1234.mopo-tmp.h5"):
        (path.parent / leftover).parent.mkdir(parents=True, exist_ok=True)
        (path.parent / leftover).write_text("half")
    fetch(run="runs/two")
    assert contents(path.parent) == good


def test_two_processes_do_not_write_the_same_dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mopo_cli.store.lock._WAIT_SECONDS", 0.0)
    path = Path(fetch()["outputs"]["dataset"])
    path.unlink()
    with FileLock(path.with_name(".lock")), pytest.raises(LockedError, match="Another mopo process") as error:
        fetch(run="runs/two")
    assert "wait until it ends" in error.value.hint and "--run" not in error.value.hint
    assert not path.exists() and not Path("runs/two").exists()


def test_a_vanished_dataset_is_made_anew() -> None:
    path = Path(fetch()["outputs"]["dataset"])
    good = path.read_bytes()
    path.unlink()
    assert not fetch()["up_to_date"]
    assert path.read_bytes() == good


def test_force_makes_it_anew_with_the_same_bytes() -> None:
    path = Path(fetch()["outputs"]["dataset"])
    before, inode = path.read_bytes(), path.stat().st_ino
    assert not fetch(force=True)["up_to_date"]
    assert path.read_bytes() == before and path.stat().st_ino != inode


def test_a_file_is_read_checked_and_named_by_its_hash() -> None:
    source = my_file()
    result = fetch(f"./{source}")
    path = Path(result["outputs"]["dataset"])
    assert re.fullmatch("my-logs-[0-9a-f]{12}", path.parent.name)
    assert (result["dataset_id"], result["return_max"], result["terminals"]) == ("my logs.h5", 6, 1)
    assert sha256_file(source) in result["source"]
    record = read_lineage(RunFolder(Path("runs/one")))["fetch-data"]
    assert record.inputs["source"]["sha256"] == sha256_file(source)


def test_a_changed_file_is_read_again() -> None:
    first = fetch(str(my_file()))
    second = fetch(str(my_file(rewards=np.array([1, 1, 1], "f4"))))
    assert (first["return_max"], second["return_max"]) == (6, 3)
    assert first["outputs"] != second["outputs"]


def test_a_file_that_grows_while_it_is_read_is_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its content would lie in the cache under the hash of another."""
    source, read = my_file(), stage.make_dataset

    def written_meanwhile(*given: Any) -> Any:
        my_file(rewards=np.array([1, 1, 1], "f4"))
        return read(*given)

    monkeypatch.setattr(stage, "make_dataset", written_meanwhile)
    with pytest.raises(InputError, match="changed while it was read"):
        fetch(str(source))
    monkeypatch.setattr(stage, "make_dataset", read)
    my_file()
    assert fetch(str(source))["return_max"] == 6


def test_the_environment_is_part_of_the_name() -> None:
    data = {
        "observations": np.zeros((3, 3), "f4"),
        "next_observations": np.zeros((3, 3), "f4"),
        "rewards": np.zeros(3, "f4"),
    }
    source = str(my_file(**data))
    plain, pendulum = fetch(source), fetch(source, env="Pendulum-v1")
    assert plain["outputs"] != pendulum["outputs"]
    assert pendulum["env_id"] == "Pendulum-v1"
    assert read_dataset(Path(pendulum["outputs"]["dataset"]))[1].action_high.tolist() == [2]


def test_a_signal_stops_it_between_steps(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mopo_cli.data.generate as generate

    make = generate.log_steps

    def interrupted(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return make(*arguments)

    monkeypatch.setattr(generate, "log_steps", interrupted)
    with pytest.raises(Stopped) as caught:
        fetch(transitions=10**6)
    assert caught.value.exit_code == 143
    assert not (place / "cache").exists()


def test_the_summary_is_shown_and_missing_rules_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    fetch(str(my_file()), mode="human")
    shown = capsys.readouterr()
    assert "return mean" in shown.err and "timeouts" in shown.err
    assert "my logs.h5 marks terminals (1), but no termination rule" in shown.err
    assert shown.out == ""


def test_known_rules_are_not_warned_about(capsys: pytest.CaptureFixture[str]) -> None:
    assert fetch(mode="human")["terminals"] > 0
    assert "Warning" not in capsys.readouterr().err
