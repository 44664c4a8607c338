"""CQL: an update against losses written out, values that are known."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from probes.agents import SETTINGS as SAC
from probes.conservative import PLAIN, chain_errors, check_fixed_point, check_update
from probes.offline import (
    LOOP,
    make_world,
    train,
)

from mopo_cli.agents.algorithms.cql import ALGORITHM, CqlSettings

SETTINGS = CqlSettings(**vars(SAC), beta=2.0, actions=3)


@pytest.mark.parametrize("lse", ["full", "paired"])
@pytest.mark.parametrize("backup", ["deterministic", "soft"])
def test_one_update_against_the_losses_written_out(lse: Any, backup: Any) -> None:
    settings = CqlSettings(**vars(PLAIN), beta=0.7, actions=2, lse=lse, backup=backup)
    check_update(settings, real=23)


def test_the_critics_end_where_the_loss_is_least() -> None:
    check_fixed_point(ALGORITHM, share=1.0, beta=1.0)


def test_values_out_of_the_data_fall_below_the_truth_and_within_do_not_explode() -> None:
    """Without the term the critics go on as the data's rewards rise; with it they do not."""
    out, within = chain_errors(ALGORITHM, 1.0, 0.0, beta=1.0)
    plain_out, plain_within = chain_errors(ALGORITHM, 1.0, 0.0, beta=0.0)
    assert out.max() < -3 and (out < plain_out - 2).all()
    assert within.abs().max() < 2 and within.abs().mean() < 1 and plain_within.abs().mean() < 1


def test_every_step_draws_anew_and_differently_for_every_seed() -> None:
    """Without noise two updates from the same rows would be alike; and rollouts there are none."""
    loop = train(make_world(), SETTINGS, ALGORITHM, 14, loop=replace(LOOP, batch_size=64))
    assert len({tuple(row.tolist()) for row in loop.agent.actor.flat}) == 3
    assert loop.pool.sizes == [0, 0, 0] and not loop.tallies
    assert torch.isfinite(loop.agent.actor.flat).all()
