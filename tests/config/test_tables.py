"""The papers' tables that ship: known methods and data sets, and every number in print found once."""

import csv
from collections import Counter
from importlib.resources import files
from math import isnan
from typing import Any

import pytest
from probes.papers import H_LAM

from mopo_cli.config.paper_tables import choose_rows, load_table
from mopo_cli.config.presets import method_names, names_of, text_of
from mopo_cli.config.resolve import resolve
from mopo_cli.config.schema import TrainPolicy
from mopo_cli.data.registry import parse_dataset
from mopo_cli.errors import UsageError
from mopo_cli.evaluation.published import chosen_pair, family, in_print

OF_MOPO = ("mopo-1", "mopo-2", "mopo-3", "mopo-3-v1", "mopo-4", "mopo-5", "mopo-h-lam", "mopo-real-ratio")
NAMES = (*OF_MOPO, "combo-1", "combo-3", "drop-1")
# Rows of published-results.csv that a table has to show: the whole table of the paper.
WHOLE = {
    "mopo-1": ("MOPO-v2", "Table 1", 72),
    "mopo-2": ("MOPO-v2", "Table 2", 16),
    "mopo-3": ("MOPO-v2", "Table 3", 24),
    "mopo-3-v1": ("MOPO-v1", "Table 3", 36),
    "mopo-4": ("MOPO-v2", "Table 4", 9),
    "mopo-5": ("MOPO-v2", "Table 5", 5),
    "combo-1": ("COMBO", "Table 1", 18),
    "combo-3": ("COMBO", "Table 3", 108),
    "drop-1": ("DROP", "Table 1", 108),
}


def printed(name: str) -> Any:
    """(data set, row) -> the number in print, of every row on every data set of the table, also one of elsewhere."""
    table = load_table(name)
    actual = {
        (family(dataset), row.label): in_print(dataset, table.paper, row.table or table.table, row.printed or row.label)
        for dataset in (*table.datasets, *table.elsewhere)
        for row in table.rows_for(family(dataset))
    }
    return {key: result for key, result in actual.items() if result}


def test_these_tables_ship() -> None:
    assert names_of("table") == sorted(NAMES)
    with pytest.raises(UsageError, match=r"no table 'mopo-9'; there are combo-1, .*, mopo-real-ratio"):
        load_table("mopo-9")


@pytest.mark.parametrize("name", NAMES)
def test_rows_name_known_methods_and_settings_and_data_sets_are_known(name: str) -> None:
    table = load_table(name)
    assert text_of("table", name).startswith(f"# {name.split('-')[0].upper()}, ")
    assert max(Counter(row.slug for row in table.rows).values()) == 1
    assert {row.method for row in table.rows if row.method} <= set(method_names())
    assert table.seeds == (3 if name in ("mopo-3-v1", "mopo-5", "mopo-h-lam") else 6)
    fewer = {row.label for row in table.rows if row.method and table.seeds_for(row) < table.seeds}
    of_fewer = {row.label for row in table.rows if row.method} - {"MOPO"} if name in ("mopo-2", "mopo-3") else set()
    assert fewer == of_fewer and {table.seeds_for(row) for row in table.rows if row.label in fewer} <= {3}
    assert name == "drop-1" or table.updates == 1_000_000
    labels = {row.label for row in table.rows}
    families = {family(parse_dataset(dataset).dataset_id) for dataset in table.datasets}
    assert set(table.notes) <= {"all"} | labels | families
    assert set(table.compare or ()) <= labels
    for row in table.rows:
        assert set(row.datasets) <= families
        assert not (row.method and row.data) and (row.method or not row.settings)
        if row.method:
            resolve(TrainPolicy, dataset=table.datasets[0], flags={**row.settings, "method": row.method})


@pytest.mark.parametrize("name", WHOLE)
def test_a_table_shows_every_number_of_the_paper_s(name: str) -> None:
    paper, place, count = WHOLE[name]
    with files("mopo_cli.evaluation").joinpath("published-results.csv").open(encoding="utf-8") as file:
        cells = {
            (r["dataset"], r["method"]) for r in csv.DictReader(file) if (r["paper"], r["table"]) == (paper, place)
        }
    assert len(cells) == count
    assert {key for key, result in printed(name).items() if result.table == place} == cells


