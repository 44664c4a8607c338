"""The files that a name of logs stands for."""

import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn

from mopo_cli.errors import InputError
from mopo_cli.store.run import DATA_FILES, JSON_LINES

_HIDDEN = (".", "~$")  # the latter is what Excel writes beside an open file
_EXAMPLE = "mopo fetch-data --dataset ./file.h5 --env ENV-ID"


def log_files(path: Path) -> list[Path]:
    """The files that a path stands for: itself, those of a folder, or those that match a pattern such as logs/*.csv.

    In the order of their names, where numbers count as numbers. InputError where there is none, and where a file is
    there both packed and unpacked.
    """
    if path.is_file():
        return [path]
    if path.is_dir():
        files = _logs(path.iterdir())
    else:
        files = list(Path(path.anchor).glob(str(path.relative_to(path.anchor)))) if is_pattern(path) else []
        # As in a shell, a star does not stand for hidden files.
        files = [file for file in files if not file.name.startswith(_HIDDEN) or path.name[0] == "."]
    files = [file for file in files if file.is_file()]
    if not files:
        what, hint = f"The dataset file {path} does not exist or is not a file.", _EXAMPLE
        if is_pattern(path):
            what = f"No file matches the pattern {path}."
        if path.is_dir():
            what = f"The folder {path} holds no file of logs ({', '.join(DATA_FILES)})."
            if any(each.is_dir() for each in path.iterdir()):
                endings = [file.suffix for file in _logs(path.rglob("*"))]
                pattern = shlex.quote(f"{path}/**/*{min(endings, default='.csv')}")
                hint = f"mopo fetch-data --dataset {pattern}   # files in its folders"
        elif "," in str(path):
            hint = "mopo fetch-data --dataset './logs/*.csv'   # several files"
        raise InputError(what, hint)
    _refuse_packed_copies(files)
    return sorted(files, key=lambda file: by_number(str(file)))


def _logs(paths: Iterable[Path]) -> list[Path]:
    """Those with the names of logs that are not hidden; JSON beside other files describes them and is left out."""
    files = [path for path in paths if path.name.lower().endswith(DATA_FILES) and not path.name.startswith(_HIDDEN)]
    return [file for file in files if not file.name.lower().endswith(JSON_LINES)] or files


def refuse_copies(files: Sequence[Path], sha256: Sequence[str]) -> None:
    """InputError where two of the files have the same bytes: their episodes would count twice."""
    first: dict[str, Path] = {}
    for file, digest in zip(files, sha256, strict=True):
        if (other := first.setdefault(digest, file)) is not file:
            _refuse_copy(other, file)


def _refuse_packed_copies(files: Sequence[Path]) -> None:
    present = set(files)
    for file in files:
        if file.suffix.lower() == ".gz" and file.with_suffix("") in present:
            _refuse_copy(file.with_suffix(""), file)


def _refuse_copy(first: Path, second: Path) -> NoReturn:
    raise InputError(
        f"{first} and {second} are the same log twice: move one of them elsewhere, or name the others by a pattern.",
        hint="mopo fetch-data --dataset './logs/*.csv'",
    )


def is_pattern(path: Path) -> bool:
    """Whether a path, or a folder in it, is written with the signs of a pattern."""
    return any(sign in str(path) for sign in "*?[")


def by_number(name: str) -> list[tuple[int, str]]:
    """A key to sort names by, with the numbers in them as numbers: demo_2 comes before demo_10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name) if part]
