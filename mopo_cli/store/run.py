"""The run folder: where everything made from one dataset lies, and how a command finds it."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path

from mopo_cli.errors import InputError, SettingsError
from mopo_cli.store.atomic import discard_leftovers, publish
from mopo_cli.store.files import check_file, check_folder, read_text

_RUNS = Path("runs")
_CURRENT = _RUNS / "current"
_VARIANTS = "variants"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]{0,120}")
_LONGEST_PATH, _SHOWN = 4096, 200
TEXT_TABLES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
JSON_LINES = (".json", ".jsonl", ".json.gz", ".jsonl.gz")
DATA_FILES = (".h5", ".hdf5", ".npz", ".parquet", *TEXT_TABLES, *JSON_LINES)
"""The endings of data files."""


@dataclass(frozen=True)
class RunFolder:
    """The layout of one run; every method gives a path and touches nothing.

    A ``name`` that is not a plain file name is refused with SettingsError.
    """

    root: Path

    @property
    def lineage(self) -> Path:
        """run.json, the record of every finished stage."""
        return self.root / "run.json"

    @property
    def model_dir(self) -> Path:
        """The folder of the dynamics model and its metrics."""
        return self.root / "model"

    @property
    def model(self) -> Path:
        """The ensemble's weights."""
        return self.model_dir / "ensemble.safetensors"

    @property
    def elites(self) -> Path:
        """The networks that rollouts use."""
        return self.root / "elites.json"

    def rollouts(self, name: str) -> Path:
        """One file of imagined transitions."""
        return self.root / "rollouts" / f"{_checked(name)}.h5"

    def policy(self, name: str, seed: int) -> Path:
        """One seed's policy weights."""
        return self.root / "policies" / _checked(name) / f"seed-{seed}" / "policy.safetensors"

    def evaluation(self, name: str) -> Path:
        """The evaluation of one policy; its CSV and PNG stand beside it under the same stem."""
        return self.root / "evaluations" / f"{_checked(name)}.json"

    def ablation_dir(self, name: str) -> Path:
        """The folder of one ablation: its table, plot and cells."""
        return self.root / "ablations" / _checked(name)

    def logs(self, sink: str) -> Path:
        """The folder of what a metrics sink writes."""
        return self.root / "logs" / sink

    def variant(self, name: str) -> "RunFolder":
        """A run inside this one, on the same data with another model."""
        return RunFolder(self.root / _VARIANTS / _checked(name))

    @property
    def jobs(self) -> Path:
        """The folder of the jobs of studies, which other machines may be at work on."""
        return self.root / "jobs"

    @property
    def trainings(self) -> Path:
        """The folder of the states of policies in training, where several processes may be at work at once."""
        return self.state("train-policy")

    @property
    def of_others(self) -> tuple[Path, Path]:
        """Folders in which other processes may be at work while one holds the run."""
        return self.trainings, self.jobs

    def state(self, key: str) -> Path:
        """The folder of a stage's resume checkpoint; ``key`` is as in run.json, "train-policy/NAME"."""
        return self.root.joinpath(".state", *(_checked(part) for part in key.split("/")))


def refuse_links(run: RunFolder) -> None:
    """InputError where anything inside the run folder is a symbolic link; the folder itself may be one.

    What is written or deleted through a link would be somebody else's. W&B and submitit make links among their files,
    which nothing here follows.
    """
    for folder, folders, files in os.walk(run.root):
        linked = any(map(Path(folder).match, ("logs/wandb/wandb", "jobs/.submitit/*")))
        inside = [] if linked else [*folders, *files]
        folders[:] = [name for name in folders if name in inside]
        for name in inside:
            if (path := Path(folder, name)).is_symlink():
                raise InputError(
                    f"{path} is a symbolic link, and links inside a run folder are not followed.",
                    hint="replace it with what it points to, or remove it",
                )


def data_ending(name: str) -> str:
    """Which of `DATA_FILES` a name ends in, ``.csv.gz`` rather than ``.gz``; empty where it is none."""
    return next((ending for ending in DATA_FILES if name.lower().endswith(ending)), "")


def folder_name(path: Path) -> str:
    """What a folder is called, also where its path is `.` or ends in `..`."""
    return os.path.basename(os.path.abspath(path))


def _readable(name: str) -> str:
    return re.sub(r"\.{2,}", ".", re.sub(r"[^A-Za-z0-9._-]+", "-", name)).strip("-._")[:100]


