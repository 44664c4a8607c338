"""The entry point: runs the command line and turns every fault into one sentence and an exit code."""

import errno
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from contextlib import suppress

from mopo_cli.errors import InputError, MopoError, SettingsError, UsageError

_DISK = {
    errno.ENOSPC: "The disk is full",
    errno.EDQUOT: "The disk quota is used up",
    errno.EFBIG: "A file would be larger than the system lets it be",
    errno.EIO: "The disk cannot be read or written",
}
_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_SHOWN = 40
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs ``mopo`` with ``argv`` (default: the process's own) and returns its exit code.

    MOPO_DEBUG=1 shows the traceback of a bug instead of writing it to a file.
    """
    try:
        _prepare_streams()
        return _flushed(_run(argv))
    except KeyboardInterrupt:  # while modules are imported, or in the last moment
        return INTERRUPTED


def _run(argv: Sequence[str] | None) -> int:
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
        return _tell(_understood(error) or _bug(error))


def _prepare_streams() -> None:
    """What a stream's encoding lacks is shown as "?"; a closed one leads nowhere, and no file takes its number."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)  # as streams are
    os.close(descriptor)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8"))
        with suppress(AttributeError, OSError, ValueError):  # of a stream that somebody has put in its place
            getattr(sys, name).reconfigure(errors="replace")


def _flushed(code: int) -> int:
    """The exit code, once nothing is left that the interpreter could fail to write as it ends."""
    from mopo_cli.report.console import reader_has_gone, silence_stream, stdout_fault

    try:
        sys.stdout.flush()
    except BrokenPipeError:
        reader_has_gone(sys.stdout)
    except OSError as error:
        code = code or _tell(stdout_fault(error))
    try:
        sys.stderr.flush()
    except OSError:
        silence_stream(sys.stderr)
    return code


def _tell(error: MopoError) -> int:
    from mopo_cli.report import Report

    with suppress(Exception):  # what cannot be told is left to the exit code
        Report().error(error)
    return error.exit_code


def _usage(error: Exception) -> UsageError:
    """The parser's complaint in our form."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "mopo"
    message = getattr(error, "format_message", error.__str__)()
    return UsageError(" ".join(message.split()), hint=f"{path} --help")


def _understood(error: Exception) -> MopoError | None:
    """What the machine or the input did not allow, in one sentence; None for what is a bug."""
    smaller = "smaller settings (--rollout-batch, --hidden, --seeds), fewer data, or a machine with more memory"
    match error:
        case OSError(errno=number) if number in _DISK:
            where = f" ({error.filename})" if error.filename else ""
            hint = "make room and run the same command again" if number in _ROOM else ""
            return InputError(f"{_DISK[number]}{where}.", hint)
        case OSError() if error.filename is not None and error.strerror:
            return InputError(f"{_shown(error.filename)} cannot be used: {error.strerror}.")
        case UnicodeEncodeError():
            text = error.object[max(0, error.start - _SHOWN) : error.end + _SHOWN]
            return InputError(
                f"The name {text!r} cannot be written as {error.encoding}.",
                hint="rename the file or folder, or use a UTF-8 locale such as LC_ALL=C.UTF-8",
            )
        case ValueError() if "embedded null" in str(error):
            return InputError("A path contains a NUL character, so it is not valid.")
        case ImportError() if not (error.name or "").startswith("mopo_cli"):
            return InputError(
                f"A package that mopo needs cannot be imported: {error}.",
                hint="install mopo again, in a fresh virtual environment",
            )
        case MemoryError():
            return SettingsError("There is not enough memory for this.", smaller)
        case RuntimeError() if type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported for this
            return SettingsError("There is not enough memory on the GPU for this.", smaller)
        case RecursionError():
            return InputError("The input is nested too deeply.")
    return None


def _shown(path: str | bytes | int) -> str:
    return path if isinstance(path, str) and path.isprintable() else repr(path)


def _bug(error: Exception) -> MopoError:
    text = "".join(traceback.format_exception(error))
    if os.environ.get("MOPO_DEBUG"):
        with suppress(OSError):
            sys.stderr.write(text)
        return MopoError(f"This is a bug in mopo: {type(error).__name__}.")
    try:
        with tempfile.NamedTemporaryFile("w", prefix="mopo-", suffix=".txt", encoding="utf-8", delete=False) as file:
            file.write(text.encode(errors="backslashreplace").decode())
        where = f"its traceback is in {file.name}"
    except OSError as fault:
        where = f"its traceback could not be written ({fault.strerror})"
    return MopoError(
        f"This is a bug in mopo: {type(error).__name__}; {where}.",
        hint="MOPO_DEBUG=1 with the same command shows it here",
    )


if __name__ == "__main__":
    sys.exit(main())
