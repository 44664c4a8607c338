"""Files that a user names, looked at before they are opened: a pipe or a device could keep a reader forever."""

import stat
from pathlib import Path

from mopo_cli.errors import InputError


def expand(text: str) -> Path:
    """The path ``text`` with a leading ``~`` or ``~USER`` written out. InputError where there is no such user."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise InputError(f"{text} is not a valid path: that user has no home folder.") from error


def check_file(path: Path, what: str = "") -> None:
    """InputError unless ``path`` is a regular file that can be read; ``what`` begins the sentence ("The map ")."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            kind = "folder" if path.is_dir() else "pipe, socket or device"
            raise InputError(f"{what}{path} cannot be read: it is a {kind}, not a file.")
        with path.open("rb"):
            pass
    except FileNotFoundError as error:
        raise InputError(f"{what}{path} does not exist.") from error
    except OSError as error:
        raise InputError(f"{what}{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:  # a NUL character
        raise InputError(f"{what}{str(path)!r} cannot be read: it is not a valid path.") from error


def check_folder(path: Path, what: str = "") -> None:
    """InputError where ``path`` is there and is no folder, or cannot be one that records name; it need not exist."""
    try:
        str(path).encode()
        if not stat.S_ISDIR(path.stat().st_mode):
            raise InputError(f"{what}{path} is a file, not a folder.")
    except FileNotFoundError as error:
        if path.is_symlink():
            raise InputError(f"{what}{path} is a link to a missing folder.") from error
    except OSError as error:
        raise InputError(f"{what}{path} cannot be a folder: {error.strerror}.") from error
    except UnicodeEncodeError as error:
        raise InputError(f"{what}{str(path)!r} cannot be used: its name is not valid UTF-8.") from error
    except ValueError as error:
        raise InputError(f"{what}{str(path)!r} cannot be a folder: it is not a valid path.") from error


def read_text(path: Path, most: int, what: str = "") -> str:
    """The UTF-8 text of a file of at most ``most`` bytes. InputError for a larger one and as `check_file`."""
    check_file(path, what)
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise InputError(f"{what}{path} is larger than {most:,} bytes.")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{what}{path} cannot be read: it is not UTF-8 text.") from error
