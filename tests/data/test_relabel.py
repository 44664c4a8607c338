"""Relabelled logs against the rewards that the task's own environment gives along the same steps."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mopo_cli.data.generate import generate_random
from mopo_cli.data.relabel import RULES, relabel
from mopo_cli.data.transitions import DatasetInfo, Transitions, episode_ends
from mopo_cli.data.validate import validate
from mopo_cli.errors import InputError
from mopo_cli.evaluation.play import open_environments

JUMP, ANT = "mopo/HalfCheetahJump-v0", "mopo/AntAngle-v0"
SHORT = {"max_episode_steps": 150}  # several episodes, each with a start of its own


def log(env_id: str, steps: int = 700, **kwargs: Any) -> tuple[Transitions, DatasetInfo]:
    return generate_random(env_id, steps, 0, env_kwargs=SHORT | kwargs)


def rewards_of(env_id: str, kwargs: dict[str, Any], t: Transitions) -> np.ndarray[Any, Any]:
    """What the task's environment pays for the same actions from the same seed; float64."""
    rewards = []
    with open_environments(env_id, 1, SHORT | kwargs) as (environment,):
        observation, _ = environment.reset(seed=0)
        for k, action in enumerate(t.actions):
            assert np.array_equal(observation.astype("f4"), t.observations[k])
            observation, reward, terminated, truncated, _ = environment.step(action)
            rewards.append(float(reward))
            if terminated or truncated:
                observation, _ = environment.reset()
    return np.array(rewards)


@pytest.mark.parametrize(
    ("env_id", "kwargs"), [("HalfCheetah-v5", {}), ("HalfCheetah-v4", {}), (JUMP, {"reward": "behaviour"})]
)
def test_a_jump_is_told_from_any_log_of_a_half_cheetah(env_id: str, kwargs: dict[str, Any]) -> None:
    logged, info = log(env_id, **kwargs)
    transitions, new_info = relabel(logged, info, "halfcheetah-jump")
    assert np.abs(transitions.rewards - rewards_of(JUMP, {}, logged)).max() < 1e-5
    assert len(episode_ends(logged)) == 5 and np.ptp(logged.observations[episode_ends(logged)[:-1] + 1, 0]) > 0.01
    assert np.abs(transitions.rewards - logged.rewards).max() > 1
    assert (new_info.env_id, new_info.env_kwargs, new_info.termination) == (JUMP, SHORT, "halfcheetah")
    validate(transitions, new_info)


def test_speed_above_three_is_not_paid_for() -> None:
    logged, info = log("HalfCheetah-v5")
    transitions, _ = relabel(replace(logged, rewards=logged.rewards + 3), info, "halfcheetah-jump")
    speed = logged.infos["x_velocity"] + 3
    assert (speed > 3).sum() > 100 and (speed < 3).sum() > 100
    lost = relabel(logged, info, "halfcheetah-jump")[0].rewards + 3 - transitions.rewards
    assert lost == pytest.approx(np.maximum(speed - 3, 0), abs=1e-5)


@pytest.mark.parametrize(
    ("env_id", "kwargs"),
    [("Ant-v5", {}), (ANT, {"reward": "behaviour", "angle": 45.0}), (ANT, {"angle": 90.0, "survive": True})],
)
@pytest.mark.parametrize("rule", ["ant-angle", "ant-angle-60"])
def test_an_angle_is_told_from_the_velocities(env_id: str, kwargs: dict[str, Any], rule: str) -> None:
    degrees = {"ant-angle": 30.0, "ant-angle-60": 60.0}[rule]
    logged, info = log(env_id, 500, **kwargs)
    transitions, new_info = relabel(logged, info, rule)
    assert transitions.obs_dim == 27
    assert np.array_equal(transitions.observations, logged.observations[:, :27])
    assert np.abs(transitions.rewards - rewards_of(ANT, {"angle": degrees}, transitions)).max() < 1e-5
    assert (new_info.env_id, new_info.env_kwargs, new_info.termination) == (ANT, {"angle": degrees} | SHORT, "ant")
    assert "approximate" not in new_info.source
    validate(transitions, new_info)


def test_without_velocities_those_at_the_end_of_the_step_do() -> None:
    logged, info = log("Ant-v5", 2000)
    exact, _ = relabel(logged, info, "ant-angle-45")
    transitions, new_info = relabel(replace(logged, infos={}), info, "ant-angle-45")
    error = transitions.rewards - exact.rewards
    assert "approximate" in new_info.source
    assert 0.05 < np.abs(error).mean() < 0.3 and abs(error.mean()) < 0.05
    assert np.corrcoef(transitions.rewards, exact.rewards)[0, 1] > 0.9


def test_what_is_known_of_the_set_follows() -> None:
    logged, info = log("HalfCheetah-v4", 20)
    info = replace(info, reference_min=-280.0, reference_max=12_000.0)
    recipe = {"steps": 20}
    _, new_info = relabel(logged, replace(info, recipe=recipe), "halfcheetah-jump")
    assert new_info.dataset_id == "generate:HalfCheetah-v4:random+halfcheetah-jump"
    assert new_info.source.startswith(info.source) and new_info.source.endswith("by the rule halfcheetah-jump")
    assert (new_info.reference_min, new_info.reference_max, new_info.recipe) == (None, None, recipe)
    # The task's own set keeps its name, under which its published numbers are found.
    _, named = relabel(logged, replace(info, dataset_id="halfcheetah-jump"), "halfcheetah-jump")
    assert named.dataset_id == "halfcheetah-jump"


def test_what_cannot_be_told_is_refused() -> None:
    cheetah, cheetah_info = log("HalfCheetah-v5", 20)
    ant, ant_info = log("Ant-v5", 20)

    def refuse(t: Transitions, info: DatasetInfo, rule: str, says: str) -> None:
        with pytest.raises(InputError, match=says):
            relabel(t, info, rule)

    refuse(
        cheetah, cheetah_info, "halfcheetah-jmp", r"did you mean 'halfcheetah-jump'\?\); the rules are .*ant-angle-90"
    )
    refuse(cheetah, cheetah_info, "ant-angle", "for logs of Ant or .* was logged in HalfCheetah-v5")
    refuse(ant, ant_info, "halfcheetah-jump", "for logs of HalfCheetah or .* was logged in Ant-v5")
    refuse(cheetah, replace(cheetah_info, env_id=None), "halfcheetah-jump", "without an environment")
    refuse(cheetah, replace(cheetah_info, env_id=JUMP), "halfcheetah-jump", "has the rewards of .* already")
    weighted = replace(cheetah_info, env_kwargs={"ctrl_cost_weight": 0.5})
    refuse(cheetah, weighted, "halfcheetah-jump", "logged with {'ctrl_cost_weight': 0.5}")
    refuse(
        replace(ant, observations=ant.observations[:, :26]),
        ant_info,
        "ant-angle",
        "needs 27 observation columns; .* has 26",
    )
    fallen = replace(ant, infos={}, terminals=np.arange(20) == 9)
    refuse(fallen, replace(ant_info, terminal_next_known=False), "ant-angle", "neither velocities nor")


def test_every_task_has_its_rule() -> None:
    assert list(RULES) == ["halfcheetah-jump", "ant-angle", "ant-angle-45", "ant-angle-60", "ant-angle-90"]
