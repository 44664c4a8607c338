"""Rates are amounts by medians, shares are of the products, and a run is projected from them."""

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from mopo_cli.agents import brac as module
from mopo_cli.agents.parallel_members import Crew
from mopo_cli.bench import measure as measuring
from mopo_cli.bench.measure import Task, measure
from mopo_cli.bench.operations import update_flops
from mopo_cli.bench.rates import Products, Rate
from mopo_cli.bench.run_time import MODEL_EPOCHS, project
from mopo_cli.bench.timing import Seconds
from mopo_cli.bench.workloads import Shapes, taking, warm_up_phases
from mopo_cli.config.learners import with_algorithm
from mopo_cli.config.schema import TrainModel, TrainPolicy
from mopo_cli.engine.parallel import can_fork

CPU = torch.device("cpu")
MODEL = TrainModel(networks=2, hidden=16, layers=1, weight_decay=(0.1, 0.1), batch_size=8)
POLICY = TrainPolicy(
    hidden=16, batch_size=8, rollout_batch=50, h=2, epochs=30, steps_per_epoch=10, rollout_every=20, eval_episodes=4
)


def trained_by(name: str, **settings: Any) -> TrainPolicy:
    kind = with_algorithm(TrainPolicy, name)
    return kind(**POLICY.model_dump() | {"algorithm": name, "real_ratio": 1.0} | settings)


def test_all_that_takes_time_is_measured_in_one_run() -> None:
    task = Task(Shapes(4, 1, 1000), "InvertedPendulum-v5", {}, MODEL, POLICY)
    rates = {rate.name: rate for rate in measure(task, 3, CPU, 0.01)}
    each = [f"{what}{how}" for what in ("model training", "rollouts", "policy updates") for how in ("", " in bf16")]
    assert list(rates) == [
        *(name for what in each for name in (f"products of {what}", what)),
        *("policy updates, 3 seeds", "policy updates in bf16, 3 seeds", "evaluation"),
    ]
    assert all(rate.per_second > 0 for rate in rates.values())
    computed = [rate for name, rate in rates.items() if "products" not in name and name != "evaluation"]
    assert all(rate.share is not None and 0 < rate.share < 1 for rate in computed)
    assert all(rate.spread is not None and rate.spread >= 0 for rate in rates.values())
    assert all(rate.ceiling_spread is not None for rate in computed)


def test_what_imagines_nothing_has_no_rollouts() -> None:
    task = Task(Shapes(4, 1, 1000), None, {}, MODEL, POLICY.model_copy(update={"real_ratio": 1.0}))
    names = [rate.name for rate in measure(task, 1, CPU, 0.01)]
    assert "rollouts" not in names and "evaluation" not in names and names[-3] == "policy updates"


