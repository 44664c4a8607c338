"""The board of a study: what failed and what runs comes first, each change is a line, and progress now and then."""

import io
import json
import time

import pytest

from mopo_cli.placing.board import Board
from mopo_cli.report.console import Report

WHAT = {"a": "cell one", "b": "cell two", "c": "cell three"}


def test_what_failed_and_what_runs_comes_first() -> None:
    board = Board(WHAT, Report("quiet"))
    board.change("b", "running", "node-7", 4, 12.5)
    board.change("c", "failed", why="no space left")
    first, second, third, sums = board.rows()
    assert first == ("cell three", "failed", "", None, None, "no space left")
    assert second == ("cell two", "running", "node-7", 4, 12.5, "")
    assert third[:2] == ("cell one", "waiting")
    assert sums[0] == "1 waiting, 1 running, 1 failed"
    assert board.failures() == {"c": "no space left"}
    board.change("c", "waiting")
    assert board.failures() == {}


def test_a_screen_has_room_for_thirty_rows() -> None:
    board = Board({str(number): f"cell {number}" for number in range(288)}, Report("quiet"))
    board.change("287", "running")
    rows = board.rows()
    assert len(rows) == 31 and rows[0][0] == "cell 287" and rows[-1][0] == "287 waiting, 1 running"


def test_elsewhere_than_on_a_terminal_each_change_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    board = Board(WHAT, Report())
    with board.shown():
        board.change("a", "running", "node-1")
        board.change("a", "running", "node-1", 3, 7.25)  # no other state: told with the next heartbeat
        board.change("a", "waiting", why="its node was lost")
        board.change("a", "done", "node-2")
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "running  cell one on node-1",
        "waiting  cell one on node-1: its node was lost",
        "done     cell one on node-2",
    ]


def test_progress_is_told_every_half_minute(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    board = Board(WHAT, Report())
    board.change("a", "running", "node-1")
    now = time.monotonic()
    monkeypatch.setattr("mopo_cli.placing.board.time.monotonic", lambda: now + 31)
    board.change("a", "running", "node-1", 3, 7.25)
    board.change("a", "running", "node-1", 4, 8.25)
    lines = capsys.readouterr().err.splitlines()
    assert lines[1:] == ["running  cell one on node-1, epoch 3, return 7.2", "2 waiting, 1 running"]


def test_with_json_each_change_is_a_line_of_json_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    board = Board(WHAT, Report("json"))
    with board.shown():
        board.change("a", "failed", "node-1", why="no luck")
    out, err = capsys.readouterr()
    assert out == ""
    (event,) = map(json.loads, err.splitlines())
    assert event == {"job": "a", "what": "cell one", "state": "failed", "where": "node-1", "why": "no luck"} | {
        "epoch": None,
        "return": None,
    }


def test_on_a_terminal_there_is_one_table(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    board = Board(WHAT, Report())
    with board.shown():
        board.change("a", "running", "node-1", 2)
        board.change("b", "failed", "node-2", why="no luck")
    shown = terminal.getvalue()
    last = shown[shown.rindex("┏") :]
    assert "cell one" in last and "node-1" in last and "no luck" in last and "1 waiting, 1 running, 1 failed" in last
    assert "running  cell one" not in shown
