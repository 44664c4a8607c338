"""CSV and Parquet: the columns under a heading, read by pyarrow without a guess at what they hold."""

import codecs
import csv as plain_csv
import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from mopo_cli.data.arrow_values import BadCell, codes, is_text, numbers_of, times_of, words_of
from mopo_cli.data.checks import Check, require
from mopo_cli.data.layout import Columns, Wanted
from mopo_cli.errors import CorruptError, InputError, MopoError
from mopo_cli.store.columns import check_declared, check_room
from mopo_cli.store.files import check_file

_SEPARATORS = ",;\t"  # in doubt the first
_HEADING_BYTES = 1 << 20
_MOST_COLUMNS = 10_000
_TEXT_ROWS = 1024


def table_names(path: Path) -> list[str]:
    """The names of the columns in the order of the file, without the space around them. Errors as `read_table`."""
    return [name.strip() for name in _heading(path)]


def read_table(path: Path, wanted: Wanted) -> Columns:
    """The columns `[N]` that are wanted: numbers are int64, float64 or bool, labels int64 codes, words text.

    Raises UnusableData with the first bad cell of every column that has one; InputError for a column that is
    missing or there twice, and for text that is no CSV; CorruptError for what is no Parquet file.
    """
    read = _read_csv if _is_csv(path) else _read_parquet
    heading = _heading(path)
    columns = read(path, heading, _once_each(path, heading, wanted.names), [*wanted.labels, *wanted.times])
    values: dict[str, NDArray[Any]] = {}
    checks = []
    for name, column in columns.items():
        try:
            values[name] = _typed(name, column, wanted)
        except BadCell as bad:
            fault = f"{path.name}: column {name}, row {bad.row}: {bad.problem}. Remove or repair this episode."
            checks.append(Check(name, "labels" if name in wanted.labels else "numbers", fault, bad.row))
    require(checks)
    return values


def _typed(name: str, column: Any, wanted: Wanted) -> NDArray[Any]:
    if name in wanted.labels:
        return codes(column)
    if name in wanted.words:
        return words_of(column)
    if name in wanted.times:
        return times_of(column)
    return numbers_of(column, wanted.missing)


def _is_csv(path: Path) -> bool:
    return path.suffix.lower() == ".csv"


def _heading(path: Path) -> list[str]:
    if _is_csv(path):
        from pyarrow import csv

        options = _csv_options(path)
        with _opened(path, "CSV", InputError) as file, csv.open_csv(file, **options) as reader:
            return [str(name) for name in reader.schema.names]
    from pyarrow import parquet

    with _opened(path, "Parquet", CorruptError) as file:
        _refuse_many(path, parquet.read_metadata(file).num_columns)
        return [str(name) for name in parquet.read_schema(file).names]


