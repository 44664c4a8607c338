"""Termination rules: at each bound, against a hand-set answer."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from mopo_cli.errors import InputError
from mopo_cli.tasks.termination import (
    GUARDS,
    RELEASED_RULES,
    TERMINATION_RULES,
    check_rule_width,
    guard_rule,
    never,
    termination_for_env,
    termination_rule,
)

WIDTHS = {
    "hopper": 11,
    "walker2d": 17,
    "halfcheetah": 17,
    "ant": 27,
    "humanoid": 45,
    "inverted-pendulum": 4,
    "inverted-double-pendulum": 9,
    "none": 3,
}
HEALTHY = {
    "hopper": {0: 1.25},
    "walker2d": {0: 1.25},
    "halfcheetah": {},
    "ant": {0: 0.6},
    "humanoid": {0: 1.4},
    "inverted-pendulum": {},
    "inverted-double-pendulum": {3: 1.0, 4: 1.0},
    "none": {},
}
# (rule, entry, alive just inside, dead just outside or at the bound)
BOUNDS = [
    ("hopper", 0, 0.7001, 0.7),
    ("hopper", 0, 99.0, None),
    ("hopper", 1, 0.1999, 0.2),
    ("hopper", 1, -0.1999, -0.2),
    ("hopper", 2, 99.99, 100.0),
    ("hopper", 2, -99.99, -100.0),
    ("hopper", 10, 99.99, 100.0),
    ("hopper", 10, -99.99, -500.0),
    ("walker2d", 0, 0.8001, 0.8),
    ("walker2d", 0, 1.9999, 2.0),
    ("walker2d", 1, 0.9999, 1.0),
    ("walker2d", 1, -0.9999, -1.0),
    ("walker2d", 16, 1e4, None),
    ("halfcheetah", 0, 1e30, None),
    ("ant", 0, 0.2, 0.1999),
    ("ant", 0, 1.0, 1.0001),
    ("ant", 26, 1e4, None),
    ("humanoid", 0, 1.0001, 1.0),
    ("humanoid", 0, 1.9999, 2.0),
    ("inverted-pendulum", 1, 0.2, 0.2001),
    ("inverted-pendulum", 1, -0.2, -0.2001),
    ("inverted-pendulum", 0, 50.0, None),
    ("none", 0, 1e30, None),
]
FINITE_RULES = ["hopper", "ant", "humanoid", "inverted-pendulum"]


def state(rule: str, **entries: float) -> torch.Tensor:
    values = torch.zeros(WIDTHS[rule])
    for index, value in HEALTHY[rule].items():
        values[index] = value
    for entry, value in entries.items():
        values[int(entry.removeprefix("at"))] = value
    return values


def ends(rule: str, next_observation: torch.Tensor) -> bool:
    start = torch.zeros_like(next_observation)
    return bool(TERMINATION_RULES[rule](start, torch.zeros(1), next_observation))


@pytest.mark.parametrize(("rule", "entry", "inside", "outside"), BOUNDS)
def test_each_bound_from_both_sides(rule: str, entry: int, inside: float, outside: float | None) -> None:
    assert not ends(rule, state(rule, **{f"at{entry}": inside}))
    assert outside is None or ends(rule, state(rule, **{f"at{entry}": outside}))


JUST_ABOVE, JUST_BELOW = (math.acos(tip / 0.6 - 1) for tip in (1.001, 0.999))


@pytest.mark.parametrize(
    ("theta1", "theta2"), [(0.0, 0.0), (0.6, -0.4), (-1.0, 1.3), (0.2, 1.1), (0.0, JUST_ABOVE), (0.0, JUST_BELOW)]
)
def test_the_double_pendulum_ends_where_its_tip_falls_to_one(theta1: float, theta2: float) -> None:
    # The two poles are 0.6 long; the tip's height is found by adding them, not by the rule's formula.
    tip = 0.6 * math.cos(theta1) + 0.6 * math.cos(theta1 + theta2)
    entries = {
        "at1": math.sin(theta1),
        "at2": math.sin(theta2),
        "at3": math.cos(theta1),
        "at4": math.cos(theta2),
    }
    assert ends("inverted-double-pendulum", state("inverted-double-pendulum", **entries)) == (tip <= 1)


@pytest.mark.parametrize("rule", FINITE_RULES)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_ends_the_episode(rule: str, value: float) -> None:
    for entry in (0, WIDTHS[rule] - 1):
        assert ends(rule, state(rule, **{f"at{entry}": value}))


@pytest.mark.parametrize("rule", TERMINATION_RULES)
def test_an_upright_state_lives_and_rows_are_judged_one_by_one(rule: str) -> None:
    good = state(rule)
    bad = torch.full_like(good, math.nan)
    batch = torch.stack([good, bad, good])[None].expand(2, -1, -1)
    dead = TERMINATION_RULES[rule](batch, torch.zeros(2, 3, 1), batch)
    assert dead.dtype == torch.bool
    assert dead.tolist() == [[False, rule not in ("none", "halfcheetah"), False]] * 2


def guarded(rule: str, entry: int, value: float, released: bool = False) -> bool:
    next_observation = state(rule, **{f"at{entry}": value})
    return bool(guard_rule(rule, released)(torch.zeros_like(next_observation), torch.zeros(1), next_observation))


@pytest.mark.parametrize("rule", ["walker2d", "halfcheetah"])
@pytest.mark.parametrize("entry", [0, 16])
def test_the_guard_is_what_no_simulator_says(rule: str, entry: int) -> None:
    """At each bound; the rule itself knows nothing of it, and a state of the task is no business of the guard."""
    for value, expected in ((99.99, False), (-99.99, False), (100.0, True), (-100.0, True), (math.nan, True)):
        assert guarded(rule, entry, value) == expected
        assert not guarded(rule, entry, value, released=True), "the released code has no guards"
        assert (rule == "walker2d" and entry == 0) or not ends(rule, state(rule, **{f"at{entry}": value}))
    assert not guarded("walker2d", 0, 0.5) and ends("walker2d", state("walker2d", at0=0.5))


def test_where_the_simulator_has_the_bound_or_none_there_is_no_guard() -> None:
    assert set(GUARDS) == {"walker2d", "halfcheetah"} < set(TERMINATION_RULES)
    for rule in (*(set(TERMINATION_RULES) - set(GUARDS)), "abs(obs[1]) > 0.2"):
        assert guard_rule(rule) is never


@pytest.mark.parametrize(
    ("env_id", "rule"),
    [
        ("Hopper-v5", "hopper"),
        ("Hopper-v4", "hopper"),
        ("Walker2d-v4", "walker2d"),
        ("HalfCheetah-v5", "halfcheetah"),
        ("Ant-v4", "ant"),
        ("Humanoid-v5", "humanoid"),
        ("HumanoidStandup-v5", "none"),
        ("InvertedPendulum-v5", "inverted-pendulum"),
        ("InvertedDoublePendulum-v4", "inverted-double-pendulum"),
        ("Pendulum-v1", "none"),
        ("Unheard-v0", "none"),
        (None, "none"),
    ],
)
def test_the_rule_of_an_environment(env_id: str | None, rule: str) -> None:
    assert termination_for_env(env_id) == rule
    assert rule in TERMINATION_RULES


def released(rule: str, states: np.ndarray) -> list[bool]:
    """What MOPO's released code says of the next states, in numpy: True where the episode ends."""
    with np.errstate(invalid="ignore"):
        height, angle = states[:, 0], states[:, 1]
        if rule == "hopper":
            # The bracket is misplaced: the magnitude is taken of a boolean.
            bounded = np.abs((states[:, 1:] < 100).astype(int)).all(axis=1)
            alive = np.isfinite(states).all(axis=1) & bounded & (height > 0.7) & (np.abs(angle) < 0.2)
        elif rule == "walker2d":
            alive = (height > 0.8) & (height < 2.0) & (angle > -1.0) & (angle < 1.0)
        else:
            alive = np.ones(len(states), dtype=bool)
        return list(~alive)


