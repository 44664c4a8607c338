"""Columns that stay the same, values far outside, and rewards of great size."""

import numpy as np
import pytest

from mopo_cli.data.transitions import Transitions
from mopo_cli.data.values import check_actions_vary, check_far_values, check_rewards, dimensions

ROWS = 400


def usual() -> np.ndarray:
    return np.random.default_rng(0).normal(20, 10, ROWS).astype(np.float32)


def with_rewards(rewards: np.ndarray, ends: bool = False) -> Transitions:
    flags = np.zeros((2, len(rewards)), np.bool_)
    flags[0, -1] = ends
    wide = np.zeros((len(rewards), 1), np.float32)
    return Transitions(wide, wide, rewards.astype(np.float32), wide, *flags)


@pytest.mark.parametrize(("value", "is_fault"), [(1e30, True), (-1e9, True), (1e5, False), (-9999, False)])
def test_a_value_far_outside_is_named(value: float, is_fault: bool) -> None:
    column = usual()
    column[123] = value
    (check,) = check_far_values([("flow", usual()), ("temp", column)], "my.csv")
    assert (check.column, check.row, bool(check.fault), bool(check.warning)) == ("temp", 123, is_fault, not is_fault)
    assert f"column temp holds {value:.4g} in row 123" in check.fault + check.warning


@pytest.mark.parametrize(("count", "warned"), [(3, True), (4, False)])
def test_only_single_values_are_taken_for_slips(count: int, warned: bool) -> None:
    column = np.tile(usual(), 10)
    column[100 : 100 + count] = 9000
    (check,) = check_far_values([("x", column)], "my.csv")
    assert bool(check.warning) == warned and not check.fault


@pytest.mark.parametrize("kind", ["usual", "rare", "dust", "constant", "outcomes"])
def test_usual_columns_are_silent(kind: str) -> None:
    column = {
        "usual": usual(),
        "rare": np.where(np.arange(ROWS) == 7, 1, 0),
        "dust": np.where(np.arange(ROWS) == 7, 3, 1e-12 * usual()),
        "constant": np.full(ROWS, 5),
        "outcomes": np.where(np.arange(ROWS) % 40 == 39, 500, 0.1 * usual()),
    }[kind].astype(np.float32)
    (check,) = check_far_values([("x", column)], "my.csv")
    assert not check.fault and (not check.warning or kind == "dust")


def test_an_action_that_never_changes_is_warned_of() -> None:
    actions = np.stack([usual(), np.full(ROWS, 0.25, np.float32)], axis=1)
    (check,) = check_actions_vary(dimensions("actions", actions), "my.h5")
    assert check.column == "actions[1]" and not check.fault and check.row == 0
    assert "column actions[1] is 0.25 in every row (0 to 399)" in check.warning


@pytest.mark.parametrize(
    ("ends", "message"), [(True, "only the length of an episode"), (False, "nothing distinguishes")]
)
def test_a_constant_reward_is_warned_of(ends: bool, message: str) -> None:
    (check,) = check_rewards(with_rewards(np.ones(9), ends), "my.h5")
    assert not check.fault and "column rewards is 1 in every row" in check.warning and message in check.warning


@pytest.mark.parametrize(("scale", "shift", "warned"), [(1, 0, False), (3e6, 0, True), (1, 2e6, True), (1e5, 0, False)])
def test_large_rewards_are_warned_of(scale: float, shift: float, warned: bool) -> None:
    rewards = scale * np.random.default_rng(0).normal(size=ROWS) + shift
    (check,) = check_rewards(with_rewards(rewards), "my.h5")
    assert bool(check.warning) == warned and not check.fault
    if warned:
        assert "Divide the rewards, here by 1e6" in check.warning and check.row == np.abs(rewards).argmax()
