"""Returns that were measured elsewhere, from a CSV file."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mopo_cli.data.measured import read_measured
from mopo_cli.errors import InputError

SEEDS = ("0", "3", "9223372036854775807")


def table(columns: dict[str, list[Any]], delimiter: str = ",") -> str:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue()


@st.composite
def tables(draw: Any) -> dict[str, list[Any]]:
    """Rows of some seeds, each with as many episodes, in any order."""
    seeds = draw(st.lists(st.sampled_from(SEEDS), min_size=1, unique=True))
    numbers = draw(st.lists(st.integers(0, 10**18 - 1), min_size=1, max_size=6, unique=True))
    rows = draw(st.permutations([(seed, number) for seed in seeds for number in numbers]))
    floats = st.floats(allow_nan=False, allow_infinity=False)
    returns = draw(st.lists(floats, min_size=len(rows), max_size=len(rows)))
    lengths = draw(st.lists(st.integers(1, 10**6), min_size=len(rows), max_size=len(rows)))
    columns = {"seed": [seed for seed, _ in rows], "episode": [number for _, number in rows], "return": returns}
    columns |= {"length": lengths} if draw(st.booleans()) else {}
    return {name: columns[name] for name in draw(st.permutations(list(columns)))}


@given(columns=tables())
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, columns: dict[str, list[Any]]) -> None:
    path = tmp_path_factory.mktemp("measured") / "returns.csv"
    path.write_text(table(columns))
    measured = read_measured(path, "mopo", SEEDS)
    assert list(measured.returns) == [seed for seed in SEEDS if seed in columns["seed"]]
    assert (measured.lengths is None) == ("length" not in columns)
    lengths = columns.get("length", [None] * len(columns["seed"]))
    rows = zip(columns["seed"], columns["episode"], columns["return"], lengths, strict=True)
    expected = {(seed, number): (value, length) for seed, number, value, length in rows}
    again: dict[tuple[str, int], tuple[float, int | None]] = {}
    for seed, values in measured.returns.items():
        numbers = measured.episodes[seed].tolist()
        assert numbers == sorted(numbers)
        steps = [None] * len(numbers) if measured.lengths is None else measured.lengths[seed].tolist()
        for number, value, length in zip(numbers, values.tolist(), steps, strict=True):
            again[seed, number] = (value, length)
    assert again == expected


def test_rows_without_seed_and_episode_are_of_the_only_seed_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "returns.csv"
    path.write_text("return\n3.5\n-1\n2e3\n")
    measured = read_measured(path, "mopo", ["7"])
    assert measured.returns["7"].tolist() == [3.5, -1.0, 2000.0] and measured.returns["7"].dtype == np.float64
    assert measured.episodes["7"].tolist() == [0, 1, 2] and measured.lengths is None


def test_decimal_commas_as_a_spreadsheet_writes_them(tmp_path: Path) -> None:
    path = tmp_path / "returns.csv"
    path.write_bytes("\ufeffseed;return\r\n3;12,5\r\n0;-0,25\r\n".encode())
    measured = read_measured(path, "mopo", SEEDS)
    assert {seed: values.tolist() for seed, values in measured.returns.items()} == {"0": [-0.25], "3": [12.5]}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("return,seed\n", "holds no returns: it has a heading and no rows."),
        ("", "cannot be read as CSV"),
        ("Return,seed\n1,0\n", "unknown column 'Return': the heading names return and, if you have them, seed, ep"),
        ("1.5,0\n2.5,0\n", "unknown column '0'"),
        ("seed,episode\n0,0\n", "has no column return: the heading names return"),
        ("return,return\n1,2\n", "two columns 'return'"),
        ("return\n1\n", "does not say which seed was measured, and the policy mopo has the seeds 0, 3, "),
        ("return,seed\n1,0\n1,4\n", "column seed, row 1: '4' is no seed of the policy mopo, which has 0, 3, "),
        ("return,seed\n1,\n", "column seed, row 0: '' is no seed"),
        ("return,seed\n1,0\n,0\n", "column return, row 1: the return is missing or not finite"),
        ("return,seed\n1,0\ninf,0\n", "column return, row 1: the return is missing or not finite"),
        ("return,seed\n1,0\n1e999,0\n", "column return, row 1: the return is missing or not finite"),
        ("return,seed\n1,0\nmany,0\n", "column return, row 1: 'many' is not a number"),
        ("return,seed\n1,0\n2,0\n3,3\n", "has 2 episodes of seed 0, but 1 of seed 3: all seeds need as many"),
        ("return,seed,episode\n1,0,2\n1,3,2\n1,0,2\n1,3,1\n", "column episode, row 2: episode 2 of seed 0 is there tw"),
        ("return,seed,episode\n1,0,1.0\n", "column episode, row 0: '1.0' is not a whole number from 0 upwards"),
        ("return,seed,episode\n1,0,-1\n", "column episode, row 0: '-1' is not a whole number from 0 upwards"),
        ("return,seed,length\n1,0,0\n", "column length, row 0: '0' is not a whole number from 1 upwards"),
        ("return,seed,length\n1,0," + "9" * 30 + "\n", "is not a whole number from 1 upwards"),
        ("return,seed\n1\n", "cannot be read as CSV: .*Expected 2 columns"),
    ],
)
def test_faults_are_named(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "returns.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=says) as fault:
        read_measured(path, "mopo", SEEDS)
    assert fault.value.message.startswith("returns.csv") and "\n" not in fault.value.message
