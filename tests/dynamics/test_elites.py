"""Ranking the networks."""

from math import inf, nan

from mopo_cli.dynamics.elites import rank

ERRORS = [0.7, 0.1, 0.5, 0.3, 0.9, 0.2, 0.6]


def test_the_lowest_errors_win_best_first() -> None:
    assert rank(ERRORS) == [1, 5, 3, 2, 6, 0, 4]


def test_negative_likelihoods_rank_too() -> None:
    assert rank([-1.0, -3.0, 2.0])[:2] == [1, 0]


def test_equal_errors_keep_their_order() -> None:
    assert rank([0.5, 0.1, 0.5, 0.1]) == [1, 3, 0, 2]


def test_a_network_without_a_finite_error_comes_last() -> None:
    assert rank([nan, 0.2, inf, 0.1, nan, 0.3])[:3] == [3, 1, 5]
    assert rank([0.3, nan, 0.1, nan, 0.2]) == [2, 4, 0, 1, 3]
