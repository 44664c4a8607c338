"""A ranking of many criteria: all of them in the files, as many as there is room for on the terminal."""

from pathlib import Path
from typing import Any

import pytest

from mopo_cli.report.console import Report
from mopo_cli.report.ranking_table import show_ranking, write_ranking

NAMES = [f"c{n}" for n in range(9)]
WORTH = {"meaning": "m", "best": "highest", "chooses": "a", "spearman": None, "regret": None}
CELL = {"cell": "a", "rank": 1, "return": 7.0, "diverged": [], "values": dict.fromkeys(NAMES, 3.0)}
RESULT: dict[str, Any] = {
    **{"table": "grid", "dataset": "d", "by": "c8", "criteria": dict.fromkeys(NAMES, WORTH), "compared": 1},
    **{"cells": [CELL | {"per_seed": {"0": CELL["values"]}, "trained_in_this_model": True}], "chosen": None},
}


def test_a_terminal_shows_the_first_criteria_and_the_files_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show_ranking(RESULT, Report("human"))
    (heading, *_) = [line.split() for line in capsys.readouterr().err.splitlines() if "rank" in line]
    assert [word for word in heading if word in NAMES] == ["c8", "c0", "c1", "c2", "c3", "c4"], "the deciding one first"
    write_ranking(tmp_path / "r.md", tmp_path / "r.csv", RESULT, {"a": {"0": {"last": 7.0}}})
    columns = (tmp_path / "r.md").read_text().splitlines()[2]
    assert [word for word in columns.split() if word in NAMES] == ["c8", *NAMES[:-1]]
    assert (tmp_path / "r.csv").read_text().splitlines()[0].split(",")[3:] == ["c8", *NAMES[:-1]]
