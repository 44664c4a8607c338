"""fetch-data in environments of somebody's module, made with arguments, and with Dict observations."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import minari
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict
from minari.data_collector import EpisodeBuffer
from probes.minari_sets import change_metadata, write
from probes.outside import tank_module

from mopo_cli.data.minari.load import load_minari
from mopo_cli.data.transition_files import read_dataset
from mopo_cli.errors import InputError, UsageError
from mopo_cli.evaluation.play import open_environments

SPACE = Dict(upper=Box(-9, 9, (1,)), more=Dict(lower=Box(-9, 9, (1,), np.float64), goal=Box(0, 9, (2, 2))))
ROWS = 6


@pytest.fixture(autouse=True)
def tank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.chdir(tmp_path)
    with tank_module(tmp_path) as module:
        yield module


def states() -> dict[str, Any]:
    """Two episodes' T+1 observations, by path: `[2, T+1, ...]`."""
    rng = np.random.default_rng(0)
    shapes = {"upper": (1,), "more/lower": (1,), "more/goal": (2, 2)}
    kinds = {"more/lower": np.float64}
    return {
        path: rng.uniform(0, 1, (2, ROWS + 1, *shape)).astype(kinds.get(path, np.float32))
        for path, shape in shapes.items()
    }


def write_dicts(name: str = "dict-v0", **more: Any) -> dict[str, Any]:
    seen, rng = states(), np.random.default_rng(1)
    episodes = [
        EpisodeBuffer(
            observations={
                "upper": seen["upper"][k],
                "more": {"lower": seen["more/lower"][k], "goal": seen["more/goal"][k]},
            },
            actions=rng.uniform(0, 5, (ROWS, 1)).astype("f4"),
            rewards=np.arange(float(ROWS)),
            terminations=np.zeros(ROWS, bool),
            truncations=np.arange(ROWS) == ROWS - 1,
        )
        for k in range(2)
    ]
    write(name, episodes, **{"observation_space": SPACE, "action_space": Box(0, 5, (1,)), **more})
    return seen


def flat(seen: dict[str, Any], *paths: str) -> Any:
    """What the observations must be: each entry in C order, side by side, without the last of each episode."""
    return np.concatenate([seen[path][:, :-1].reshape(2 * ROWS, -1) for path in paths], axis=1).astype(np.float32)


@pytest.mark.parametrize("data_format", ["hdf5", "arrow", "parquet"])
@pytest.mark.parametrize(
    ("chosen", "paths"),
    [
        ((), None),
        (("upper", "more/goal"), ("upper", "more/goal")),
        (("observations/more", "observation/upper"), ("more/goal", "more/lower", "upper")),
    ],
)
def test_entries_of_a_minari_set_lie_side_by_side(data_format: str, chosen: tuple[str, ...], paths: Any) -> None:
    seen = write_dicts(data_format=data_format)
    transitions, info = load_minari("dict-v0", chosen=chosen)
    stored: Any = gym.spaces.flatten_space(minari.load_dataset("dict-v0").observation_space)
    paths = paths or ("more/goal", "more/lower", "upper")  # a stored Dict is sorted
    assert info.obs_entries == paths and f"observations = {' + '.join(paths)}" in info.source
    assert transitions.observations.tolist() == flat(seen, *paths).tolist()
    ahead = {path: column[:, 1:].repeat(2, axis=1)[:, ::2] for path, column in seen.items()}
    following = np.concatenate([ahead[path].reshape(2 * ROWS, -1) for path in paths], axis=1).astype(np.float32)
    assert transitions.next_observations.tolist() == following.tolist()
    assert chosen or transitions.obs_dim == stored.shape[0]


@pytest.mark.parametrize(
    ("columns", "code", "says"),
    [
        ("obs=upper+goal", 2, "has no observation entry 'goal'; its entries are more/goal, more/lower, upper"),
        ("obs=more+more/goal", 2, "uses the observation entry 'more/goal' twice"),
        ("obs=upper,action=actions", 2, "can only be obs=ENTRY+ENTRY"),
    ],
)
def test_columns_of_a_minari_set_that_will_not_do(refuses: Any, columns: str, code: int, says: str) -> None:
    write_dicts()
    refuses(f"fetch-data --dataset minari:dict-v0 --columns {columns}", code, says)


def test_entries_that_are_no_numbers_can_be_left_out() -> None:
    def add(metadata: dict[str, Any]) -> None:
        space = json.loads(metadata["observation_space"])
        space["subspaces"]["lamp"] = {"type": "Discrete", "dtype": "int64", "start": 0, "n": 2}
        metadata["observation_space"] = json.dumps(space)

    seen = write_dicts()
    change_metadata(Path(minari.load_dataset("dict-v0").spec.data_path), add)
    with pytest.raises(InputError, match=r"Discrete\(2\) in the observation entry 'lamp'") as caught:
        load_minari("dict-v0")
    assert caught.value.hint == "--columns 'obs=more/goal+more/lower+upper'"
    assert load_minari("dict-v0", chosen=["upper"])[0].observations.tolist() == flat(seen, "upper").tolist()


