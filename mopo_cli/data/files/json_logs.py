"""JSON lines that nobody vouches for: an object per line, read a line at a time."""

import codecs
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mopo_cli.data.checks import Check, UnusableData
from mopo_cli.data.files.arrow_values import EMPTY, TEXT
from mopo_cli.data.files.resolve_columns import conventional
from mopo_cli.data.files.text_files import lines
from mopo_cli.errors import InputError
from mopo_cli.store.columns import check_declared

_LONGEST = 32 << 20
_LONGEST_LABEL = 1000
_WHOLE = 2**53
_HINT = "write one JSON object per line"
_BATCH, _BATCHES = "SampleBatch", "MultiAgentBatch"
_PACKED = "BCJNG"  # the first bytes of an LZ4 frame, in base64
_OTHER_TEXT = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class Line:
    """The object in a line: what is in objects inside it has a path for a name, ``obs/arm``."""

    number: int
    bytes: int
    values: dict[str, Any]
    is_batch: bool
    """Whether it says that it is a batch of RLlib."""


def read_lines(path: Path) -> Iterator[Line]:
    """The objects in a file, none of which is empty.

    InputError where a line is no JSON object, too long or nested too deeply, or names a column that the first line does
    not and that mopo would read.
    """
    names: set[str] = set()
    wanted = conventional([])
    for number, text in lines(path, _LONGEST):
        if text.startswith(_OTHER_TEXT):
            raise InputError(f"{path.name} is UTF-16, but JSON is read as UTF-8: save it as UTF-8.")
        line = _line(path, number, text)
        if not names:
            names, wanted = set(line.values), conventional(list(line.values))
        elif not line.values.keys() <= names:
            more = conventional([*names, *line.values])
            if new := [columns[0] for ours, columns in more.items() if ours not in wanted]:
                raise InputError(f"{path.name}: line {number} has {new[0]}, but the first has not.", hint=_HINT)
        yield line


def first_line(path: Path) -> Line:
    """The object in the first line; InputError where there is none."""
    line = next(read_lines(path), None)
    if line is None:
        raise InputError(f"{path.name} holds no line.", hint=_HINT)
    return line


def is_log(path: Path) -> bool:
    """Whether the first line is an object that holds observations and actions, by their usual names."""
    try:
        return conventional(list(first_line(path).values)).keys() >= {"observations", "actions"}
    except InputError:
        return False


def depth(value: Any) -> int | None:
    """How many lists there are around the first number or text in a value; None where there is something else."""
    lists = 0
    while isinstance(value, list) and value:
        value, lists = value[0], lists + 1
    return lists if isinstance(value, int | float | str) else None


@dataclass
class Cells:
    """Turns the values of a file's columns into numbers, or text where it may be, and says in which line one cannot be.

    With `missing` a value that is not there is NaN.
    """

    path: Path
    text: Sequence[str]
    missing: bool = False
    bytes: int = 0
    """Of all arrays made until now."""

    def value(self, line: Line, name: str) -> Any:
        """What a line holds in a column; InputError where it holds nothing."""
        value = line.values.get(name)
        if value is None and self.missing:
            return "" if name in self.text else float("nan")
        if value is None:
            mend = "" if name in self.text else f" {EMPTY}."
            raise InputError(f"{self.path.name}: line {line.number} has no value for {name}.{mend}")
        if isinstance(value, str) and value.startswith(_PACKED):
            raise InputError(
                f"{self.path.name}: line {line.number}: {name} is packed: write it with compress_columns=[] "
                "(output_compress_columns=[] in RLlib's configuration)."
            )
        return value

    def array(self, name: str, values: Any, number: int) -> NDArray[Any]:
        """Numbers as int64 if all are whole, else as float64, and text, in the shape of their lists."""
        array = self._words(name, values, number) if name in self.text else self._numbers(name, values, number)
        self.bytes += array.nbytes
        check_declared(self.path, self.bytes)
        return array

    def _numbers(self, name: str, values: Any, number: int) -> NDArray[Any]:
        if isinstance(values, bool):
            return np.array(values)
        try:
            array = np.array(values, np.float64)
            return array.astype(np.int64) if (np.abs(array) < _WHOLE).all() and _are_whole(values) else array
        except (ValueError, TypeError, OverflowError):
            text = _first_text(values)
        where = f"{self.path.name}: line {number}: {name}"
        if text is None:
            raise InputError(f"{where} is not a list of numbers, or of lists of one length.") from None
        fault = f"{self.path.name}: column {name} holds text ({text!r} in line {number}), not numbers."
        raise UnusableData([Check(name, TEXT, fault)]) from None

    def _words(self, name: str, values: Any, number: int) -> NDArray[Any]:
        """Text, or numbers where all are."""
        cells = values if isinstance(values, list) else [values]
        for cell in cells:
            if not isinstance(cell, str | int | float) or cell != cell or len(str(cell)) > _LONGEST_LABEL:
                raise InputError(f"{self.path.name}: line {number}: {name} holds what is no label: {str(cell)[:60]}.")
        made = np.array(cells if not any(isinstance(cell, str) for cell in cells) else list(map(str, cells)))
        return made if isinstance(values, list) else made.reshape(())


def _are_whole(values: Any) -> bool:
    return all(map(_are_whole, values)) if isinstance(values, list) else isinstance(values, int)


def _first_text(values: Any) -> str | None:
    while isinstance(values, list):
        values = next((value for value in values if isinstance(value, str | list)), None)
    return values[:60] if isinstance(values, str) else None


def _flat(document: dict[str, Any], group: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in document.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{group}{name}/")
        else:
            yield group + name, value


def _line(path: Path, number: int, text: bytes) -> Line:
    where = f"{path.name}: line {number}"
    try:
        document = json.loads(text)
    except RecursionError as error:
        raise InputError(f"{where} is nested too deeply.", hint=_HINT) from error
    except json.JSONDecodeError as error:
        raise InputError(f"{where} is not a JSON object ({error.msg}, character {error.colno}).", hint=_HINT) from error
    except ValueError as error:  # bytes that are no text, numbers of thousands of digits
        raise InputError(f"{where} is not a JSON object ({str(error)[:100]}).", hint=_HINT) from error
    if not isinstance(document, dict):
        raise InputError(f"{where} holds no JSON object.", hint=_HINT)
    kind = document.get("type")
    if kind == _BATCHES:
        policies = document.get("policy_batches")
        if not isinstance(policies, dict) or len(policies) != 1:
            raise InputError(f"{where} holds batches of several policies: write those of one.")
        document = next(iter(policies.values()))
    try:
        values = dict(_flat(document)) if isinstance(document, dict) else {}
    except RecursionError as error:
        raise InputError(f"{where} is nested too deeply.", hint=_HINT) from error
    if not values:
        raise InputError(f"{where} holds an empty object.", hint=_HINT)
    return Line(number, len(text), values, kind in (_BATCH, _BATCHES))
