"""CSV as people have it: without heading, in other encodings, with decimal commas, with text among the numbers."""

import gzip
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from data.test_layouts import load

from mopo_cli.data.files.layout import Wanted
from mopo_cli.data.files.layouts import open_log
from mopo_cli.data.files.log_files import log_files
from mopo_cli.errors import CorruptError, InputError


def write(folder: Path, content: str | bytes, name: str = "my.csv") -> Path:
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder / name


def test_steps_may_have_decimal_commas(tmp_path: Path) -> None:
    path = write(tmp_path, "e;t;x;a;r\nA;0,2;3;0,3;1\nA;0,1;2;0,2;1\nA;0,0;1;0,1;1\nA;0,3;4;0,4;1\n")
    data, _ = load(path, "obs=x,action=a,reward=r,step=t,episode=e")
    assert data.observations[:, 0].tolist() == [1, 2, 3]


def test_a_time_that_is_none_is_named(tmp_path: Path) -> None:
    times = [*(f"01.03.2024 06:{m:02}" for m in range(6)), "gestern"]
    path = write(tmp_path, "t,x,a,r\n" + "".join(f"{t},{i},0.{i},1\n" for i, t in enumerate(times)))
    with pytest.raises(InputError, match="column t, row 6: 'gestern' is not a time such as 2024-03-01 06:00 or"):
        load(path, "obs=x,action=a,reward=r,step=t")


def test_a_label_that_is_nan_is_empty(tmp_path: Path) -> None:
    path = write(tmp_path, "e,x,a,r\nA,1,0.1,1\nA,2,0.2,1\nnan,3,0.3,1\nB,4,0.4,1\n")
    with pytest.raises(InputError, match=r"column e, row 2: the cell is empty"):
        load(path, "obs=x,action=a,reward=r,episode=e")


def test_a_heading_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"my\.csv has no rows"):
        load(write(tmp_path, "x,a,r\n"), "obs=x,action=a,reward=r")


def test_a_file_without_heading_and_without_a_map_is_refused_with_its_positions(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the file holds 0, 1, 2 \(no heading: columns are called 0, 1, \.\.\.\)\."):
        load(write(tmp_path, "0.5,-1,true\n1.5,2,false\n"))


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("0.5,nan,-1e-3,True\n", ["0", "1", "2", "3"]),
        ('"0.5";" 1,5";1.234,5\n', ["0", "1", "2"]),
        ("\n\n0.5\t1\n", ["0", "1"]),
        ("0,1,2\n0.5,1,2\n", ["0", "1", "2"]),
        ("a,1,2\n0.5,1,2\n", ["a", "1", "2"]),
        (",1,2\n0.5,1,2\n", ["", "1", "2"]),
        ("true,false\n1,0\n", ["true", "false"]),
        ("0.5,2019-01-01\n", ["0.5", "2019-01-01"]),
    ],
)
def test_a_first_row_of_numbers_is_data(tmp_path: Path, content: str, names: list[str]) -> None:
    assert open_log([write(tmp_path, content)]).names == names


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("# my log\n# of 2024, mine\nx,a,r\n1,2,3\n", r"\('# my log'\) has 1 cell, but a later one has 3\."),
        ("Log\n# of 2024\n# mine\nx,a,r\n1,2,3\n", r"\('Log'\) has 1 cell, but a later one has 3\."),
        ("sep=;\nx;a;r\n1;2;3\n", r"\('sep=;'\) has 2 cells, but a later one has 3\."),
        ("x,a,r\n1,2,3,\n", r"\('x,a,r'\) has 3 cells, but a later one has 4\."),
    ],
)
def test_a_first_line_that_is_no_heading_is_named(tmp_path: Path, content: str, said: str) -> None:
    with pytest.raises(InputError, match=rf"my\.csv: the first line {said} It must be the heading, as long as"):
        open_log([write(tmp_path, content)])


