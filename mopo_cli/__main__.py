"""The entry point: runs the command line and turns every fault into one sentence and an exit code."""

import errno
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence

from mopo_cli.errors import InputError, MopoError, UsageError

_DISK = {errno.ENOSPC: "The disk is full", errno.EDQUOT: "The disk quota is used up"}
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs ``mopo`` with ``argv`` (default: the process's own) and returns its exit code.

    MOPO_DEBUG=1 shows the traceback of a bug instead of writing it to a file.
    """
    import typer

    from mopo_cli.cli.app import app

    try:
        code = app(argv, prog_name="mopo", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except MopoError as error:
        return _tell(error)
    except typer.TyperException as error:
        return _tell(_usage(error))
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        return _tell(_unexpected(error))


def _tell(error: MopoError) -> int:
    from mopo_cli.report import Report

    Report().error(error)
    return error.exit_code


def _usage(error: Exception) -> UsageError:
    """The parser's complaint in our form."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "mopo"
    message = getattr(error, "format_message", error.__str__)()
    return UsageError(" ".join(message.split()), hint=f"{path} --help")


def _unexpected(error: Exception) -> MopoError:
    if isinstance(error, OSError) and error.errno in _DISK:
        where = f" ({error.filename})" if error.filename else ""
        return InputError(f"{_DISK[error.errno]}{where}.", hint="make room and run the same command again")
    text = traceback.format_exc()
    if os.environ.get("MOPO_DEBUG"):
        sys.stderr.write(text)
        return MopoError(f"This is a bug in mopo: {type(error).__name__}.")
    with tempfile.NamedTemporaryFile("w", prefix="mopo-", suffix=".txt", delete=False) as file:
        file.write(text)
    return MopoError(
        f"This is a bug in mopo: {type(error).__name__}; its traceback is in {file.name}.",
        hint="MOPO_DEBUG=1 with the same command shows it here",
    )


if __name__ == "__main__":
    sys.exit(main())
