"""The oracle against the environments' own steps, a MuJoCo loop written apart, and what a simulator may do wrong."""

from functools import cache
from pathlib import Path
from typing import Any

import gymnasium.envs.mujoco
import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor

from mopo_cli.errors import InputError
from mopo_cli.evaluation.play import open_environments
from mopo_cli.tasks.oracle import open_oracle

CHEETAH, HOPPER, WALKER, ANT, PENDULUM = (
    f"{body}-v5" for body in ("HalfCheetah", "Hopper", "Walker2d", "Ant", "InvertedPendulum")
)
SIX = -np.ones(6), np.ones(6)
Steps = tuple[Tensor, Tensor, Tensor]


@cache
def bounds(env_id: str) -> tuple[Any, Any]:
    with open_environments(env_id, 1) as (environment,):
        box: Any = environment.action_space
        return box.low, box.high


@cache
def played(env_id: str, count: int = 2000, kwargs: tuple[tuple[str, Any], ...] = ()) -> Steps:
    """Real steps, float64: observations, actions in units of the bounds (also beyond), next observations."""
    low, high = bounds(env_id)
    draw, rows = np.random.default_rng(0), []
    with open_environments(env_id, 1, dict(kwargs)) as (environment,):
        observation, _ = environment.reset(seed=0)
        for i in range(count):
            action = draw.uniform(-1, 1, low.shape) * (0.2, 1.0, 1.5)[i // 100 % 3]
            after, _, terminated, truncated, _ = environment.step(low + (action + 1) * (high - low) / 2)
            rows.append((observation, action, after))
            observation = environment.reset()[0] if terminated or truncated or i % 100 == 99 else after
    observations, actions, nexts = (torch.from_numpy(np.array(column)) for column in zip(*rows, strict=True))
    return observations, actions, nexts


def errors(env_id: str, steps: Steps, threads: int = 1, **kwargs: Any) -> Tensor:
    with open_oracle(env_id, kwargs, *bounds(env_id), threads=threads) as oracle:
        return oracle(*steps)


def same(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.view(torch.int32), b.view(torch.int32))  # bit for bit, NaN included


@pytest.mark.parametrize(
    "env_id",
    [
        *("HalfCheetah-v4", CHEETAH, "Hopper-v4", HOPPER, "Walker2d-v4", WALKER, "Ant-v4", ANT, PENDULUM),
        *("mopo/HalfCheetahJump-v0", "mopo/AntAngle-v0"),
    ],
)
def test_the_environments_own_step_has_no_error(env_id: str) -> None:
    steps = played(env_id)
    error = errors(env_id, steps)
    assert (error.shape, error.dtype) == ((2000,), torch.float32)
    # A clipped velocity stands at exactly its bound.
    clips = {"Hopper": 5, "Walker2d": 8}
    first_velocity = clips.get(env_id[:-3])
    lost = (steps[0][:, first_velocity:].abs() == 10).any(dim=1) if first_velocity else torch.zeros(2000).bool()
    assert torch.equal(error.isnan(), lost)
    assert lost.any() == (env_id[:-3] == "Walker2d")
    # The environment's solver starts from its previous solution, which no observation tells; ours starts at rest.
    measured = error[~lost].double()
    assert measured.quantile(0.99) <= 1e-11 and measured.max() <= 1e-5 and (measured <= 1e-9).double().mean() >= 0.998
    rounded = errors(env_id, tuple(column.float() for column in steps))[~lost]  # type: ignore[arg-type]
    # Rounding to f4 decides of one foot in a thousand whether it touches the ground.
    assert rounded.median() <= 1e-6 and rounded.double().quantile(0.99) <= 2e-4


def test_the_error_is_the_distance_of_the_predicted_state() -> None:
    observation, action, after = played(ANT)
    shift = torch.randn(len(after), 105, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    # Ant-v5's contact forces, from the 28th on, are no state.
    expected = (shift[:, :27] ** 2).sum(dim=1).sqrt()
    assert torch.allclose(errors(ANT, (observation, action, after + shift)).double(), expected, rtol=1e-6)
    assert errors(ANT, (observation[:0], action[:0], after[:0])).shape == (0,)


def test_a_loop_of_mujoco_steps_agrees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo writes there what it thinks of the model's syntax
    observation, action, _ = (column[:300] for column in played(CHEETAH))
    place = Path(gymnasium.envs.mujoco.__file__).parent / "assets" / "half_cheetah.xml"
    model = mujoco.MjModel.from_xml_path(str(place))
    after = np.empty((300, 17))
    for row in range(300):
        data = mujoco.MjData(model)
        data.qpos[1:], data.qvel[:] = observation[row, :8], observation[row, 8:]
        data.ctrl[:] = action[row]
        for _ in range(5):
            mujoco.mj_step(model, data)
        after[row, :8], after[row, 8:] = data.qpos[1:], data.qvel
    assert errors(CHEETAH, (observation, action, torch.from_numpy(after))).max() <= 1e-12


def wild_steps(env_id: str) -> Steps:
    """Real steps among states that no body can be in, and numbers that are none."""
    observation, action, after = (column[:600].clone() for column in played(env_id))
    draw = torch.Generator().manual_seed(1)
    for i, scale in enumerate((1e2, 1e4, 1e7, 1e12, 1e300)):
        noise = torch.randn(len(observation), observation.shape[1], generator=draw, dtype=torch.float64)
        observation[i + 1 :: 10] = scale * noise[i + 1 :: 10]
    observation[6::10, 3], action[7::10, 0], after[8::10, 2] = torch.nan, torch.inf, torch.nan
    return observation, action, after


@pytest.mark.parametrize("env_id", [CHEETAH, ANT])
def test_a_row_is_judged_alike_in_any_company(env_id: str) -> None:
    steps = wild_steps(env_id)
    error = errors(env_id, steps)
    assert error[0::10].max() <= 1e-5  # untouched rows, each with a wild one before or after it
    order = torch.randperm(600, generator=torch.Generator().manual_seed(2))
    shuffled = tuple(column[order] for column in steps)
    for threads in (1, 2, 5):
        assert same(errors(env_id, shuffled, threads), error[order])  # type: ignore[arg-type]
    with open_oracle(env_id, {}, *bounds(env_id)) as oracle:
        for row in range(0, 60):
            assert same(oracle(*(column[row : row + 1] for column in steps)), error[row : row + 1])
        assert same(oracle(*steps), error)


@pytest.mark.parametrize("threads", [1, 2])
def test_unstable_motion_is_nan_and_nothing_else_comes_of_it(
    threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    handler = mujoco.get_mju_user_warning()
    for env_id in (CHEETAH, ANT, PENDULUM):
        error = errors(env_id, wild_steps(env_id), threads)
        for kind in (4, 5, 6, 7, 8):
            assert error[kind::10].isnan().all()
        assert error[0::10].isfinite().all()
        assert not error.isinf().any() and error.nan_to_num().max() < 1e11
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
    assert mujoco.get_mju_user_warning() is handler


def test_more_rows_than_are_simulated_at_once() -> None:
    observation, action, after = played(PENDULUM)
    many = tuple(column.repeat(9, 1) for column in (observation, action, after + 0.5))
    assert same(errors(PENDULUM, many), errors(PENDULUM, (observation, action, after + 0.5)).repeat(9))  # type: ignore[arg-type]


def test_the_root_in_the_observation_is_part_of_the_state() -> None:
    kwargs = {"exclude_current_positions_from_observation": False}
    observation, action, after = played(CHEETAH, 300, tuple(kwargs.items()))
    assert observation.shape[1] == 18
    assert errors(CHEETAH, (observation, action, after), **kwargs).max() <= 1e-9
    after[:, 0] += 3
    assert errors(CHEETAH, (observation, action, after), **kwargs).numpy() == pytest.approx(3)


def test_the_environments_options_count() -> None:
    observation, action, after = played(CHEETAH, 300, (("frame_skip", 1),))
    assert errors(CHEETAH, (observation, action, after), frame_skip=1).max() <= 1e-9
    assert errors(CHEETAH, (observation, action, after)).median() > 0.1


def test_unstable_motion_is_told_in_a_single_step_too() -> None:
    state = torch.zeros(2, 17, dtype=torch.float64)
    state[1, 8:] = 1e7
    error = errors(CHEETAH, (state, torch.zeros(2, 6), state), frame_skip=1)
    assert error.isnan().tolist() == [False, True]


@pytest.mark.parametrize(
    ("env_id", "kwargs", "limits", "sentence"),
    [
        (None, {}, SIX, "data that name no environment are not available"),
        (
            "mopo/HIVTreatment-v0",
            {},
            SIX,
            "'mopo/HIVTreatment-v0' are not available, only those of HalfCheetah, Hopper",
        ),
        ("Hopper-v3", {}, SIX, "'Hopper-v3' are not available"),
        ("HumanoidStandup-v5", {}, SIX, "mopo/AntAngle-v0"),
        (CHEETAH, {"colour": "red"}, SIX, "cannot be made: .*colour"),
        (CHEETAH, {"xml_file": "/no/such.xml"}, SIX, "cannot be made: .*such.xml"),
        (CHEETAH, {}, (-np.ones(3), np.ones(3)), "takes 6 actions, but there are bounds for 3"),
    ],
)
def test_what_it_cannot_do_it_refuses(env_id: str | None, kwargs: dict[str, Any], limits: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence), open_oracle(env_id, kwargs, *limits):
        pass


def test_narrow_observations_are_refused() -> None:
    narrow = torch.zeros(1, 11)
    with pytest.raises(InputError, match="HalfCheetah-v5 has 17 numbers, but these observations have 11"):
        errors(CHEETAH, (narrow, torch.zeros(1, 6), narrow))
