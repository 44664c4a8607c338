import csv
from importlib.resources import files

import pytest

from mopo_cli.evaluation.published import published


def find(dataset_id, paper, table, method):
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
def test_numbers_as_printed(dataset_id, paper, table, method, mean, std):
    result = find(dataset_id, paper, table, method)
    assert (result.mean, result.std) == (mean, std)


def test_mixed_is_medium_replay():
    assert published("hopper-mixed") == published("hopper-medium-replay") != []
    assert published("walker2d-mixed-v0") == published("walker2d-medium-replay-v0") != []


def test_the_asked_version_comes_first_and_every_row_says_its_own():
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
def test_other_data_have_no_published_numbers(dataset_id):
    assert published(dataset_id) == []


def test_settings_and_empty_cells_are_no_results():
    results = published("walker2d-medium-replay")
    assert all(not r.unit.startswith("hyperparameter") for r in results)
    assert not [r for r in results if r.method == "MOPO, true pen."]


@pytest.mark.parametrize("paper", ["MOPO-v1", "MOPO-v2"])
def test_swapped_columns_are_marked(paper):
    assert "9.8" in find("hopper-random-v0", paper, "Table 1", "BC").note
    assert "1.6" in find("walker2d-random-v0", paper, "Table 1", "BC").note
    assert "3.5" in find("hopper-medium-replay-v0", paper, "Table 1", "SAC").note
    assert "1.9" in find("walker2d-medium-replay-v0", paper, "Table 1", "SAC").note
    assert find("halfcheetah-random-v0", paper, "Table 1", "BC").note == ""


def test_combo_repeats_one_swap_and_drop_none():
    assert "9.8" in find("hopper-random-v0", "COMBO", "Table 3", "BC").note
    assert find("hopper-medium-replay-v0", "COMBO", "Table 3", "SAC-off").note == ""
    assert find("hopper-random-v0", "DROP", "Table 1", "BC").note == ""


def test_columns_on_which_the_papers_disagree_are_marked():
    assert "96.3" in find("hopper-medium-expert-v0", "MOPO-v2", "Table 1", "BEAR").note
    assert "4.0" in find("hopper-medium-expert-v0", "DROP", "Table 1", "BEAR").note
    assert find("hopper-medium-expert-v0", "DROP", "Table 1", "BRAC-v").note == ""
    assert "58.0" in find("hopper-medium-v0", "COMBO", "Table 3", "CQL").note
    assert "86.6" in find("hopper-medium-v0", "DROP", "Table 1", "CQL").note


def test_the_final_mopo_tables_that_contradict_each_other_are_marked():
    assert "53.1" in find("halfcheetah-mixed-v0", "MOPO-v2", "Table 3", "MOPO").note
    assert "39.0" in find("walker2d-mixed-v0", "MOPO-v2", "Table 3", "MOPO").note
    assert find("halfcheetah-mixed-v0", "MOPO-v1", "Table 3", "MOPO").note == ""
    assert "4140.6" in find("halfcheetah-jump", "MOPO-v2", "Appendix D text", "MOPO, avg. var.").note


def test_every_row_is_well_formed():
    text = files("mopo_cli.evaluation").joinpath("published-results.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    assert len(rows) == 668
    assert all(None not in row and None not in row.values() for row in rows)
    assert len({(r["paper"], r["table"], r["dataset"], r["version"], r["method"], r["unit"]) for r in rows}) == 668