def test_further_methods_are_measured_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine where everything takes a second, ceilings differ by operations alone."""
    monkeypatch.setattr(measuring, "in_pairs", lambda *_: (Seconds(1.0), Seconds(1.0)))
    others = {"behaviour": POLICY.model_copy(update={"algorithm": "bc", "real_ratio": 1.0})}
    rates = list(measure(Task(Shapes(4, 1, 1000), None, {}, MODEL, POLICY, others), 1, CPU, 0.01))
    cloning, (all_of_it,) = rates[-1], [rate for rate in rates if rate.name == "policy updates"]
    assert cloning.name == "policy updates, behaviour"
    assert cloning.ceiling is not None and all_of_it.ceiling is not None
    operations = {name: update_flops(MODEL, policy, 4, 1) for name, policy in {"": POLICY, **others}.items()}
    assert cloning.ceiling / all_of_it.ceiling == pytest.approx(operations[""] / operations["behaviour"])
    assert operations[""] > 5 * operations["behaviour"], "cloning is a part of what soft actor-critic does"


def test_what_comes_before_policy_updates_is_measured_by_phases_and_projected() -> None:
    brac = trained_by("brac-p", behaviour_steps=40, warmup_steps=25)
    task = Task(Shapes(4, 1, 1000), None, {}, MODEL, brac)
    rates = {rate.name: rate for rate in measure(task, 2, CPU, 0.05)}
    projection = project(task, 2, list(rates.values()), episode=200)
    assert projection.seconds["warm-up"] == pytest.approx(2 * 65 / rates["warm-up"].per_second)
    assert rates["warm-up"].ceiling is None


@pytest.mark.skipif(not can_fork(), reason="needs processes that can be forked")
def test_several_seeds_are_measured_as_they_are_trained(
    use_threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, original = [], Crew.advance

    def noted(crew: Crew, *given: Any) -> Any:
        before = crew.loop.step
        means = original(crew, *given)
        taken.append((len(crew.helpers.each), before, crew.loop.step))
        return means

    monkeypatch.setattr(Crew, "advance", noted)
    use_threads(2)
    shapes = Shapes(4, 1, 1000)
    bc = trained_by("bc")
    for policy, seeds, processes in ((bc, 1, 0), (bc, 3, 2), (POLICY, 1, 0), (POLICY, 3, 2)):
        taken.clear()
        with taking(policy, shapes, seeds, CPU) as (loop, take, steps):
            loop.step = 0
            take(), take()
            assert loop.step == 2 * steps
        assert [count for count, _, _ in taken] == [processes] * (2 if processes else 0)
    brac = trained_by("brac-p", behaviour_steps=130, warmup_steps=90)
    with taking(brac, shapes, 2, CPU) as (loop, take, steps):
        (first, count), (second, more) = warm_up_phases(loop, steps)
        assert (count, more) == (130, 90) and -loop.warm_up <= first < second < 0
        taken.clear()
        for begin in (first, second):
            loop.step = begin
            take()
        assert [(after - before, after <= 0) for _, before, after in taken] == [(steps, True)] * 2
        # Each begins and ends within its phase.
        assert first + steps <= 130 - loop.warm_up <= second


def test_a_phase_is_measured_by_its_own_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A behaviour's step takes a second, another step three: 40 and 25 of them."""
    brac = trained_by("brac-p", behaviour_steps=40, warmup_steps=25)
    passed = [0.0]
    imitate, update = module.imitate, module.update
    monkeypatch.setattr(module, "imitate", lambda *given: (passed.append(1.0), imitate(*given)))
    monkeypatch.setattr(module, "update", lambda *given, **how: (passed.append(3.0), update(*given, **how))[1])
    monkeypatch.setattr(time, "perf_counter", lambda: passed.append(1e-4) or sum(passed))
    rates = {rate.name: rate for rate in measure(Task(Shapes(4, 1, 1000), None, {}, MODEL, brac), 1, CPU, 0.0)}
    assert rates["warm-up"].per_second == pytest.approx(65 / (40 * 1 + 25 * 3), rel=1e-3)


def test_a_rate_beside_its_products_by_hand() -> None:
    """A call of 1,000 updates takes 4 s, within half a second; one of products 0.5 s, each of 3e9 operations."""
    rate = Rate.of("policy updates", "updates", 1000, Seconds(4.0, 0.5))
    speed, beside = Products("products of policy updates", lambda: None, 3 * 10**9).beside(rate, 1e7, Seconds(0.5, 0.1))
    assert (speed.per_second, speed.spread, speed.ceiling) == (6.0, pytest.approx(0.2), None)
    assert (beside.per_second, beside.iqr, beside.spread) == (250.0, pytest.approx(31.25), pytest.approx(0.125))
    assert (beside.ceiling, beside.ceiling_spread) == (pytest.approx(600.0), pytest.approx(0.2))
    assert beside.share == pytest.approx(250 / 600)


def test_a_run_projected_by_hand() -> None:
    task = Task(Shapes(4, 1, 2000), "InvertedPendulum-v5", {}, MODEL, POLICY)
    speeds = {"model training": 1000, "rollouts": 100, "rollouts in bf16": 200, "policy updates": 10, "evaluation": 50}
    rates = [Rate(name, "", value) for name, value in speeds.items()]
    rates.append(Rate("policy updates, 3 seeds", "", 20))
    projection = project(task, 3, rates, episode=200)
    assert projection.seconds == {
        f"model training, {MODEL_EPOCHS} epochs": (2000 - 400) * 2 * MODEL_EPOCHS / 1000,
        "rollouts": 3 * 15 * 50 * 2 / 100,  # 300 steps, a rollout every 20
        "policy updates": 3 * 300 / 20,
        "evaluation": 3 * 30 * 4 * 200 / 50,
    }
    row = 4 * (4 + 1 + 1 + 1 + 4 + 1)  # with the one uncertainty that the penalty uses
    assert projection.bytes == {"data": 2 * 2000 * row, "pools": 3 * 50 * 2 * 5 * row, "a rollout step": 4 * 50 * row}
    assert project(task, 1, rates, episode=200).seconds["policy updates"] == 30
    meanwhile = projection.seconds["rollouts"] + projection.seconds["policy updates"]
    for processes in (1, 1000):
        left = max(projection.seconds["evaluation"] / processes - meanwhile, 0)
        assert project(task, 3, rates, 200, processes).seconds == {**projection.seconds, "evaluation": left}