@pytest.mark.parametrize("name", ["mopo-1", "mopo-3", "mopo-h-lam", "mopo-real-ratio", "combo-3", "drop-1"])
def test_d4rl_sets_are_of_version_0_as_in_the_papers(name: str) -> None:
    versions = {dataset[-3:] for dataset in load_table(name).datasets if parse_dataset(dataset).kind == "d4rl"}
    assert versions == {"-v0"}


@pytest.mark.parametrize(
    ("name", "dataset", "row", "mean", "std"),
    [
        ("mopo-1", "hopper-medium-replay", "MOPO", 67.5, 24.7),
        ("mopo-1", "walker2d-random", "MBPO", 8.6, 8.1),
        ("mopo-1", "hopper-medium-expert", "BEAR", 4.0, None),
        ("mopo-2", "ant-angle", "Batch Max", 2311.9, None),
        ("mopo-3", "walker2d-medium-replay", "MOPO, ens. pen.", 1923.6, 752),
        ("mopo-3", "halfcheetah-jump", "MOPO, avg. var.", 4166.3, 228.8),
        ("mopo-3-v1", "ant-angle", "MOPO, no Lip", 2041.5, 762),
        ("mopo-4", "ant-angle-90", "MOPO", -503.2, 803.4),
        ("mopo-5", "hiv", "SAC (online)", 25716.3, 254.3),
        ("mopo-real-ratio", "hopper-medium-expert", "MBPO, 5 % real data", 56.0, 34.5),
        ("combo-1", "halfcheetah-jump", "COMBO", 5308.7, 575.5),
        ("combo-1", "ant-angle", "MOReL", 2660.3, None),
        ("combo-1", "sawyer-door-close", "COMBO", 98.3, 3.0),
        ("combo-3", "walker2d-medium-expert", "COMBO", 103.3, 5.6),
        ("combo-3", "hopper-medium-replay", "BRAC-p", 0.6, None),
        ("combo-3", "hopper-medium-expert", "BEAR", 96.3, None),
        ("drop-1", "hopper-medium-replay", "DROP", 88.2, None),
        ("drop-1", "walker2d-medium-expert", "AWR", 53.8, None),
    ],
)
def test_numbers_in_print(name: str, dataset: str, row: str, mean: float, std: float) -> None:
    result = printed(name)[dataset, row]
    assert (result.mean, result.std) == (mean, std)


def test_what_is_not_available_in_print_is_neither_a_number_nor_absent() -> None:
    missing = {key for name in ("mopo-3", "mopo-3-v1") for key, r in printed(name).items() if isnan(r.mean)}
    rows = ("MOPO, true pen.", "MOPO, no Lip, true pen.")
    assert missing == {(dataset, row) for dataset in ("walker2d-medium-replay", "ant-angle") for row in rows}
    assert printed("mopo-3")["halfcheetah-jump", "MOPO, true pen."].mean == 3818.6


def test_the_first_versions_methods_have_its_own_numbers_and_no_others() -> None:
    table = load_table("mopo-3-v1")
    methods = {row.label: row.method for row in table.rows}
    for label, method in methods.items():
        spectral = "no Lip" not in label and not label.startswith("MBPO")
        assert method.startswith("mopo-v1") == spectral
    assert not any(row.method.startswith("mopo-v1") for row in load_table("mopo-3").rows)


@pytest.mark.parametrize("name", H_LAM)
def test_the_search_holds_the_pair_that_the_paper_names(name: str) -> None:
    table = load_table("mopo-h-lam")
    pairs = [(row.settings["h"], row.settings["lam"]) for row in table.rows_for(name)]
    assert chosen_pair(f"{name}-v0", "MOPO-v2") == H_LAM[name]
    assert pairs.count(H_LAM[name]) == 1
    assert {(1, 1), (1, 5), (5, 1), (5, 5)} <= set(pairs) and len(pairs) <= 5


def test_the_first_version_chose_otherwise_for_two_sets() -> None:
    different = {name: chosen_pair(name, "MOPO-v1") for name in H_LAM if chosen_pair(name, "MOPO-v1") != H_LAM[name]}
    assert different == {"hopper-medium-replay": (1, 5), "halfcheetah-medium-expert": (5, 5)}
    assert chosen_pair("hiv", "MOPO-v2") is None


