"""A few of the tables of which the truth is known: each is read right, or refused with the right reason."""

from pathlib import Path

import pytest
from faults.known_tables import make, wrong


@pytest.mark.parametrize("tens", range(8))
def test_logs_are_read_right_or_refused_rightly(tmp_path: Path, tens: int) -> None:
    for number in range(10 * tens, 10 * tens + 10):
        case = make(7, number, tmp_path)
        assert not wrong(case), (number, case.paths, case.columns)
