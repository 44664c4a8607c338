import random
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest
from numpy.typing import NDArray
from probes.worn import registered, registered_worn

from mopo_cli.errors import InputError
from mopo_cli.evaluation.play import (
    close_environments,
    episode_seed,
    evaluate_returns,
    make_environments,
    open_environments,
    time_limit,
)
from mopo_cli.tasks.registration import ENV_IDS

Array = NDArray[Any]

LIMIT = 8


class Countdown(gym.Env):
    """From a random 1..20 down to 0 for a reward of twice the action; refuses to go on after its end."""

    observation_space = gym.spaces.Box(0.0, 20.0, (1,), np.float64)
    action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        self.start = self.left = int(self.np_random.integers(1, 21))
        self.steps = 0
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        assert self.left > 0 and self.steps < LIMIT, "stepped after its end"
        self.left -= 1
        self.steps += 1
        return self._observation(), 2.0 * float(action[0]), self.left == 0, False, {}

    def close(self) -> None:
        self.closed = True

    def _observation(self) -> Array:
        return np.array([self.left], dtype=np.float64)


class Steered(Countdown):
    action_space: Any = gym.spaces.Discrete(2)


class Picture(Countdown):
    observation_space = gym.spaces.Box(0.0, 1.0, (2, 2), np.float64)


@pytest.fixture
def countdown() -> Iterator[str]:
    with (
        registered("mopo-test/Countdown-v0", Countdown, LIMIT) as env_id,
        registered("mopo-test/Endless-v0", Countdown, None),
        registered("mopo-test/Discrete-v0", Steered, LIMIT),
        registered("mopo-test/Picture-v0", Picture, LIMIT),
    ):
        yield env_id


def quarter(observations: Array) -> Array:
    return np.full((len(observations), 2), 0.25, dtype=np.float32)


def starts(environments: Any) -> Any:
    return [environment.unwrapped.start for environment in environments]


def lean(observations: Array) -> Array:
    """Feedback too weak to balance the pole: every episode falls, each after its own time."""
    return np.clip(2.0 * observations[:, 1:2], -3.0, 3.0)


def test_equals_a_hand_written_loop_on_the_inverted_pendulum() -> None:
    with open_environments("InvertedPendulum-v5", 4) as environments:
        results = evaluate_returns(lean, environments, seed=3)

    reference = gym.make("InvertedPendulum-v5")
    returns, lengths = [], []
    for episode in range(4):
        observation, _ = reference.reset(seed=episode_seed(3, episode))
        total, length, over = 0.0, 0, False
        while not over:
            action = lean(observation.astype(np.float32)[None])[0]
            observation, reward, terminated, truncated, _ = reference.step(action)
            total, length, over = total + float(reward), length + 1, terminated or truncated
        returns.append(total)
        lengths.append(length)
    reference.close()

    assert results.returns.tolist() == returns
    assert results.lengths.tolist() == lengths
    assert len(set(lengths)) > 1


def test_known_returns_and_lengths_with_early_ends_and_the_time_limit(countdown: str) -> None:
    with open_environments(countdown, 12) as environments:
        results = evaluate_returns(quarter, environments, seed=0)
        expected = [min(start, LIMIT) for start in starts(environments)]
    assert results.lengths.tolist() == expected
    assert results.returns.tolist() == [0.5 * length for length in expected]
    assert min(expected) < LIMIT and max(starts(environments)) > LIMIT
    assert results.returns.dtype == np.float64 and results.lengths.dtype == np.int64


def test_the_policy_sees_exactly_the_living_episodes_as_one_float32_batch(countdown: str) -> None:
    batches = []

    def policy(observations: Array) -> Array:
        assert observations.dtype == np.float32
        batches.append(observations[:, 0].tolist())
        return quarter(observations)

    with open_environments(countdown, 6) as environments:
        evaluate_returns(policy, environments, seed=1)
        first = starts(environments)
    expected = [[start - step for start in first if start > step] for step in range(LIMIT)]
    assert batches == [batch for batch in expected if batch]


def test_starts_depend_on_seed_and_episode_only(countdown: str) -> None:
    def other(observations: Array) -> Array:
        return -quarter(observations)

    with open_environments(countdown, 8) as eight, open_environments(countdown, 3) as three:
        evaluate_returns(quarter, eight, seed=5)
        reference = starts(eight)
        evaluate_returns(other, three, seed=5)
        assert starts(three) == reference[:3]
        evaluate_returns(quarter, eight, seed=6)
        assert starts(eight) != reference
    assert len(set(reference)) > 3


def test_seeds_of_neighbouring_evaluations_do_not_overlap() -> None:
    assert len({episode_seed(seed, episode) for seed in range(50) for episode in range(50)}) == 2500


def swing(observations: Array) -> Array:
    return np.sin(observations[:, :1]).astype(np.float32)


def test_an_environment_that_remembers_is_made_anew_for_every_evaluation() -> None:
    with registered_worn() as worn, open_environments(worn, 3) as used, open_environments(worn, 3) as fresh:
        evaluate_returns(swing, used, seed=1)
        before: list[Any] = [environment.unwrapped for environment in used]
        again, reference = (evaluate_returns(swing, environments, seed=0) for environments in (used, fresh))
        assert again.returns.tolist() == reference.returns.tolist()
        assert all(environment.unwrapped is not old for environment, old in zip(used, before, strict=True))
        used[0].reset()
        assert vars(used[0].unwrapped)["wear"] > 0, "only a seed asks for a fresh start"
        assert used[0].spec.max_episode_steps == 20


