"""A behaviour in training: its log is what the simulator says, and it can be taken up again at any episode."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from probes.behaviours import TINY, Bench, Three, bench, confirm
from probes.worn import WORN, registered, registered_worn

from mopo_cli.data.behaviour import (
    behaviour_state,
    evaluate,
    log_of,
    named_seed,
    own_units,
    restore_behaviour,
    take_step,
)
from mopo_cli.data.transitions import COLUMNS, Transitions, episode_ends
from mopo_cli.data.validate import validate
from mopo_cli.errors import DivergedError


@pytest.fixture
def context() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def contents(transitions: Transitions) -> list[bytes]:
    columns = [getattr(transitions, name) for name in COLUMNS]
    return [column.tobytes() for column in [*columns, *transitions.infos.values()]]


@pytest.mark.parametrize(("env_id", "steps"), [("Hopper-v5", 300), ("Pendulum-v1", 450)])
def test_the_simulator_confirms_every_row(env_id: str, steps: int, context: ExitStack) -> None:
    made = bench(context, env_id, steps).train(steps)
    logged = log_of(made.behaviour, steps)
    validate(logged, made.behaviour.info)
    assert (logged.actions >= made.spaces.action_low).all() and (logged.actions <= made.spaces.action_high).all()
    ended = confirm(logged, gym.make(env_id), lambda k: named_seed(0, "behaviour/episode", k))
    assert len(logged) == steps and ended == made.behaviour.start.episode >= 2
    assert set(logged.infos) == ({"x_velocity"} if env_id == "Hopper-v5" else set())


def test_an_end_at_the_time_limit_is_a_terminal_only(context: ExitStack) -> None:
    with registered("Three-v0", Three, 3) as env_id:
        made = bench(context, env_id, 7).train(7)
    logged = log_of(made.behaviour, 6)
    assert logged.terminals.tolist() == [False, False, True] * 2 and not logged.timeouts.any()
    assert logged.observations[:, 0].tolist() == [0, 1, 2] * 2
    assert logged.next_observations[:, 0].tolist() == [1, 2, 3] * 2
    assert log_of(made.behaviour, 7).timeouts.tolist() == [False] * 6 + [True]


def test_a_shorter_log_is_the_beginning_of_a_longer_one(context: ExitStack) -> None:
    long = bench(context, "InvertedPendulum-v5", 200).train(200)
    short = bench(context, "InvertedPendulum-v5", 123).train(123)
    assert contents(log_of(long.behaviour, 123)) == contents(log_of(short.behaviour, 123))
    ends = episode_ends(log_of(long.behaviour, 200))
    assert log_of(long.behaviour, int(ends[3]) + 1).timeouts.sum() == 0, "a terminal in the last row is no timeout"


def test_the_seed_decides_everything(context: ExitStack) -> None:
    logs = [
        contents(log_of(bench(context, "Hopper-v5", 150, seed=seed).train(150).behaviour, 150)) for seed in (0, 0, 1)
    ]
    assert logs[0] == logs[1]
    assert all(one != other for one, other in list(zip(logs[0], logs[2], strict=True))[:4])


@pytest.mark.parametrize(("env_id", "end"), [("InvertedPendulum-v5", 260), ("Pendulum-v1", 410), (WORN, 260)])
def test_taken_up_at_the_start_of_an_episode_it_ends_with_the_same_bytes(
    env_id: str, end: int, context: ExitStack
) -> None:
    context.enter_context(registered_worn())
    made = bench(context, env_id, end)
    evaluations, states = (50, 200), {}
    while made.behaviour.online.steps < end:
        take_step(made.behaviour, made.environment)
        steps = made.behaviour.online.steps
        if steps in evaluations:
            evaluate(made.behaviour, made.judges)
        if steps in (30, 131, 240):
            tensors, numbers = behaviour_state(made.behaviour)
            states[steps] = {name: tensor.clone() for name, tensor in tensors.items()}, numbers
    whole = contents(log_of(made.behaviour, end)), made.behaviour.curve, behaviour_state(made.behaviour)
    for steps, (tensors, numbers) in states.items():
        assert numbers["steps"] <= steps < numbers["steps"] + 200
        again = bench(context, env_id, end)
        again.behaviour.online.replay.fill_(torch.nan)
        restore_behaviour(again.behaviour, tensors, numbers)
        while again.behaviour.online.steps < end:
            take_step(again.behaviour, again.environment)
            if again.behaviour.online.steps in evaluations:
                evaluate(again.behaviour, again.judges)
        assert contents(log_of(again.behaviour, end)) == whole[0]
        assert again.behaviour.curve == whole[1]
        state, numbers = behaviour_state(again.behaviour)
        assert numbers == whole[2][1]
        assert set(state) == set(whole[2][0])
        for name, tensor in state.items():
            assert tensor.numpy().tobytes() == whole[2][0][name].numpy().tobytes(), name


def test_what_was_saved_of_another_behaviour_is_refused(context: ExitStack) -> None:
    tensors, numbers = behaviour_state(bench(context, "Pendulum-v1", 210).train(210).behaviour)
    for env_id, change in (("InvertedPendulum-v5", {}), ("Pendulum-v1", {"steps": 7}), ("Pendulum-v1", {"curve": 1})):
        other = bench(context, env_id, 300).behaviour
        with pytest.raises((KeyError, ValueError, TypeError)):
            restore_behaviour(other, tensors, numbers | change)


def test_an_evaluation_is_of_the_mean_action_from_the_same_starts_and_touches_nothing(context: ExitStack) -> None:
    made = bench(context, "InvertedPendulum-v5", 150)
    plain = bench(context, "InvertedPendulum-v5", 150).train(150)
    for steps in (100, 120, 150):
        made.train(steps)
        evaluate(made.behaviour, made.judges)
    assert contents(log_of(made.behaviour, 150)) == contents(log_of(plain.behaviour, 150))
    evaluate(plain.behaviour, plain.judges)
    assert plain.behaviour.curve[150] == made.behaviour.curve[150]
    for steps, flat in made.behaviour.actors.items():
        policy = made.behaviour.online.sac.policy(0, flat)
        returns = []
        for judge in range(TINY.episodes):
            environment = made.judges[judge]
            start = np.random.SeedSequence(named_seed(0, "behaviour/evaluation"), spawn_key=(judge,)).generate_state(1)
            observation, _ = environment.reset(seed=int(start[0]))
            total, over = 0.0, False
            while not over:
                action = policy.greedy(torch.from_numpy(observation.astype(np.float32))[None]).numpy()[0]
                observation, reward, terminated, truncated, _ = environment.step(3 * action)
                total, over = total + float(reward), terminated or truncated
            returns.append(total)
        assert made.behaviour.curve[steps] == np.mean(returns)
    assert not torch.equal(made.behaviour.actors[100], made.behaviour.actors[150])


@pytest.mark.parametrize("broken", ["actor", "reward", "observation"])
def test_numbers_that_are_not_finite_are_told_and_never_logged(
    broken: str, context: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bench(context, "Pendulum-v1", 300).train(80)
    if broken == "actor":
        made.behaviour.online.sac.actor.flat[:] = torch.nan
    else:
        step = made.environment.step

        def bad(action: Any) -> Any:
            observation, reward, *rest = step(action)
            return (observation, np.nan, *rest) if broken == "reward" else (observation * np.inf, reward, *rest)

        monkeypatch.setattr(made.environment, "step", bad)
    with pytest.raises(DivergedError, match="after 80 steps") as caught:
        made.train(81)
    assert "--seed 1" in caught.value.hint
    assert made.behaviour.online.steps == 80
    if broken == "actor":
        with pytest.raises(DivergedError):
            evaluate(made.behaviour, made.judges)
        assert not made.behaviour.curve


def test_actions_fit_the_bounds_exactly(context: ExitStack) -> None:
    made: Bench = bench(context, "InvertedPendulum-v5", 1)
    info = made.behaviour.info
    ends = own_units(np.array([[-1], [0], [1]], np.float32), info)
    assert ends.tolist() == [[-3], [0], [3]] and ends.dtype == np.float32
    draw = np.random.default_rng(0)
    low = -draw.uniform(0, 1000, 5000).astype(np.float32)
    high = draw.uniform(0.01, 1, 5000).astype(np.float32)
    wide = replace(info, action_low=low, action_high=high)
    edge = own_units(np.stack([-np.ones(5000, np.float32), np.ones(5000, np.float32)]), wide)
    assert (edge >= low).all() and (edge <= high).all()
    assert edge == pytest.approx(np.stack([low, high]), rel=1e-6, abs=1e-3)


def test_it_learns_to_balance_a_pole(context: ExitStack) -> None:
    recipe = replace(TINY, hidden=64, learning_rate=1e-3, batch_size=128, warmup=300, episodes=4)
    made = bench(context, "InvertedPendulum-v5", 1300, recipe=recipe).train(300)
    evaluate(made.behaviour, made.judges)
    made.train(1300)
    evaluate(made.behaviour, made.judges)
    untrained, trained = made.behaviour.curve.values()
    assert untrained < 15 and trained > 4 * untrained
