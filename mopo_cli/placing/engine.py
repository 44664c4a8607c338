"""What every engine does: carries out `mopo job FILE` somewhere, and brings the results to the folder beside FILE."""

import json
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mopo_cli.placing.board import Board

FINAL = frozenset({2, 3, 4, 5, 7})
"""Exit codes of `mopo job` that it would have again: of usage, settings, input, damaged files, and divergence."""
ATTEMPTS = 3
"""Failures of a job, without progress in between, after which it is marked and the others go on."""


@dataclass(frozen=True)
class Resources:
    """What a job gets; ``gpus`` may be a fraction of one."""

    cpus: int = 1
    gpus: float = 0.0


class Engine(Protocol):
    """Carries out jobs. ``jobs_go_on`` says whether those that were handed out go on without this process."""

    jobs_go_on: bool = False

    def place(self, files: Sequence[Path], board: Board, should_stop: Callable[[], bool]) -> None:
        """Carry out the jobs of these files and tell the board of each when it is done or has failed.

        Returns when all are, or soon after `should_stop()`; what was finished until then is in the jobs' folders. A job
        goes on from the checkpoint in its folder. MopoError where the engine itself cannot be used.
        """


def job_folder(file: Path) -> Path:
    """The folder beside a job's file in which it is carried out unless another is named."""
    return file.with_suffix("")


def epochs(folder: Path) -> tuple[int, float | None] | None:
    """How far a job in ``folder`` is: the epoch of the seed that is furthest behind, and the mean of latest returns."""
    latest: list[Mapping[str, Any]] = []
    with suppress(OSError):  # a folder vanishes where the job ends meanwhile
        latest = [line for path in folder.glob(".state/**/live/**/metrics.jsonl") if (line := _last_line(path))]
    if not latest:
        return None
    returns = [line["return"] for line in latest if isinstance(line.get("return"), int | float)]
    return min(line["epoch"] for line in latest), sum(returns) / len(returns) if returns else None


def first_line(text: str) -> str:
    """What a failed `mopo job` says: its error's sentence, else its last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    error = next((line.removeprefix("Error: ") for line in lines if line.startswith("Error: ")), None)
    return error or (lines[-1] if lines else "it ended without a message")


def killed(signum: int) -> str:
    """What to say of a job whose process a signal ended."""
    memory = ", perhaps for lack of memory: fewer --cells-per-job need less" if signum == signal.SIGKILL else ""
    return f"its process was killed by {signal.Signals(signum).name}{memory}"


def _last_line(path: Path) -> Mapping[str, Any] | None:
    with suppress(OSError, ValueError):
        content = path.read_bytes()[-65536:]
        for line in reversed(content.split(b"\n")):
            if line.strip():
                value = json.loads(line)
                return value if isinstance(value, dict) and isinstance(value.get("epoch"), int) else None
    return None
