from pathlib import Path

import pytest

from mopo_cli.data.registry import parse_dataset
from mopo_cli.data.source import DatasetName
from mopo_cli.errors import InputError

KNOWN = [
    ("./my.h5", DatasetName("local", "my.h5", path=Path("my.h5"))),
    ("../logs/run 1.HDF5", DatasetName("local", "run 1.HDF5", path=Path("../logs/run 1.HDF5"))),
    ("plain.hdf5", DatasetName("local", "plain.hdf5", path=Path("plain.hdf5"))),
    ("/data/no-ending", DatasetName("local", "no-ending", path=Path("/data/no-ending"))),
    ("generate:Hopper-v5:random", DatasetName("generate", "generate:Hopper-v5:random", "Hopper-v5", level="random")),
    (
        "generate:own/Arm-v0:mixed",
        DatasetName("generate", "generate:own/Arm-v0:medium-replay", "own/Arm-v0", level="medium-replay"),
    ),
    (
        "generate:my_pack.envs:own/Arm:expert",
        DatasetName("generate", "generate:my_pack.envs:own/Arm:expert", "my_pack.envs:own/Arm", level="expert"),
    ),
    (
        "halfcheetah-jump",
        DatasetName(
            "generate",
            "halfcheetah-jump",
            "mopo/HalfCheetahJump-v0",
            level="full-replay",
            behaviour_kwargs={"reward": "behaviour"},
            relabel="halfcheetah-jump",
        ),
    ),
    (
        "ant-angle-60",
        DatasetName(
            "generate",
            "ant-angle-60",
            "mopo/AntAngle-v0",
            level="full-replay",
            env_kwargs={"angle": 60.0},
            behaviour_kwargs={"reward": "behaviour"},
            relabel="ant-angle-60",
        ),
    ),
    ("hiv", DatasetName("generate", "hiv", "mopo/HIVTreatment-v0", level="full-replay")),
    ("walker2d-medium", DatasetName("d4rl", "walker2d-medium-v2", "Walker2d-v4")),
    ("hopper-mixed", DatasetName("d4rl", "hopper-medium-replay-v2", "Hopper-v4")),
    ("halfcheetah-medium-expert-v0", DatasetName("d4rl", "halfcheetah-medium-expert-v0", "HalfCheetah-v4")),
    ("ant-full-replay-v2", DatasetName("d4rl", "ant-full-replay-v2", "Ant-v4")),
    (
        "minari:mujoco/walker2d/medium-v0",
        DatasetName("minari", "minari:mujoco/walker2d/medium-v0"),
    ),
]
REFUSED = [
    ("hopper-medum", "did you mean 'hopper-medium'"),
    ("walker-random", "did you mean 'walker2d-random'"),
    ("hopper-medium-v1", "unknown version v1"),
    ("hopper", "is not known"),
    ("", "is not known"),
    ("gnerate:Hopper-v5:random", "is not known"),
    ("generate:Hopper-v5", "generate:ENV-ID:LEVEL"),
    ("generate::random", "generate:ENV-ID:LEVEL"),
    ("generate:my_envs:Hopper-v5", "generate:ENV-ID:LEVEL or generate:MODULE:ENV-ID:LEVEL"),
    ("generate:a:my_envs:Hopper-v5:random", "generate:MODULE:ENV-ID:LEVEL"),
    ("generate:my-envs:Hopper-v5:random", "generate:MODULE:ENV-ID:LEVEL"),
    ("generate:.envs:Hopper-v5:random", "generate:MODULE:ENV-ID:LEVEL"),
    ("generate:my_envs:Hopper-v5:novice", "'novice'; the levels are random, medium,"),
    ("generate:../Hopper-v5:random", "generate:ENV-ID:LEVEL"),
    ("generate:Hopper-v5:novice", "'novice'; the levels are random, medium,"),
    ("ant-angle-35", "did you mean 'ant-angle-45'"),
    ("half-cheetah-jump", "did you mean 'halfcheetah-jump'"),
    ("minari:", "minari:NAMESPACE"),
    ("minari:../../etc/medium-v0", "minari:NAMESPACE"),
    ("minari:/etc/medium-v0", "minari:NAMESPACE"),
]


@pytest.mark.parametrize(("name", "parsed"), KNOWN)
def test_known_names(name: str, parsed: DatasetName) -> None:
    assert parse_dataset(name) == parsed


@pytest.mark.parametrize(("name", "says"), REFUSED)
def test_unknown_names(name: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        parse_dataset(name)
    assert caught.value.hint


def test_the_home_folder_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    assert parse_dataset("~/my.h5").path == Path("/somewhere/my.h5")
