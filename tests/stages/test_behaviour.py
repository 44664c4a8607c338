"""fetch-data of sets made by recipe: one training serves every level, and nothing of it is lost or mixed up."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from probes.behaviours import TINY

import mopo_cli.stages.common.train_behaviour as stage
from mopo_cli.config.schema_data import FetchData
from mopo_cli.data.transition_files import read_dataset
from mopo_cli.errors import CorruptError, DivergedError, InputError, LockedError, Stopped
from mopo_cli.report.console import Report
from mopo_cli.stages.common.options import Options
from mopo_cli.stages.fetch_data import run_fetch_data
from mopo_cli.store.run import RunFolder

POLE = "generate:InvertedPendulum-v5"
LIMIT = 300
LEVELS = ("medium", "medium-replay", "medium-expert", "expert", "full-replay")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder and a cache of the test's own, and behaviours that are trained in a second."""
    monkeypatch.setenv("MOPO_HOME", str(tmp_path / "cache"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(stage, "RECIPE", TINY)
    return tmp_path


def fetch(level: str, *, run: str = "", force: bool = False, mode: Any = "quiet", **settings: Any) -> dict[str, Any]:
    wanted = FetchData(
        dataset=f"{POLE}:{level}", **{"transitions": 120, "behaviour_steps": LIMIT, "medium_return": 1.0, **settings}
    )
    options = Options(device="cpu", threads=1, force=force)
    return run_fetch_data(RunFolder(Path("runs") / (run or level)), wanted, options, Report(mode))


def file_of(result: dict[str, Any]) -> Path:
    return Path(result["outputs"]["dataset"])


@pytest.fixture
def steps_taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the steps that are trained."""
    take, steps = vars(stage)["take_step"], []

    def counted(behaviour: Any, environment: Any) -> None:
        take(behaviour, environment)
        steps.append(behaviour.online.steps)

    monkeypatch.setattr(stage, "take_step", counted)
    return steps


def training(place: Path) -> Path:
    (path,) = place.glob("cache/behaviours/*/behaviour.safetensors")
    return path


def test_one_training_serves_all_levels_and_the_order_does_not_matter(place: Path, steps_taken: list[int]) -> None:
    rows = {"medium": 120, "medium-replay": 50, "medium-expert": 120, "expert": 120, "full-replay": LIMIT}
    made = {}
    for order in (LEVELS, LEVELS[::-1]):
        steps_taken.clear()
        files = {level: file_of(fetch(level, run=f"{level}-{order[0]}")).read_bytes() for level in order}
        made[order] = files
        assert max(steps_taken) == LIMIT
        assert len(steps_taken) <= LIMIT + 100, "no level trains again but from the start of the last episode"
        for level in order:
            transitions, info = read_dataset(file_of(fetch(level, run=f"{level}-{order[0]}")))
            assert len(transitions) == rows[level]
            assert info.dataset_id == f"{POLE}:{level}" and info.termination == "inverted-pendulum"
            assert info.recipe is not None and info.recipe["level"] == level and info.seed == 0
        for folder in place.glob("cache/*/*"):
            for file in folder.iterdir():
                file.unlink()
    assert made[LEVELS] == made[LEVELS[::-1]]


def test_settings_that_say_nothing_of_a_level_do_not_make_it_anew() -> None:
    for level, unused in (
        ("random", {"behaviour_steps": 7, "medium_return": 5.0}),
        ("medium-replay", {"transitions": 7}),
        ("expert", {"medium_return": 5.0}),
        ("full-replay", {"transitions": 7, "medium_return": None}),
    ):
        first = fetch(level)
        assert fetch(level, run="other", **unused)["outputs"] == first["outputs"]
        assert fetch(level, run="third", seed=1)["outputs"] != first["outputs"]
        fewer = {"behaviour_steps": 150} if level != "random" else {"transitions": 7}
        assert fetch(level, run="third", force=True, **fewer)["outputs"] != first["outputs"]


def test_an_unreached_threshold_is_an_error_and_more_steps_go_on(place: Path, steps_taken: list[int]) -> None:
    with pytest.raises(InputError, match=r"within 150 steps the behaviour returned at most") as error:
        fetch("medium-replay", medium_return=900.0, behaviour_steps=150)
    assert error.value.exit_code == 4 and "--behaviour-steps 300" in error.value.hint
    assert not list(place.glob("cache/datasets/*")) and not Path("runs").exists()
    assert training(place).is_file()
    steps_taken.clear()
    on = fetch("full-replay")
    assert min(steps_taken) > 60, "what was trained is not trained again"
    whole = file_of(on).read_bytes()
    assert file_of(fetch("full-replay", force=True)).read_bytes() == whole
    assert min(steps_taken) == 1


def test_the_threshold_is_measured_where_none_is_given() -> None:
    with pytest.raises(InputError, match=r"medium is 3\d\d\.\d, a third of the way from \d+\.\d to 950\.0 \(measured"):
        fetch("medium", medium_return=None, behaviour_steps=60)


def test_a_limit_that_training_went_past(place: Path, contents: Any) -> None:
    fetch("full-replay")
    before = contents(place / "cache")
    with pytest.raises(InputError, match="already trained for") as error:
        fetch("expert", run="short", behaviour_steps=77)
    assert "--force" in error.value.hint
    assert contents(place / "cache") == before and not Path("runs/short").exists()
    fetch("expert", run="short", behaviour_steps=100)  # the policy of every evaluation is kept
    fetch("expert", run="short", behaviour_steps=77, force=True)


def test_a_damaged_training_is_told_and_force_makes_it_anew(place: Path) -> None:
    whole = file_of(fetch("expert")).read_bytes()
    path = training(place)
    for content in (path.read_bytes()[:-50], b"", b"nonsense" * 100):
        path.write_bytes(content)
        with pytest.raises(CorruptError, match=r"behaviour\.safetensors") as error:
            fetch("full-replay")
        assert "--force" in error.value.hint
    assert file_of(fetch("expert", force=True)).read_bytes() == whole


def test_divergence_is_told_and_nothing_is_published(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take = vars(stage)["take_step"]

    def spoil(behaviour: Any, environment: Any) -> None:
        if behaviour.online.steps == 90:
            behaviour.online.sac.critic.flat[:] = float("nan")
        take(behaviour, environment)

    monkeypatch.setattr(stage, "take_step", spoil)
    with pytest.raises(DivergedError, match=r"diverged \(NaN or infinity\) after 9[12] steps") as error:
        fetch("expert")
    assert error.value.exit_code == 7
    assert not (place / "cache").exists() and not Path("runs").exists()


def test_a_signal_while_training_or_logging_keeps_the_training(
    place: Path, monkeypatch: pytest.MonkeyPatch, steps_taken: list[int]
) -> None:
    whole = file_of(fetch("expert", run="whole")).read_bytes()
    for folder in place.glob("cache/*/*"):
        for file in folder.iterdir():
            file.unlink()
    take, make = vars(stage)["take_step"], vars(stage)["make_transitions"]

    def interrupted_step(behaviour: Any, environment: Any) -> None:
        take(behaviour, environment)
        if behaviour.online.steps == 205:
            os.kill(os.getpid(), signal.SIGTERM)

    def interrupted_log(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return make(*arguments)

    monkeypatch.setattr(stage, "take_step", interrupted_step)
    with pytest.raises(Stopped) as caught:
        fetch("expert")
    assert caught.value.exit_code == 143
    monkeypatch.setattr(stage, "make_transitions", interrupted_log)
    monkeypatch.setattr(stage, "take_step", take)
    steps_taken.clear()
    with pytest.raises(Stopped) as caught:
        fetch("expert")
    assert caught.value.exit_code == 130
    assert 100 < min(steps_taken) <= 220 and max(steps_taken) == LIMIT
    steps_taken.clear()
    monkeypatch.setattr(stage, "make_transitions", make)
    assert file_of(fetch("expert")).read_bytes() == whole
    assert not steps_taken


def test_two_processes_do_not_train_the_same_behaviour(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mopo_cli.store.lock._WAIT_SECONDS", 0.0)
    fetch("medium")
    with FileLock(training(place).with_name(".lock")), pytest.raises(LockedError) as error:
        fetch("expert")
    assert "--run" not in error.value.hint


def test_the_learning_curve_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    fetch("full-replay", mode="human")
    shown = capsys.readouterr().err
    lines = [line.split() for line in shown.splitlines() if line[:8].strip().isdigit()]
    assert [line[0] for line in lines] == ["50", "100", "150", "200", "300"]
    assert all(len(line) == 7 for line in lines) and lines[0][3] == "-" != lines[-1][3]
    assert "generated by SAC trained in InvertedPendulum-v5" in shown


def test_the_recipe_names_the_versions() -> None:
    info = read_dataset(file_of(fetch("medium")))[1]
    assert info.recipe is not None
    assert {"mopo", "torch", "gymnasium", "mujoco"} <= set(info.recipe["versions"])
