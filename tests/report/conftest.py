"""What would have been drawn."""

from typing import Any

import pytest

from mopo_cli.report import plots, plots_rollouts


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The figures that would have been saved."""
    saved: list[Any] = []
    for module in (plots, plots_rollouts):
        monkeypatch.setattr(module, "save", lambda figure, path: saved.append(figure))
    return saved