def _once_each(path: Path, heading: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """Each of the names -> as the file writes it; InputError where the file has it twice or not at all."""
    as_written = {}
    for name in names:
        written = [other for other in heading if other.strip() == name]
        if len(written) != 1:
            problem = f"has two columns {name!r}: rename one of them" if written else f"has no column {name!r}"
            raise InputError(f"{path.name} {problem}.")
        as_written[name] = written[0]
    return as_written


def _read_csv(path: Path, heading: list[str], written: dict[str, str], _labels: Sequence[str]) -> dict[str, Any]:
    import pyarrow as pa
    from pyarrow import csv

    # As text, so that a cell that will not do can be shown.
    convert = csv.ConvertOptions(
        include_columns=list(written.values()),
        column_types=dict.fromkeys(written.values(), pa.string()),
        strings_can_be_null=False,
    )
    options = _csv_options(path)
    check_room(path, path.stat().st_size * len(written) // len(heading))
    with _opened(path, "CSV", InputError) as file:
        table = csv.read_csv(file, convert_options=convert, **options)
    return {name: table[column] for name, column in written.items()}


def _csv_options(path: Path) -> dict[str, Any]:
    """How the file is to be read, by its first line. InputError where that is no heading of a log."""
    from pyarrow import csv

    with _opened(path, "CSV", InputError) as file:
        block = file.read(_HEADING_BYTES).removeprefix(codecs.BOM_UTF8).lstrip(b"\r\n")
        lines = block.splitlines()
        if len(lines) == 1 and file.size() > _HEADING_BYTES:
            raise InputError(f"{path.name} has no header line: its first line is longer than {_HEADING_BYTES:,} bytes.")
        heading = lines[0].decode(errors="replace") if lines else ""
        separator = max(_SEPARATORS, key=heading.count)
        # The lines, as a quoted name may go on in the next one.
        text = io.StringIO(block.decode(errors="replace"), newline="")
        _refuse_many(path, len(next(plain_csv.reader(text, delimiter=separator), [])))
    return {
        "read_options": csv.ReadOptions(use_threads=False),
        "parse_options": csv.ParseOptions(delimiter=separator, newlines_in_values=True),
    }


def _refuse_many(path: Path, columns: int) -> None:
    if columns > _MOST_COLUMNS:
        raise InputError(f"{path.name} has {columns:,} columns; at most {_MOST_COLUMNS:,} are supported.")


def _read_parquet(path: Path, _heading: list[str], written: dict[str, str], labels: Sequence[str]) -> dict[str, Any]:
    from pyarrow import parquet

    with _opened(path, "Parquet", CorruptError) as source:
        types = {name: parquet.read_schema(source).field(column).type for name, column in written.items()}
        require(_type_check(path, name, kind, name in labels) for name, kind in types.items())
        # Text stays a dictionary, so that a word is held once however often it occurs.
        text = [written[name] for name, kind in types.items() if is_text(kind)]
        file = parquet.ParquetFile(source, read_dictionary=text)
        check_declared(path, 8 * file.metadata.num_rows * len(written))
        _check_text(path, source, text)
        table = file.read(columns=list(written.values()), use_threads=False)
        return {name: _written_out(path, table[column]) for name, column in written.items()}


def _check_text(path: Path, source: Any, columns: list[str]) -> None:
    """InputError where text takes more memory, written out, than the file explains; little of it is held at a time."""
    from pyarrow import parquet

    held = 0
    if columns:
        for part in parquet.ParquetFile(source).iter_batches(_TEXT_ROWS, columns=columns, use_threads=False):
            held += part.nbytes
            check_declared(path, held)


def _type_check(path: Path, name: str, kind: Any, label: bool) -> Check:
    from pyarrow import types

    plain = kind.value_type if types.is_dictionary(kind) else kind
    number = types.is_integer(plain) or types.is_floating(plain) or types.is_boolean(plain) or types.is_decimal(plain)
    usable = number or is_text(plain) or types.is_null(plain) or (label and types.is_temporal(plain))
    what = "labels" if label else "numbers"
    return Check(name, what, "" if usable else f"{path.name}: column {name} holds {kind}, not {what}.")


def _written_out(path: Path, column: Any) -> Any:
    """A column without its dictionary, unless that would take more memory than the file explains."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_dictionary(column.type):
        return column
    if is_text(column.type.value_type):
        lengths = (pc.sum(pc.take(pc.binary_length(part.dictionary), part.indices)).as_py() for part in column.chunks)
        check_declared(path, sum(length or 0 for length in lengths))
    return column.cast(column.type.value_type)


@contextmanager
def _opened(path: Path, kind: str, error_class: type[MopoError]) -> Iterator[Any]:
    """The file; whatever pyarrow finds wrong with it inside the block is an ``error_class``."""
    import pyarrow as pa

    check_file(path)
    try:
        # Not a file of Python's: the thread that reads ahead may outlive the block, and must not end in Python when
        # the process does.
        with pa.OSFile(os.fsencode(path)) as file:
            yield file
    except (MopoError, MemoryError):
        raise
    except Exception as error:  # pyarrow raises its own errors, Python's ValueError, OSError and more
        message = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise error_class(f"{path.name} cannot be read as {kind}: {message[:200]}.") from error
