"""Metrics for Weights & Biases: a run per member, on this machine until it is synced."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from mopo_cli.report.sink import Curves, Values, identity


class Wandb:
    """Offline runs under ``folder/wandb``, or as $WANDB_MODE says; a resumed training replaces the run, by its id."""

    library = "wandb"

    def __init__(self, folder: Path, curves: Curves) -> None:
        # Its reports of errors to its makers need a network, and threads that outlive the run.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        self._wandb, mode = wandb, os.environ.get("WANDB_MODE", "offline")
        folder.mkdir(parents=True, exist_ok=True)
        settings = wandb.Settings(
            console="off", silent=True, symlink=False, disable_git=True, disable_code=True, x_disable_stats=True
        )
        self._runs = {}
        for member in curves.members:
            name = curves.name(member)
            run_id = identity(folder, name)
            for earlier in (folder / "wandb").glob(f"offline-run-*-{run_id}"):
                shutil.rmtree(earlier)
            self._runs[member] = wandb.init(
                project=os.environ.get("WANDB_PROJECT") or curves.project,
                dir=str(folder),
                id=run_id,
                name=name,
                group=curves.stage,
                mode=mode,
                reinit="create_new",
                settings=settings,
            )
        first = next(iter(self._runs.values()))
        self.where = first.url if mode == "online" else f"wandb sync {folder / 'wandb' / 'offline-run-*'}"

    def log(self, member: str, epochs: Mapping[int, Values]) -> None:
        """Hand the values to the library, which writes them in its own time."""
        for epoch, values in epochs.items():
            self._runs[member].log(dict(values), step=epoch)

    def close(self) -> None:
        """Wait until all is written, and end the library's threads."""
        for run in self._runs.values():
            run.finish()
        self._wandb.teardown()
