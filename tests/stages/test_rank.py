"""What is made of the scores of an ablation's cells, where some are lost."""

from pathlib import Path
from typing import Any

import pytest

from mopo_cli.config.schema import Ablate
from mopo_cli.stages.analysis.evidence import common_lam
from mopo_cli.stages.analysis.rank import Entry, Scores, judge


def entry(name: str, last: float | None, diverged: tuple[int, ...] = (), here: bool = True) -> Entry:
    record = {"cell": name, "last": None if last is None else [last, 0.0], "diverged": list(diverged)}
    return Entry({**record, "returns": {}}, Path(name), here)


def scores(*penalised: float | None, q: tuple[float | None, ...] | None = None) -> Scores:
    rest = {"model-return": 1.0, "uncertainty": 1.0, "action-distance": 1.0, "unlike": 0.0}
    qs = q or (0.0,) * len(penalised)
    return {str(s): {"penalised-return": p, **rest, "q": qs[s]} for s, p in enumerate(penalised)}


def test_cells_are_ordered_by_their_mean_over_seeds_and_lost_ones_come_last() -> None:
    entries = [entry("a", 5.0), entry("lost", None, (0, 1)), entry("b", 9.0, (1,)), entry("c", 7.0, here=False)]
    result = judge("offline", entries, {"a": scores(1.0, 2.0), "lost": {}, "b": scores(4.0), "c": scores(6.0, 0.0)})
    assert [(c["cell"], c["rank"], c["values"]["penalised-return"]) for c in result["cells"]] == [
        ("b", 1, 4.0),
        ("c", 2, 3.0),
        ("a", 3, 1.5),
        ("lost", 4, None),
    ]
    assert [c["diverged"] for c in result["cells"]] == [[1], [], [], [0, 1]]
    assert [c["trained_in_this_model"] for c in result["cells"]] == [True, False, True, True]
    assert result["compared"] == 3
    worth = result["criteria"]["penalised-return"]
    assert (worth["spearman"], worth["chooses"], worth["regret"]) == (pytest.approx(1.0), "b", 0.0)
    assert result["criteria"]["uncertainty"]["spearman"] is None, "all equal"


def test_a_cell_of_which_one_seed_has_no_value_has_none() -> None:
    entries = [entry("a", 5.0), entry("b", 9.0)]
    result = judge("offline", entries, {"a": scores(1.0, 1.0, q=(3.0, 3.0)), "b": scores(2.0, 2.0, q=(9.0, None))})
    assert result["cells"][0]["values"]["q"] is None and result["cells"][0]["cell"] == "b"
    assert (result["criteria"]["q"]["chooses"], result["criteria"]["q"]["regret"]) == ("a", 4.0)


def test_where_all_is_lost_nothing_is_chosen() -> None:
    result = judge("offline", [entry("a", None, (0,)), entry("b", None, (0,))], {"a": {}, "b": {}})
    assert [cell["cell"] for cell in result["cells"]] == ["a", "b"] and result["chosen"] is None
    assert all(w["chooses"] is w["spearman"] is w["regret"] is None for w in result["criteria"].values())


@pytest.mark.parametrize(("lam", "expected"), [((5.0,), 5.0), ((0.0,), 0.0), ((0.5, 5.0), 1.0)])
def test_one_lambda_judges_all_cells(lam: Any, expected: float) -> None:
    assert common_lam(Ablate(lam=lam)) == expected


def of_beta(beta: float, last: float | None) -> Entry:
    plain = entry(f"combo_h5_beta{beta:g}", last)
    base = {"method": "combo", "algorithm": "combo", "penalty": "none", "lam": None, "h": 5}
    return Entry({**plain.record, **base, "grid": {"beta": beta, "eta": None}}, plain.folder, True)


def test_combo_s_rule_takes_the_lowest_mean_and_tells_its_settings() -> None:
    entries = [of_beta(0.5, 5.0), entry("mopo", 9.0), of_beta(1, 7.0), of_beta(5, 6.0)]
    by_seed = {"mopo": (None, None), "combo_h5_beta0.5": (0.0, 3.0), "combo_h5_beta1": (2.0, -2.0)}
    by_seed["combo_h5_beta5"] = (1.0, 1.5)
    result = judge(
        "combo",
        entries,
        {name: {str(s): {"regulariser": v} for s, v in enumerate(values)} for name, values in by_seed.items()},
    )
    assert [(c["cell"], c["rank"], c["values"]["regulariser"]) for c in result["cells"]] == [
        ("combo_h5_beta1", 1, 0.0),
        ("combo_h5_beta5", 2, 1.25),
        ("combo_h5_beta0.5", 3, 1.5),
        ("mopo", 4, None),
    ]
    assert result["chosen"] == {"cell": "combo_h5_beta1", "settings": {"method": "combo", "h": 5, "beta": 1}}
    worth = result["criteria"]["regulariser"]
    assert (worth["best"], worth["spearman"], worth["regret"]) == ("lowest", pytest.approx(1.0), 2.0)


def test_what_is_chosen_without_a_method_is_told_by_algorithm_and_penalty() -> None:
    base = {"method": None, "algorithm": "sac", "penalty": "max-var", "lam": 0.5, "h": 5}
    best = entry("a", None)
    result = judge("offline", [Entry({**best.record, **base}, best.folder, True)], {"a": scores(1.0)})
    expected = {"algorithm": "sac", "penalty": "max-var", "lam": 0.5, "h": 5}
    assert result["chosen"] == {"cell": "a", "settings": expected}
