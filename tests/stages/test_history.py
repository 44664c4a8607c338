"""Data with a history on their way through the stages: their units, and the games that policies are watched in."""

from dataclasses import replace

import numpy as np
import torch
from probes.histories import log_of

from mopo_cli.agents.actor import Actor
from mopo_cli.config.schema import TrainPolicy
from mopo_cli.data.history import stack_history
from mopo_cli.nets.scales import standard_units
from mopo_cli.nets.stacked import mlp_layout
from mopo_cli.report.console import Report
from mopo_cli.stages.common.inputs import Data, float_tensor
from mopo_cli.stages.common.open_world import _standard_units, rollout_options
from mopo_cli.stages.common.watch import Game, open_watch


def data_of(history: int) -> Data:
    log, info = stack_history(*log_of((9, 4, 7)), history)
    columns = log.observations, log.actions, log.rewards, log.terminals, log.next_observations
    return Data(log, info, *map(float_tensor, columns))


def test_standardising_and_stacking_are_done_in_any_order() -> None:
    log, info = log_of((9, 4, 7))
    plain = standard_units(float_tensor(log.observations))
    standardised = plain.apply(float_tensor(log.observations)).numpy()
    expected = stack_history(replace(log, observations=standardised), info, 3)[0].observations
    data = data_of(3)
    np.testing.assert_allclose(_standard_units(data).apply(data.observation), expected, rtol=1e-5, atol=1e-6)
    one = data_of(1)
    assert torch.equal(_standard_units(one).divisor, standard_units(one.observation).divisor)


def test_the_penalty_is_in_deviations_of_what_is_predicted() -> None:
    settings = TrainPolicy(penalty_scale="standardised")
    scales = [rollout_options(settings, data_of(history)).form.scale for history in (1, 3)]
    assert scales[0] is not None and scales[1] is not None and torch.equal(scales[0], scales[1])


def test_a_policy_is_watched_with_the_history_of_its_data() -> None:
    layout = mlp_layout((3 * 4 + 2, 8, 2))
    actor = Actor(0.5 * torch.randn(1, layout.size, generator=torch.Generator().manual_seed(0)), layout, -5.0, 2.0)
    bounds = np.array([-3], np.float32), np.array([3], np.float32)
    game = Game("InvertedPendulum-v5", {}, 2, *bounds, history=3)
    with open_watch(game, 0, Report()) as here, open_watch(game, 1, Report()) as beside:
        assert here.play(actor, 5).result() == beside.play(actor, 5).result()
        assert beside.processes == 1
