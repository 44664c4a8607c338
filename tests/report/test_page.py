"""A page is one file: nothing from outside, a text for every picture, headings in order, and no file's text is HTML."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from probes.pages import checked

from mopo_cli.report.page import HEAD_BYTES, MARK, Section, page, table
from mopo_cli.report.page_charts import band, histogram, intervals, ticks
from mopo_cli.report.run_page import run_page
from mopo_cli.report.run_page_contents import Actions, Contents, Curve
from mopo_cli.report.run_page_policies import distances, over_seeds
from mopo_cli.store.lineage import StageRecord

NASTY = "<script>alert('1')</script> & \"x\" \ud800"


def record(outputs: Any = (), inputs: Any = (), **extra: Any) -> StageRecord:
    return StageRecord({NASTY: [1.0, NASTY]}, dict(inputs), dict(outputs), {NASTY: NASTY}, 1.0, NASTY, extra)


def everything(policies: int = 1, epochs: int = 3) -> Contents:
    interval = {"value": 2.5, "low": 1.0, "high": 4.0}
    estimates = {
        "fqe": interval,
        "model": interval | {"cut": 0.5, "cut_steps": 0.02},
        "weighted": {"importance": 1.0, "doubly_robust": 2.0, "effective": 1.5, "means_something": False},
        "outside": 0.25,
        "verdict": NASTY,
    }
    checks = {"return": interval, "fqe": interval | {"misses_by": 0.0}, "model": interval | {"misses_by": 3.5}}
    ope = {
        **{"policy": NASTY, "transitions": 10, "episodes": 2, "unseen": True, "gamma": 0.9, "sentence": NASTY},
        **{
            "floor": {"discounted": interval, "undiscounted": interval},
            "clone": estimates,
            "seeds": {"0": estimates},
            "struck_out": ["model"],
        },
        "allowed": 3.0,
        "calibration": {"all episodes": checks},
    }
    evaluation = {
        **{"environment": NASTY, "episodes": 2, "return_mean": 7.25, "return_std": None, "return_iqm": None},
        **{"return_iqm_95": [None, None], "return_per_seed": {"0": 7.25, "1": None}},
        **{"dataset_return_mean": 3.5, "dataset_return_max": 9.5},
    }
    cell = {
        **{"cell": NASTY, "epochs": 2, "returns": {"0": {}}, "diverged": [1], "last": [6.5, 0.5], "last_10": None},
        **{"iqm": 6.25, "iqm_interval": [6.0, 6.75]},
    }
    diverged = {"cell": "lost", "epochs": 2, "returns": {}, "diverged": [0], "last": None, "last_10": None}
    bins = [{"uncertainty": 0.1, "error": 0.2, "error_p10": 0.1, "error_p90": 0.4}]
    relation = {"spearman": 0.625, "pearson": None, "calibration": bins}
    documents = {
        "train-model": {
            "dimensions": [
                {"target": "good", "explained_variance": 0.99995, "rmse": 1.0, "std": 2.0},
                {"target": NASTY, "explained_variance": -0.25, "rmse": 1.0, "std": 2.0},
                {"target": "constant", "explained_variance": 0.0, "rmse": 0.0, "std": 0.0},
            ],
            "holdout_mse": {"0": [0.0625]},
            "holdout_nll": {"0": [-1.5]},
            "errors_by_input": {
                "rows": 110,
                "relation": relation,
                "least_sure": [
                    {"input": NASTY, "low": 1.0, "high": 2.0, "rows": 11, "uncertainty": 1.375, "error": 0.5}
                ],
                "worst": [
                    {"input": "time", "low": 1.7e9, "high": 1.7e9 + 60, "rows": 22, "uncertainty": 0.75, "error": 2.125}
                ],
            },
        },
        "rollout/x/diagnosis": {
            "rows": 12,
            "uncertainties": {NASTY: relation},
            "steps": [{"step": 1, "median": 1.0, "p90": 2.0}],
        },
        "evaluate/a": evaluation,
        "evaluate/a/ope": ope,
        "ablate/b": {"cells": [cell, diverged], "references": {NASTY: 1.0}},
    }
    lines = [{"epoch": n, "return": None if n == 1 else 100.0 * n, "q": float(n % 7)} for n in range(1, epochs + 1)]
    rng = np.random.default_rng(0)
    width = 17
    actions = Actions(
        [NASTY] * width, -np.ones(width), np.ones(width), rng.random((1000, width)), {0: rng.random((1000, width))}
    )
    names = [NASTY + str(number) for number in range(policies)]
    return Contents(
        NASTY,
        {key: record() for key in (*documents, *(f"train-policy/{name}" for name in names))}
        | {"fetch-data": record(dataset_id=NASTY, env_id=None)},
        None,
        documents,
        {name: {0: lines, 1: lines} for name in names},
        dict.fromkeys(names, actions),
        [NASTY],
    )


def test_a_page_of_nasty_names_is_one_harmless_file() -> None:
    text, _ = run_page(everything())
    seen = checked(text)
    assert "alert('1')" in seen.text and "script" not in seen.tags
    assert "struck out" in seen.text and "misses it" in seen.text
    for number in (
        "7.25",
        "3.5",
        "9.5",
        "6.25",
        "6 to 6.75",
        "0.0625",
        "0.625",
        "1.375",
        "is 0.62. At 1",
        "2.125",
        "1,700,000,000 to 1,700,000,060: its error is 2.12 times",
        "> 99.9 %",
        "-25 %",
    ):
        assert number in seen.text, number
    assert "nan" not in text and "None" not in text and "inf" not in text.replace("info", "")
    assert MARK in text[:HEAD_BYTES]


def test_what_does_not_vary_is_not_predicted_badly() -> None:
    dimensions = [
        {"target": "level", "explained_variance": 0.75, "rmse": 1.0, "std": 2.0},
        {"target": "constant", "explained_variance": 0.0, "rmse": 0.0, "std": 0.0},
        {"target": "flow", "explained_variance": 0.25, "rmse": 1.0, "std": 2.0},
    ]
    errors = {"dimensions": dimensions, "holdout_mse": {"0": [0.0625]}, "holdout_nll": {"0": [-1.5]}}
    for scale, unit in (({"target_scale": "standardised"}, " (standardised targets)"), ({}, "")):
        page = run_page(Contents("r", {}, documents={"train-model": errors | scale}))[0]
        text = checked(page).text
        assert "level best (75 % of the variance) and flow worst (25 %)" in text
        assert text.index("flow", text.index("worst first")) < text.index("constant"), "the constant comes last"
        assert f"mean squared error{unit} negative log-likelihood" in text
        assert '<td>constant</td><td class="number">–</td>' in page


def unsure_page(rows: int, spearman: float | None, seeds: int = 1) -> str:
    bins = [{"uncertainty": 0.1, "error": 0.2, "error_p10": 0.1, "error_p90": 0.4}] * (spearman is not None)
    errors = {"rows": rows, "relation": {"spearman": spearman, "calibration": bins}, "least_sure": [], "worst": []}
    networks = {str(seed): [0.0625] for seed in range(seeds)}
    model = {"holdout_mse": networks, "holdout_nll": networks, "errors_by_input": errors}
    text, sections = run_page(Contents("r", {}, documents={"train-model": model}))
    assert sections[-1] == "Where the model is unsure, and where it errs"
    return checked(text).text


def test_an_uncertainty_that_says_nothing_is_not_drawn() -> None:
    assert "everywhere the same" in unsure_page(60, None)
    model = {"holdout_mse": {"0": [0.0625]}, "holdout_nll": {"0": [-1.5]}}
    assert run_page(Contents("r", {}, documents={"train-model": model}))[1] == [
        "What the model predicts well and badly"
    ]


def test_of_few_transitions_no_correlation_is_told() -> None:
    """Two rows have one of -1 or 1 whatever the model is like."""
    for rows, spearman in ((1, None), (2, -1.0), (49, 0.5)):
        text = unsure_page(rows, spearman)
        assert f"Held-out transitions: {rows}. That is too few" in text and "correlation" not in text
    assert "is 0.50. At 1" in unsure_page(50, 0.5)


def test_transitions_of_several_seeds_are_called_so() -> None:
    assert "1,200 transitions that the model was not trained on, those of 3 seeds together" in unsure_page(1200, 0.5, 3)
    assert "seeds together" not in unsure_page(1200, 0.5)


def test_what_matters_most_is_said_first() -> None:
    """What each policy is worth before all sections, and that a model learned nothing above its table."""
    every = everything()
    useless = [{"target": name, "explained_variance": -0.5, "rmse": 1.0, "std": 2.0} for name in ("a", "b")]
    model = every.documents["train-model"] | {"dimensions": useless}
    page = run_page(replace(every, documents={**every.documents, "train-model": model}))[0]
    text, first = checked(page).text, page.partition("<section")[0]
    assert "the policy a returns 7.25 on average" in first and first.count("alert(") >= 3
    assert text.index("For 2 of 2 targets the model predicts no better") < text.index("it explains b best")
    many = {f"evaluate/p{n}": every.documents["evaluate/a"] for n in range(9)}
    page = run_page(Contents("r", {key: record() for key in many}, documents=many))[0]
    assert page.partition("<section")[0].count("on average, over") == 6
    old = {"evaluate/p0": record(inputs={"policy": {"path": "p", "sha256": "1"}})}
    new = {"train-policy/p0": record(outputs={"policy": {"path": "p", "sha256": "2"}})}
    page = run_page(Contents("r", old | new, documents={"evaluate/p0": every.documents["evaluate/a"]}))[0]
    assert page.count("on average, over") == 1 and "Out of date" in page, "in its section only"


def test_a_training_shows_what_its_method_logs_and_who_diverged() -> None:
    lines = [{"epoch": 1, "actor_loss": 2.5, "penalty": 0.0, "reward": -1.0}]
    records = {
        "train-policy/cloned": record(diverged=["seed 4"]),
        "train-policy/lost": record(diverged=["seed 0", "seed 1"]),
        "train-policy/sound": record(diverged=[]),
    }
    seen = checked(run_page(Contents("r", records, curves={"cloned": {3: lines}, "sound": {0: lines}}))[0])
    text = seen.text.partition("How it was made")[2].partition("How it was made")[0]
    assert text.count("actor loss") == 2 and text.count("reward before the penalty") == 2
    assert "imagined" not in text and "penalty on rewards" not in text, "nothing is imagined, and no penalty paid"
    assert "1 seed, 1 epoch. Diverged, and not published: seed 4." in text
    assert "Diverged, and not published: seed 0, seed 1." in text and text.count("Diverged") == 2


def test_one_return_of_one_seed_has_neither_a_spread_nor_an_interval() -> None:
    every = everything().documents["evaluate/a"]
    one = every | {"episodes": 1, "return_std": 0.0, "return_per_seed": {"0": 7.25}}
    text = checked(run_page(Contents("r", {"evaluate/a": record()}, documents={"evaluate/a": one}))[0]).text
    assert "over 1 episode of each seed" in text and "standard deviation over seeds" not in text
    assert "95 % interval of the IQM –" in text and "- to -" not in text


def test_the_page_of_many_long_trainings_stays_small() -> None:
    for policies in (20, 200):
        text, _ = run_page(everything(policies=policies, epochs=1000))
        assert len(text.encode()) < 3e6
    shown = checked(text).text
    assert "Drawn are the 24 policies that were trained last, of 200." in shown


def test_of_many_policies_the_last_trained_ones_are_drawn() -> None:
    lines = [{"epoch": 1, "return": 2.0}]
    records = {f"train-policy/p{n}": replace(record(), finished=f"2026-01-01T00:00:{59 - n:02}") for n in range(30)}
    page = run_page(Contents("r", records, curves={f"p{n}": {0: lines} for n in range(30)}))[0]
    training = page.rpartition("How training went")[2].rpartition("How it was made")[0]
    assert [n for n in range(30) if f">p{n}</h3>" in training] == list(range(24)), "p29 is the oldest"


def test_a_policy_whose_metrics_are_gone_still_acts_on_the_page() -> None:
    rows = np.zeros((5, 1))
    acts = Actions(["valve"], -np.ones(1), np.ones(1), rows, {0: rows})
    text, sections = run_page(Contents("r", {"train-policy/p": record()}, actions={"p": acts}))
    assert sections == ["What the policies do in the data's states", "How it was made"] and "valve" in text
    names = [f"p{n}" for n in range(25)]
    many = Contents("r", {f"train-policy/{name}": record() for name in names}, actions=dict.fromkeys(names, acts))
    page = run_page(many)[0].partition("What the policies do in the data&#x27;s states</h2>")[2]
    assert page.startswith('\n<p class="note">Drawn are the 24 policies that were trained last, of 25.')


def test_a_run_has_only_the_sections_of_what_is_there() -> None:
    assert run_page(Contents("r", {}))[1] == []
    checked(run_page(Contents("r", {}))[0])
    every = everything()
    assert run_page(every)[1] == [
        "What the model predicts well and badly",
        "Where the model is unsure, and where it errs",
        "How training went",
        "How good each policy is",
        "What the policies do in the data's states",
        "Ablations",
        "How it was made",
    ]
    some = Contents("r", every.records, documents={"evaluate/a": every.documents["evaluate/a"]})
    assert run_page(some)[1] == ["How good each policy is", "How it was made"]


def test_an_ablation_without_returns_shows_its_order_and_no_empty_columns() -> None:
    """A file has criteria by the alphabet: which of them orders the cells is written beside them."""
    cells: list[dict[str, Any]] = [
        {"cell": name, "epochs": 2, "returns": {"0": {}}, "diverged": [], "last": None} for name in "ab"
    ]
    worth = {"best": "highest", "spearman": None, "chooses": "b", "regret": None, "meaning": "m"}
    ranked: list[dict[str, Any]] = [
        {
            **{"cell": name, "rank": rank, "return": None, "diverged": [], "trained_in_this_model": True},
            "values": values,
        }
        for rank, name, values in ((1, "b", {"action": 9.5, "fqe": 2.5}), (2, "a", {"action": 1.5, "fqe": 0.5}))
    ]
    ranking = {"table": "t", "by": "fqe", "criteria": {"action": worth, "fqe": worth}, "cells": ranked, "compared": 0}
    documents = {"ablate/t": {"cells": cells, "references": {"data": 1.0}}, "ablate/t/rank": ranking | {"chosen": None}}
    text = checked(run_page(Contents("r", dict.fromkeys(documents, record()), documents=documents))[0]).text
    assert "t: cells by fqe, the best first" in text and "by action" not in text
    assert text.index("2.5") < text.index("9.5") < text.index("0.5") < text.index("1.5"), "the first column orders them"
    assert not any(name in text for name in ("IQM", "last 10", "Spearman", "regret"))
    assert text.count("true return") == text.count("No cell has a true return") > 0, "and no column of them"
    assert "What each criterion chooses" in text


def test_returns_measured_elsewhere_scores_and_published_numbers_are_told() -> None:
    every = everything()
    paper = {"paper": "P", "method": NASTY, "version": "v2", "mean": 31.25, "std": None, "unit": "return"}
    measured = every.documents["evaluate/a"] | {"environment": None, "source": {"file": NASTY}, "published": [paper]}
    measured |= {"score_mean": 12.75, "dataset_score_mean": 8.25}
    text = checked(run_page(Contents("r", every.records, documents={"evaluate/a": measured}))[0]).text
    assert "As measured in <script>" in text and "In None" not in text
    assert "31.25" in text and "12.75" in text and "8.25" in text


def test_returns_are_in_the_published_unit_too_and_what_is_odd_is_noted() -> None:
    every = everything()
    of_hiv = every.documents["evaluate/a"] | {"return_mean": 13.5, "published_factor": 1000.0}
    paper = {"paper": "P", "method": "M", "version": "v", "mean": 1.0, "std": None, "unit": "return", "note": "swapped"}
    of_hiv |= {"published": [paper], "diverged_seeds": ["seed 3"]}
    text = checked(run_page(Contents("r", every.records, documents={"evaluate/a": of_hiv}))[0]).text
    assert "mean over seeds, x 1,000 (the published unit)" in text and "13,500" in text and "swapped" in text
    assert "Not in these numbers, as they diverged in training: seed 3." in text


def test_what_was_made_from_an_earlier_version_is_called_out_of_date() -> None:
    old, new = {"path": "model/x", "sha256": "0" * 64}, {"path": "model/x", "sha256": "1" * 64}
    of_new = {"train-model": record({"model": new}), "evaluate/a": record(inputs={"model": new})}
    assert "Out of date" not in run_page(Contents("r", of_new))[0]
    stale = of_new | {"evaluate/a": record(inputs={"model": old})}
    assert "Out of date: made from an earlier version of model/x." in run_page(Contents("r", stale))[0]


def test_curves_are_means_and_ranges_over_the_seeds_that_have_a_value() -> None:
    seeds: Curve = {
        0: [{"epoch": 1, "q": 1.0}, {"epoch": 2, "q": None}],
        1: [{"epoch": 1, "q": 4.0}, {"epoch": 2, "q": 5.0}],
    }
    assert over_seeds(seeds, "q") == [(1.0, 2.5, 1.0, 4.0), (2.0, 5.0, 5.0, 5.0)]
    assert over_seeds(seeds, "return") == []
    values = np.random.default_rng(0).normal(size=1000)
    points = np.array(over_seeds({0: [{"epoch": n + 1, "q": v} for n, v in enumerate(values)]}, "q"))
    assert len(points) <= 120 and points[-1, 0] == 1000
    assert (points[:, 2].min(), points[:, 3].max()) == (values.min(), values.max())
    assert points[0, 1] == pytest.approx(values[: int(points[0, 0])].mean())


def test_distances_are_shares_of_the_range() -> None:
    logged = np.zeros((4, 2))
    chosen = {0: np.full((4, 2), 1.0), 1: np.full((4, 2), -3.0)}
    actions = Actions(["x", "y"], np.array([-4.0, -2.0]), np.array([4.0, 6.0]), logged, chosen)
    assert distances(actions).tolist() == [0.25, 0.25]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 10, [0, 5, 10]),
        (-1, 1, [-1, -0.5, 0, 0.5, 1]),
        (0.96, 4.04, [1, 2, 3, 4]),
        (1e6, 1.2e6, [1e6, 1.05e6, 1.1e6, 1.15e6, 1.2e6]),
    ],
)
def test_ticks_are_round_and_inside(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_whole_numbers_have_whole_ticks() -> None:
    assert ticks(0.96, 2.04, least=1.0) == [1, 2]


@pytest.mark.parametrize(
    "figure",
    [
        histogram("t", [3.0, 3.0], {"": [7]}, "x", "y"),
        histogram("t", [0.0, 1.0, 2.0], {"a": [0, 0], "b": [0, 0]}, "x", "y"),
        band("t", [(1.0, 0.0, 0.0, 0.0)], "x", "y", ("m", "b")),
        band("t", [(1.0, 1e300, -1e300, 1e300), (2.0, 1e-300, 0.0, 0.0)], "x", "y", ("m", "b"), {"best": 5.0}),
        intervals("t", [("a", 1000.0, 1000.0, 1000.0)], "x"),
    ],
)
def test_charts_of_little_or_extreme_data_stay_in_their_frame(figure: str) -> None:
    seen = checked(page("t", [], [Section("s", [figure])]))
    assert "nan" not in figure and "inf" not in figure
    numbers = [float(number) for path in seen.paths for number in path.replace("Z", "").translate(LETTERS).split()]
    assert numbers and min(numbers) >= 0 and max(numbers) <= 360


LETTERS = str.maketrans("MLHV", "    ")


def test_a_title_names_the_numbers_upwards_where_it_does_not_say_them() -> None:
    figures = [band(title, [(1.0, 1.0, 1.0, 1.0)], "epoch", "q", ("m", "b")) for title in ("Q, expected", "critics")]
    assert "<b>Q, expected</b>" in figures[0] and "<b>critics <small>(q)</small></b>" in figures[1]


def test_a_histogram_draws_its_counts() -> None:
    seen = checked(page("t", [], [Section("s", [histogram("t", [0.0, 1.0, 2.0], {"": [1, 3]}, "x", "y")])]))
    area = next(path for path in seen.paths if path.count("L") == 5)
    points = [tuple(map(float, point.split())) for point in area[1:].split("L")]
    floor, one, three = points[0][1], points[1][1], points[3][1]
    assert floor - three == pytest.approx(3 * (floor - one), abs=0.2) and points[1][0] == points[0][0]


def test_a_table_aligns_numbers_and_shows_nothing_as_a_dash() -> None:
    text = table("t", ("name", "n"), [("<b>", 1234), ("x", None)])
    assert '<td class="number">1,234</td>' in text and '<td class="number">–</td>' in text and "&lt;b&gt;" in text
