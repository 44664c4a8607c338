"""The errors a user may meet: each knows its exit code and the command to try next."""

import signal

STOP_SIGNALS: tuple[signal.Signals, ...] = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)
)
"""What saves and stops a stage; cluster schedulers send SIGUSR1 as a warning. Windows does not have it."""


class MopoError(Exception):
    """A fault told to the user without a traceback.

    ``message`` is one sentence that names the file, field or flag at fault; ``hint`` is the command to try
    next (it may be empty). ``exit_code`` is what the process ends with; 1 means a bug of ours.
    """

    exit_code: int = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(MopoError):
    """The command line does not parse, or its flags contradict each other."""

    exit_code = 2


class SettingsError(MopoError):
    """A setting is unknown or has a value that is not allowed."""

    exit_code = 3


class InputError(MopoError):
    """A file or folder is missing, cannot be written, or does not fit the others."""

    exit_code = 4


class CorruptError(MopoError):
    """A file is there but damaged."""

    exit_code = 5


class LockedError(MopoError):
    """Another process works in the same run folder."""

    exit_code = 6


class DivergedError(MopoError):
    """Training reached infinity or NaN."""

    exit_code = 7


class FailedError(MopoError):
    """Some of a study could not be trained."""

    exit_code = 7


class NetworkError(MopoError):
    """A download failed."""

    exit_code = 8


def ignore_stop_signals() -> None:
    """For a process that helps another one, which alone answers to signals and ends it."""
    for signum in STOP_SIGNALS:
        signal.signal(signum, signal.SIG_IGN)


class Stopped(MopoError):
    """A signal ended the stage after its progress was saved; exit code 128 + signal number.

    Jobs that were handed out to other machines may go on.
    """

    def __init__(self, signum: int, jobs_go_on: bool = False) -> None:
        left = "the jobs that were submitted go on" if jobs_go_on else "what was finished is saved"
        super().__init__(
            f"Stopped by {signal.Signals(signum).name}; {left}.",
            hint=f"run the same command again to {'collect them' if jobs_go_on else 'go on from here'}",
        )
        self.signum = signum
        self.exit_code = 128 + signum