def test_the_recorded_order_is_that_of_the_environment_to_play_in(mopo: Any, tank: str) -> None:
    write_dicts()
    line = f"fetch-data --dataset minari:dict-v0 --columns obs=more/goal+upper --env {tank}:DictTank-v0 --json"
    outcome = mopo(f'{line} --env-kwargs {{"level":2.0}}')
    assert outcome.code == 0, outcome.err
    _, info = read_dataset(Path(json.loads(outcome.out)["outputs"]["dataset"]))
    assert (info.env_id, info.env_kwargs) == (f"{tank}:DictTank-v0", {"level": 2.0})
    with open_environments(f"{tank}:DictTank-v0", 1, info.env_kwargs, info.obs_entries) as opened:
        environment: Any = opened[0]
        observation, _ = environment.reset(seed=0)
        assert observation.tolist() == [0, 2, 4, 6, environment.unwrapped.x[0]]


def test_the_module_of_the_environment_that_a_set_names(tank: str) -> None:
    with open_environments(f"{tank}:Tank-v0", 1):
        write_dicts("named-v0", env="DictTank-v0")
    for name in [name for name in gym.registry if "Tank" in name]:
        del gym.registry[name]
    assert load_minari("named-v0")[1].env_id is None  # what a set names is not imported
    sys.modules.pop(tank)
    info = load_minari("named-v0", env_id=f"{tank}:DictTank-v0")[1]
    assert info.env_id == f"{tank}:DictTank-v0"
    with pytest.raises(UsageError, match=f"--env {tank}:Tank-v0 contradicts the Minari set named-v0"):
        load_minari("named-v0", env_id=f"{tank}:Tank-v0")
    with pytest.raises(UsageError, match="--env-kwargs contradicts the Minari set named-v0"):
        load_minari("named-v0", env_id=f"{tank}:DictTank-v0", env_kwargs={"level": 2.0})


def write_file(width: int) -> None:
    rng = np.random.default_rng(2)
    ends = np.arange(20) % 10 == 9
    shapes = {"observations": (20, width), "actions": (20, 1), "rewards": (20,)}
    columns = {name: rng.uniform(0, 5, shape) for name, shape in shapes.items()}
    np.savez("tank.npz", **columns, terminals=ends & False, timeouts=ends)  # type: ignore[arg-type]


def test_a_flat_file_goes_with_a_dict_in_gymnasiums_order(mopo: Any, tank: str) -> None:
    write_file(6)
    outcome = mopo(f"fetch-data --dataset ./tank.npz --env {tank}:DictTank-v0 --json")
    assert outcome.code == 0, outcome.err
    _, info = read_dataset(Path(json.loads(outcome.out)["outputs"]["dataset"]))
    assert info.obs_entries == ("upper", "more/lower", "more/goal")
    assert "observations = upper + more/lower + more/goal" in info.source


@pytest.mark.parametrize("level", ["random", "full-replay"])
def test_sets_generated_in_a_module(mopo: Any, tank: str, level: str) -> None:
    def fetch(more: str = "") -> tuple[Any, Any]:
        size = "--transitions 40" if level == "random" else "--behaviour-steps 40"
        outcome = mopo(f"fetch-data --dataset generate:{tank}:DictTank:{level} {size} --threads 1 --json {more}")
        assert outcome.code == 0, outcome.err
        return read_dataset(Path(json.loads(outcome.out)["outputs"]["dataset"]))

    (plain, _), (moved, info) = fetch(), fetch('--env-kwargs {"level":4.0}')
    assert (info.env_id, info.env_kwargs) == (f"{tank}:DictTank-v0", {"level": 4.0})
    assert info.obs_entries == ("upper", "more/lower", "more/goal")
    assert plain.observations[0, 2:].tolist() == [0, 1, 2, 3] and moved.observations[0, 2:].tolist() == [0, 4, 8, 12]


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        ("./tank.npz --env Tank-v0", 4, "name the module that registers it (--env my_module:Tank-v0)"),
        ("./tank.npz --env tank_env:TankForever-v0", 4, "no time limit"),
        ("./tank.npz --env tank_env:Tank-v0 --env-kwargs [1]", 2, "--env-kwargs must be a JSON object such as"),
        ("./tank.npz --env tank_env:Tank-v0 --env-kwargs {level:1}", 2, "--env-kwargs must be a JSON object such as"),
        ('./tank.npz --env tank_env:Tank-v0 --env-kwargs {"level":NaN}', 2, "--env-kwargs must be a JSON object"),
        ('./tank.npz --env-kwargs {"level":1}', 2, "add --env ENV-ID"),
        ('hiv --env-kwargs {"level":1}', 2, "--env-kwargs contradicts --dataset hiv"),
        ('hopper-medium --env-kwargs {"level":1}', 2, "--env-kwargs contradicts --dataset hopper-medium"),
    ],
)
def test_requests_that_are_refused(refuses: Any, line: str, code: int, says: str) -> None:
    write_file(2)
    refuses(f"fetch-data --run run --dataset {line}", code, says)
