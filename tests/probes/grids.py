"""An ablation as its command resolves it: settings and cells."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mopo_cli.config.ablation import check_grid, grid, method_cells
from mopo_cli.config.resolve import resolve
from mopo_cli.config.schema import Ablate, TrainPolicy


@dataclass(frozen=True)
class Made:
    """An ablation's settings and its cells."""

    settings: Ablate
    cells: tuple[TrainPolicy, ...]

    @property
    def names(self) -> list[str]:
        return [cell.policy_name() for cell in self.cells]


def made(*axes: str, dataset: str | None = None, file: Path | None = None, **flags: Any) -> Made:
    line = {**flags, "grid": list(axes)} if axes else flags
    resolved = resolve(Ablate, dataset=dataset, config_file=file, flags=line)

    def settle(changes: dict[str, Any]) -> TrainPolicy:
        return resolve(TrainPolicy, dataset=dataset, config_file=file, flags=changes).settings

    check_grid(resolved.settings, resolved.origins)
    if resolved.settings.method:
        return Made(resolved.settings, method_cells(resolved.settings, resolved.origins, settle))
    return Made(resolved.settings, grid(resolved.settings))
