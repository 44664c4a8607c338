"""What torch counts of one step, against the products written out by hand, and against what a whole call counts."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch

from mopo_cli.bench.operations import counted, imagined_flops, model_step_flops, refresh_flops, update_flops
from mopo_cli.bench.workloads import MODEL_STEPS, Shapes, model_training, refreshes, rollouts, taking
from mopo_cli.config.learners import with_algorithm
from mopo_cli.config.schema import TrainModel, TrainPolicy

CPU = torch.device("cpu")
SHAPES = Shapes(obs_dim=9, act_dim=4, rows=1500)
MODEL = TrainModel(networks=3, hidden=48, layers=2, weight_decay=(0.1, 0.1, 0.1), batch_size=32)
POLICY = TrainPolicy(hidden=40, layers=2, batch_size=64, rollout_batch=200, h=3, steps_per_epoch=20, rollout_every=20)
DIMS = SHAPES.obs_dim, SHAPES.act_dim
ACTOR, CRITIC, VALUE = (9, 40, 40, 8), (13, 40, 40, 1), (9, 40, 40, 1)


def forward(*sizes: int) -> int:
    """Of one row through layers this wide: two for every weight."""
    return 2 * sum(inputs * outputs for inputs, outputs in pairwise(sizes))


def backward(*sizes: int) -> int:
    """By all weights, and by the inputs of all layers but the first; a single output's weights are only multiplied."""
    return 2 * forward(*sizes) - forward(*sizes[:2]) - (forward(*sizes[-2:]) if sizes[-1] == 1 else 0)


def slope(*sizes: int, inputs: int) -> int:
    """By the last inputs alone, through single-output layers, no weights."""
    return backward(*sizes) - forward(*sizes) + forward(inputs, sizes[1])


def soft_actor_critic() -> int:
    """One row: target by actor and critics, the critics' loss, the actor's through the critics to the action."""
    target = forward(*ACTOR) + 2 * forward(*CRITIC)
    critics = 2 * (forward(*CRITIC) + backward(*CRITIC))
    return (
        target + critics + forward(*ACTOR) + backward(*ACTOR) + 2 * (forward(*CRITIC) + slope(*CRITIC, inputs=DIMS[1]))
    )


def policy_of(name: str, **settings: object) -> TrainPolicy:
    kind = with_algorithm(TrainPolicy, name)
    return kind(**POLICY.model_dump() | {"real_ratio": 1.0, "penalty": "none", "algorithm": name} | settings)


@pytest.mark.parametrize("members", [1, 3])
def test_of_an_update(members: int) -> None:
    assert update_flops(MODEL, POLICY, *DIMS) == 64 * soft_actor_critic()
    with taking(POLICY, SHAPES, members, CPU) as (_, take, steps):
        assert steps == 20 and counted(take) == members * steps * 64 * soft_actor_critic()


def test_of_other_updates() -> None:
    cloning = forward(*ACTOR) + backward(*ACTOR)
    assert update_flops(MODEL, policy_of("bc"), *DIMS) == 64 * cloning
    assert update_flops(MODEL, policy_of("awr"), *DIMS) == 64 * (cloning + forward(*VALUE) + backward(*VALUE))
    sampled = 3 * 5 * 2 * (forward(*CRITIC) + backward(*CRITIC))
    assert update_flops(MODEL, policy_of("cql", actions=5), *DIMS) == 64 * (soft_actor_critic() + sampled)


@pytest.mark.parametrize("delay", [1, 2, 3])
def test_where_only_some_steps_have_an_actor_s_it_is_their_mean(delay: int) -> None:
    always = forward(*ACTOR) + 4 * forward(*CRITIC) + 2 * backward(*CRITIC)
    delayed = forward(*ACTOR) + backward(*ACTOR) + forward(*CRITIC) + slope(*CRITIC, inputs=DIMS[1])
    expected = 64 * (always + delayed / delay)
    assert update_flops(MODEL, policy_of("td3-bc", policy_delay=delay), *DIMS) == pytest.approx(expected, rel=1e-12)


def test_of_model_rows_of_which_elites_imagine_more() -> None:
    network = forward(13, 48, 48) + 2 * forward(48, 10)
    each = network + 2 * (forward(*ACTOR) + 2 * forward(*CRITIC))  # of the samples' policy and target critics
    result = update_flops(MODEL, policy_of("mobile", real_ratio=0.25, mobile_samples=2), *DIMS)
    assert result == 64 * soft_actor_critic() + 48 * MODEL.networks * each


def test_threads_that_share_the_work_out_are_counted_too(use_threads: Callable[[int], None]) -> None:
    use_threads(2)
    assert update_flops(MODEL, POLICY, *DIMS) == 64 * soft_actor_critic()


def test_of_what_comes_before_a_rollout() -> None:
    for name, settings in (("drop", {"real_ratio": 0.05, "dice_steps": 3}), ("awr", {})):
        policy = policy_of(name, **settings)
        result = refresh_flops(MODEL, policy, *DIMS, SHAPES.rows)
        assert result == counted(refreshes(policy, SHAPES, 1, CPU, MODEL)[0]) > 0
        assert 2 * result == counted(refreshes(policy, SHAPES, 2, CPU, MODEL)[0])
    # V of all rows and of the state after the last one; folding the scale into its bias takes a product more.
    assert result == (SHAPES.rows + 1) * forward(*VALUE) + 2 * 9 * 40
    assert refresh_flops(MODEL, POLICY, *DIMS, SHAPES.rows) == 0


def test_of_a_generated_transition() -> None:
    result = imagined_flops(MODEL, POLICY, *DIMS)
    assert result == forward(*ACTOR) + MODEL.networks * (forward(13, 48, 48) + 2 * forward(48, 10))
    assert counted(rollouts(MODEL, POLICY, SHAPES, CPU)) == POLICY.rollout_batch * POLICY.h * result


def test_of_a_model_step_and_every_call_takes_as_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """1,200 training rows make 38 steps an epoch, so that calls of 50 steps go over its end."""
    monkeypatch.setattr("mopo_cli.engine.traced.CALLS", 1 << 30)  # a step is taken once more where it is traced
    network = forward(13, 48, 48) + 2 * forward(48, 10)
    assert model_step_flops(MODEL, *DIMS) == MODEL.networks * 32 * (3 * network - forward(13, 48))
    held_out = 300 * MODEL.networks * network
    work, _ = model_training(MODEL, SHAPES, CPU)
    for ends in (1, 1, 1, 2, 1):
        assert counted(work) - ends * held_out == MODEL_STEPS * model_step_flops(MODEL, *DIMS)


def test_the_paper_sizes() -> None:
    """Hopper: 0.561 GFLOP an update, 1.36 a model step, 1.93 MFLOP a generated transition."""
    model, policy = TrainModel(), TrainPolicy()
    assert update_flops(model, policy, 11, 3) / 1e9 == pytest.approx(0.5613, abs=0.0005)
    assert model_step_flops(model, 11, 3) / 1e9 == pytest.approx(1.362, abs=0.001)
    assert imagined_flops(model, policy, 11, 3) / 1e6 == pytest.approx(1.926, abs=0.001)
