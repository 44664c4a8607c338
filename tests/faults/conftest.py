"""A refusal: one sentence, an exit code, and a disk as it was."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Refuses = Callable[[str, int, str], None]


@pytest.fixture
def refuses(mopo: Any, contents: Any) -> Refuses:
    """Checks that a command line ends with ``code`` and one error that says ``said``, and changes nothing on disk."""

    def check(line: str, code: int, said: str) -> None:
        def disk() -> Any:
            return contents(Path()) | contents(Path(os.environ["MOPO_HOME"]).parent)

        before = disk()
        outcome = mopo(line)
        assert outcome.code == code, outcome.err
        assert outcome.out == ""
        assert said in outcome.err
        errors = [text for text in outcome.err.splitlines() if text.startswith("Error: ")]
        assert len(errors) == 1 and errors[0][7:].strip()
        told = outcome.err[outcome.err.index("Error: ") :].splitlines()
        assert all(text.startswith(("Error: ", "  ", "Try: ")) for text in told)
        assert "Traceback" not in outcome.err
        assert disk() == before

    return check
