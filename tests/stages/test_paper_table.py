"""A paper's table from finished ablations: ours in its unit, the published number, and notes on what is amiss."""

import csv
import json
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mopo_cli.config.paper_tables import load_table
from mopo_cli.config.resolve import resolve
from mopo_cli.config.schema import TrainPolicy
from mopo_cli.data.transition_files import write_dataset
from mopo_cli.data.transitions import DatasetInfo, Transitions
from mopo_cli.stages.ablation.paper_table import Part, publish_paper_table, table_lines
from mopo_cli.stages.ablation.train_cells import shown_settings
from mopo_cli.store.atomic import write_json
from mopo_cli.store.lineage import StageRecord, describe_files, record_stage
from mopo_cli.store.run import RunFolder

HALFCHEETAH = -280.178953, 12135.0


def fetched(run: RunFolder, dataset_id: str, reference: tuple[float, float] | None = None) -> None:
    """Puts a dataset of four rows into the run; its record says mean return 7 and best 9."""
    columns: list[Any] = [np.zeros((4, 1), "f4"), np.zeros((4, 1), "f4"), np.ones(4, "f4"), np.zeros((4, 1), "f4")]
    box = np.full(1, -1, "f4"), np.full(1, 1, "f4")
    low, high = reference or (None, None)
    info = DatasetInfo(dataset_id, "Any-v0", "made up", *box, "none", low, high, 0)
    ends = np.array([False, True, False, True])
    write_dataset(run.root / "dataset.h5", Transitions(*[*columns, ends, ends & False]), info)
    outputs = describe_files(run, {"dataset": run.root / "dataset.h5"})
    extra = {"return_mean": 7.0, "return_max": 9.0}
    record_stage(run, "fetch-data", StageRecord({"dataset": dataset_id}, {}, outputs, {}, 0.0, "", extra))


def part(folder: Path, table: str, dataset: str, returns: dict[str, Any], **settings: Any) -> Part:
    """The part of a table that trained these rows: by label, the last and the earlier return of every seed."""
    run = RunFolder(folder / dataset)
    rows = {row.label: row for row in load_table(table).rows if row.label in returns}
    cells: dict[str, Any] = {}
    for label, row in rows.items():
        flags = {"seeds": len(returns[label]), **settings, **row.settings, "method": row.method}
        cell = resolve(TrainPolicy, dataset=dataset, flags=flags).settings
        cells[label] = cell.model_copy(update={"name": f"cell-{len(cells)}"})
    records = []
    for label, cell in cells.items():
        values = {
            str(seed): {"last": pair[-1], "last_10": sum(pair) / len(pair), "evaluations": list(pair)}
            for seed, pair in enumerate(returns[label])
            if pair is not None
        }
        lost = [seed for seed, pair in enumerate(returns[label]) if pair is None]
        policies = {seed: f"{label} {seed}" for seed in values}
        record = {
            "cell": cell.policy_name(),
            **shown_settings(cell),
            "returns": values,
            "policies": policies,
            "diverged": lost,
        }
        records.append(record)
    write_json(run.ablation_dir(table) / "table.json", {"dataset": dataset, "references": {}, "cells": records})
    return Part(dataset, run, cells)


def lines(table: str, *parts: Part) -> dict[tuple[str, str], dict[str, Any]]:
    return {(line["data_set"], line["row"]): line for line in table_lines(load_table(table), parts)}


def test_scores_are_those_of_d4rl_and_beside_the_paper_s(tmp_path: Path) -> None:
    ours = part(tmp_path, "mopo-1", "halfcheetah-random-v0", {"MOPO": [(100.0, 3000.0), (200.0, 5000.0)]})
    fetched(ours.run, "halfcheetah-random-v0", HALFCHEETAH)
    line = lines("mopo-1", ours)["halfcheetah-random-v0", "MOPO"]
    scores = [100 * (value + 280.178953) / (12135.0 + 280.178953) for value in (3000, 5000)]
    assert line["unit"] == "score"
    assert line["last"] == pytest.approx([np.mean(scores), np.std(scores)])
    tens = [100 * (value + 280.178953) / (12135.0 + 280.178953) for value in (1550, 2600)]
    assert line["last_10"] == pytest.approx([np.mean(tens), np.std(tens)])
    assert line["iqm_interval"][0] <= line["iqm"] <= line["iqm_interval"][1] <= scores[1] + 1e-9
    assert line["returns"]["1"]["last"] == 5000  # as they were
    assert (line["published"]["mean"], line["published"]["std"], line["notes"]) == (35.4, 2.5, [])
    assert line["smaller"]  # 2 seeds of 6


