"""Models of observations of several steps predict the newest frame; all else of the next observation is at hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from probes.histories import log_of
from probes.linear import linear_ensemble
from probes.single_steps import single_steps
from torch import Tensor

from mopo_cli.agents.units import in_standard_units
from mopo_cli.agents.world import World
from mopo_cli.data.history import stack_history
from mopo_cli.data.transitions import normalise_actions
from mopo_cli.dynamics.branched_rollouts import RELEASED, branch
from mopo_cli.dynamics.ensemble import Ensemble
from mopo_cli.dynamics.penalties import PenaltyForm
from mopo_cli.dynamics.split import Examples
from mopo_cli.engine.rows import RowLayout
from mopo_cli.engine.streams import stream
from mopo_cli.nets.scales import Standard
from mopo_cli.tasks.termination import never

FRAME, ACT, STEPS = 2, 1, 3
OBS = STEPS * FRAME + (STEPS - 1) * ACT
ROWS = RowLayout(OBS, ACT, 1)


def frames_ensemble(std: float = 1e-9, scale: Tensor | None = None) -> Ensemble:
    maps = 0.2 * torch.randn(1, OBS + ACT, FRAME + 1, generator=stream(0, "test/maps"))
    ensemble = linear_ensemble(maps, torch.zeros(1, FRAME + 1), torch.full((1, FRAME + 1), std), (0,), None, scale)
    return replace(ensemble, obs_dim=OBS)


def start(count: int = 20) -> Tensor:
    return torch.randn(count, OBS, generator=stream(1, "test/states"))


def policy(observation: Tensor, _: torch.Generator) -> Tensor:
    return torch.tanh(observation.sum(dim=1, keepdim=True))


@pytest.mark.parametrize("history", [1, 2, 4])
def test_a_step_of_the_log_leads_to_its_next_observation(history: int) -> None:
    log, info = stack_history(*log_of((3, 9, 1, 5)), history)
    columns = torch.from_numpy(log.observations), torch.from_numpy(normalise_actions(log.actions, info))
    following = torch.from_numpy(log.next_observations)
    data = Examples.of(*columns, torch.from_numpy(log.rewards), following, frame=3)
    assert (data.frame, data.obs_dim, data.targets.shape[1]) == (3, log.obs_dim, 4)
    inputs = log.obs_dim + log.act_dim
    ensemble = linear_ensemble(torch.zeros(1, inputs, 4), torch.zeros(1, 4), torch.ones(1, 4), (0,))
    ensemble = replace(ensemble, obs_dim=log.obs_dim)
    torch.testing.assert_close(ensemble.next_observation(*columns, data.targets[:, :-1]), following, rtol=0, atol=1e-5)
    several = ensemble.next_observation(*columns, data.targets[:, :-1].expand(2, -1, -1))
    torch.testing.assert_close(several, following.expand(2, -1, -1), rtol=0, atol=1e-5)


def test_a_rollout_is_that_of_the_linear_system() -> None:
    ensemble = frames_ensemble()
    weights = ensemble.networks.parts[0]["w_mean"].numpy()
    map_ = weights[: OBS + ACT].astype("f8")  # the half for the positive part: see `linear_ensemble`
    how = replace(RELEASED, uncertainties=("max-var",))
    state = start().numpy().astype("f8")
    frames = [state[:, 2 * k : 2 * k + 2] for k in range(STEPS)]
    actions = [state[:, [6]], state[:, [7]]]
    for step in branch(ensemble, never, start(), policy, 4, stream(0, "test"), how):
        rows = ROWS.split(step.rows)
        state = np.concatenate([*frames, *actions], axis=1)
        np.testing.assert_allclose(rows.observation, state, atol=1e-5)
        action = np.tanh(state.sum(axis=1, keepdims=True))
        change = np.concatenate([state, action], axis=1) @ map_
        frames, actions = [frames[0] + change[:, :2], *frames[:-1]], [action, *actions[:-1]]
        np.testing.assert_allclose(rows.reward, change[:, 2], atol=1e-5)
        np.testing.assert_allclose(rows.next_observation, np.concatenate([*frames, *actions], axis=1), atol=1e-5)
    assert step.step == 3


def test_past_actions_that_the_data_hardly_vary_end_no_rollout() -> None:
    scale = torch.ones(OBS + ACT)
    scale[FRAME * STEPS : OBS] = 1e-6
    how = replace(RELEASED, uncertainties=("max-var",))
    steps = list(branch(frames_ensemble(scale=scale), never, start(), policy, 3, stream(0, "test"), how))
    assert len(steps) == 3 and not sum(step.guarded for step in steps)


@pytest.mark.parametrize("standardised", [False, True])
@pytest.mark.parametrize("scale", [None, torch.tensor([0.1, 3.0, 0.7])])
def test_rollouts_in_standard_units_are_the_same(standardised: bool, scale: Tensor | None) -> None:
    mean = torch.tensor([0.5, -3.0] * STEPS + [0.0] * 2, dtype=torch.float64)
    standard = Standard(mean, torch.tensor([0.2, 7.0] * STEPS + [1.0] * 2, dtype=torch.float64))
    ensemble = frames_ensemble(0.3)
    if standardised:
        size = torch.tensor([0.2, 7.0, 1.0])
        ensemble = replace(ensemble, target_mean=0.1 * size, target_std=0.5 * size)
    how = replace(RELEASED, uncertainties=("max-var",), form=PenaltyForm(True, scale, True))
    columns = start(), start()[:, :1], torch.zeros(20), torch.zeros(20), start(), torch.zeros(20, 1)
    real = ROWS.pack(*columns)
    here = World(ROWS, real, start(), single_steps(real), never, (ensemble,), options=how)
    there = in_standard_units(here, standard)

    def act(observation: Tensor, generator: torch.Generator) -> Tensor:
        return torch.tanh(torch.randn(len(observation), ACT, generator=generator))

    steps = [
        list(branch(world.ensembles[0], world.rule, world.start, act, 4, stream(0, "test"), world.options))
        for world in (here, there)
    ]
    assert len(steps[0]) == len(steps[1]) == 4
    for one, two in zip(*steps, strict=True):
        a, b = ROWS.split(one.rows), ROWS.split(two.rows)
        for name in ("observation", "next_observation"):
            torch.testing.assert_close(standard.apply(getattr(a, name)), getattr(b, name), rtol=1e-4, atol=1e-4)
        for name in ("action", "reward", "uncertainty"):
            torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=1e-4, atol=1e-4)
