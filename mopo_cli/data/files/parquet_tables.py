"""Parquet: the columns of a file, of which cells may be lists."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mopo_cli.data.checks import Check, require
from mopo_cli.data.files.arrow import once_each, opened, refuse_many, values_of
from mopo_cli.data.files.arrow_values import NO_TIMES, is_list, is_text
from mopo_cli.data.files.layout import Columns, Log, Wanted
from mopo_cli.errors import CorruptError
from mopo_cli.store.columns import check_declared

_TEXT_ROWS = 1024


def open_parquet(path: Path) -> Log:
    """The columns of a Parquet file; lists of one length are a matrix. Their names are without the space around them.

    Reading raises UnusableData with the first bad cell of every column that has one, and for columns of other types;
    InputError for a column that is missing or there twice; CorruptError for what is no Parquet file.
    """

    def read(wanted: Wanted) -> Columns:
        return values_of(path, read_parquet(path, wanted, 1), wanted)

    return Log(list(parquet_types(path)), read, is_table=True)


def parquet_types(path: Path) -> dict[str, Any]:
    """The types of the columns, as pyarrow calls them, by name. Errors as `open_parquet`."""
    from pyarrow import parquet

    with opened(path, "Parquet", CorruptError) as file:
        refuse_many(path, parquet.read_metadata(file).num_columns)
        return {str(field.name).strip(): field.type for field in parquet.read_schema(file)}


def depth(kind: Any) -> int | None:
    """How many lists there are around the numbers or the text of a type; None where there is something else."""
    from pyarrow import types

    if is_list(kind):
        inner = depth(kind.value_type)
        return None if inner is None or is_text(kind.value_type) else 1 + inner
    plain = kind.value_type if types.is_dictionary(kind) else kind
    number = types.is_integer(plain) or types.is_floating(plain) or types.is_boolean(plain) or types.is_decimal(plain)
    return 0 if number or is_text(plain) or types.is_null(plain) else None


def read_parquet(path: Path, wanted: Wanted, deepest: int) -> dict[str, Any]:
    """Columns as pyarrow holds them, of numbers or text, numbers also of lists inside at most ``deepest`` lists.

    Errors as `open_parquet`.
    """
    from pyarrow import parquet

    with opened(path, "Parquet", CorruptError) as source:
        schema = parquet.read_schema(source)
        written = once_each(path, [str(name) for name in schema.names], wanted.names)
        types = {name: schema.field(column).type for name, column in written.items()}
        require(_type_check(path, name, kind, name in wanted.text, deepest) for name, kind in types.items())
        # Text stays a dictionary, so that a word is held once however often it occurs.
        text = [written[name] for name, kind in types.items() if is_text(kind)]
        file = parquet.ParquetFile(source, read_dictionary=text)
        lists = [written[name] for name, kind in types.items() if is_list(kind)]
        check_declared(path, 8 * _declared(file, len(written), lists))
        _check_text(path, source, text)
        table = file.read(columns=list(written.values()), use_threads=False)
        return {name: _written_out(path, table[column]) for name, column in written.items()}


def list_lengths(path: Path, names: Sequence[str]) -> dict[str, NDArray[np.int64]]:
    """The lengths of the lists in columns, `[rows]`, 0 where there is none; few lists are held at a time."""
    import pyarrow.compute as pc
    from pyarrow import parquet

    lengths = {}
    with opened(path, "Parquet", CorruptError) as source:
        written = once_each(path, [str(name) for name in parquet.read_schema(source).names], names)
        file = parquet.ParquetFile(source)
        check_declared(path, 8 * _declared(file, len(written), list(written.values())))
        for name, column in written.items():
            parts = file.iter_batches(_TEXT_ROWS, columns=[column], use_threads=False)
            counts = [np.asarray(pc.fill_null(pc.list_value_length(part[column]), 0)) for part in parts]
            lengths[name] = np.concatenate([np.empty(0, np.int64), *counts]).astype(np.int64)
    return lengths


def _declared(file: Any, columns: int, lists: list[str]) -> int:
    """How many values the file says that so many columns hold, of which ``lists`` hold lists."""
    metadata = file.metadata
    declared = int(metadata.num_rows) * (columns - len(lists))
    if not lists:
        return declared
    # Reads it all, little at a time: where the numbers below are damaged, this is an error, and asking for them first
    # would end the process.
    file.scan_contents(columns=lists)
    paths = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
    indices = [i for i, path in enumerate(paths) if any(path == name or path.startswith(f"{name}.") for name in lists)]
    groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
    return declared + sum(int(group.column(i).num_values) for group in groups for i in indices)


def _check_text(path: Path, source: Any, columns: list[str]) -> None:
    """InputError where text takes more memory, written out, than the file explains; little of it is held at a time."""
    from pyarrow import parquet

    held = 0
    if columns:
        for part in parquet.ParquetFile(source).iter_batches(_TEXT_ROWS, columns=columns, use_threads=False):
            held += part.nbytes
            check_declared(path, held)


def _type_check(path: Path, name: str, kind: Any, label: bool, deepest: int) -> Check:
    from pyarrow import types

    lists = depth(kind)
    usable = (label and types.is_temporal(kind)) or (lists is not None and lists <= (0 if label else deepest))
    what = "labels" if label else "numbers"
    mend = f": {NO_TIMES}" if types.is_temporal(kind) else ""
    return Check(name, what, "" if usable else f"{path.name}: column {name} holds {kind}, not {what}{mend}.")


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
