"""CSV: the columns under a heading, or by position, read by pyarrow without a guess at what they hold."""

import csv as plain_csv
import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from mopo_cli.data.files.arrow import arrow_errors, once_each, opened, refuse_many, values_of
from mopo_cli.data.files.arrow_times import times_of
from mopo_cli.data.files.arrow_values import NUMBER, SHOWN, numbers_of
from mopo_cli.data.files.decimal_commas import COMMA_NUMBER, in_words, signs_of, with_points
from mopo_cli.data.files.layout import Columns, Log, Wanted
from mopo_cli.data.files.text_files import UTF8, as_utf8, blocks, is_gzipped, text_encoding
from mopo_cli.errors import InputError
from mopo_cli.store.columns import check_room

_SEPARATORS = ",;\t"  # in doubt the first
_HEADING_BYTES = 1 << 20
_FIRST_ROWS = 10  # below titles and comments, there is the heading by then
_WORDS = ("true", "false", "nan", "inf", "-inf")


@dataclass(frozen=True)
class _Csv:
    """How a file is written. ``positions``: the names of columns that have no heading, None where they have one."""

    path: Path
    encoding: str
    size: int
    separator: str
    positions: list[str] | None
    note: str

    def options(self) -> dict[str, Any]:
        from pyarrow import csv

        return {
            "read_options": csv.ReadOptions(use_threads=False, column_names=self.positions),
            "parse_options": csv.ParseOptions(delimiter=self.separator, newlines_in_values=True),
        }

    @contextmanager
    def text(self) -> Iterator[Any]:
        """The file as UTF-8, unpacked, as pyarrow reads it."""
        import pyarrow as pa

        if self.encoding != UTF8:
            check_room(self.path, 2 * self.size)
            content = as_utf8(self.path, self.encoding)
            with arrow_errors(self.path, "CSV", InputError):
                yield pa.BufferReader(content)
            return
        with opened(self.path, "CSV", InputError) as file:
            if is_gzipped(self.path):
                with pa.CompressedInputStream(file, "gzip") as unpacked:
                    yield unpacked
            else:
                yield file


def open_csv(path: Path) -> Log:
    """The columns of a CSV or TSV file, which may be gzipped; their names are without the space around them.

    Reading raises UnusableData with the first bad cell of every column that has one; InputError for a column that is
    missing or there twice, and for what is no text or no CSV; CorruptError for a damaged gzip file.
    """
    file = _examine(path)
    heading = file.positions or _heading(file)
    names = _names(heading)
    remarks: list[str] = []

    def read(wanted: Wanted) -> Columns:
        places = once_each(path, names, wanted.names)
        return _read(file, heading, {name: heading[names.index(name)] for name in places}, wanted, remarks)

    return Log(names, read, is_table=True, note=file.note, remarks=remarks)


def _heading(file: _Csv) -> list[str]:
    from pyarrow import csv

    with file.text() as text, csv.open_csv(text, **file.options()) as reader:
        return [str(name) for name in reader.schema.names]


def _names(heading: list[str]) -> list[str]:
    """The names in a heading, also where it is a comment, as numpy.savetxt writes it: # obs_0,obs_1."""
    first, *others = (name.strip() for name in heading)
    return [re.sub(r"^#\s*(?=\S+$)", "", first), *others]


def _read(file: _Csv, heading: list[str], written: Mapping[str, str], wanted: Wanted, remarks: list[str]) -> Columns:
    """What is wanted of the columns that are ``written`` so in the heading, by name."""
    import pyarrow as pa
    from pyarrow import csv

    # As text, so that a cell that will not do can be shown.
    convert = csv.ConvertOptions(
        include_columns=list(written.values()),
        column_types=dict.fromkeys(written.values(), pa.string()),
        strings_can_be_null=False,
    )
    check_room(file.path, file.size * len(written) // len(heading))
    with file.text() as text:
        table = csv.read_csv(text, convert_options=convert, **file.options())
    columns = {name: table[column] for name, column in written.items()}
    if file.separator == ",":
        return values_of(file.path, columns, wanted)
    signs = signs_of(columns[name] for name in (*wanted.numbers, *wanted.times))
    rewritten: list[str] = []

    def convert_commas(name: str, column: Any) -> NDArray[Any]:
        if (pointed := with_points(column, signs, wanted.missing)) is not column:
            rewritten.append(name)
        return times_of(pointed) if name in wanted.times else numbers_of(pointed, wanted.missing)

    values = values_of(file.path, columns, wanted, convert_commas)
    remarks[:] = in_words({name: columns[name] for name in rewritten})
    return values


def _examine(path: Path) -> _Csv:
    """How the file is written, by its first row. InputError where that is no heading of a log."""
    encoding, size = text_encoding(path)
    block = b""
    for part in blocks(path):
        block += part
        if len(block) >= _HEADING_BYTES:
            break
    start = block[:_HEADING_BYTES].decode(encoding, errors="replace").removeprefix("\ufeff").lstrip("\r\n")
    first_line, *others = re.split(r"\r\n|\r|\n", start, maxsplit=1)
    if not others and size > _HEADING_BYTES:
        raise InputError(f"{path.name} has no header line: its first line is longer than {_HEADING_BYTES:,} bytes.")
    separator = next((each for each in _SEPARATORS if _are_numbers(first_line, each)), None)
    is_headed = separator is None
    if separator is None:
        is_tsv = ".tsv" in path.name.lower() and "\t" in first_line
        separator = "\t" if is_tsv else max(_SEPARATORS, key=first_line.count)
    with arrow_errors(path, "CSV", InputError):
        # Not only the first line, as a quoted name may go on in the next one.
        rows = list(
            islice(filter(None, plain_csv.reader(io.StringIO(start, newline=""), delimiter=separator)), _FIRST_ROWS)
        )
    row = rows[0] if rows else []
    if len(row) < (longest := max(map(len, rows), default=0)):
        raise InputError(
            f"{path.name}: the first line ({first_line.strip()[:SHOWN]!r}) has {len(row)} cell{'s' * (len(row) > 1)}, "
            f"but a later one has {longest}. It must be the heading, as long as the other lines."
        )
    refuse_many(path, len(row))
    notes = [f"read as {encoding.upper() if encoding != 'cp1252' else encoding}"] if encoding != UTF8 else []
    positions = [str(i) for i in range(len(row))]
    if not is_headed and [cell.strip() for cell in row] == positions:  # as pandas writes columns without names
        is_headed = True
        notes.append(f"the first row, 0 to {len(row) - 1}, is the heading")
    elif not is_headed:
        notes.append("no heading: columns are called 0, 1, ...")
    return _Csv(path, encoding, size, separator, None if is_headed else positions, "; ".join(notes))


def _are_numbers(line: str, separator: str) -> bool:
    """Whether the cells of a first line are all numbers, so that it is no heading; some may be true or false."""
    pattern = NUMBER if separator == "," else f"{NUMBER}|{COMMA_NUMBER}"
    cells = [cell.strip().removeprefix('"').removesuffix('"').strip() for cell in line.split(separator)]
    are_numbers = [re.fullmatch(pattern, cell) is not None for cell in cells]
    pairs = zip(are_numbers, cells, strict=True)
    return len(cells) > 1 and any(are_numbers) and all(is_one or cell.lower() in _WORDS for is_one, cell in pairs)