FORGETFUL = ("Hopper-v5", "HalfCheetah-v5", "Walker2d-v5", "Ant-v5", "InvertedPendulum-v5", "Pendulum-v1", *ENV_IDS)


@pytest.mark.parametrize("env_id", FORGETFUL)
def test_what_was_played_before_does_not_show(env_id: str) -> None:
    def episode(environment: Any, seed: int, steps: int) -> Any:
        draw = np.random.default_rng(seed)
        seen = [environment.reset(seed=seed)[0].tolist()]
        for _ in range(steps):
            action = draw.uniform(environment.action_space.low, environment.action_space.high).astype(np.float32)
            observation, reward, *_ = environment.step(action)
            seen.append([*observation.tolist(), reward])
        return seen

    with open_environments(env_id, 2) as (used, fresh):
        simulator = used.unwrapped
        for seed in range(3):
            episode(used, seed, 30)
        assert episode(used, 7, 40) == episode(fresh, 7, 40)
        assert used.unwrapped is simulator, "to make it anew takes time"


def test_the_global_generators_are_left_alone(countdown: str) -> None:
    numpy_state, python_state = np.random.get_state(legacy=False)["state"]["key"].tolist(), random.getstate()
    with open_environments(countdown, 2) as environments:
        evaluate_returns(quarter, environments, seed=0)
    assert np.random.get_state(legacy=False)["state"]["key"].tolist() == numpy_state
    assert random.getstate() == python_state


def test_a_policy_gone_nan_loses_only_its_own_episode(countdown: str) -> None:
    def policy(observations: Array) -> Array:
        actions = quarter(observations)
        actions[observations[:, 0] == doomed] = np.nan
        return actions

    with open_environments(countdown, 6) as environments:
        doomed = 0
        healthy = evaluate_returns(policy, environments, seed=2)
        doomed = max(starts(environments))
        results = evaluate_returns(policy, environments, seed=2, gamma=0.9)
        lost = np.array(starts(environments)) == doomed
    assert np.isnan([results.returns[lost], results.discounted[lost]]).all() and (results.lengths[lost] == 0).all()
    assert results.returns[~lost].tolist() == healthy.returns[~lost].tolist()


@pytest.mark.parametrize("shape", [(3, 1), (2, 2), (3,), (3, 2, 1)])
def test_actions_of_the_wrong_shape_are_refused(countdown: str, shape: Any) -> None:
    with open_environments(countdown, 3) as environments, pytest.raises(InputError, match=r"\(3, 2\)"):
        evaluate_returns(lambda observations: np.zeros(shape, dtype=np.float32), environments, seed=0)


@pytest.mark.parametrize(
    "env_id",
    ["Nope-v0", "Hopper-v99", "Hopper-v2", "nobody/Hopper-v5", "not an id", "", "no_such_module:Hopper-v5"],
)
def test_an_unknown_environment_is_named(env_id: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError) as caught:
            make_environments(env_id, 1)
    assert repr(env_id) in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("name", "reason"),
    [("Endless", "time limit"), ("Discrete", "action space"), ("Picture", "observation space")],
)
def test_an_unusable_environment_is_refused_and_closed(
    countdown: str, monkeypatch: pytest.MonkeyPatch, name: str, reason: str
) -> None:
    closed = []
    monkeypatch.setattr(Countdown, "close", lambda self: closed.append(self))
    with pytest.raises(InputError, match=reason):
        make_environments(f"mopo-test/{name}-v0", 3)
    assert len(closed) == 1


def test_environments_are_closed_even_after_an_error(countdown: str) -> None:
    with pytest.raises(ZeroDivisionError), open_environments(countdown, 2) as environments:
        raise ZeroDivisionError
    assert all(vars(environment.unwrapped)["closed"] for environment in environments)


def test_old_mujoco_versions_are_made_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        environments = make_environments("Hopper-v4", 1)
    assert environments[0].spec.id == "Hopper-v4"
    close_environments(environments)


def test_making_an_environment_prints_nothing_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    handler = mujoco.get_mju_user_warning()
    close_environments(make_environments("HalfCheetah-v5", 1))
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
    assert mujoco.get_mju_user_warning() is handler


def test_each_action_reaches_its_own_episode_and_step_t_counts_gamma_to_the_t(countdown: str) -> None:
    def policy(observations: Array) -> Array:
        return np.repeat(observations / 20, 2, axis=1)

    with open_environments(countdown, 6) as environments:
        plain, discounted = (evaluate_returns(policy, environments, seed=1, gamma=gamma) for gamma in (1.0, 0.5))
        lives = [[2 * (n - step) / 20 for step in range(min(n, LIMIT))] for n in starts(environments)]
    assert plain.returns == pytest.approx([sum(rewards) for rewards in lives])
    assert discounted.discounted == pytest.approx([sum(0.5**t * r for t, r in enumerate(rewards)) for rewards in lives])
    assert discounted.returns.tolist() == plain.returns.tolist() == plain.discounted.tolist()


def test_time_limits_are_known_without_a_simulator(countdown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gym, "make", lambda *_, **__: pytest.fail("made a simulator"))
    assert time_limit(countdown, {}) == LIMIT
    assert time_limit("Hopper-v5", {}) == 1000
    assert time_limit("Hopper-v5", {"max_episode_steps": 30}) == 30
    assert time_limit("mopo/HIVTreatment-v0", {}) == gym.spec("mopo/HIVTreatment-v0").max_episode_steps
    assert time_limit("mopo-test/Endless-v0", {}) is None
    assert time_limit("Nobody-v0", {}) is None
    assert time_limit(None, {}) is None
