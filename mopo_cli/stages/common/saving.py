"""Progress that is saved from time to time, and before a stage stops at a signal."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from mopo_cli.errors import Stopped
from mopo_cli.stages.runner import Stage

SAVE_SECONDS = 60.0
SAVE_SHARE = 0.03  # of the time, where saving itself takes long


@dataclass
class Saver:
    """Call `look` between steps. ``save`` writes the progress."""

    stage: Stage
    save: Callable[[], None]
    _next: float = field(init=False)

    def __post_init__(self) -> None:
        self._next = time.monotonic() + self._pause()

    def due(self) -> bool:
        """Whether it is time, or a signal came."""
        return self.stage.should_stop() or time.monotonic() > self._next

    def save_now(self) -> None:
        """Save; Stopped after a signal."""
        start = time.monotonic()
        self.save()
        end = time.monotonic()
        self._next = end + self._pause(end - start)
        if self.stage.signal:
            raise Stopped(self.stage.signal)

    def look(self) -> None:
        """`save_now` when it is `due`."""
        if self.due():
            self.save_now()

    def _pause(self, took: float = 0.0) -> float:
        """Seconds until the next save, after one that took so long."""
        wanted = self.stage.options.save_seconds
        return max(SAVE_SECONDS, took / SAVE_SHARE) if wanted is None else wanted