@pytest.mark.parametrize(
    ("name", "text", "labels"),
    [
        ("mopo-3", "MOPO, ens. pen.,MBPO", ["MOPO, ens. pen.", "MBPO"]),
        ("mopo-3", "mbpo, mopo-true-pen ,MOPO", ["MOPO", "MBPO", "MOPO, true pen."]),
        ("mopo-3-v1", "MOPO, no Lip, ens. pen.", ["MOPO, no Lip, ens. pen."]),
        ("mopo-3-v1", "mopo-v1-ens-pen", ["MOPO, ens. pen."]),
        ("mopo-h-lam", "h 5, lam 0.5,h-1-lam-1", ["h 1, lam 1", "h 5, lam 0.5"]),
        ("mopo-1", "sac-off,BRAC-v", ["SAC", "BRAC-v"]),
        ("mopo-5", "SAC (online)", ["SAC (online)"]),
    ],
)
def test_rows_are_chosen_by_label_or_method(name: str, text: str, labels: list[str]) -> None:
    assert [row.label for row in choose_rows(load_table(name), text)] == labels


def test_a_number_of_updates_may_be_one_of_the_body() -> None:
    table = load_table("drop-1")
    families = [family(dataset) for dataset in table.datasets]
    steps = {"halfcheetah": 500_000, "hopper": 1_500_000, "walker2d": 3_000_000}
    assert [table.updates_for(name) for name in families] == [steps[name.split("-")[0]] for name in families]
    assert table.updates_for("generate:Hopper-v5:random") == 3_000_000
    assert load_table("combo-3").updates_for("hopper-medium") == 1_000_000


def test_every_column_of_the_papers_is_a_method_but_one() -> None:
    rows = {(name, row.label) for name in NAMES for row in load_table(name).rows if not (row.method or row.data)}
    assert rows == {("mopo-5", "SAC (online)")}


def test_what_combo_and_drop_took_over_from_others_is_as_it_was_there_or_noted() -> None:
    """Facts that the tables' notes tell, from the numbers themselves."""
    mopo, combo, drop = (printed(name) for name in ("mopo-1", "combo-3", "drop-1"))
    same = {key for key in combo if key in drop and combo[key].mean == drop[key].mean}
    differ = {key for key in combo if key in drop} - same
    assert {row for _, row in differ} == {"MOPO", "CQL", "BC"}
    assert len([key for key in differ if key[1] == "CQL"]) == 5
    cql = {name: (combo[name, "CQL"].mean, drop[name, "CQL"].mean) for name, row in differ if row == "CQL"}
    assert cql["hopper-medium-expert"] == cql["walker2d-medium-expert"][::-1] == (111.0, 98.7)
    assert all(combo[name, "MOPO"].mean == result.mean for (name, row), result in mopo.items() if row == "MOPO")
    assert all(drop[name, "MBPO"].mean == result.mean for (name, row), result in mopo.items() if row == "MBPO")
    # BC on the random sets of hopper and walker2d: exchanged in MOPO and COMBO.
    pair = [(name, "BC") for name in ("hopper-random", "walker2d-random")]
    assert [combo[key].mean for key in pair] == [mopo[key].mean for key in pair] == [1.6, 9.8]
    assert [drop[key].mean for key in pair] == [9.8, 1.6]
    assert all("swapped in print" in combo[key].note for key in pair)


def test_combo_is_the_best_of_its_own_table_on_eight_sets() -> None:
    table = printed("combo-3")
    sets = {name for name, _ in table}
    best = {name: max((r.mean, row) for (where, row), r in table.items() if where == name)[1] for name in sets}
    assert sum(row == "COMBO" for row in best.values()) == 8
    assert best["hopper-medium-expert"] == "BC"


def test_every_label_and_method_names_its_row() -> None:
    for table in map(load_table, NAMES):
        for row in table.rows:
            assert choose_rows(table, row.label) == (row,)
            assert row in choose_rows(table, row.method or row.label)


@pytest.mark.parametrize("text", ["mopo,mobile", "", "mopo ens pen x"])
def test_another_row_is_told_with_the_known_ones(text: str) -> None:
    with pytest.raises(UsageError, match=r"has no row '.*'; it has mopo, mopo-ens-pen, .*mopo-avg-var"):
        choose_rows(load_table("mopo-3"), text)
