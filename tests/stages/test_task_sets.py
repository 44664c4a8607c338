"""The sets of MOPO's own tasks: logged by a behaviour of this project's, with the rewards of the task."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mopo_cli.stages.fetch_data as stage
from mopo_cli.config.schema_data import FetchData
from mopo_cli.data.recipes import Recipe
from mopo_cli.data.transition_files import read_dataset
from mopo_cli.data.transitions import DatasetInfo, Transitions
from mopo_cli.errors import InputError
from mopo_cli.evaluation.published import published
from mopo_cli.report.console import Report
from mopo_cli.stages.common import train_behaviour
from mopo_cli.stages.common.options import Options
from mopo_cli.store.run import RunFolder


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder, and behaviours that are judged by one episode."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train_behaviour, "RECIPE", Recipe(episodes=1))


def fetch(dataset: str, steps: int = 300, **settings: Any) -> tuple[Transitions, DatasetInfo]:
    request = FetchData(dataset=dataset, behaviour_steps=steps, transitions=steps, **settings)
    result = stage.run_fetch_data(RunFolder(Path("runs/one")), request, Options(), Report("quiet"))
    return read_dataset(Path(result["outputs"]["dataset"]))


def test_hiv_is_days_of_treatment_with_a_time_limit() -> None:
    logged, info = fetch("hiv", 450)
    assert (info.dataset_id, info.env_id, info.termination) == ("hiv", "mopo/HIVTreatment-v0", "none")
    assert len(logged) == 450 and not logged.terminals.any()
    assert np.flatnonzero(logged.timeouts).tolist() == [399, 449]
    state, dose = np.exp(logged.next_observations.astype(float)), logged.actions.astype(float)
    raw = 1000 * state[:, 5] - 0.1 * state[:, 4] - 20000 * (dose**2).sum(axis=1)
    assert logged.rewards == pytest.approx(1e-6 * raw, rel=1e-3, abs=1e-6)
    assert published(info.dataset_id)


def test_a_jump_set_is_a_runner_s_log_with_the_jump_s_rewards() -> None:
    logged, info = fetch("halfcheetah-jump")
    assert (info.dataset_id, info.env_id, info.env_kwargs) == ("halfcheetah-jump", "mopo/HalfCheetahJump-v0", {})
    effort = (logged.actions.astype(float) ** 2).sum(axis=1)
    height = logged.next_observations[:, 0] - logged.observations[0, 0]
    expected = np.minimum(logged.infos["x_velocity"], 3) - 0.1 * effort + 15 * height
    assert logged.rewards == pytest.approx(expected, abs=1e-4)
    assert "rule halfcheetah-jump" in info.source and info.recipe is not None
    assert published(info.dataset_id)


def test_an_angle_s_set_is_a_walker_s_log_with_the_angle_s_rewards() -> None:
    logged, info = fetch("ant-angle-60")
    assert (info.dataset_id, info.env_id, info.env_kwargs) == ("ant-angle-60", "mopo/AntAngle-v0", {"angle": 60.0})
    effort = (logged.actions.astype(float) ** 2).sum(axis=1)
    speed = 0.5 * logged.infos["x_velocity"] + 0.75**0.5 * logged.infos["y_velocity"]
    assert logged.rewards == pytest.approx(speed - 0.5 * effort, abs=1e-4)
    assert published(info.dataset_id)


def test_any_log_of_the_body_can_be_relabelled() -> None:
    logged, info = fetch("generate:HalfCheetah-v5:random", relabel="halfcheetah-jump")
    assert info.dataset_id == "generate:HalfCheetah-v5:random+halfcheetah-jump"
    assert info.env_id == "mopo/HalfCheetahJump-v0"
    assert not published(info.dataset_id)
    plain, _ = fetch("generate:HalfCheetah-v5:random")
    assert np.array_equal(plain.observations, logged.observations)
    assert np.abs(plain.rewards - logged.rewards).max() > 0.1


def test_an_unknown_rule_is_told_before_anything_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "make_dataset", None)
    with pytest.raises(InputError, match=r"did you mean 'ant-angle'\?"):
        fetch("walker2d-medium", relabel="antangle")
    assert not Path("runs").exists()


def test_a_rule_for_another_body_leaves_nothing_behind() -> None:
    with pytest.raises(InputError, match="is for logs of Ant or mopo/AntAngle"):
        fetch("generate:InvertedPendulum-v5:random", relabel="ant-angle")
    assert not Path("runs").exists()