@pytest.mark.parametrize(
    ("table", "dataset", "row", "seeds", "epochs"),
    [
        ("mopo-1", "hopper-medium-v0", "MBPO", 6, 1000),
        ("mopo-2", "ant-angle", "MOPO", 6, 0),
        ("mopo-2", "ant-angle", "BEAR", 3, 0),
        ("mopo-3", "ant-angle", "MOPO, avg. var.", 3, 0),
        ("mopo-3-v1", "ant-angle", "MOPO", 3, 0),
        ("mopo-5", "hiv", "MOPO", 3, 0),
        ("mopo-h-lam", "hopper-medium-v0", "h 1, lam 1", 3, 0),
        ("drop-1", "hopper-medium-v0", "DROP", 6, 0),
        ("drop-1", "halfcheetah-medium-v0", "BC", 6, 500),
        ("drop-1", "walker2d-medium-v0", "BC", 6, 3000),
    ],
)
def test_a_budget_smaller_than_the_paper_s_of_the_row_and_the_body_is_marked(
    tmp_path: Path, table: str, dataset: str, row: str, seeds: int, epochs: int
) -> None:
    """``epochs`` 0: as many as suffice for every table."""
    budgets = [(seeds, epochs or 1500, False), (seeds - 1, epochs or 1500, True)]
    for count, length, smaller in [*budgets, (seeds, epochs - 1, True)] if epochs else budgets:
        ours = part(tmp_path / f"{count}-{length}", table, dataset, {row: [(1.0, 2.0)] * count}, epochs=length)
        fetched(ours.run, dataset)
        assert lines(table, ours)[dataset, row]["smaller"] == smaller
        publish_paper_table(tmp_path, load_table(table), table_lines(load_table(table), [ours]), [])
        assert (f"| {count} x {length}* " in (tmp_path / f"{table}.md").read_text()) == smaller


def test_known_errors_and_other_versions_of_the_data_are_noted(tmp_path: Path) -> None:
    first = part(tmp_path, "mopo-1", "hopper-random-v0", {"BC": [(1.0, 2.0)]})
    other = part(tmp_path, "mopo-1", "hopper-random-v2", {"BC": [(1.0, 2.0)]})
    for one in (first, other):
        fetched(one.run, one.dataset, (0.0, 100.0))
    result = lines("mopo-1", first, other)
    (swap,) = result["hopper-random-v0", "BC"]["notes"]
    assert "the true value is 9.8" in swap
    assert result["hopper-random-v2", "BC"]["notes"] == [swap, "in print is version 0 of the data, ours is version 2"]
    assert result["hopper-random-v0", "BC"]["published"]["mean"] == 1.6  # as printed
    bear = result["hopper-random-v0", "BEAR"]
    assert bear["last"] is None and bear["missing"] == "not trained" and bear["published"]["mean"] == 9.5


def test_an_interval_in_print_is_said_to_be_one_and_what_cannot_be_made_is_told(tmp_path: Path) -> None:
    returns = {label: [(10.0, 12.0)] * 6 for label in ("COMBO", "CQL")}
    ours = part(tmp_path, "combo-1", "halfcheetah-jump", returns)
    fetched(ours.run, "halfcheetah-jump")
    result = lines("combo-1", ours)
    combo, cql = (result["halfcheetah-jump", label] for label in ("COMBO", "CQL"))
    assert (combo["published"]["mean"], combo["published"]["std"]) == (5308.7, 575.5)
    interval = "± in print is a 95 % confidence interval"
    assert interval in combo["notes"] and interval not in cql["notes"] and cql["published"]["std"] is None
    assert not combo["smaller"]
    remarks = publish_paper_table(tmp_path, load_table("combo-1"), list(result.values()), ["mine"])["remarks"]
    assert remarks[0] == "mine" and remarks[1].startswith("In print only, sawyer-door-close (")
    assert "COMBO 98.3 ± 3.0, MOPO 65.8, MOReL 42.9, CQL 36.7" in remarks[1]
    assert remarks[1] in (tmp_path / "combo-1.md").read_text()


