"""What the rollout stage prints."""

import re
from pathlib import Path
from typing import Any


def test_steps_are_counted_from_one_as_on_the_map(tiny_run: Path, mopo: Any) -> None:
    outcome = mopo("rollout --config tiny.yaml --h 3 --force --threads 1")
    assert outcome.code == 0, outcome.err
    table = outcome.err.split("Uncertainty by step of the rollout")[1]
    assert sorted(set(re.findall(r"(?m)^│\s+(\d+) │ \S", table))) == ["1", "2", "3"]
