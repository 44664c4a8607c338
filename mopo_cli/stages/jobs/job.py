"""A job: a stack of cells that share data and model, or a model, as a small file that any machine can carry out."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from mopo_cli import __version__
from mopo_cli.config.learners import fitting
from mopo_cli.config.schema import TrainPolicy
from mopo_cli.errors import InputError
from mopo_cli.store.atomic import plain, read_json, write_json
from mopo_cli.store.documents import Files, JobDocument, checked
from mopo_cli.store.lineage import StageRecord
from mopo_cli.store.run import RunFolder

_NAME_LENGTH = 12

TABLE = "job"
"""The name of the ablation that the cells of a job are in, in its own run."""
KEY = f"ablate/{TABLE}"

Kind = Literal["train-policy", "train-model"]


@dataclass(frozen=True)
class Job:
    """What to train: the settings of each cell, or of train-model and select-elites.

    ``inputs`` are by role, with absolute paths. ``fetched`` is the record of fetch-data, ``execution`` the options that
    are the same everywhere. ``memory`` is what its process takes by the estimate, in bytes; 0 on a GPU.
    """

    stage: Kind
    settings: list[dict[str, Any]]
    inputs: Files
    fetched: StageRecord
    execution: dict[str, Any]
    memory: int = 0

    @property
    def name(self) -> str:
        """The same for jobs that make the same files: of settings and content, not of paths."""
        hashes = {role: file["sha256"] for role, file in self.inputs.items()}
        about = json.dumps(plain([self.stage, self.settings, hashes, __version__]), sort_keys=True)
        return hashlib.sha256(about.encode()).hexdigest()[:_NAME_LENGTH]


def policy_settings(recorded: dict[str, Any]) -> TrainPolicy:
    """The settings of a cell of a job."""
    return fitting(TrainPolicy, recorded)(**recorded)


def write_job(job: Job, run: RunFolder) -> Path:
    """Write a job's file among the jobs of a run, if it is not there; returns its path."""
    path = run.jobs / f"{job.name}.json"
    write_json(path, {"mopo": __version__, **asdict(job)})
    return path.resolve()


def read_job(path: Path) -> Job:
    """The job in a file.

    InputError where another version of mopo wrote it or it cannot be opened, CorruptError where it is none.
    """
    document = read_json(path)
    if isinstance(document, dict) and (version := document.get("mopo", __version__)) != __version__:
        raise InputError(
            f"{path} was made by mopo {version}, and this is mopo {__version__}: their results may differ.",
            hint=f"install mopo {version} here, or plan the study again with this version",
        )
    content = checked(path, JobDocument, document)
    fetched = {name: content["fetched"][name] for name in StageRecord.__dataclass_fields__}
    return Job(
        content["stage"],
        content["settings"],
        content["inputs"],
        StageRecord(**fetched),
        dict(content["execution"]),
        content.get("memory", 0),
    )


def jobs_of(run: RunFolder) -> Iterator[tuple[Path, Job]]:
    """The jobs of a run that this version wrote, with the paths of their files."""
    for path in sorted(run.jobs.glob("*.json")):
        try:
            yield path, read_job(path)
        except InputError:
            continue


def absolute(files: Files, run: RunFolder, roles: Sequence[str]) -> Files:
    """These files of a stage in ``run``, with absolute paths."""
    return {
        role: {"path": str((run.root / files[role]["path"]).resolve()), "sha256": files[role]["sha256"]}
        for role in roles
    }
