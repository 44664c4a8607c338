"""Published sets: the copy at hand, else the download, as transitions."""

from pathlib import Path

from mopo_cli.config.schema import FetchData
from mopo_cli.data import minari_remote
from mopo_cli.data.d4rl import load_d4rl
from mopo_cli.data.d4rl_files import MIRROR, D4rlFile, address, copies, downloads_dir, identify, published
from mopo_cli.data.download import Remote, download, partial_file
from mopo_cli.data.minari import load_minari
from mopo_cli.data.minari_sets import is_missing, minari_root, open_set
from mopo_cli.data.registry import DatasetName, parse_dataset
from mopo_cli.data.transitions import DatasetInfo, Transitions
from mopo_cli.errors import UsageError
from mopo_cli.report.console import Report
from mopo_cli.stages.runner import Stage


def bring_d4rl(name: DatasetName, settings: FetchData, stage: Stage) -> tuple[Transitions, DatasetInfo]:
    """The D4RL set from a copy on disk, else from its address or the mirror.

    Raises InputError where D4RL has no such set or the file is not as it should be, UsageError for a mirror
    that is none, NetworkError for a failed download; after Stopped the same command goes on from there.
    """
    file = published(name.dataset_id)
    url = address(file, settings.mirror)
    path = _copy_at_hand(file, stage.report) or _download(file, url, stage)
    return load_d4rl(path, file.dataset_id)


def read_if_d4rl(path: Path, settings: FetchData, stage: Stage) -> tuple[Transitions, DatasetInfo] | None:
    """The stage's own file as the D4RL set whose published file it is to the byte; None where it is another.

    UsageError where --env names another environment than the set's.
    """
    dataset_id = identify(stage.inputs["source"]["sha256"])
    if dataset_id is None or settings.columns:
        return None
    env_id = parse_dataset(dataset_id).env_id
    if settings.env not in (None, env_id):
        raise UsageError(
            f"--env {settings.env} contradicts {path}, which is D4RL's {dataset_id} and belongs to {env_id}.",
            hint="leave --env out",
        )
    stage.report.say(f"{path} is D4RL's {dataset_id}")
    return load_d4rl(path, dataset_id)


def _copy_at_hand(file: D4rlFile, report: Report) -> Path | None:
    for path, is_published in copies(file):
        if is_published:
            report.say(f"Found on disk: {path}")
            return path
        report.warn(f"{path} is not the published file (its size or sha256 differs) and is not used.")
    return None


def _download(file: D4rlFile, url: str, stage: Stage) -> Path:
    target = downloads_dir() / file.name
    hint = (
        f"the same command goes on from where it was; else --mirror URL or {MIRROR} for another server, "
        f"or put the file at {target.resolve()}"
    )
    part = partial_file(target)
    done = part.stat().st_size if part.is_file() else 0
    stage.report.say(f"Downloading {url} to {target}")
    with stage.progress(file.name, file.size, done, in_bytes=True) as count:
        download(Remote(url, file.size, file.sha256), target, hint, count, stage.report.say)
    return target


def download_minari(name: DatasetName, stage: Stage) -> None:
    """Bring the Minari set to Minari's own folder, where it is not there yet or only in part.

    Raises InputError for an id that the remote does not have, NetworkError for a failed download; after Stopped
    the same command goes on from there.
    """
    dataset_id = name.dataset_id.removeprefix("minari:")
    if is_missing(dataset_id):
        stage.report.say(f"Downloading {name.dataset_id} to {minari_root()}")
        with stage.progress(name.dataset_id, None, in_bytes=True) as count:
            minari_remote.download(dataset_id, count)


def bring_minari(name: DatasetName, settings: FetchData, stage: Stage) -> tuple[Transitions, DatasetInfo]:
    """The Minari set in Minari's own folder, see `load_minari`."""
    dataset_id = name.dataset_id.removeprefix("minari:")
    with stage.progress(f"reading {name.dataset_id}", open_set(dataset_id).steps) as count:
        return load_minari(dataset_id, count, settings.env)
