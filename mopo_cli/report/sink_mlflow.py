"""Metrics for MLflow: a run per member, in a database in the run folder."""

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mopo_cli.report.sink import Curves, Values, identity

_TAG = "mopo.identity"
_MOST = 1000  # metrics in a request
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # A server that does not answer must not hold up the training for minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}


class Mlflow:
    """Runs in ``folder/mlflow.db``, or where $MLFLOW_TRACKING_URI says; those of an earlier attempt are deleted."""

    library = "mlflow"

    def __init__(self, folder: Path, curves: Curves) -> None:
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        folder.mkdir(parents=True, exist_ok=True)
        server = os.environ.get("MLFLOW_TRACKING_URI")
        store = server or f"sqlite:///{_database(folder)}"
        self.where = f"MLflow at {store}" if server else f"mlflow ui --backend-store-uri {store}"
        self._client = MlflowClient(tracking_uri=store)
        experiment = _experiment(self._client, curves.project, None if server else (folder / "artifacts").resolve())
        self._runs = {}
        for member in curves.members:
            name = curves.name(member)
            tag = identity(folder, name)
            for earlier in self._client.search_runs([experiment], f"tags.`{_TAG}` = '{tag}'"):
                self._client.delete_run(earlier.info.run_id)
            run = self._client.create_run(experiment, run_name=name, tags={_TAG: tag, "stage": curves.stage})
            self._runs[member] = run.info.run_id

    def log(self, member: str, epochs: Mapping[int, Values]) -> None:
        """Write all values in as few requests as there can be."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [
            Metric(name, value, now, epoch) for epoch, values in epochs.items() for name, value in values.items()
        ]
        for first in range(0, len(metrics), _MOST):
            self._client.log_batch(self._runs[member], metrics[first : first + _MOST])

    def close(self) -> None:
        """Mark the runs as ended."""
        for run in self._runs.values():
            self._client.set_terminated(run)


def _database(folder: Path) -> Path:
    """The database in the folder. To make it takes seconds, and half of one, after a kill, could never be opened."""
    from mlflow import MlflowClient

    path = folder / "mlflow.db"
    if not path.exists():
        with TemporaryDirectory(dir=folder) as place:
            new = Path(place) / path.name
            MlflowClient(tracking_uri=f"sqlite:///{new}").search_experiments()
            with suppress(FileExistsError):  # another process was faster
                os.link(new, path)
    return path


def _experiment(client: Any, name: str, artifacts: Path | None) -> str:
    existing = client.get_experiment_by_name(name)
    if existing is not None:
        return str(existing.experiment_id)
    return str(client.create_experiment(name, artifact_location=artifacts and str(artifacts)))
