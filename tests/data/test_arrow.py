"""How CSV and Parquet files are opened."""

import gzip
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from mopo_cli.data.files import parquet_tables
from mopo_cli.data.files.layout import Wanted
from mopo_cli.data.files.layouts import open_log
from mopo_cli.errors import InputError


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "parquet"])
def test_no_file_of_pythons_is_left_to_threads_that_may_outlive_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    opened: list[Any] = []

    def noting(function: Any) -> Any:
        return lambda file, *rest, **more: (opened.append(file), function(file, *rest, **more))[1]

    for module, name in (
        (csv, "open_csv"),
        (csv, "read_csv"),
        (parquet, "read_metadata"),
        (parquet, "read_schema"),
        (parquet, "ParquetFile"),
    ):
        monkeypatch.setattr(module, name, noting(getattr(module, name)))
    path = tmp_path / f"t\udcff.{kind}"  # also under a name that is not UTF-8
    with pa.OSFile(os.fsencode(path), "wb") as file:
        table = pa.table({"a": [1.0, 2.0], "b": ["x", "y"]})
        parquet.write_table(table, file) if kind == "parquet" else csv.write_csv(table, file)
    if kind == "csv.gz":
        path.write_bytes(gzip.compress(path.read_bytes()))
    assert open_log([path]).names == ["a", "b"]
    assert open_log([path]).read(Wanted(["a"], ["b"]))["a"].tolist() == [1.0, 2.0]
    assert len(opened) >= 3 and all(isinstance(file, pa.OSFile | pa.CompressedInputStream) for file in opened)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("before", ["", "\ufeff", "\n\n", "\ufeff\n"])
def test_a_heading_of_many_bytes_is_found(tmp_path: Path, before: str, end: str) -> None:
    names = [f"column_{i:090d}" for i in range(10_000)]
    path = tmp_path / "t.csv"
    path.write_text(before + ";".join(names) + end + ";".join(["1"] * 10_000) + end, newline="")
    assert path.stat().st_size > 900_000
    assert open_log([path]).names == names


def test_a_name_may_go_on_in_the_next_line(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('"temp\nin C",flow\n1,2\n')
    assert open_log([path]).names == ["temp\nin C", "flow"]
    assert open_log([path]).read(Wanted(["temp\nin C"], []))["temp\nin C"].tolist() == [1]


def test_rows_of_many_parts_come_in_order(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    table = pa.table({"a": list(range(200_000)), "b": [str(i // 1000) for i in range(200_000)]})
    parquet.write_table(table, path, row_group_size=30_000)
    columns = open_log([path]).read(Wanted(["a"], ["b"]))
    assert columns["a"].tolist() == list(range(200_000))
    assert columns["b"].tolist() == [i // 1000 for i in range(200_000)]
    parquet.write_table(table[:0], path)
    assert {name: len(column) for name, column in open_log([path]).read(Wanted(["a"], ["b"])).items()} == {
        "a": 0,
        "b": 0,
    }


def test_text_that_grows_is_refused_before_all_of_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_tables, "_written_out", lambda *_: pytest.fail("it was read"))
    path = tmp_path / "t.parquet"
    long = pa.table({"a": ["x" * 30_000 + str(i) for i in range(4000)], "b": [0.0] * 4000})
    parquet.write_table(long, path, compression="zstd", use_dictionary=False)
    assert path.stat().st_size < 1_000_000
    for numbers, labels in ((["b"], ["a"]), (["a", "b"], [])):
        with pytest.raises(InputError, match=r"declares .* bytes of columns"):
            open_log([path]).read(Wanted(numbers, labels))
