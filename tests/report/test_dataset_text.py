"""The statistics in words: what it must say, how wide it may be, and what it is drawn with."""

import io
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mopo_cli.data.statistics import DatasetStatistics, dataset_statistics
from mopo_cli.data.transitions import DatasetInfo, Transitions
from mopo_cli.report.dataset import recipe_text, statistics_text, with_names, wrap


def small_statistics(obs_dim: int = 3, act_dim: int = 1, episodes: int = 4) -> DatasetStatistics:
    """Episodes of 100 steps that return 100, 200, ...; obs[0] is constant, obs[2] equals obs[1]."""
    draw = np.random.default_rng(0)
    n = 100 * episodes
    obs = (draw.standard_normal((n, obs_dim)) * 10.0 ** -np.arange(obs_dim)).astype(np.float32)
    obs[:, 0], obs[:, 2] = 5, obs[:, 1]
    ends = np.arange(n) % 100 == 99
    actions = np.where(np.arange(n)[:, None] % 4 == 0, 1, draw.uniform(-0.9, 0.9, (n, act_dim))).astype(np.float32)
    rewards = np.repeat(np.arange(1, episodes + 1), 100).astype(np.float32)
    rows = Transitions(obs, actions, rewards, obs + 1, ends, np.zeros(n, np.bool_))
    bound = np.ones(act_dim, np.float32)
    info = DatasetInfo("d", None, "s", -bound, bound, "none", None, None, None)
    return dataset_statistics(rows, info)


def words(text: str, start: str) -> list[str]:
    return next(line.split() for line in text.splitlines() if line.lstrip().startswith(start))


def test_it_says_what_the_data_are_like() -> None:
    text = statistics_text(small_statistics())
    for piece in (
        "400 transitions in 4 episodes, 3 observation and 1 action dimensions",
        "returns: mean 250, std 111.8, 90 % at most 370, best 400",
        "episode lengths: 100 to 100 steps",
        "episodes end by: terminal 100 %, timeout 0 %, neither (cut off) 0 %",
        "terminals: 1 % of rows",
        "saturation: 25 % of action entries",
        "constant dimensions (1): obs[0]",
        "duplicated dimensions (1): obs[2] equals obs[1]",
        "no step changes: none",
        "repeated rows: 0 %",
        "in standard deviations over 3 dimensions of state and action, 400 rows",
    ):
        assert piece in text, piece
    assert words(text, "action[0]")[-8:] == ["at", "low", "0", "%,", "at", "high", "25", "%"]
    assert words(text, "obs[0]")[1:] == ["5", "5", "5", "5", "5", "0", "constant"]


def test_columns_are_called_what_the_data_call_them() -> None:
    statistics = with_names(small_statistics(), {"observation": ["flow", "temp", "temp2"], "action": ["valve"]})
    text = statistics_text(statistics)
    for piece in ("constant dimensions (1): flow", "duplicated dimensions (1): temp2 equals temp"):
        assert piece in text, piece
    assert words(text, "flow")[1:] == ["5", "5", "5", "5", "5", "0", "constant"]
    assert words(text, "valve")[-8:] == ["at", "low", "0", "%,", "at", "high", "25", "%"]
    assert "obs[" not in text and "action[" not in text
    assert with_names(small_statistics(), {}) == small_statistics()


def test_bars_are_as_long_as_their_counts() -> None:
    lines = statistics_text(small_statistics(episodes=5)).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("returns:"))
    bars = [line.split() for line in lines[start + 1 : start + 11]]
    # 100 ... 500 in ten bins: one episode each in five of them.
    assert [int(bar[-1]) for bar in bars] == [1, 0, 1, 0, 0, 1, 0, 1, 0, 1]
    assert {bar[3] for bar in bars if bar[-1] == "1"} == {"█" * 40}
    assert (bars[0][0], bars[0][2], bars[-1][2]) == ("100", "140", "500")
    length = next(line for line in lines if line.split()[:1] == ["100"] and ".." not in line)
    assert length.split() == ["100", "█" * 40, "5"]


def test_a_terminal_that_has_no_blocks_gets_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    for encoding in ("ascii", "latin-1", "cp1252"):
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
        text = statistics_text(small_statistics())
        assert text.isascii() and "#" * 40 in text
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    assert "█" * 40 in statistics_text(small_statistics())


def test_a_wide_space_is_abbreviated_and_says_by_how_much() -> None:
    wide = small_statistics(obs_dim=25, act_dim=30)
    far = list(wide.observations)
    far[12] = replace(far[12], max=1e6)
    far[24] = replace(far[24], min=-1.2345e-30, p1=-1.2345e-30, median=-1.2341e-30, p99=-1.2341e-30, max=-1.2341e-30)
    text = statistics_text(replace(wide, observations=far, constant=["obs[0]", *(f"other[{i}]" for i in range(39))]))
    assert max(map(len, text.splitlines())) <= 120
    names = [line.split()[0] for line in text.splitlines() if line.startswith(("obs[", "action["))]
    assert names[:24] == [f"action[{i}]" for i in range(24)]
    shown = [int(name[4:-1]) for name in names[24:]]
    assert shown == sorted(shown) and {1, 12, 24} <= set(shown) and 0 not in shown and len(shown) <= 12
    assert f"... and {25 + 30 - len(names)} more dimensions" in text
    assert "far outliers" in next(line for line in text.splitlines() if line.startswith("obs[12]"))
    assert "constant dimensions (40): obs[0]," in text and "other[10] and 28 more" in text
    few = statistics_text(small_statistics(obs_dim=24))
    assert sum(line.startswith("obs[") for line in few.splitlines()) == 24 and "more dimensions" not in few


def test_small_shares_are_not_none_and_large_ones_not_all() -> None:
    text = statistics_text(replace(small_statistics(), endings={"terminal": 0.9999, "timeout": 0.0001, "neither": 0.0}))
    assert "terminal > 99.9 %, timeout < 0.1 %, neither (cut off) 0 %" in text


def test_one_stretch_has_no_coverage() -> None:
    assert "coverage: nothing to compare" in statistics_text(replace(small_statistics(), neighbours=None))


@pytest.mark.parametrize(
    ("recipe", "pieces"),
    [
        (
            {
                "level": "medium",
                "steps": 12000,
                "settings": {"tau": 0.005},
                "medium": {"value": 317.7, "why": "a third", "steps": 12000},
                "curve": [[2000, 20.0], [12000, 456.5]],
            },
            ["steps 12,000", "medium (value: 317.7, why: a third", "2 evaluations, the last 456.5 after 12,000 steps"],
        ),
        ({"level": "expert", "medium": None, "curve": []}, ["recipe: level expert; medium -"]),
        ({"curve": [1, 2], "medium": 3}, ["medium 3"]),
        ({}, ["recipe:"]),
    ],
)
def test_a_recipe_is_summed_up_whatever_it_holds(recipe: dict[str, Any], pieces: list[str]) -> None:
    text = " ".join(recipe_text(recipe).split())
    for piece in pieces:
        assert piece in text
    assert "tau" not in text


def test_long_lines_are_folded_without_loss() -> None:
    text = "  source: " + " ".join(f"word-{i}" for i in range(60))
    assert max(map(len, wrap(text).splitlines())) <= 120
    assert wrap(text).split() == text.split()
