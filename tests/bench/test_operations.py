"""Operations by formula against those that torch counts while the real thing runs."""

import pytest
import torch
from probes.flops import counted

from mopo_cli.bench.operations import imagined_flops, model_step_flops, refresh_flops, update_flops
from mopo_cli.bench.workloads import MODEL_STEPS, Shapes, model_training, refreshes, rollouts, taking
from mopo_cli.config.learners import with_algorithm
from mopo_cli.config.schema import TrainModel, TrainPolicy

CPU = torch.device("cpu")
SHAPES = Shapes(obs_dim=9, act_dim=4, rows=1500)
MODEL = TrainModel(networks=3, hidden=48, layers=2, weight_decay=(0.1, 0.1, 0.1), batch_size=32)
POLICY = TrainPolicy(hidden=40, layers=2, batch_size=64, rollout_batch=200, h=3, steps_per_epoch=20, rollout_every=20)


@pytest.mark.parametrize("members", [1, 3])
def test_of_an_update(members: int) -> None:
    formula = update_flops(MODEL, POLICY, SHAPES.obs_dim, SHAPES.act_dim)
    with taking(POLICY, SHAPES, members, CPU) as (_, take, steps):
        assert steps == 20 and counted(take) == members * steps * formula


def test_of_what_comes_before_a_rollout() -> None:
    for name, own in (("drop", {"dice_steps": 3}), ("awr", {"real_ratio": 1.0})):
        policy = with_algorithm(TrainPolicy, name)(**POLICY.model_dump() | own | {"algorithm": name})
        formula = refresh_flops(MODEL, policy, SHAPES.obs_dim, SHAPES.act_dim, SHAPES.rows)
        # AWR also scales its weights and judges the state after the last row, which is less than two rows more.
        more = 0 if name == "drop" else 2 * formula // SHAPES.rows
        assert 0 < formula <= counted(refreshes(policy, SHAPES, 1, CPU, MODEL)[0]) <= formula + more
        assert 2 * formula <= counted(refreshes(policy, SHAPES, 2, CPU, MODEL)[0]) <= 2 * (formula + more)
    assert refresh_flops(MODEL, POLICY, SHAPES.obs_dim, SHAPES.act_dim, SHAPES.rows) == 0


def test_of_a_generated_transition() -> None:
    rows = POLICY.rollout_batch * POLICY.h
    formula = rows * imagined_flops(MODEL, POLICY, SHAPES.obs_dim, SHAPES.act_dim)
    assert counted(rollouts(MODEL, POLICY, SHAPES, CPU)) == formula


def test_of_a_model_step_and_every_call_takes_as_many() -> None:
    """1,200 training rows make 38 steps an epoch, so that calls of 50 steps go over its end."""
    formula = MODEL_STEPS * model_step_flops(MODEL, SHAPES.obs_dim, SHAPES.act_dim)
    held_out = 300 * MODEL.networks * (2 * (13 * 48 + 48 * 48 + 2 * 48 * 10))
    work, _ = model_training(MODEL, SHAPES, CPU)
    for ends in (1, 1, 1, 2, 1):
        assert counted(work) - ends * held_out == formula


def test_the_paper_sizes() -> None:
    """Hopper: 0.561 GFLOP an update, 1.36 a model step, 1.93 MFLOP a generated transition."""
    model, policy = TrainModel(), TrainPolicy()
    assert update_flops(model, policy, 11, 3) / 1e9 == pytest.approx(0.5613, abs=0.0005)
    assert model_step_flops(model, 11, 3) / 1e9 == pytest.approx(1.362, abs=0.001)
    assert imagined_flops(model, policy, 11, 3) / 1e6 == pytest.approx(1.926, abs=0.001)