def dataset_slug(dataset: str) -> str:
    """A dataset's name as one readable folder name; of a data file, its name without ending. No separators, no "..".

    InputError when nothing readable is left.
    """
    path = Path(dataset)
    ending = data_ending(path.name)
    name = path.name[: -len(ending)] or path.name if ending else dataset
    name = str(path.parent) if "*" in path.name else name
    slug = _readable(name)
    if not slug and ("*" in path.name or dataset.endswith("/")):  # the working directory, or one above it
        slug = _readable(folder_name(Path(name)))
    if not slug:
        raise InputError(f"The dataset name {dataset!r} holds no letter or digit.", hint="mopo presets ls")
    # runs/current is the file that remembers the current run.
    return "current-data" if slug == _CURRENT.name else slug


def resolve_run(run: Path | None, dataset: str | None) -> RunFolder:
    """The run a command works on: --run, else runs/<slug of --dataset>, else $MOPO_RUN, else the current run.

    The first two need not exist yet. InputError when none is named, the current run is gone, or it is no folder.
    """
    if run is not None:
        return named_run(run)
    if dataset is not None:
        return named_run(_RUNS / dataset_slug(dataset))
    if named := os.environ.get("MOPO_RUN"):
        return named_run(Path(named))
    return named_run(_current_run())


def check_run(run: RunFolder) -> None:
    """InputError for a folder that no stage has finished in."""
    if not run.lineage.exists():
        raise InputError(f"{run.root} is not a run folder: it holds no run.json.", hint="mopo run quickstart")


def named_run(root: Path) -> RunFolder:
    """The run in that folder, which need not exist yet. InputError where there is something else."""
    check_folder(root, "The run folder ")
    run = RunFolder(root)
    if run.lineage.exists():
        check_file(run.lineage)
    return run


def _current_run() -> Path:
    hint = "name one with --dataset NAME or --run PATH"
    if not os.path.lexists(_CURRENT):
        raise InputError("No run is named, and this folder has no current run.", hint)
    try:
        current = read_text(_CURRENT, _LONGEST_PATH).strip()
        root = _RUNS / current
        is_there = bool(current) and root.is_dir()
    except InputError as error:
        raise InputError(f"The current run is not known: {error.message}", hint) from error
    except OSError:  # too long for a path
        is_there = False
    if not is_there:
        shown = str(root) if str(root).isprintable() else repr(str(root))
        raise InputError(f"The current run {shown[:_SHOWN]}, named in {_CURRENT}, does not exist any more.", hint)
    return root


def remember_run(run: RunFolder) -> None:
    """Make ``run`` the current run, unless $MOPO_RUN is what named it or it is a variant inside another.

    A working directory that cannot be written goes without: naming the run each time still works.
    """
    root = run.root.resolve()
    if (named := os.environ.get("MOPO_RUN")) and root == Path(named).resolve():
        return
    if root.parent.name == _VARIANTS and RunFolder(root.parents[1]).lineage.exists():
        return
    runs = _RUNS.resolve()
    text = str(root.relative_to(runs) if root.is_relative_to(runs) else root)
    _write_current(f"{text}\n".encode())


def _write_current(content: bytes) -> None:
    # What a killed process left half written; another that is writing now loses as if it had written first.
    with suppress(OSError):
        discard_leftovers(_CURRENT.parent, f".{_CURRENT.name}.*")
    with suppress(InputError), publish(_CURRENT) as temporary:
        temporary.write_bytes(content)


@contextmanager
def never_current(run: RunFolder) -> Iterator[None]:
    """Within it ``run`` does not become the current run."""
    before = os.environ.get("MOPO_RUN")
    os.environ["MOPO_RUN"] = str(run.root)
    try:
        yield
    finally:
        if before is None:
            del os.environ["MOPO_RUN"]
        else:
            os.environ["MOPO_RUN"] = before


@contextmanager
def current_run_kept() -> Iterator[None]:
    """Whatever runs are worked on within, the current run stays the one that it was."""
    before = _CURRENT.read_bytes() if _CURRENT.is_file() else None
    try:
        yield
    finally:
        if before is not None:
            _write_current(before)
        elif _CURRENT.is_file():
            _CURRENT.unlink()


def cache_dir() -> Path:
    """Where fetched datasets are kept: $MOPO_HOME, else the platform's user cache. InputError where it is no folder."""
    home = os.environ.get("MOPO_HOME")
    folder = Path(home) if home else user_cache_path("mopo", appauthor=False)
    check_folder(folder, "The cache folder ")
    return folder


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name) or ".." in name:
        raise SettingsError(
            f"The name {name!r} cannot be a file name: use letters, digits and . _ + = - only.",
            hint="choose another with --name",
        )
    return name
