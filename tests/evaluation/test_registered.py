"""Environments of modules and packages that register themselves."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from probes.outside import tank_module

from mopo_cli.errors import InputError
from mopo_cli.evaluation import registered as registered_module
from mopo_cli.evaluation.play import evaluate_returns, is_simulated, open_environments, time_limit
from mopo_cli.evaluation.registered import registered, registered_id


@pytest.fixture
def tank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])  # as the installed command has it
    with tank_module(tmp_path) as module:
        yield module


def test_a_module_of_the_working_directory_is_imported(tank: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert registered(f"{tank}:Tank-v0").max_episode_steps == 10
    assert sys.path[-1] == str(Path.cwd())  # behind everything that is installed
    assert registered_id(f"{tank}:Tank-v0") == f"{tank}:Tank-v0"
    assert registered_id(f"{tank}:Tank") == f"{tank}:Tank-v1"
    assert registered_id(f"{tank}:TankWithoutVersion") == f"{tank}:TankWithoutVersion"
    assert time_limit(f"{tank}:Tank-v0", {}) == 10 and not is_simulated(f"{tank}:Tank-v0")
    assert capsys.readouterr() == ("", "the module is imported\n")


def test_the_prefix_of_what_is_always_there_is_dropped() -> None:
    assert registered_id("mopo_cli.tasks.registration:mopo/AntAngle-v0") == "mopo/AntAngle-v0"
    assert registered_id("Pendulum") == registered_id("gymnasium:Pendulum-v1") == "Pendulum-v1"


@pytest.mark.parametrize(
    ("env_id", "says"),
    [
        ("Tank-v0", r"my_module:Tank-v0.*entry point in the group gymnasium\.envs"),
        ("tank_env:Tonk-v0", "'tank_env' was imported, but it does not register the environment 'Tonk-v0'"),
        ("tank_env:Tank-v9", "versioned environments"),
        ("no_such_module:Tank-v0", "'no_such_module' .*cannot be imported: ModuleNotFoundError: No module named"),
        ("tank-env:Tank-v0", "must be written MODULE:ID"),
        (".tank_env:Tank-v0", "must be written MODULE:ID"),
        ("a:tank_env:Tank-v0", "must be written MODULE:ID"),
        ("tank_env:", "cannot be made|does not register"),
    ],
)
def test_a_name_that_nobody_registers(tank: str, env_id: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        registered(env_id)
    assert caught.value.hint and time_limit(env_id, {}) is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("raise RuntimeError('no pump\\nnor valve')", "RuntimeError: no pump."),
        ("import sys; sys.exit(3)", "SystemExit: 3."),
        ("def f(:", "SyntaxError: invalid syntax (tank_env.py, line 1)."),
    ],
)
def test_a_module_that_fails_is_named_with_the_first_line(tank: str, text: str, says: str) -> None:
    Path("tank_env.py").write_text(text)
    with pytest.raises(InputError) as caught:
        registered(f"{tank}:Tank-v0")
    assert (
        caught.value.message
        == f"The module 'tank_env' of the environment 'tank_env:Tank-v0' cannot be imported: {says}"
    )


def test_installed_packages_register_by_entry_points(tank: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("plugged.py").write_text("import tank_env\ndef register(): tank_env.gym.register('In-v0', tank_env.Tank)\n")
    info = Path("plugged-1.0.dist-info")
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged\nVersion: 1.0\n")
    lines = ["[gymnasium.envs]", "__root__ = tank_env", "plant = plugged:register", "broken = no_such_module:register"]
    (info / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(Path.cwd())
    registered_module._load_plugins.cache_clear()
    try:
        assert registered("Tank-v0").max_episode_steps == 10
        assert registered("plant/In-v0").namespace == "plant"
        with pytest.raises(InputError, match="a plug-in failed: no_such_module:register: ModuleNotFoundError"):
            registered("Tonk-v0")
    finally:
        registered_module._load_plugins.cache_clear()
        sys.modules.pop("plugged", None)


@pytest.mark.parametrize(
    ("env_id", "kwargs", "says"),
    [
        ("TankForever-v0", {}, "no time limit.*register it with max_episode_steps, or give one with --env-kwargs"),
        ("TankForever-v0", {"max_episode_steps": -1}, "no time limit"),
        ("TankForever-v0", {"max_episode_steps": "ten"}, "cannot be made: TypeError"),
        ("Tank-v0", {"colour": 1}, "cannot be made: TypeError.*colour"),
        ("Valve-v0", {}, r"action space Discrete\(2\)"),
        ("Lamp-v0", {}, r"Discrete\(2\) in the observation entry 'lamp'"),
    ],
)
def test_environments_that_will_not_do(tank: str, env_id: str, kwargs: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=f"{tank}:{env_id}.*{says}"), open_environments(f"{tank}:{env_id}", 1, kwargs):
        pass


def still(observations: Any) -> Any:
    return np.zeros((len(observations), 1), np.float32)


def test_keyword_arguments_reach_the_environment(tank: str, capsys: pytest.CaptureFixture[str]) -> None:
    def played(**kwargs: object) -> float:
        with open_environments(f"{tank}:TankForever-v0", 1, {"max_episode_steps": 3, **kwargs}) as environments:
            results = evaluate_returns(still, environments, seed=0)
        assert results.lengths.tolist() == [3]
        return float(results.returns[0])

    assert played(level=11.0) == pytest.approx(played(level=10.0) - 3)
    assert capsys.readouterr().out == ""  # what the environment prints is not ours to print


@pytest.mark.parametrize(
    ("fault", "says"),
    [("raise", "fails in step: KeyError: 'pump'"), ("shape", r"shape \(3,\), but its space has \(2,\)")],
)
def test_an_environment_that_fails_is_named(tank: str, fault: str, says: str) -> None:
    with (
        pytest.raises(InputError, match=f"'{tank}:Tank-v0' .*{says}"),
        open_environments(f"{tank}:Tank-v0", 1, {"fault": fault}) as environments,
    ):
        evaluate_returns(still, environments, seed=0)


def test_dict_observations_lie_side_by_side(tank: str) -> None:
    registered(f"{tank}:DictTank-v0")
    raw: Any = gym.make("DictTank-v0", level=2.0)
    seen, _ = raw.reset(seed=5)
    with open_environments(f"{tank}:DictTank-v0", 1, {"level": 2.0}) as (environment,):
        flat, _ = environment.reset(seed=5)
        wanted: Any = gym.spaces.flatten(raw.observation_space, seen)
        assert flat.tolist() == wanted.tolist()
        assert environment.observation_space == gym.spaces.flatten_space(raw.observation_space)
    order = ("upper", "more/goal", "more/lower")
    with open_environments(f"{tank}:DictTank-v0", 1, {"level": 2.0}, order) as (environment,):
        flat, _ = environment.reset(seed=5)
        assert flat.tolist() == [*seen["upper"], 0, 2, 4, 6, *seen["more"]["lower"]]
        assert environment.observation_space.contains(flat)
    with pytest.raises(InputError, match="no observation entry 'goal'; its entries are upper, more/lower, more/goal"):
        open_environments(f"{tank}:DictTank-v0", 1, None, ("goal",)).__enter__()
