"""halfcheetah-jump and ant-angle: their rewards from the simulator's own positions, and bodies that move as ever."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from mopo_cli.errors import InputError
from mopo_cli.evaluation.play import open_environments
from mopo_cli.tasks.registration import ENV_IDS

JUMP, ANT = "mopo/HalfCheetahJump-v0", "mopo/AntAngle-v0"


def play(environment: gym.Env[Any, Any], steps: int, seed: int = 0) -> Iterator[tuple[Any, ...]]:
    """(simulator before, action, outcome of the step), each with the simulator's positions copied."""
    draw = np.random.default_rng(seed)
    simulator: Any = environment.unwrapped
    data = simulator.data
    environment.reset(seed=seed)
    for _ in range(steps):
        action = draw.uniform(-1, 1, environment.action_space.shape).astype(np.float32)
        before = data.qpos.copy(), data.body("torso").xpos.copy()
        outcome = environment.step(action)
        yield before, action, (data.qpos.copy(), data.body("torso").xpos.copy()), outcome
        if outcome[2] or outcome[3]:
            environment.reset()


@pytest.mark.parametrize("env_id", ENV_IDS)
@pytest.mark.filterwarnings("ignore:.*Box observation space (minimum|maximum) value is.*infinity")
@pytest.mark.filterwarnings("ignore:.*we recommend using a symmetric and normalized space")
@pytest.mark.filterwarnings("error")
def test_gymnasium_finds_no_fault(env_id: str) -> None:
    with open_environments(env_id, 1) as (environment,):
        check_env(environment.unwrapped, skip_render_check=True)


def test_the_jump_pays_for_height_above_the_start_and_speed_up_to_three() -> None:
    with open_environments(JUMP, 1) as (task,), open_environments(JUMP, 1, {"reward": "behaviour"}) as (behaviour,):
        speeds, starts = [], {}
        # The reset noise makes every episode start at a height of its own.
        for seed in (0, 1):
            start = task.reset(seed=seed)[0][0]
            starts[seed] = start
            for (before, action, after, done), (*_, plain) in zip(
                play(task, 200, seed), play(behaviour, 200, seed), strict=True
            ):
                speed = (after[0][0] - before[0][0]) / 0.05
                run = min(speed, 3.0) - 0.1 * float((action.astype("f8") ** 2).sum())
                assert done[1] == pytest.approx(run + 15 * (after[0][1] - start), abs=1e-9)
                assert plain[1] == pytest.approx(run, abs=1e-9)
                assert np.array_equal(done[0], plain[0]) and done[0][0] == after[0][1] and len(done[0]) == 17
                assert not done[2]
                speeds.append(speed)
    assert abs(starts[0] - starts[1]) > 1e-3


def test_no_speed_above_three_pays_more() -> None:
    with open_environments(JUMP, 1, {"reward": "behaviour"}) as (environment,):
        environment.reset(seed=0)
        simulator: Any = environment.unwrapped
        velocity = np.zeros(simulator.model.nv)
        for speed in (2.0, 6.0, 9.0):
            velocity[0] = speed
            position = simulator.init_qpos.copy()
            position[1] = 1.0  # in the air, where nothing brakes
            simulator.set_state(position, velocity)
            _, reward, _, _, info = environment.step(np.zeros(6, np.float32))
            assert info["x_velocity"] == pytest.approx(speed, abs=0.2)
            assert reward == pytest.approx(min(info["x_velocity"], 3.0))


def test_the_root_is_within_centimetres_of_the_torso_that_the_authors_measure() -> None:
    with open_environments(JUMP, 1) as (environment,):
        gaps = [abs(after[1][2] - 0.7 - after[0][1]) for _, _, after, _ in play(environment, 2000)]
    assert 1e-3 < max(gaps) <= 0.04


@pytest.mark.parametrize(
    ("kwargs", "degrees", "survive", "contact"),
    [
        ({}, 30, 0.0, 0.0),
        ({"angle": 45.0}, 45, 0.0, 0.0),
        ({"angle": 90.0, "survive": True}, 90, 1.0, 0.0),
        ({"angle": 60.0, "contact_cost": True}, 60, 0.0, 5e-4),
        ({"angle": 60.0, "reward": "behaviour"}, 0, 0.0, 0.0),
    ],
)
def test_the_ant_is_paid_for_going_its_way(
    kwargs: dict[str, Any], degrees: float, survive: float, contact: float
) -> None:
    way = np.array([np.cos(np.pi * degrees / 180), np.sin(np.pi * degrees / 180)])
    touched = 0.0
    with open_environments(ANT, 1, kwargs) as (environment,):
        simulator: Any = environment.unwrapped
        for before, action, after, (observation, reward, _, _, info) in play(environment, 150):
            velocity = (after[1][:2] - before[1][:2]) / 0.05
            touch = (np.clip(simulator.data.cfrc_ext, -1, 1) ** 2).sum()
            expected = velocity @ way - 0.5 * (action.astype("f8") ** 2).sum() + survive - contact * touch
            assert reward == pytest.approx(expected, abs=1e-9)
            assert (info["x_velocity"], info["y_velocity"]) == pytest.approx(tuple(velocity))
            assert len(observation) == 27
            touched += touch
    assert touched > 1


@pytest.mark.parametrize(("env_id", "plain"), [(JUMP, "HalfCheetah-v5"), (ANT, "Ant-v5")])
def test_the_body_moves_and_ends_as_the_plain_one(env_id: str, plain: str) -> None:
    with open_environments(env_id, 1) as (task,), open_environments(plain, 1) as (original,):
        assert task.spec.max_episode_steps == original.spec.max_episode_steps == 1000
        ends = []
        for (*_, ours), (*_, theirs) in zip(play(task, 300), play(original, 300), strict=True):
            assert np.array_equal(ours[0], theirs[0][: len(ours[0])])
            assert ours[2:4] == theirs[2:4]
            ends.append(ours[2])
        assert any(ends) == (env_id == ANT)


@pytest.mark.parametrize("env_id", [JUMP, ANT])
def test_an_unknown_reward_is_refused(env_id: str) -> None:
    with (
        pytest.raises(InputError, match="'task' or 'behaviour', not 'jump'"),
        open_environments(env_id, 1, {"reward": "jump"}),
    ):
        pass


def test_anyone_can_make_them_and_registering_loads_nothing_heavy() -> None:
    script = (
        "import sys, gymnasium\n"
        "environment = gymnasium.make('mopo_cli.tasks.registration:mopo/HIVTreatment-v0')\n"
        "assert environment.spec.max_episode_steps == 400\n"
        "print(*sorted({'torch', 'mujoco', 'h5py'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
