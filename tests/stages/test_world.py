"""How settings become what is imagined, and what a policy is learned from."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from probes.runs import OTHERWISE

from mopo_cli.config.schema import Imagination, Rollout, TrainPolicy
from mopo_cli.stages.common.inputs import Data, dataset_path, open_data
from mopo_cli.stages.common.open_world import last_rows, policy_inputs, rollout_options
from mopo_cli.store.run import RunFolder


def data_of(run: Path) -> Data:
    return open_data(dataset_path(RunFolder(run)), torch.device("cpu"))


def test_every_setting_of_imagination_is_tried_here() -> None:
    assert OTHERWISE.keys() == Imagination.model_fields.keys()
    for name, value in OTHERWISE.items():
        assert Imagination.model_fields[name].default != value


def test_the_settings_become_the_form_of_the_penalty(tiny_run: Path) -> None:
    data = data_of(tiny_run)
    released = rollout_options(Rollout(), data)
    assert (released.form.elites_only, released.form.scale, released.form.reward, released.reward_mean) == (
        *(False, None, True),
        False,
    )
    other = rollout_options(Rollout(**OTHERWISE), data)  # type: ignore[arg-type]
    assert (other.form.elites_only, other.form.reward, other.reward_mean) == (True, False, True)
    assert other.precision == "bf16" and released.precision == "fp32"


def test_the_scale_is_the_deviation_of_what_the_model_predicts(tiny_run: Path) -> None:
    data = data_of(tiny_run)
    t = data.transitions
    targets = np.concatenate([t.next_observations - t.observations, t.rewards[:, None]], axis=1).astype(np.float64)
    settings = TrainPolicy(penalty_scale="standardised")
    scale = rollout_options(settings, data).form.scale
    assert scale is not None
    np.testing.assert_allclose(scale, targets.std(axis=0), rtol=1e-5)
    assert (scale > 0).all() and len(set(scale.tolist())) == 5
    # What does not vary is left in its own unit.
    steady = rollout_options(settings, replace(data, reward=torch.full_like(data.reward, 7.0))).form.scale
    assert steady is not None and steady[-1] == 1 and torch.equal(steady[:-1], scale[:-1])

    # Rows whose next state the log does not hold are no targets.
    assert t.terminals.any()
    blank = data.next_observation.clone()
    blank[data.terminal > 0] = 1e6
    unknown = replace(data, next_observation=blank, info=replace(data.info, terminal_next_known=False))
    result = rollout_options(settings, unknown).form.scale
    assert result is not None
    np.testing.assert_allclose(result[:-1], targets[~t.terminals].std(axis=0)[:-1], rtol=1e-5)
    assert rollout_options(TrainPolicy(), unknown).form.scale is None


def test_what_a_policy_is_learned_from() -> None:
    roles = {
        "sac": {"dataset", "model", "elites"},
        "real": {"dataset"},
        "file": {"dataset", "rollouts"},
    }
    settings = TrainPolicy(), TrainPolicy(real_ratio=1), TrainPolicy(rollouts="some.h5")
    for (case, expected), chosen in zip(roles.items(), settings, strict=True):
        assert chosen.needs_model == (case == "sac")
        assert expected == {"dataset", *_roles(chosen)}
    assert not TrainPolicy(real_ratio=1, rollouts="some.h5").needs_model
    assert TrainPolicy(real_ratio=0.999, batch_size=256).needs_model


def _roles(settings: TrainPolicy) -> set[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mopo_cli.stages.common.open_world.dataset_path", lambda run: Path("data.h5"))
        return set(policy_inputs(RunFolder(Path("r")), settings))


def test_episodes_end_where_the_data_say_so(tiny_run: Path) -> None:
    """However near the next episode's first observation is, and however far a measured next one from the next row."""
    data = data_of(tiny_run)
    t = data.transitions
    ends = t.terminals | t.timeouts
    ends[-1] = True
    near = replace(t, observations=1e-7 * t.observations, next_observations=1e-7 * t.next_observations)
    measured = replace(t, next_observations=1.001 * t.next_observations)
    for transitions in (t, near, measured):
        np.testing.assert_array_equal(last_rows(replace(data, transitions=transitions)).numpy(), ends)
    assert 1 < ends.sum() < len(ends)
