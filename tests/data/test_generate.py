import gymnasium as gym
import numpy as np
import pytest
from probes.behaviours import Three, confirm
from probes.worn import registered

from mopo_cli.data.generate import generate_random
from mopo_cli.data.transitions import COLUMNS, Transitions, episode_lengths
from mopo_cli.data.validate import validate
from mopo_cli.errors import InputError


def columns(transitions: Transitions) -> list[bytes]:
    return [getattr(transitions, name).tobytes() for name in COLUMNS]


@pytest.mark.parametrize("env_id", ["Hopper-v5", "InvertedPendulum-v5", "Pendulum-v1"])
def test_generated_data_are_valid_and_repeat_with_their_seed(env_id: str) -> None:
    transitions, info = generate_random(env_id, 500, seed=3)
    validate(transitions, info)
    assert len(transitions) == 500
    assert columns(generate_random(env_id, 500, seed=3)[0]) == columns(transitions)
    other = generate_random(env_id, 500, seed=4)[0]
    assert not np.array_equal(other.actions, transitions.actions)
    assert not np.array_equal(other.observations[:1], transitions.observations[:1])


def test_the_simulator_confirms_every_row() -> None:
    transitions, _ = generate_random("Hopper-v5", 200, seed=0)
    confirm(transitions, gym.make("Hopper-v5"), {0: 0}.get)
    assert len(transitions) == 200 and transitions.terminals.any()


def test_actions_fill_the_box_evenly() -> None:
    transitions, info = generate_random("InvertedPendulum-v5", 4000, seed=0)
    assert (info.action_low.tolist(), info.action_high.tolist()) == ([-3], [3])
    shares = np.histogram(transitions.actions, bins=6, range=(-3, 3))[0] / 4000
    assert np.abs(shares - 1 / 6).max() < 0.03


def test_the_time_limit_is_a_timeout_and_no_terminal() -> None:
    transitions, info = generate_random("Pendulum-v1", 450, seed=0)
    assert not transitions.terminals.any()
    assert np.flatnonzero(transitions.timeouts).tolist() == [199, 399, 449]
    assert episode_lengths(transitions).tolist() == [200, 200, 50]
    assert (info.termination, info.env_id, info.seed) == ("none", "Pendulum-v1", 0)


def test_a_terminal_in_the_last_row_is_no_timeout() -> None:
    whole, _ = generate_random("InvertedPendulum-v5", 50, seed=0)
    end = int(np.flatnonzero(whole.terminals)[0])
    cut, _ = generate_random("InvertedPendulum-v5", end + 1, seed=0)
    assert cut.terminals[-1] and not cut.timeouts[-1]


def test_progress_adds_up_and_may_stop_it() -> None:
    progress: list[int] = []
    generate_random("InvertedPendulum-v5", 2500, 0, progress.append)
    assert sum(progress) == 2500 and len(progress) == 3

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate_random("InvertedPendulum-v5", 10**6, 0, stop)


@pytest.mark.parametrize(
    ("env_id", "says"),
    [
        ("Nope-v3", "Nope"),
        ("Hopper-v99", "v99"),
        ("Hopper-v3", "Hopper-v3"),
        ("no_such_module:Hopper-v5", "no_such_module"),
        ("CartPole-v1", "Box"),
        ("FrozenLake-v1", "Box"),
    ],
)
def test_environments_that_do_not_fit(env_id: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        generate_random(env_id, 10, 0)


def test_an_end_at_the_time_limit_is_a_terminal_only() -> None:
    with registered("Three-v0", Three, 3) as env_id:
        transitions, _ = generate_random(env_id, 6, 0)
    assert transitions.terminals.tolist() == [False, False, True] * 2
    assert not transitions.timeouts.any()


class Odd(gym.Env[np.ndarray, np.ndarray]):
    """Unbounded actions, or whole-number observations."""

    def __init__(self, bound: float, dtype: type) -> None:
        self.observation_space = gym.spaces.Box(0, 1, (2,), dtype)
        self.action_space = gym.spaces.Box(-bound, bound, (1,), np.float32)


@pytest.mark.parametrize(("bound", "dtype", "says"), [(np.inf, np.float32, "finite bounds"), (1.0, np.int64, "int64")])
def test_spaces_that_do_not_fit(bound: float, dtype: type, says: str) -> None:
    with registered("Odd-v0", lambda **_: Odd(bound, dtype), 5) as env_id, pytest.raises(InputError, match=says):
        generate_random(env_id, 10, 0)


def test_references_go_with_the_d4rl_versions_only() -> None:
    assert generate_random("Hopper-v4", 5, 0)[1].reference_max == 3234.3
    assert generate_random("Hopper-v5", 5, 0)[1].reference_max is None