@pytest.mark.parametrize(("first", "second"), [("x|a|r", "1|2|3"), ("0.5 1.5 2e-3", "0.5 1.5 2e-3")])
def test_a_file_of_one_column_is_no_log(tmp_path: Path, first: str, second: str) -> None:
    with pytest.raises(InputError, match=rf"my\.csv has only one column \('{re.escape(first)}'\), and a log has more"):
        open_log([write(tmp_path, f"{first}\n{second}\n")])


@pytest.mark.parametrize("mark", ["# ", "#", " # "])
def test_a_heading_may_be_a_comment(tmp_path: Path, mark: str) -> None:
    rows = "0,1,0.1,1\n0,2,-0.2,1\n0,3,0.3,1\n1,4,0.4,1\n1,5,0.5,1\n"
    data, _ = load(write(tmp_path, f"{mark}episode,obs_0,action_0,reward\n{rows}"))
    assert data.observations[:, 0].tolist() == [1, 2, 4] and data.timeouts.tolist() == [False, True, True]


@pytest.mark.parametrize("name", ["#", "# of steps", "a#b"])
def test_a_name_may_hold_a_number_sign(tmp_path: Path, name: str) -> None:
    log = open_log([write(tmp_path, f"{name},#2\n3,4\n")])
    assert log.names == [name, "#2"] and log.read(Wanted([name, "#2"]))[name].tolist() == [3]


def test_names_in_a_tsv_may_hold_commas(tmp_path: Path) -> None:
    content = "Temp, dry, in C\tFlow, in l\n1\t2\n"
    assert open_log([write(tmp_path, content, "my.tsv")]).names == ["Temp, dry, in C", "Flow, in l"]


def test_the_first_row_of_a_file_without_heading_is_read(tmp_path: Path) -> None:
    rows = open_log([write(tmp_path, "5,0.5\n6,1.5\n")]).read(Wanted(["0", "1"], []))
    assert rows["0"].tolist() == [5, 6] and rows["1"].tolist() == [0.5, 1.5]
    headed = open_log([write(tmp_path, "0,1\n6,1.5\n")])
    assert (
        headed.read(Wanted(["0"], []))["0"].tolist() == [6] and headed.note == "the first row, 0 to 1, is the heading"
    )


def test_files_with_and_without_heading_do_not_go_together(tmp_path: Path) -> None:
    write(tmp_path, "a,b\n1,2\n", "w0.csv")
    write(tmp_path, "1,2\n3,4\n", "w1.csv")
    with pytest.raises(InputError, match=r"w1\.csv has no column of w0\.csv: 0, 1, not a, b\."):
        open_log(log_files(tmp_path))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "latin-1", "utf-16", "utf-32"])
def test_names_and_labels_in_every_encoding(tmp_path: Path, encoding: str) -> None:
    log = open_log([write(tmp_path, "Temp (°C);Größe\n1;Ä\n2;ü\n".encode(encoding))])
    assert log.names == ["Temp (°C)", "Größe"]
    rows = log.read(Wanted(["Temp (°C)"], ["Größe"]))
    assert rows["Temp (°C)"].tolist() == [1, 2] and rows["Größe"].tolist() == [0, 1]
    notes = {"cp1252": "read as cp1252", "latin-1": "read as cp1252", "utf-16": "read as UTF-16"}
    assert log.note == notes.get(encoding, "read as UTF-32" if encoding == "utf-32" else "")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"x,y\n1,\x81\n", "my.csv holds bytes that are not text in UTF-8 or cp1252."),
        ("x,y\n1,2\n".encode("utf-16-le"), "my.csv holds NUL characters: it is no text, or UTF-16 without"),
        ("x,y\n1,2\n".encode("utf-16")[:-1], "my.csv holds bytes that are not text in UTF-16."),
    ],
)
def test_what_is_no_text_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(InputError) as caught:
        open_log([write(tmp_path, content)])
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize("cut", [20, -5, -1])
def test_a_gzip_file_that_is_cut_off_is_damaged(tmp_path: Path, cut: int) -> None:
    text = "obs_0,action_0,reward\n" + "".join(f"{i},0.{i},1\n" for i in range(50))
    path = write(tmp_path, gzip.compress(text.encode())[:cut], "t.csv.gz")
    with pytest.raises(CorruptError, match=r"t\.csv\.gz is not a gzip file, is truncated or is damaged"):
        load(path)


