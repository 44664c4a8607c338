import csv
from importlib.resources import files
from math import isnan
from typing import Any

import pytest

from mopo_cli.evaluation.published import in_print, published


def find(dataset_id: str, paper: str, table: str, method: str) -> Any:
    results = published(dataset_id)
    (result,) = [r for r in results if (r.paper, r.table, r.method) == (paper, table, method)]
    return result


@pytest.mark.parametrize(
    ("dataset_id", "paper", "table", "method", "mean", "std"),
    [
        ("walker2d-medium-v0", "MOPO-v2", "Table 1", "MOPO", 17.8, 19.3),
        ("hopper-medium-replay-v0", "MOPO-v1", "Table 1", "MOPO", 92.5, 6.3),
        ("halfcheetah-medium-v2", "OfflineRL-Kit-README", "Benchmark table", "MOPO", 72.4, 4.2),
        ("halfcheetah-jump", "MOPO-v2", "Table 2", "MOPO", 4016.6, 144.0),
        ("halfcheetah-random-v0", "MOPO-v1", "Table 1", "BC", 2.1, None),
    ],
)
def test_numbers_as_printed(dataset_id: str, paper: str, table: str, method: str, mean: float, std: float) -> None:
    result = find(dataset_id, paper, table, method)
    assert (result.mean, result.std) == (mean, std)


def test_mixed_is_medium_replay() -> None:
    assert published("hopper-mixed") == published("hopper-medium-replay") != []
    assert published("walker2d-mixed-v0") == published("walker2d-medium-replay-v0") != []


def test_the_asked_version_comes_first_and_every_row_says_its_own() -> None:
    versions_of_v2 = [r.version for r in published("hopper-medium-v2")]
    versions_of_v0 = [r.version for r in published("hopper-medium-v0")]
    assert versions_of_v2[:8] == ["v2"] * 8 and "v2" not in versions_of_v2[8:]
    assert versions_of_v0[0] == "v0" and "v0" not in versions_of_v0[versions_of_v0.count("v0") :]
    assert published("hopper-medium") == published("hopper-medium-v2")
    assert sorted(versions_of_v0) == sorted(versions_of_v2)
    assert {r.version for r in published("hopper-medium") if r.paper == "COMBO"} == {""}


@pytest.mark.parametrize(
    "dataset_id",
    [
        "generate:Hopper-v5:random",
        "generate:Hopper-v5:medium-replay",
        "minari:mujoco/hopper/medium-v0",
        "./hopper-medium.h5",
        "hopper-medium.hdf5",
        "hopper",
        "",
    ],
)
def test_other_data_have_no_published_numbers(dataset_id: str) -> None:
    assert published(dataset_id) == []


def test_settings_and_empty_cells_are_no_results() -> None:
    results = published("walker2d-medium-replay")
    assert all(not r.unit.startswith("hyperparameter") for r in results)
    assert not [r for r in results if r.method == "MOPO, true pen."]


@pytest.mark.parametrize("paper", ["MOPO-v1", "MOPO-v2"])
def test_swapped_columns_are_marked(paper: str) -> None:
    assert "9.8" in find("hopper-random-v0", paper, "Table 1", "BC").note
    assert "1.6" in find("walker2d-random-v0", paper, "Table 1", "BC").note
    assert "3.5" in find("hopper-medium-replay-v0", paper, "Table 1", "SAC").note
    assert "1.9" in find("walker2d-medium-replay-v0", paper, "Table 1", "SAC").note
    assert find("halfcheetah-random-v0", paper, "Table 1", "BC").note == ""


def test_combo_repeats_one_swap_and_drop_none() -> None:
    assert "9.8" in find("hopper-random-v0", "COMBO", "Table 3", "BC").note
    assert find("hopper-medium-replay-v0", "COMBO", "Table 3", "SAC-off").note == ""
    assert find("hopper-random-v0", "DROP", "Table 1", "BC").note == ""


def test_columns_on_which_the_papers_disagree_are_marked() -> None:
    assert "96.3" in find("hopper-medium-expert-v0", "MOPO-v2", "Table 1", "BEAR").note
    assert "4.0" in find("hopper-medium-expert-v0", "DROP", "Table 1", "BEAR").note
    assert find("hopper-medium-expert-v0", "DROP", "Table 1", "BRAC-v").note == ""
    assert "58.0" in find("hopper-medium-v0", "COMBO", "Table 3", "CQL").note
    assert "86.6" in find("hopper-medium-v0", "DROP", "Table 1", "CQL").note


def test_the_final_mopo_tables_that_contradict_each_other_are_marked() -> None:
    assert "53.1" in find("halfcheetah-mixed-v0", "MOPO-v2", "Table 3", "MOPO").note
    assert "39.0" in find("walker2d-mixed-v0", "MOPO-v2", "Table 3", "MOPO").note
    assert find("halfcheetah-mixed-v0", "MOPO-v1", "Table 3", "MOPO").note == ""
    assert "4140.6" in find("halfcheetah-jump", "MOPO-v2", "Appendix D text", "MOPO, avg. var.").note


