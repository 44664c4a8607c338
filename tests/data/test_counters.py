"""Columns that count steps though no map names them."""

from collections.abc import Sequence

import numpy as np
import pytest

from mopo_cli.data.files.counters import check_counter, unused_counter
from mopo_cli.data.files.layout import Log
from mopo_cli.errors import InputError


def log(**columns: Sequence[float] | Sequence[str]) -> Log:
    arrays = {name: np.array(column) for name, column in columns.items()}

    def read(wanted: object) -> dict[str, np.ndarray]:
        (name,) = wanted.numbers  # type: ignore[attr-defined]
        if arrays[name].dtype.kind == "U":
            raise InputError("text")
        return {name: arrays[name]}

    return Log(list(arrays), read)


def test_the_first_usual_name_that_counts() -> None:
    counter = unused_counter(log(time=["a", "b", "c"], t=[20.1, 7, 20.4], frame_index=[0, 2, 4]), {}, 3)
    assert counter is not None and (counter.name, counter.values.tolist()) == ("frame_index", [0, 2, 4])


@pytest.mark.parametrize(
    ("columns", "sources"),
    [
        ({"t": [0, 1, 2]}, {"terminals": ("t",)}),
        ({"t": [0, 1, 2], "clock": [0, 1, 2]}, {"step": ("clock",)}),
        ({"t": [0, 1, 0]}, {}),  # may be a flag
        ({"t": [0, 1, float("nan")]}, {}),
        ({"t": [[0], [1], [2], [3]]}, {}),  # of other rows
        ({"t": [[0, 1], [2, 3], [4, 5]]}, {}),
        ({"t": []}, {}),
        ({"temp": [0, 1, 2]}, {}),
    ],
)
def test_what_is_no_counter_or_is_used(columns: dict[str, list[float]], sources: dict[str, tuple[str, ...]]) -> None:
    assert unused_counter(log(**columns), sources, 3) is None


def test_a_counter_rises_within_episodes() -> None:
    values, ends = np.array([0.0, 1, 2, 0, 1, 1, 5, 4, 0]), np.isin(np.arange(9), [2, 7, 8])
    check = check_counter(values, ends, "t", "my.csv")
    assert check.row == 4 and not check.fault
    assert "2 of 8 steps, first from row 4 (1) to the next (1)" in check.warning and "step=t" in check.warning
    assert not check_counter(values, ends | np.isin(np.arange(9), [4, 6]), "t", "my.csv").warning
