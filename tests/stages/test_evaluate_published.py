"""evaluate beside published numbers: scores for D4RL's sets, returns for the tasks that have no score."""

import re
from typing import Any

import numpy as np
import pytest

from mopo_cli.data.transitions import DatasetInfo, Transitions
from mopo_cli.evaluation.stats import bootstrap_iqm
from mopo_cli.report.console import Report
from mopo_cli.stages.evaluate import show_evaluation, summarise


def evaluated(dataset_id: str, reference: tuple[float, float] | None = None, **kwargs: Any) -> dict[str, Any]:
    """The result of two seeds that return 20 and 30 in two episodes each, on data of two episodes of 7 and 9."""
    columns = np.zeros((4, 1), "f4"), np.zeros((4, 1), "f4"), np.array([3, 4, 4, 5], "f4"), np.zeros((4, 1), "f4")
    ends = np.array([False, True, False, True])
    low, high = reference or (None, None)
    box = np.full(1, -1, "f4"), np.full(1, 1, "f4")
    info = DatasetInfo(dataset_id, "Any-v0", "made up", *box, "none", low, high, 0, env_kwargs=kwargs)
    per_seed = {"0": np.array([19.0, 21.0]), "1": np.array([29.0, 31.0])}
    return {"policy": "mopo", **summarise(per_seed, Transitions(*columns, ~ends & False, ends), info)}


def shown(result: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> str:
    show_evaluation(result, Report("human"))
    return capsys.readouterr().err


def test_tasks_without_a_score_are_compared_by_return(capsys: pytest.CaptureFixture[str]) -> None:
    result = evaluated("halfcheetah-jump")
    (mopo,) = [p for p in result["published"] if (p["paper"], p["method"], p["mean"]) == ("MOPO-v2", "MOPO", 4016.6)][
        :1
    ]
    assert (mopo["std"], mopo["unit"]) == (144, "return")
    text = shown(result, capsys)
    assert "Published returns" in text and "4016.6 ± 144.0" in text
    assert "published unit" not in text


def test_returns_far_below_one_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    small: dict[str, Any] = {"dataset_return_mean": 0.0009, "dataset_return_max": 0.0021, "return_iqm": 0.00123}
    small |= {"return_mean": 0.00123, "return_std": 0.0001, "return_iqm_95": [0.0011, 0.0013]}
    text = shown(evaluated("mine") | small | {"return_per_seed": {"0": 0.00123}, "seeds": [0], "episodes": 1}, capsys)
    assert "1 seed x 1 episode\n" in text and "±" not in text, "one seed has no spread"
    numbers = re.findall(r"\d\.\d+(?: ± \d\.\d+| \(.*?\))?", text)
    assert numbers == ["0.00090", "0.00210", "0.00123", "0.00123", "0.00123 (0.00110 to 0.00130)"]


def test_a_single_return_has_no_interval(capsys: pytest.CaptureFixture[str]) -> None:
    one = {"return_per_seed": {"0": 20.0}, "seeds": [0], "episodes": 1, "return_iqm_95": list(bootstrap_iqm([[20.0]]))}
    assert "(no interval)" in shown(evaluated("mine") | one, capsys)


def test_d4rl_sets_are_compared_by_score_only(capsys: pytest.CaptureFixture[str]) -> None:
    # Table 3 of the paper has raw returns of this set as well.
    result = evaluated("walker2d-medium-replay-v0", (0.0, 100.0))
    assert {p["unit"].split()[0] for p in result["published"]} == {"normalized_score"}
    text = shown(result, capsys)
    assert "Published normalised scores" in text and "Published returns" not in text


@pytest.mark.parametrize(("dataset", "reference"), [("walker2d-medium-replay-v0", (0.0, 100.0)), ("hiv", None)])
def test_scores_and_published_units_of_one_seed_have_no_spread(
    dataset: str, reference: tuple[float, float] | None, capsys: pytest.CaptureFixture[str]
) -> None:
    result = evaluated(dataset, reference) if reference else evaluated(dataset)
    one = {"return_per_seed": {"0": 20.0}, "seeds": [0], "return_std": 0.0, "score_std": 0.0, "published": []}
    several, single = shown(result, capsys), shown(result | one, capsys)
    assert "±" in several and "±" not in single


def test_hiv_returns_are_given_in_the_unit_of_the_paper_s_table(capsys: pytest.CaptureFixture[str]) -> None:
    result = evaluated("hiv")
    assert result["published_factor"] == pytest.approx(1000)
    text = " ".join(shown(result, capsys).replace("│", " ").split())
    assert "x 1,000 (the published unit) 25000.0 ±" in text
    assert "x 1,000 (the published unit) 8000.0 to 9000.0" in text
    assert "25716.3 ± 254.3" in text and "1/1000 of the raw reward" in text
    assert evaluated("hiv", reward_unit=1e-3)["published_factor"] == 1
