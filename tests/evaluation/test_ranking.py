"""Rankings: what is best, what a criterion chooses, and its agreement with the truth by textbook formulas."""

from math import log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mopo_cli.evaluation.ranking import RANKINGS, Criterion, Evidence, best_first, mean_ranks, rank_correlation, regret

HIGH = Criterion("high", True, lambda evidence: evidence.model_return)
LOW = Criterion("low", False, lambda evidence: evidence.model_return)
distinct = st.lists(st.integers(-1000, 1000), min_size=3, max_size=12, unique=True)


def test_the_best_comes_first_and_what_has_no_value_last() -> None:
    values = [2.0, None, 5.0, -1.0, 5.0, None]
    assert best_first(HIGH, values) == [2, 4, 0, 3, 1, 5]
    assert best_first(LOW, values) == [3, 0, 2, 4, 1, 5]


@given(distinct, st.randoms())
def test_the_correlation_is_spearman_s_formula(values: list[int], random: object) -> None:
    """Without ties: 1 - 6 sum d^2 / (n (n^2 - 1)), d the difference of the two ranks."""
    truth = list(values)
    random.shuffle(truth)  # type: ignore[attr-defined]
    d = [sorted(values).index(v) - sorted(truth).index(t) for v, t in zip(values, truth, strict=True)]
    n = len(values)
    expected = 1 - 6 * sum(x * x for x in d) / (n * (n * n - 1))
    mine, true = list(map(float, values)), list(map(float, truth))
    assert rank_correlation(HIGH, mine, true) == pytest.approx(expected)
    assert rank_correlation(LOW, mine, true) == pytest.approx(-expected)
    assert rank_correlation(HIGH, [log(2000 + v) for v in mine], true) == pytest.approx(expected), (
        "only the order counts"
    )


def test_ties_share_their_rank() -> None:
    """Ranks 1.5, 1.5, 3 and 1, 2, 3: Pearson's r of these by hand is 1.5 / sqrt(1.5 * 2)."""
    assert rank_correlation(HIGH, [1.0, 1.0, 4.0], [10.0, 20.0, 30.0]) == pytest.approx(1.5 / 3**0.5)


def test_the_correlation_is_over_cells_that_have_both() -> None:
    values, truth = [1.0, None, 2.0, 3.0, 0.0], [10.0, 99.0, 20.0, 30.0, None]
    assert rank_correlation(HIGH, values, truth) == pytest.approx(1)


@pytest.mark.parametrize(
    ("values", "truth"),
    [
        ([1.0, 2.0], [1.0, 2.0]),
        ([1.0, 2.0, None], [1.0, 2.0, 3.0]),
        ([1.0, 2.0, 3.0], [1.0, None, 3.0]),
        ([None, None, None], [None, None, None]),
        ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]),
        ([1.0, 2.0, 3.0], [5.0, 5.0, 5.0]),
        ([], []),
    ],
)
def test_there_is_no_correlation_of_fewer_than_three_cells_or_of_equals(
    values: list[float | None], truth: list[float | None]
) -> None:
    assert rank_correlation(HIGH, values, truth) is None


def test_regret_is_what_the_choice_costs() -> None:
    truth = [10.0, 40.0, 25.0]
    assert regret(HIGH, [1.0, 2.0, 3.0], truth) == 15.0
    assert regret(LOW, [1.0, 2.0, 3.0], truth) == 30.0
    assert regret(HIGH, [1.0, 9.0, 3.0], truth) == 0.0
    assert regret(HIGH, [None, 2.0, 3.0], [90.0, 40.0, 25.0]) == 65.0, "the best may be one without a value"
    assert regret(HIGH, [9.0, 2.0, 3.0], [None, 40.0, 25.0]) == 15.0, "what has no true return is not looked at"
    assert regret(HIGH, [None, None], [1.0, 2.0]) is None
    assert regret(HIGH, [1.0, 2.0], [None, None]) is None


def test_offline_judges_by_the_penalised_return_first_and_each_criterion_reads_its_own_number() -> None:
    criteria = RANKINGS["offline"].criteria
    assert RANKINGS["offline"].metric is None
    assert next(iter(criteria)) == "penalised-return"
    evidence = Evidence({"q": 5.0, "alpha": 6.0}, 1.0, 2.0, 3.0, 4.0, 0.5)
    assert {name: (c.value(evidence), c.highest) for name, c in criteria.items()} == {
        "penalised-return": (1.0, True),
        "model-return": (2.0, True),
        "uncertainty": (3.0, False),
        "action-distance": (4.0, False),
        "unlike": (0.5, False),
        "q": (5.0, True),
    }
    assert criteria["q"].value(Evidence({"actor_loss": 5.0})) is None
    assert all("\n" not in c.meaning and len(c.meaning) < 110 for c in criteria.values())


def test_the_mean_of_the_ranks_in_two_columns() -> None:
    first, second = [9.0, 5.0, 4.0, 1.0], [30.0, 10.0, 40.0, 20.0]  # ranks 1 2 3 4 and 2 4 1 3
    assert mean_ranks([first, second]) == [1.5, 3, 2, 3.5]
    assert mean_ranks([first, first]) == [1, 2, 3, 4]
    assert mean_ranks([[5.0, 5.0], [1.0, 2.0]]) == [1.75, 1.25]
    assert mean_ranks([[None, 1.0, 2.0], [3.0, 2.0, None]]) == [None, 1, None]
    assert mean_ranks([[None], [1.0]]) == [None]


def test_equals_are_in_the_order_of_a_second_column() -> None:
    equal, truth = [1.0, 2.0, 1.0, None], [3.0, 2.0, 5.0, None]
    assert best_first(LOW, equal) == [0, 2, 1, 3]
    assert best_first(LOW, equal, [7.0, 9.0, 8.0, 99.0]) == [2, 0, 1, 3]
    assert best_first(LOW, equal, [None, 9.0, 8.0, 99.0]) == [2, 0, 1, 3]
    assert (regret(LOW, equal, truth), regret(LOW, equal, truth, [7.0, 9.0, 8.0, None])) == (2.0, 0.0)


def test_combo_goes_by_the_lowest_regulariser_of_the_log_and_by_nothing_else() -> None:
    ranking = RANKINGS["combo"]
    assert (list(ranking.criteria), ranking.metric) == (["regulariser"], "regulariser")
    rule = ranking.criteria["regulariser"]
    assert not rule.highest
    assert rule.value(Evidence({"regulariser": -3.0, "q": 5.0})) == -3.0
    assert rule.value(Evidence({"q": 5.0}, 1.0, 2.0, 3.0, 4.0)) is None
    assert best_first(rule, [2.0, -1.0, None, 0.5]) == [1, 3, 0, 2]