@pytest.mark.parametrize("rule", ["hopper", "walker2d", "halfcheetah"])
def test_the_released_rules_are_those_of_the_released_code(rule: str) -> None:
    draw = np.random.default_rng(0)
    states = draw.normal(scale=0.15, size=(4000, WIDTHS[rule])).astype(np.float32)
    states[:, 0] += 1.0
    for value in (500.0, -500.0, 99.9, 100.0, -100.0, np.nan, np.inf, -np.inf):
        rows = draw.integers(0, len(states), 150)
        states[rows, draw.integers(0, WIDTHS[rule], 150)] = value
    next_observation = torch.from_numpy(states)
    asked = next_observation, torch.zeros(4000, 3), next_observation
    decisions = ((termination_rule(rule, way)(*asked) | guard_rule(rule, way)(*asked)) for way in (False, True))
    fixed, paper = (decision.tolist() for decision in decisions)
    assert paper == released(rule, states)
    assert paper != fixed and (rule == "halfcheetah" or 100 < sum(paper) < 3900)
    assert all(dead for dead, earlier in zip(fixed, paper, strict=True) if earlier), "the slips only let more live"


@pytest.mark.parametrize(
    ("rule", "entry", "value", "fixed", "paper"),
    [
        ("hopper", 5, -500.0, True, False),
        ("hopper", 5, 500.0, True, True),
        ("hopper", 5, -100.0, True, False),
        ("hopper", 5, math.nan, True, True),
        ("hopper", 5, -math.inf, True, True),
        ("hopper", 1, -0.3, True, True),
        ("walker2d", 0, math.nan, True, True),
        ("walker2d", 1, math.nan, True, True),
        ("walker2d", 16, math.nan, True, False),
        ("walker2d", 16, -500.0, True, False),
        ("walker2d", 0, 2.1, True, True),
        ("halfcheetah", 3, math.nan, True, False),
        ("halfcheetah", 3, -500.0, True, False),
    ],
)
def test_what_the_released_rules_let_live_one_by_one(
    rule: str, entry: int, value: float, fixed: bool, paper: bool
) -> None:
    """Rule and guard together, as they end a branch."""
    next_observation = state(rule, **{f"at{entry}": value})
    asked = next_observation, torch.zeros(1), next_observation
    for way, expected in ((False, fixed), (True, paper)):
        assert bool(termination_rule(rule, way)(*asked) | guard_rule(rule, way)(*asked)) is expected


def test_a_rule_without_slips_is_the_same_both_ways() -> None:
    assert RELEASED_RULES.keys() == TERMINATION_RULES.keys()
    for rule in set(TERMINATION_RULES) - {"hopper"}:
        assert termination_rule(rule, True) is termination_rule(rule)
    expression = termination_rule("abs(obs[1]) > 0.2", True)
    assert expression(*torch.tensor([[0.0, 0.3]]).expand(3, 1, 2)).tolist() == [True]


def works(check: Callable[[], object], error: type[Exception] | tuple[type[Exception], ...]) -> bool:
    try:
        check()
    except error:
        return False
    return True


@pytest.mark.parametrize("name", TERMINATION_RULES)
def test_observations_are_wide_enough_where_the_rule_can_look_at_them(name: str) -> None:
    for width in range(1, 12):
        state, action = torch.zeros(1, width), torch.zeros(1, 1)
        can_look = works(lambda: TERMINATION_RULES[name](state, action, state), (IndexError, ValueError))  # noqa: B023
        assert works(lambda: check_rule_width(name, width, 1), InputError) == can_look, width  # noqa: B023
