"""Metrics for Trackio: a run per member, in a database on this machine."""

import os
import sys
from collections.abc import Mapping
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import Any

from mopo_cli.report.sink import Curves, Values, identity

_STORE = "TRACKIO_DIR"


class Trackio:
    """Runs in the database under ``folder``, or where $TRACKIO_DIR says; those of an earlier attempt are removed."""

    library = "trackio"

    def __init__(self, folder: Path, curves: Curves) -> None:
        store = os.environ.get(_STORE) or str(folder)
        trackio, project = _import(Path(store).resolve()), curves.project
        self.where = f"{_STORE}={store} trackio show --project {project}"
        self._runs = {}
        for member in curves.members:
            name = curves.name(member)
            config = {"identity": identity(folder, name), "stage": curves.stage}
            _remove(trackio, project, config["identity"])
            begin = partial(trackio.init, project, name, group=curves.stage, config=config, embed=False)
            # Trackio has one current run per context, and ends it where another one begins.
            self._runs[member] = copy_context().run(begin, auto_log_gpu=False, auto_log_cpu=False)

    def log(self, member: str, epochs: Mapping[int, Values]) -> None:
        """Hand the values to Trackio's thread, which writes them twice a second."""
        for epoch, values in epochs.items():
            self._runs[member].log(dict(values), step=epoch)

    def close(self) -> None:
        """Wait until all is written."""
        for run in self._runs.values():
            run.finish()


def _import(store: Path) -> Any:
    """The library with its database in that folder, of which it asks only when it is imported."""
    for name in [name for name in sys.modules if name.partition(".")[0] == Trackio.library]:
        del sys.modules[name]
    before = os.environ.get(_STORE)
    os.environ[_STORE] = str(store)
    try:
        import trackio
    finally:
        if before is None:
            del os.environ[_STORE]
    return trackio


def _remove(trackio: Any, project: str, identity: str) -> None:
    try:
        runs = list(trackio.Api().runs(project))
    except ValueError:  # no such project yet
        return
    for run in runs:
        if (run.config or {}).get("identity") == identity:
            run.delete()
