"""Numbers beside published ones, as they are shown."""

from math import nan
from typing import Any

import pytest

from mopo_cli.report.comparison import show_comparison
from mopo_cli.report.console import Report


@pytest.mark.parametrize(("interval", "shown"), [([nan, nan], False), ([50.0, 70.5], True)])
def test_a_single_return_has_no_interval(
    interval: list[float], shown: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    line: dict[str, Any] = {"data_set": "d", "row": "MOPO", "notes": [], "published": None, "missing": None}
    line |= {"returns": {"0": {"last": 60.25, "last_10": 60.25}}}
    line |= {"last": (60.25, 0.0), "last_10": (60.25, 0.0), "iqm": 60.25, "iqm_interval": interval}
    show_comparison(Report("human"), "title", [], [line])
    text = capsys.readouterr().err
    assert "nan" not in text and "±" not in text and ("50.0 to 70.5" in text) == shown