def test_every_row_is_well_formed() -> None:
    rows = printed_rows()
    assert len(rows) == 668
    assert all(None not in row and None not in row.values() for row in rows)
    assert len({(r["paper"], r["table"], r["dataset"], r["version"], r["method"], r["unit"]) for r in rows}) == 668


def printed_rows() -> Any:
    text = files("mopo_cli.evaluation").joinpath("published-results.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


# What the papers took over from D4RL's; their own runs of MOPO and MBPO may differ.
TAKEN_OVER = {"BC": "BC", "SAC": "SAC", "SAC-off": "SAC", "BEAR": "BEAR", "BRAC-v": "BRAC-v", "CQL": "CQL"}
TRUE_AFTER_A_SWAP = {
    ("hopper-random", "BC"): "9.8",
    ("walker2d-random", "BC"): "1.6",
    ("hopper-medium-replay", "SAC"): "3.5",
    ("walker2d-medium-replay", "SAC"): "1.9",
}


def test_wherever_papers_print_other_numbers_for_the_same_the_wrong_or_disputed_ones_are_marked() -> None:
    by_cell: dict[Any, Any] = {}
    for row in printed_rows():
        # The benchmark is on version 2 of the data.
        if row["unit"].startswith("normalized_score") and row["method"] in TAKEN_OVER and row["version"] != "v2":
            by_cell.setdefault((row["dataset"], TAKEN_OVER[row["method"]]), []).append(row)
    disputed = {cell: rows for cell, rows in by_cell.items() if len({row["mean"] for row in rows}) > 1}
    assert set(TRUE_AFTER_A_SWAP) <= set(disputed) and len(disputed) == 12 + 11 + 5 + 4
    for cell, rows in disputed.items():
        for row in rows:
            true = TRUE_AFTER_A_SWAP.get(cell) == row["mean"]
            assert (row["note"] == "") == true, (cell, row)


def test_a_swap_is_marked_with_the_number_of_the_other_cell() -> None:
    swapped = [row for row in printed_rows() if "swapped in print with" in row["note"]]
    assert len(swapped) == 2 * 4 + 2  # both versions of MOPO, and COMBO for BC alone
    for row in swapped:
        other = row["note"].split("swapped in print with ")[1].split(";")[0]
        (partner,) = [
            r for r in swapped if (r["paper"], r["method"], r["dataset"]) == (row["paper"], row["method"], other)
        ]
        assert row["note"].endswith(f"the true value is {partner['mean']}")
        assert TRUE_AFTER_A_SWAP[row["dataset"], row["method"]] == partner["mean"]


# Reference returns of D4RL: score = 100 (return - low) / (high - low).
SPAN = {"halfcheetah-medium-replay": (-280.178953, 12135.0), "walker2d-medium-replay": (1.629008, 4592.3)}


@pytest.mark.parametrize("paper", ["MOPO-v1", "MOPO-v2"])
@pytest.mark.parametrize("dataset", SPAN)
def test_a_return_that_contradicts_the_score_printed_for_it_is_marked(paper: str, dataset: str) -> None:
    low, high = SPAN[dataset]
    from_return = find(f"{dataset}-v0", paper, "Table 3", "MOPO")
    score = find(f"{dataset}-v0", paper, "Table 1", "MOPO").mean
    agrees = abs(100 * (from_return.mean - low) / (high - low) - score) < 0.1
    assert agrees == (paper == "MOPO-v1")
    assert (from_return.note == "") == agrees


def test_the_ablation_that_compares_with_the_other_version_is_marked() -> None:
    first = find("halfcheetah-jump", "MOPO-v1", "Table 2", "MOPO")
    final = find("halfcheetah-jump", "MOPO-v2", "Table 2", "MOPO")
    compared = find("halfcheetah-jump", "MOPO-v2", "Appendix D text", "MOPO (3 seeds, vs avg. var.)")
    assert compared.mean == first.mean != final.mean and "MOPO-v1" in compared.note
    assert str(first.mean) in find("halfcheetah-jump", "MOPO-v2", "Appendix D text", "MOPO, avg. var.").note


def test_one_cell_of_a_table() -> None:
    assert in_print("walker2d-mixed", "MOPO-v2", "Table 1", "MOPO").mean == 39.0
    assert in_print("walker2d-medium-replay-v2", "MOPO-v2", "Table 1", "MOPO").version == "v0"
    assert isnan(in_print("ant-angle", "MOPO-v2", "Table 3", "MOPO, true pen.").mean)
    assert in_print("ant-angle", "MOPO-v2", "Table 3", "COMBO") is None
    assert in_print("walker2d-random", "MOPO-v2", "Table 6", "MOPO") is None  # settings are no results
    assert in_print("generate:Hopper-v5:random", "MOPO-v2", "Table 1", "MOPO") is None