def cells(folder: Path, *columns: str, separator: str = ";") -> dict[str, list[float]]:
    """Columns a, b, ... with the cells in the words of a text, read as numbers."""
    names = [chr(ord("a") + i) for i in range(len(columns))]
    rows = zip(*(column.split() for column in columns), strict=True)
    text = "\n".join([separator.join([*names, "label"]), *(separator.join([*row, "x"]) for row in rows)])
    read = open_log([write(folder, text, "my.tsv" if separator == "\t" else "my.csv")]).read(Wanted(names, []))
    return {name: read[name].tolist() for name in names}


@pytest.mark.parametrize("separator", [";", "\t"])
@pytest.mark.parametrize(
    ("column", "numbers"),
    [
        ("60,000 60,101 7,250", [60, 60.101, 7.25]),
        ("0,5 7 -,25 +1e3 1,5E-2", [0.5, 7, -0.25, 1000, 0.015]),
        ("1.234,5 12,5 1.234.567 1.000 3", [1234.5, 12.5, 1234567, 1000, 3]),
        ("1.234.567 204.196 7", [1234567, 204196, 7]),
        ("1.234 204.196", [1.234, 204.196]),
        ("0.5 1e3 7", [0.5, 1000, 7]),
    ],
)
def test_decimal_commas(tmp_path: Path, column: str, numbers: list[float], separator: str) -> None:
    assert cells(tmp_path, column, separator=separator)["a"] == numbers


def test_what_one_column_proves_holds_for_the_others(tmp_path: Path) -> None:
    assert cells(tmp_path, "1,234 987 5", "0,5 0,25 1")["a"] == [1.234, 987, 5]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["0,5 1,5 2.5"], "column a, row 2: '2.5' has no decimal comma, but '0,5' in row 0 has one. Write all"),
        (["0,5 1,234,567"], "column a, row 1: '1,234,567' has no decimal comma, but '0,5' in row 0 has one."),
        (["7 0,5 1,234.5"], "column a, row 2: '1,234.5' has no decimal comma, but '0,5' in row 1 has one."),
        (["0,5 1.234"], "column a, row 1: '1.234' may be 1234 or 1.234, as there are decimal commas in this table."),
        (["5 204.196", "0,5 1,5"], "column a, row 1: '204.196' may be 204196 or 204.196, as there are decimal commas"),
        (["987 1,234"], "column a, row 1: '1,234' may be 1234 or 1.234, as other cells have no comma. Write numbers"),
        (["1,234 5,678", "0.5 7"], "column a, row 0: '1,234' may be 1234 or 1.234, as there are decimal points in"),
        (["1,234.5 7"], "column a, row 0: '1,234.5' is not a number. Write numbers with a decimal point and without"),
        (["0,5 € 7"], "column a, row 1: '€' is not a number."),
    ],
)
def test_commas_that_may_mean_two_things_are_refused(tmp_path: Path, columns: list[str], message: str) -> None:
    with pytest.raises(InputError) as caught:
        cells(tmp_path, *columns)
    assert caught.value.message.startswith(f"my.csv: {message}")


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (
            "F,M",
            "column x holds text ('F' in row 0), not numbers; categories: one column per value, --columns obs=x:on",
        ),
        ("€ 3.5,€ 4", "column x holds numbers with a unit ('€ 3.5' in row 0): write the numbers alone."),
        (
            "2130-01-01 00:00:00,x",
            "column x holds time stamps ('2130-01-01 00:00:00' in row 0): give a number, or leave",
        ),
        ("06:00,07:00", "column x holds time stamps ('06:00' in row 0): give a number, or leave the column out."),
        ("3,n/a", "column x, row 1: 'n/a' is not a number. Remove or repair this episode, or say with --missing"),
    ],
)
def test_columns_that_are_no_numbers(tmp_path: Path, column: str, message: str) -> None:
    path = write(tmp_path, "x,a,r\n" + "".join(f"{cell},0.5,1\n" for cell in column.split(",")))
    with pytest.raises(InputError) as caught:
        load(path, "obs=x,action=a,reward=r")
    assert caught.value.message.startswith(f"my.csv: {message}")
    with pytest.raises(InputError) as caught:
        load(path, "obs=r,action=a,reward=x")
    assert "onehot" not in caught.value.message