def test_not_available_stays_so(tmp_path: Path) -> None:
    ours = part(tmp_path, "mopo-3", "ant-angle", {"MOPO, true pen.": [(1.0, 2.0)]})
    fetched(ours.run, "ant-angle")
    line = lines("mopo-3", ours)["ant-angle", "MOPO, true pen."]
    assert isnan(line["published"]["mean"]) and any("N/A in print" in note for note in line["notes"])
    publish_paper_table(tmp_path, load_table("mopo-3"), [line], [])
    assert "| N/A " in (tmp_path / "mopo-3.md").read_text()
    (row,) = csv.DictReader((tmp_path / "mopo-3.csv").open())
    assert (row["published_mean"], row["last"]) == ("", "2.0")
    json.loads((tmp_path / "mopo-3.json").read_text(), parse_constant=pytest.fail)  # no NaN in it


def test_hiv_is_in_the_unit_of_the_paper_and_the_data_speak_for_themselves(tmp_path: Path) -> None:
    ours = part(tmp_path, "mopo-5", "hiv", {"MOPO": [(10.0, 12.0), (10.0, 14.0)]})
    fetched(ours.run, "hiv")
    result = lines("mopo-5", ours)
    assert result["hiv", "MOPO"]["last"] == pytest.approx([13000, 1000])  # 1e-6 of the raw reward, 1e-3 in print
    assert result["hiv", "Batch Mean"]["last"] == pytest.approx([7000, None])
    assert result["hiv", "Batch Max"]["last"] == pytest.approx([9000, None])
    assert result["hiv", "MOPO"]["published"]["mean"] == 13484.6
    online = result["hiv", "SAC (online)"]
    assert online["last"] is None and online["missing"] is None and online["published"]["mean"] == 25716.3
    assert "mopo does not train it" in online["notes"][0]


def test_data_without_reference_returns_are_told_as_returns(tmp_path: Path) -> None:
    ours = part(tmp_path, "mopo-1", "generate:Hopper-v5:random", {"MOPO": [(10.0, 12.0)]})
    fetched(ours.run, "generate:Hopper-v5:random")
    line = lines("mopo-1", ours)["generate:Hopper-v5:random", "MOPO"]
    assert (line["unit"], line["last"], line["published"]) == ("return", [12.0, 0.0], None)
    assert "no reference returns" in line["notes"][0]


def test_diverged_seeds_and_what_was_never_played(tmp_path: Path) -> None:
    returns = {"MOPO": [(1.0, 3.0), None], "MBPO": [None, None], "SAC": [(1.0, 3.0), (1.0, 3.0)]}
    ours = part(tmp_path, "mopo-1", "hopper-medium-v0", returns)
    fetched(ours.run, "hopper-medium-v0", (0.0, 100.0))
    records = json.loads((ours.run.ablation_dir("mopo-1") / "table.json").read_text())
    records["cells"][2]["returns"] = {"0": {}, "1": {}}
    write_json(ours.run.ablation_dir("mopo-1") / "table.json", records)
    result = lines("mopo-1", ours)
    mopo, mbpo, sac = (result["hopper-medium-v0", row] for row in ("MOPO", "MBPO", "SAC"))
    assert mopo["last"] == [3.0, 0.0] and mopo["notes"] == ["seed 1 diverged and is left out"]
    assert mbpo["missing"] == "every seed diverged" and sac["missing"].startswith("never played")
    publish_paper_table(tmp_path, load_table("mopo-1"), list(result.values()), [])
    rows = [r for r in csv.DictReader((tmp_path / "mopo-1.csv").open()) if r["row"] in ("MOPO", "MBPO")]
    assert [(r["row"], r["seed"], r["last"], r["missing"]) for r in rows] == [
        ("MOPO", "0", "3.0", ""),
        ("MOPO", "1", "", "diverged"),
        ("MBPO", "0", "", "diverged"),
        ("MBPO", "1", "", "diverged"),
    ]
    assert "1 of 2 x 1000*" in (tmp_path / "mopo-1.md").read_text()


