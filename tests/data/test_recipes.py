"""The recipes: from when on a behaviour is medium, and which rows of whom make each level."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from probes.behaviours import TINY, Bench, bench, confirm

from mopo_cli.data.behaviour import evaluate, log_of, named_seed
from mopo_cli.data.recipes import (
    Goal,
    Recipe,
    Threshold,
    describe,
    make_transitions,
    medium_threshold,
    needs_medium,
    random_return,
)
from mopo_cli.data.source_generated import LEVELS
from mopo_cli.data.transition_files import read_dataset, write_dataset
from mopo_cli.data.transitions import Transitions, episode_ends
from mopo_cli.data.validate import validate
from mopo_cli.errors import InputError
from mopo_cli.evaluation.play import open_environments

TRAINED = [level for level in LEVELS if level != "random"]


@pytest.fixture(scope="module")
def trained() -> Iterator[Bench]:
    """400 steps in Pendulum, evaluated at 200 and 400; episodes are 200 steps, so that no place is like another."""
    with ExitStack() as context:
        made = bench(context, "Pendulum-v1", 500).train(200)
        evaluate(made.behaviour, made.judges)
        made.train(400)
        evaluate(made.behaviour, made.judges)
        # The policies are made known: nearly certain of 0.9 and of -0.9, three quarters of which is 2 x 0.9.
        for (steps, flat), mean in zip(made.behaviour.actors.items(), (0.9, -0.9), strict=True):
            made.behaviour.actors[steps] = torch.zeros_like(flat)
            last = made.behaviour.online.sac.actor.layout.views(made.behaviour.actors[steps])["b2"]
            last[0, 0] = torch.tensor([np.arctanh(mean), -6.0])
        made.behaviour.curve = {200: -900.0, 400: -800.0}
        yield made


def goal(level: str, limit: int = 400, medium: float = -900.0, recipe: Recipe = TINY) -> Goal:
    return Goal(recipe, level, limit, Threshold(medium, "for a test") if needs_medium(level) else None)


def make(level: str, trained: Bench, n: int = 301) -> Transitions:
    progress: list[int] = []
    made = make_transitions(goal(level), trained.behaviour, trained.environment, trained.spaces, n, progress.append)
    validate(made, trained.behaviour.info)
    assert sum(progress) == (0 if level.endswith("replay") else n)
    return made


@pytest.mark.parametrize(("level", "rows"), [("medium-replay", 200), ("full-replay", 400)])
def test_replay_levels_are_the_log(level: str, rows: int, trained: Bench) -> None:
    made, log = make(level, trained), log_of(trained.behaviour, 400)
    assert len(made) == rows
    assert np.array_equal(made.observations, log.observations[:rows])
    assert np.array_equal(made.actions, log.actions[:rows])
    assert np.flatnonzero(made.timeouts).tolist() == list(range(199, rows, 200))


@pytest.mark.parametrize(("level", "action"), [("medium", 1.8), ("expert", -1.8)])
def test_rows_of_a_policy(level: str, action: float, trained: Bench) -> None:
    made = make(level, trained)
    assert len(made) == 301
    assert np.abs(made.actions - action).max() < 0.01
    assert len(np.unique(made.actions)) > 100, "the policy is sampled, not its mean"
    assert np.flatnonzero(made.timeouts).tolist() == [199, 300] and not made.terminals.any()
    assert np.array_equal(make(level, trained).actions, made.actions)


def test_medium_expert_is_half_of_each_with_a_mark_at_the_seam(trained: Bench) -> None:
    made = make("medium-expert", trained)
    assert (made.actions[:151] > 1.7).all() and (made.actions[151:] < -1.7).all()
    assert episode_ends(made).tolist() == [150, 300] and made.timeouts[[150, 300]].all()
    for half, level in ((slice(151), "medium"), (slice(151, None), "expert")):
        alone = make(level, trained, 151 if level == "medium" else 150)
        for name in ("observations", "actions", "rewards", "next_observations"):
            assert np.array_equal(getattr(made, name)[half], getattr(alone, name)), (
                "a half is what the level begins with"
            )
    assert not np.array_equal(made.observations[0], made.observations[151])


def test_the_simulator_confirms_sampled_rows(trained: Bench) -> None:
    made = make("medium", trained)
    assert confirm(made, gym.make("Pendulum-v1"), {0: named_seed(0, "recipe/medium/episodes")}.get) == 1
    assert len(made) == 301


def test_velocities_are_kept_for_relabelling() -> None:
    with ExitStack() as context:
        made = bench(context, "Ant-v5", 70).train(70)
        evaluate(made.behaviour, made.judges)
        recipe = goal("expert", limit=70)
        logged = make_transitions(recipe, made.behaviour, made.environment, made.spaces, 40, lambda _: None)
        for transitions in (logged, log_of(made.behaviour, 70)):
            assert set(transitions.infos) == {"x_velocity", "y_velocity"}
            # Ant's reward: x velocity + survival - control cost - contact cost; the last is at most 1e-2 here.
            rest = transitions.rewards - transitions.infos["x_velocity"] + 0.5 * (transitions.actions**2).sum(axis=1)
            assert (np.abs(rest - 1) < 0.1).mean() > 0.9


CURVES = st.dictionaries(st.integers(1, 40).map(lambda k: 25 * k), st.floats(-100, 100), min_size=1)


@given(curve=CURVES, medium=st.floats(-100, 100), limit=st.integers(1, 40).map(lambda k: 25 * k))
@settings(deadline=None, max_examples=200)
def test_medium_is_the_first_evaluation_that_counts_and_reaches_the_threshold(
    curve: dict[int, float], medium: float, limit: int, trained: Bench
) -> None:
    """What else has been evaluated, before or after, by a training with another limit, must not matter."""
    online = replace(trained.behaviour.online, steps=max(curve))
    actors = dict.fromkeys(curve, torch.zeros(1))
    behaviour = replace(trained.behaviour, online=online, curve=curve, actors=actors)
    scheduled = [*range(50, 201, 50), *range(300, 1001, 100)]
    counts = [s for s in sorted(curve) if s <= limit and (s in scheduled or s == limit)]
    expected = [s for s in counts if curve[s] >= medium]
    assert goal("medium", limit, medium).medium_steps(behaviour) == (expected[0] if expected else None)
    assert goal("medium-replay", limit, medium).is_met(behaviour) == bool(expected)
    assert goal("expert", limit).is_met(behaviour) == (limit in curve)
    assert [s for s, _ in goal("expert", limit).curve(behaviour, limit)] == counts


def test_a_replay_level_needs_the_log_as_well_as_the_policy(trained: Bench) -> None:
    """After a restart the evaluations may be ahead of the log."""
    behaviour = trained.behaviour
    for level, needed in (("medium-replay", 200), ("full-replay", 400), ("medium", 0), ("expert", 0)):
        for steps in (199, 200, 399, 400):
            behaviour.online.steps = steps
            assert goal(level).is_met(behaviour) == (steps >= needed), (level, steps)
    behaviour.online.steps = 400


def test_what_was_not_reached_is_told_with_what_was(trained: Bench) -> None:
    for level in ("medium", "medium-replay", "medium-expert"):
        wanting = goal(level, medium=-500.25)
        assert not wanting.is_met(trained.behaviour)
        with pytest.raises(
            InputError, match=r"at most -800\.0 \(after 400 steps\), but medium is -500\.2, for a"
        ) as error:
            wanting.check(trained.behaviour)
        assert "--behaviour-steps 800" in error.value.hint and "--medium-return of at most -800.0" in error.value.hint
    # After 30 and 300 steps nobody looked; what they would have seen is not known any more.
    for level, limit in (("expert", 300), ("full-replay", 30), ("medium", 30), ("medium-expert", 300)):
        with pytest.raises(InputError, match="already trained for 400 steps") as error:
            goal(level, limit).check(trained.behaviour)
        assert "--force" in error.value.hint
    goal("medium", limit=300).check(trained.behaviour)
    for level in TRAINED:
        goal(level).check(trained.behaviour)


class Bare:
    spec: Any = None


@pytest.mark.parametrize(
    ("env_id", "value"),
    [
        ("HalfCheetah-v5", (2 * -280.178953 + 12135.0) / 3),
        ("Hopper-v2", (2 * -20.272305 + 3234.3) / 3),
        ("Walker2d-v4", (2 * 1.629008 + 4592.3) / 3),
        ("Ant-v5", (2 * -325.6 + 3879.7) / 3),
        ("InvertedPendulum-v5", 4 + (950 - 4) / 3),
    ],
)
def test_medium_is_a_third_of_the_way(env_id: str, value: float) -> None:
    environment = gym.make(env_id) if env_id != "Hopper-v2" else Bare()
    threshold = medium_threshold(env_id, environment, lambda: 4.0)  # type: ignore[arg-type]
    assert threshold.value == pytest.approx(value)
    assert "third of the way" in threshold.why


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "mopo/HalfCheetahJump-v0", "HumanoidStandup-v5"])
def test_where_nothing_is_known_the_threshold_must_be_named(env_id: str) -> None:
    with pytest.raises(InputError, match=f"medium behaviour in {env_id} is not known") as error:
        medium_threshold(env_id, Bare(), lambda: 0.0)  # type: ignore[arg-type]
    assert error.value.hint == "--medium-return RETURN"


def test_the_random_return_is_that_of_uniform_actions() -> None:
    with open_environments("InvertedPendulum-v5", 40) as environments, ExitStack() as context:
        spaces = bench(context, "InvertedPendulum-v5", 1).spaces
        measured = random_return(environments, spaces, 0)
        assert measured == random_return(environments, spaces, 0) != random_return(environments, spaces, 1)
    environment = gym.make("InvertedPendulum-v5")
    environment.action_space.seed(0)
    returns = []
    for episode in range(100):
        environment.reset(seed=episode)
        total, over = 0.0, False
        while not over:
            _, reward, over, _, _ = environment.step(environment.action_space.sample())
            total += float(reward)
        returns.append(total)
    assert measured == pytest.approx(np.mean(returns), abs=1.5)


def test_evaluations_come_often_at_first() -> None:
    due = [steps for steps in range(1, 40_001) if Recipe().is_due(steps)]
    assert due == [*range(1000, 20_001, 1000), 25_000, 30_000, 35_000, 40_000]


@pytest.mark.parametrize("level", TRAINED)
def test_policy_curve_and_recipe_survive_the_file(level: str, trained: Bench, tmp_path: Path) -> None:
    behaviour = trained.behaviour
    description = describe(goal(level), behaviour, "Pendulum-v1", {"torch": "2"})
    path = tmp_path / "dataset.h5"
    write_dataset(path, make(level, trained), replace(behaviour.info, **description))
    _, info = read_dataset(path)
    recipe = info.recipe
    assert recipe is not None
    end = 200 if level in ("medium", "medium-replay") else 400
    assert recipe["curve"] == [[200, -900.0], [400, -800.0]][: end // 200] and recipe["steps"] == end
    assert recipe["level"] == level and recipe["versions"] == {"torch": "2"} and recipe["seed"] == 0
    assert recipe["settings"]["hidden"] == 16 and recipe["settings"]["target_entropy"] == -1
    medium = {"value": -900.0, "why": "for a test", "steps": 200}
    assert recipe["medium"] == (medium if level.startswith("medium") else None)
    said = {200: "-900.0 after 200 steps", 400: "-800.0 after 400 steps"}
    for steps in (200, 400):
        assert (said[steps] in info.source) == (steps == end or level == "medium-expert")
    prefixes = {"medium_": 0.9, "expert_": -0.9} if level == "medium-expert" else {"": 0.9 if end == 200 else -0.9}
    assert len(info.behaviour) == 6 * len(prefixes)
    for prefix, mean in prefixes.items():
        weights = {
            name.removeprefix(prefix): value for name, value in info.behaviour.items() if name.startswith(prefix)
        }
        x = np.ones((1, 3), np.float32)
        for i in range(2):
            x = np.maximum(x @ weights[f"w{i}"] + weights[f"b{i}"], 0)
        assert np.tanh((x @ weights["w2"] + weights["b2"])[0, 0]) == pytest.approx(mean)