@pytest.mark.parametrize(
    ("first", "cell", "said"),
    [
        ("4%", "5%", r" holds numbers with a unit \('4%' in row 0\): write the numbers alone\."),
        ("$0.5", "$5", r" holds numbers with a unit \('\$0\.5' in row 0\): write the numbers alone\."),
        ("1 bar", "2 bar", r" holds numbers with a unit \('1 bar' in row 0\): write the numbers alone\."),
        ("m/s", "5", r", row 0: 'm/s' is not a number\. Delete this row if it holds units, else repair its episode\."),
        ("5", "x", r", row 1: 'x' is not a number\. Remove or repair this episode\."),
        ("5", "\u22125", r", row 1: '\u22125' has the minus sign U\+2212\. Write it as the hyphen -\."),
        ("\u22125", "\u22126", r", row 0: '\u22125' has the minus sign U\+2212\. Write it as the hyphen -\."),
        ("5th", "6th", r" holds text \('5th' in row 0\), not numbers; categories: one column per value"),
    ],
)
def test_what_is_said_of_a_cell_that_is_no_number(tmp_path: Path, first: str, cell: str, said: str) -> None:
    rows = f"{first},0.1,1\n{cell},0.2,1\n"
    with pytest.raises(InputError, match=f"^my.csv: column x{said}"):
        load(write(tmp_path, f"x,a,r\n{rows}"), "obs=x,action=a,reward=r")


def test_slashes_are_read_as_the_dates_allow_and_refused_where_they_allow_both(tmp_path: Path) -> None:
    def steps(days: Sequence[str]) -> list[float]:
        path = write(tmp_path, "t,x,a,r\n" + "".join(f"{day},{i},0.{i},1\n" for i, day in enumerate(days)))
        data, _ = load(path, "obs=x,action=a,reward=r,step=t")
        return data.observations[:, 0].tolist()

    assert steps(["03/13/2024", "03/12/2024", "03/11/2024"]) == [2, 1]
    assert steps(["13/03/2024", "12/03/2024", "12/02/2024"])[0] == 2
    with pytest.raises(InputError, match="column t, row 0: '03/04/2024' could be month/day/year or day/month/year"):
        steps(["03/04/2024", "03/05/2024", "03/06/2024"])
    with pytest.raises(InputError, match="column t, row 2: '25/25/2024' is not a time such as"):
        steps(["03/04/2024", "03/04/2024", "25/25/2024"])


@pytest.mark.parametrize("cell", ["[0.5, -1.25]", "[ 0.5 -1.25]", "(1, 2)", "[1e-3 2.]", "[-0.5\n 1.5]"])
def test_lists_as_text_are_named(tmp_path: Path, cell: str) -> None:
    log = open_log([write(tmp_path, f'obs,a,r\n"{cell}",1,2\n"{cell}",1,2\n')])
    with pytest.raises(InputError, match=r"column obs holds lists as text .* write a column for each number"):
        log.read(Wanted(["obs"]))