def test_what_is_missing_has_a_line_and_a_reason_in_every_file(tmp_path: Path) -> None:
    table = load_table("mopo-2")
    absent = Part(
        "ant-angle", RunFolder(tmp_path / "no"), part(tmp_path, "mopo-2", "ant-angle", {"MOPO": [(1.0,)]}).cells
    )
    absent.missing = {"MOPO": "no connection", "Batch Mean": "no connection"}
    actual = lines("mopo-2", absent)
    assert len(actual) == len(table.rows) == 8
    mopo = actual["ant-angle", "MOPO"]
    assert (mopo["last"], mopo["missing"]) == (None, "no connection") and mopo["notes"][0] == "no connection"
    assert mopo["published"]["mean"] == 2530.9
    result = publish_paper_table(tmp_path, table, list(actual.values()), ["a remark"])
    markdown = (tmp_path / "mopo-2.md").read_text()
    assert "missing" in markdown and "1. no connection\n" in markdown and "- a remark\n" in markdown
    (row,) = [r for r in csv.DictReader((tmp_path / "mopo-2.csv").open()) if r["row"] == "MOPO"]
    assert (row["missing"], row["published_mean"]) == ("no connection", "2530.9")
    assert {Path(path).name for path in result["outputs"].values()} == {
        f"mopo-2.{kind}" for kind in ("md", "csv", "json", "png")
    }


def test_rows_with_the_same_policies_say_so(tmp_path: Path) -> None:
    returns = {"MOPO": [(1.0, 3.0)], "MOPO, no pen.": [(1.0, 3.0)], "MBPO": [(1.0, 3.0)]}
    ours = part(tmp_path, "mopo-3", "halfcheetah-jump", returns)
    fetched(ours.run, "halfcheetah-jump")
    place = ours.run.ablation_dir("mopo-3") / "table.json"
    records = json.loads(place.read_text())
    records["cells"][2]["policies"] = records["cells"][1]["policies"]
    write_json(place, records)
    result = lines("mopo-3", ours)
    said = {row: [n for n in line["notes"] if "so are the policies" in n] for (_, row), line in result.items()}
    assert said["MBPO"] == ["the settings are those of MOPO, no pen., and so are the policies"]
    assert said["MOPO"] == said["MOPO, no pen."] == []  # equal returns alone say nothing


def test_a_search_has_the_published_number_beside_the_paper_s_pair_only(tmp_path: Path) -> None:
    pairs = {f"h {h}, lam {lam}": [(1.0, 2.0)] for h in (1, 5) for lam in (1, 5)}
    ours = part(tmp_path, "mopo-h-lam", "hopper-medium-replay-v0", pairs)
    fetched(ours.run, "hopper-medium-replay-v0", (0.0, 100.0))
    result = {row: line for (_, row), line in lines("mopo-h-lam", ours).items()}
    assert set(result) == set(pairs)  # the pairs searched for other data sets are none of its
    printed = {row: line["published"] and line["published"]["mean"] for row, line in result.items()}
    assert printed == {"h 1, lam 1": None, "h 1, lam 5": None, "h 5, lam 1": 67.5, "h 5, lam 5": None}
    assert result["h 5, lam 1"]["notes"] == ["the pair of the final version of the paper"]
    assert result["h 1, lam 5"]["notes"] == ["the pair of the first version of the paper"]


def test_the_count_that_the_paper_prints_is_counted(tmp_path: Path) -> None:
    table = load_table("mopo-real-ratio")
    # Better and within one standard deviation (10); better by more; worse and within; worse by more.
    with_, means = [(90.0,), (110.0,)], {"hopper": 105.0, "walker2d": 150.0, "halfcheetah": 95.0}
    parts = []
    for body, mean in means.items():
        name = f"{body}-medium-v0"
        returns = {"MBPO, 5 % real data": with_, "MBPO, no real data": [(mean,)] * 2}
        parts.append(part(tmp_path, "mopo-real-ratio", name, returns))
        fetched(parts[-1].run, name, (0.0, 100.0))
    result = table_lines(table, parts)
    remarks = publish_paper_table(tmp_path, table, result, [])["remarks"]
    assert "on 2 of 3 data sets here, and lies within one standard deviation of it on 2;" in remarks[0]
    assert "6 of 12 data sets" in remarks[0] and "on 9" in remarks[0]
