"""What goes where: results on stdout, the rest on stderr, silence for scripts."""

import io
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mopo_cli.errors import InputError, Stopped
from mopo_cli.report import Mode, Report
from mopo_cli.report.console import format_value


def say_everything(report: Report) -> None:
    report.say("saying [bold]this[/bold]")
    report.hint("mopo train-model")
    report.table("Title", ["column", "mean"], [["a", 1.5], ["b", None]])
    with report.progress("fit", 3) as bar, report.live_table(["epoch", "loss"]) as table:
        for epoch in range(3):
            bar.update(1, loss=0.5)
            table.row(epoch, 0.25)
    report.result({"answer": 42, "nested": {"x": [1]}})


def test_people_read_all_of_it_in_the_right_place(capsys: pytest.CaptureFixture[str]) -> None:
    say_everything(Report("human"))
    out, err = capsys.readouterr()
    assert out == "answer: 42\n"
    assert "saying [bold]this[/bold]\n" in err
    assert "Next: mopo train-model\n" in err
    for piece in ("Title", "column", "1.5", "epoch", "0.25"):
        assert piece in err
    assert "\x1b" not in err  # no colours and no bar where the output is piped


def test_json_mode_prints_one_object_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    say_everything(Report("json"))
    out, err = capsys.readouterr()
    assert json.loads(out) == {"answer": 42, "nested": {"x": [1]}}
    assert err == ""


def test_quiet_mode_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    say_everything(Report("quiet"))
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("mode", ["human", "json", "quiet"])
def test_warnings_and_errors_reach_stderr_in_every_mode(mode: Mode, capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(mode)
    report.warn("look here")
    report.error(InputError("x.h5 is missing.", "mopo fetch-data"))
    report.error(Stopped(15))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[:3] == ["Warning: look here", "Error: x.h5 is missing.", "Try: mopo fetch-data"]
    assert err.splitlines()[3].startswith("Stopped by SIGTERM")


def test_a_sentence_stays_on_one_line_however_long(capsys: pytest.CaptureFixture[str]) -> None:
    Report().error(InputError("word " * 100 + "end."))
    assert "word end.\n" in capsys.readouterr().err


def test_hints_can_be_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(hints=False)
    report.hint("mopo evaluate")
    report.say("here")
    assert capsys.readouterr().err == "here\n"


def test_a_result_holds_what_json_can_hold(capsys: pytest.CaptureFixture[str]) -> None:
    values = {
        "nan": float("nan"),
        "inf": np.float32("inf"),
        "scalar": np.float32(0.5),
        "count": np.int64(3),
        "array": np.array([[1.0, np.nan]]),
        "flag": np.bool_(True),
        "path": Path("a") / "b",
        "tuple": (1, None),
    }
    Report("json").result(values)
    assert json.loads(capsys.readouterr().out) == {
        "nan": None,
        "inf": None,
        "scalar": 0.5,
        "count": 3,
        "array": [[1.0, None]],
        "flag": True,
        "path": "a/b",
        "tuple": [1, None],
    }
    with pytest.raises(TypeError):
        Report("json").result({"what": object()})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0.123456, "0.1235"),
        (12345.678, "12,345.7"),
        (1e-5, "1e-05"),
        (50000, "50,000"),
        (True, "yes"),
        ([1, 2.5], "1 2.5"),
        ([], "-"),
        ({"0": 2.5, "1": None}, "0: 2.5, 1: -"),
        (np.float32(0.5), "0.5"),
        (float("nan"), "nan"),
    ],
)
def test_numbers_are_short(value: object, text: str) -> None:
    assert format_value(value) == text


def test_a_table_honours_columns(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    Report().table("T", ["name"], [["x" * 100]])
    lines = capsys.readouterr().err.splitlines()
    assert max(map(len, lines)) <= 40
    assert "".join(lines).count("x") == 100  # folded, not cut


def test_rows_of_a_live_table_line_up(capsys: pytest.CaptureFixture[str]) -> None:
    with Report().live_table(["epoch", "hold-out MSE"]) as table:
        table.row(1, 0.5)
        table.row(10, 0.25)
    heading, first, second = capsys.readouterr().err.splitlines()
    assert heading.split() == ["epoch", "hold-out", "MSE"]
    assert len(heading) == len(first) == len(second)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the clock says."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_a_heartbeat_is_written_now_and_then(now: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with Report().progress("fit", 100) as bar:
        for _ in range(100):
            now[0] += 1.0
            bar.update(1, q_mean=1.23456)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[1] for line in lines] == ["30/100", "60/100", "90/100"]
    assert "0:00:30 passed" in lines[0]
    assert "0:01:10 left" in lines[0]
    assert "q mean 1.235" in lines[0]


def test_the_time_left_counts_no_steps_of_an_earlier_attempt(
    now: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with Report().progress("fit", 100, done=90) as bar:
        now[0] = 60.0
        bar.update(2)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.split()[1] == "92/100"
    assert "0:04:00 left" in line  # 8 more at 30 s each


def test_bytes_are_shown_with_their_speed(now: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with Report().progress("file", 200_000_000, done=50_000_000, in_bytes=True) as bar:
        now[0] = 40.0
        bar.update(100_000_000)
        now[0] = 80.0
        bar.update(-150_000_000)  # begun anew
    first, second = capsys.readouterr().err.splitlines()
    assert first == "file  150/200 MB (75%)  0:00:40 passed  0:00:20 left  2.50 MB/s"
    assert second == "file  0 MB  0:01:20 passed"


def test_a_terminal_gets_a_bar_that_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with Report().progress("fitting", 2) as bar:
        bar.update(1, loss=0.5)
        bar.update(1)
    assert "fitting" in terminal.getvalue()
    assert "2/2" in terminal.getvalue()
    assert terminal.getvalue().endswith("\x1b[2K")
    assert "loss" not in terminal.getvalue().split("2/2")[-1], "what is no longer said is no longer shown"

    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with Report().progress("fitting", 2) as bar:
        bar.update(1, steps_left=7)
    assert "steps left 7" in terminal.getvalue()

    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with Report().progress("file", 8_000_000, done=6_000_000, in_bytes=True) as bar:
        bar.update(1_000_000)
        bar.update(1_000_000)
    assert "8.0/8.0 MB" in terminal.getvalue() and "/s" in terminal.getvalue()

    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with Report().progress("fitting", 2) as bar:
        bar.update(2)
    assert terminal.getvalue() == ""


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_reader_that_leaves_ends_the_program_without_a_word(stream: str) -> None:
    script = (
        "import sys\n"
        "from mopo_cli.report import Report\n"
        "sys.stdin.read()\n"
        "for _ in range(100): (Report().result({}, 'x' * 4096), Report().say('x' * 4096))\n"
    )
    pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, stream: subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, **pipes)
    pipe = getattr(process, stream)
    assert process.stdin is not None
    pipe.close()
    process.stdin.close()
    assert process.wait(30) == 141
    if stream == "stdout":
        assert process.stderr is not None
        assert b"Error" not in process.stderr.read()
        process.stderr.close()
