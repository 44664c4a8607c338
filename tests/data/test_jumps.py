"""Jumps among the steps of a log that does not hold next states."""

import numpy as np
import pytest

from mopo_cli.data.jumps import check_jumps, step_sizes
from mopo_cli.data.transitions import Bools, Floats


def smooth(episodes: int = 10, length: int = 60, jump: float = 3) -> tuple[Floats, Bools]:
    """Slow circles, each begun elsewhere, with a constant beside them; the last rows of the episodes."""
    rng = np.random.default_rng(0)
    parts = []
    for _ in range(episodes):
        angle = rng.uniform(0, 6) + 0.03 * np.arange(length)
        parts.append(np.stack([np.sin(angle) + jump * rng.normal(), np.cos(angle), np.ones(length)], axis=1))
    observations = np.concatenate(parts).astype(np.float32)
    return observations, np.arange(len(observations)) % length == length - 1


def test_where_mopo_cuts_the_record_no_end_is_marked_too_early() -> None:
    observations, ends = smooth()
    early = np.roll(ends, -1)
    assert "a row too early" in check_jumps(observations, early, "my.csv").fault
    assert not check_jumps(observations, early, "my.csv", cut=early).fault


def test_the_size_of_a_step_is_its_largest_change_in_standard_deviations() -> None:
    before, after = np.array([[0, 1, 7], [2, 5, 7]], np.float32), np.array([[1, 1, 7], [2, 1, 7]], np.float32)
    assert step_sizes(before, after).tolist() == [1, 2]  # deviations of 1 and 2; what never changes counts for nothing


def test_marked_ends_and_smooth_steps_are_silent() -> None:
    check = check_jumps(*smooth(), "my.csv")
    assert not check.fault and not check.warning


def test_unmarked_ends_are_counted() -> None:
    observations, ends = smooth()
    check = check_jumps(observations, np.zeros_like(ends), "my.csv")
    sizes = np.abs(np.diff(observations[:, :2], axis=0)) / observations[:-1, :2].std(axis=0)
    largest, median = sizes.max(), np.median(sizes.max(axis=1))
    assert not check.fault and check.row == 59
    assert check.warning.startswith("my.csv: 9 steps inside episodes stand out, first from row 59 to the next")
    assert f"by {largest:.3g} standard deviations, where the median step is {median:.2g}" in check.warning


@pytest.mark.parametrize(("moved", "message", "row"), [(-1, "a row too early", 59), (1, "a row too late", 59)])
@pytest.mark.parametrize("episodes", [2, 10])
def test_ends_in_the_row_beside_are_refused(moved: int, message: str, row: int, episodes: int) -> None:
    observations, ends = smooth(episodes)
    check = check_jumps(observations, np.roll(ends, moved), "my.csv")
    assert message in check.fault and check.row == row and "Mark the last row of every episode" in check.fault


def test_a_crash_before_marked_ends_is_no_refusal() -> None:
    observations, ends = smooth()
    observations[ends] += 4  # the last step of every episode goes far, and so does the reset after it
    check = check_jumps(observations, ends, "my.csv")
    assert not check.fault and "stand out" in check.warning


def test_one_unmarked_end_among_marked_ones_is_no_refusal() -> None:
    observations, ends = smooth()
    ends[119] = False
    check = check_jumps(observations, ends, "my.csv")
    assert not check.fault and check.warning.startswith("my.csv: 1 step inside episodes stands out, first from row 119")


@pytest.mark.parametrize("kind", ["constant", "noise", "walk", "steps", "rest and move", "short"])
def test_logs_without_jumps_are_silent(kind: str) -> None:
    rng, rows = np.random.default_rng(1), 2000
    bouts = (np.arange(rows) % 200 < 20) * np.sin(np.arange(rows) * np.pi / 20) ** 2
    observations = {
        "constant": np.ones((rows, 2)),
        "noise": rng.normal(size=(rows, 3)),
        "walk": rng.normal(size=(rows, 3)).cumsum(axis=0),
        "steps": np.repeat(rng.integers(0, 9, (rows // 50, 1)), 50, axis=0),  # 50 rows at each of a few levels
        "rest and move": np.cumsum(bouts)[:, None] + 0.001 * rng.normal(size=(rows, 1)),
        "short": np.arange(10)[:, None] ** 6,
    }[kind].astype(np.float32)
    check = check_jumps(observations, np.zeros(len(observations), np.bool_), "my.csv")
    assert not check.fault and not check.warning
