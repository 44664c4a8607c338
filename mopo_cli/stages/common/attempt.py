"""What an interrupted stage goes on from: its checkpoint, and what is live beside it."""

import shutil
import time
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mopo_cli.errors import CorruptError, InputError, SettingsError
from mopo_cli.nets import libraries
from mopo_cli.report.console import Report
from mopo_cli.stages.common.options import Options
from mopo_cli.stages.common.same_settings import changed_settings, listed
from mopo_cli.store.atomic import plain
from mopo_cli.store.documents import Files, checked
from mopo_cli.store.headers import CheckpointHeader
from mopo_cli.store.publication import Publication
from mopo_cli.store.run import RunFolder

if TYPE_CHECKING:
    from torch import Tensor

AFRESH = "--force starts again from the beginning"
"""What helps where a checkpoint cannot be used."""


@dataclass
class Attempt:
    """A stage that is begun, from its inputs (path and sha256 by role) to what it leaves when it is interrupted.

    ``part`` names the piece of the stage that this process does, where several may be at work on it.
    """

    run: RunFolder
    key: str
    settings: dict[str, Any]
    inputs: Files
    options: Options
    report: Report
    part: str = ""
    out: Publication = field(init=False)
    """What the stage makes: write each file to ``out.stage(path)``; `finish` publishes them as one."""
    _started: float = field(default_factory=time.monotonic)
    _resumed: bool = False

    def __post_init__(self) -> None:
        self.out = Publication(self.state_folder / "staged")

    def save_state(self, tensors: "dict[str, Tensor]", meta: dict[str, Any]) -> None:
        """Publish the resume checkpoint; ``meta`` is JSON."""
        from mopo_cli.store.checkpoint import save_tensors

        envelope = {
            "settings": plain(self.settings),
            "inputs": self.inputs,
            "wall_seconds": time.monotonic() - self._started,
            "products": libraries.in_use(),
            "meta": meta,
        }
        save_tensors(self.state_file, tensors, envelope)

    def load_state(self, device: str = "cpu") -> "tuple[dict[str, Tensor], dict[str, Any]] | None":
        """The tensors and meta of an interrupted attempt, or None; --force discards them.

        SettingsError or InputError when it was started with other settings or inputs, CorruptError when it is
        damaged.
        """
        # A stage of several parts loads it for each; from the second on this process may have written it.
        first, self._resumed = not self._resumed, True
        if self.options.force:
            self.remove_state()
        if not self.state_file.exists():
            return None
        from mopo_cli.store.checkpoint import load_tensors

        try:
            tensors, saved = load_tensors(self.state_file, device)
        except CorruptError as error:
            raise CorruptError(error.message, hint=AFRESH) from error
        saved = checked(self.state_file, CheckpointHeader, saved, hint=AFRESH)
        self._check_same(saved)
        if first:
            self._started -= saved["wall_seconds"]
        return tensors, saved["meta"]

    @property
    def begun_file(self) -> Path:
        """What the stage goes on from, if it is there."""
        return self.state_file

    def resume_products(self) -> None:
        """Multiply by the libraries of what the stage goes on from (see `common.chosen_products`)."""
        if self.options.force or not self.begun_file.is_file():
            return
        from mopo_cli.stages.common.chosen_products import resume_products
        from mopo_cli.store.checkpoint import read_meta

        meta = read_meta(self.begun_file)
        if meta is not None:  # else `load_state` says what is wrong
            resume_products(meta.get("products"), self.options.products, self.key, self.report)

    @property
    def state_folder(self) -> Path:
        """The folder of what this process keeps while it works."""
        return self.run.state("/".join(filter(None, (self.key, self.part))))

    @property
    def state_file(self) -> Path:
        """The resume checkpoint."""
        return self.state_folder / "checkpoint.safetensors"

    @property
    def live(self) -> Path:
        """The folder of what grows while the stage runs; it stays as long as the checkpoint does."""
        return self.state_folder / "live"

    def _check_same(self, saved: dict[str, Any]) -> None:
        changed = changed_settings(self.key, saved["settings"], self.settings)
        if changed:
            raise SettingsError(
                f"The unfinished {self.key} in {self.run.root} was started with other settings: {listed(changed)}.",
                hint="use the old settings to continue it, or --force to start again",
            )
        for role in sorted({*saved["inputs"], *self.inputs}):
            old, new = (files[role]["sha256"] if role in files else None for files in (saved["inputs"], self.inputs))
            if old != new:
                raise InputError(f"The {role} changed after {self.key} was interrupted: sha256 {old} -> {new}.", AFRESH)

    def discard(self) -> None:
        """Drop what was staged and not published; a checkpoint stays, and what is live beside it."""
        self.out.discard()
        if not self.state_file.exists():
            self.remove_state()

    def remove_state(self) -> None:
        """Drop the checkpoint, what is live and what was staged."""
        folder = self.state_folder
        for path in folder.glob("*"):
            if not path.is_dir():
                path.unlink(missing_ok=True)
            elif not any(path.rglob(self.state_file.name)):  # what goes on from there is a stage of its own
                shutil.rmtree(path, ignore_errors=True)
        with suppress(OSError):  # other stages' states keep the folders above
            for place in filter(Path.exists, takewhile(self.run.root.__ne__, (folder, *folder.parents))):
                place.rmdir()
