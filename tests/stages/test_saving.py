"""When progress is saved: from time to time, seldom where that takes long, and before a stage stops."""

import signal
from pathlib import Path
from typing import Any

import pytest

from mopo_cli.errors import Stopped
from mopo_cli.report.console import Report
from mopo_cli.stages.common import saving
from mopo_cli.stages.common.options import Options
from mopo_cli.stages.common.saving import Saver
from mopo_cli.stages.runner import Stage
from mopo_cli.store.run import RunFolder


class Clock:
    """Time that passes when somebody says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(saving, "time", clock)
    return clock


def saved_at(clock: Clock, folder: Path, *, takes: float, until: int, **options: Any) -> list[int]:
    """The seconds at which a save begins, of a stage that looks every second and whose saves take so long."""
    start, times = clock.now, []

    def save() -> None:
        times.append(int(clock.now - start))
        clock.now += takes

    saver = Saver(Stage(RunFolder(folder), "train-model", {}, {}, Options(**options), Report("quiet")), save)
    while clock.now - start < until:
        clock.now += 1
        saver.look()
    return times


def test_every_minute_and_where_saving_takes_long_so_that_it_takes_3_percent(clock: Clock, tmp_path: Path) -> None:
    assert saved_at(clock, tmp_path, takes=0, until=200) == [61, 122, 183]
    assert saved_at(clock, tmp_path, takes=1.5, until=200) == [61, 123, 186]
    assert saved_at(clock, tmp_path, takes=6, until=500) == [61, 268, 475]  # 6 s are 3 % of 200 s


def test_as_often_as_the_options_say(clock: Clock, tmp_path: Path) -> None:
    assert saved_at(clock, tmp_path, takes=0, until=20, save_seconds=5.5) == [6, 12, 18]
    assert saved_at(clock, tmp_path, takes=3, until=20, save_seconds=5.5) == [6, 15]


def test_before_it_stops_at_a_signal(clock: Clock, tmp_path: Path) -> None:
    stage, saves = Stage(RunFolder(tmp_path), "train-model", {}, {}, Options(), Report("quiet")), []
    saver = Saver(stage, lambda: saves.append(stage.signal))
    saver.look()
    assert not saver.due() and saves == []
    stage.signal = signal.SIGTERM
    assert saver.due()
    with pytest.raises(Stopped) as stopped:
        saver.look()
    assert saves == [signal.SIGTERM] and stopped.value.signum == signal.SIGTERM
