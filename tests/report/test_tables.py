import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mopo_cli.report.tables import format_mean_std, format_number, format_range, markdown_table, write_csv


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (3.0, "3"),
        (0.051234, "0.0512"),
        (-9.876, "-9.88"),
        (53.849, "53.8"),
        (6405.84, "6405.8"),
        (1e20, "1e+20"),
        (1e-9, "1e-09"),
        (float("nan"), "nan"),
        (-float("inf"), "-inf"),
        (1234567, "1234567"),
        (np.float32(12.25), "12.2"),
        (np.int64(7), "7"),
    ],
)
def test_numbers(value: Any, text: str) -> None:
    assert format_number(value) == text


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (1703151936.0, 1703152000.5, "1,703,151,936.0 to 1,703,152,000.5"),
        (1242791.25, 2679522.5, "1,242,791 to 2,679,522"),
        (0.00011325, 2.104, "0.00 to 2.10"),
        (-0.0001, 2.104, "0.00 to 2.10"),
        (2.2634e-6, 3.2451e-6, "2.26e-06 to 3.25e-06"),
        (1e-6, 1.0000021e-6, "1e-06 to 1.0000021e-06"),
        (0.0, 3.0, "0 to 3"),
        (7.0, 7.0, "7"),
        (0.0, 0.0, "0"),
        (float(np.float32(0.1)), float(np.float32(0.1)), "0.1"),
        (1e300, 2e300, "1e+300 to 2e+300"),
    ],
)
def test_the_ends_of_a_range_differ(low: float, high: float, text: str) -> None:
    assert format_range(low, high) == text


def test_mean_and_spread() -> None:
    assert format_mean_std(53.14, 2.04) == "53.1 ± 2.0"
    assert format_mean_std(0.12345, 0.5, digits=3) == "0.123 ± 0.500"
    assert format_mean_std(4.0, None) == "4.0"
    assert format_mean_std(4.0, float("nan")) == "4.0"
    assert format_mean_std(4.0, 0.0, seeds=1) == "4.0"
    assert format_mean_std(4.0, 0.0, seeds=2) == "4.0 ± 0.0"


def test_a_markdown_table_exactly() -> None:
    table = markdown_table(["policy", "λ", "return"], [["max-var", 1.0, 1234.56], ["none", None, np.float32(7.5)]])
    assert table == (
        "| policy  |   λ | return |\n"
        "| ------- | --: | -----: |\n"
        "| max-var |   1 | 1234.6 |\n"
        "| none    |     |    7.5 |\n"
    )


def test_a_cell_cannot_break_the_table() -> None:
    lines = markdown_table(["a|b", "c"], [["x | y\nz", True]]).splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("| a\\|b")
    assert lines[2].startswith("| x \\| y z | yes")


def test_a_table_without_rows_has_its_header() -> None:
    assert markdown_table(["a"], []).splitlines() == ["|   a |", "| --: |"]


def test_csv_keeps_full_precision_and_awkward_text(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    rows = [["a,b", 0.1 + 0.2, None], ['say "λ"', np.float64(1 / 3), 3], ["x", np.float32(0.1), True]]
    write_csv(path, ["name", "value", "n"], rows)
    with path.open(encoding="utf-8", newline="") as file:
        read = list(csv.reader(file))
    assert read[0] == ["name", "value", "n"]
    assert [row[0] for row in read[1:]] == ["a,b", 'say "λ"', "x"]
    assert [float(row[1]) for row in read[1:3]] == [0.1 + 0.2, 1 / 3]
    assert np.float32(read[3][1]) == np.float32(0.1)
    assert [row[2] for row in read[1:]] == ["", "3", "True"]
    assert b"\r" not in path.read_bytes()


def test_ragged_rows_are_refused_and_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    write_csv(path, ["a", "b"], [[1, 2]])
    before = path.read_bytes()
    with pytest.raises(ValueError):
        write_csv(path, ["a", "b"], [[3, 4], [5]])
    with pytest.raises(ValueError):
        markdown_table(["a", "b"], [[1, 2, 3]])
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["table.csv"]
