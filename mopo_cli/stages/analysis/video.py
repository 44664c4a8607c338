"""evaluate --video: an episode of every seed as a video, one of those that the evaluation counts."""

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from glob import escape
from math import nan
from pathlib import Path
from typing import Any

import numpy as np

from mopo_cli.config.schema import Evaluate
from mopo_cli.data.environment_history import with_history
from mopo_cli.data.transition_files import read_dataset, read_dataset_info
from mopo_cli.data.transitions import DatasetInfo
from mopo_cli.errors import InputError, UsageError
from mopo_cli.evaluation.pictures import DRAWN, Filmed, Picture, check_pictures
from mopo_cli.evaluation.play import Environment, evaluate_returns, open_environments
from mopo_cli.evaluation.video import ffmpeg, labelled, open_video
from mopo_cli.report.console import Report
from mopo_cli.report.tables import format_number
from mopo_cli.stages.common.device import open_device
from mopo_cli.stages.common.inputs import dataset_path
from mopo_cli.stages.common.options import Options
from mopo_cli.stages.common.policies import greedy_policy
from mopo_cli.stages.common.trained_policies import open_run_policy, policies_to_evaluate, policy_inputs_of
from mopo_cli.stages.runner import Stage, stage_envelope
from mopo_cli.store.atomic import discard_leftovers, publish
from mopo_cli.store.run import RunFolder

_EPISODE = 0  # the one that is shown of every seed
_PER_SECOND = 30.0  # pictures of an environment that does not say how many


def check_video(run: RunFolder, path: Path) -> None:
    """Refuse a video that cannot be made, before anything is evaluated.

    UsageError where the file is no .mp4; InputError where its name is a folder's, ffmpeg is missing, or the run's
    data name no environment or one that cannot be drawn here.
    """
    if path.suffix.lower() != ".mp4":
        raise UsageError(f"--video {path} must end in .mp4.")
    if path.is_dir():
        raise InputError(f"--video {path} is a folder, not a file.")
    ffmpeg()
    info = read_dataset_info(dataset_path(run))
    if info.env_id is None:
        raise InputError(
            f"--video needs an environment, and {info.dataset_id} names none.",
            hint="mopo fetch-data --dataset FILE --env ENV-ID",
        )
    check_pictures(info.env_id, info.env_kwargs, info.obs_entries)


def run_video(run: RunFolder, settings: Evaluate, options: Options, report: Report, path: Path) -> dict[str, Any]:
    """Write the video of the policy's first episode for every seed, one after the other; returns the result object.

    A picture of every state: of the start, and after each step. All episodes of the evaluation are played again, in
    the same batches, as otherwise the last bits of the actions would differ, and thus the episode. Raises what
    `check_video` does not foresee: InputError where pictures change their size or ffmpeg fails.
    """
    device = open_device(options)
    name, _, policies = policies_to_evaluate(run, settings.policy)
    inputs = {"dataset": dataset_path(run), **policy_inputs_of(policies)}
    recorded = settings.model_dump() | {"video": str(path.resolve())}
    with stage_envelope(run, f"evaluate/{name}/video", recorded, inputs, options, report) as stage:
        if stage.up_to_date:
            return stage.result()
        transitions, info = read_dataset(inputs["dataset"])
        discard_leftovers(path.parent, f".{escape(path.stem)}.*")
        episodes: list[dict[str, Any]] = []
        with publish(path) as temporary, _opened(stage, info, settings.episodes, temporary) as (environments, film):
            for seed, file in policies.items():
                actor, meta = open_run_policy(file, stage, transitions, info, device)
                act = greedy_policy(actor, meta["action_low"], meta["action_high"])
                film.label = f"seed {seed}"
                played = evaluate_returns(act, environments, settings.seed, exact=bool(actor.offset))
                numbers = {"return": float(played.returns[_EPISODE]), "length": int(played.lengths[_EPISODE])}
                episodes.append({"seed": int(seed), "episode": _EPISODE, **numbers})
        _show(episodes, path, report)
        _compare(episodes, run.evaluation(name).with_suffix(".csv"), report)
        return stage.finish({"video": path}, {"policy": name, "pictures": film.pictures, "episodes": episodes})


class _Film:
    """Adds every picture to the video, with a label."""

    def __init__(self, add: Callable[[Picture], None], count: Callable[[int], None]) -> None:
        self.label, self.pictures = "", 0
        self._add, self._count = add, count

    def __call__(self, picture: Picture) -> None:
        self._add(labelled(picture, self.label))
        self.pictures += 1
        self._count(1)


@contextmanager
def _opened(stage: Stage, info: DatasetInfo, episodes: int, path: Path) -> Iterator[tuple[list[Environment], _Film]]:
    """As many environments as the evaluation has episodes, the first of them filmed; the video is closed at the end."""
    assert info.env_id is not None
    with (
        open_environments(info.env_id, 1, info.env_kwargs | DRAWN, info.obs_entries) as first,
        open_environments(info.env_id, episodes - 1, info.env_kwargs, info.obs_entries) as rest,
        stage.progress("video", None) as count,
    ):
        environments = with_history([*first, *rest], info)
        per_second = float(environments[_EPISODE].metadata.get("render_fps") or _PER_SECOND)
        with open_video(path, per_second) as add:
            film = _Film(add, count)
            environments[_EPISODE] = Filmed(environments[_EPISODE], info.env_id, film)
            yield environments, film


def _show(episodes: list[dict[str, Any]], path: Path, report: Report) -> None:
    for each in episodes:
        total = format_number(each["return"])
        report.say(f"seed {each['seed']}, episode {each['episode']}: return {total} in {each['length']:,} steps")
    report.say(f"Filmed: {path}")


def _compare(episodes: list[dict[str, Any]], evaluation: Path, report: Report) -> None:
    """Warn of an episode that did not return what the evaluation counted."""
    with evaluation.open(encoding="utf-8", newline="") as file:
        returns = {(int(row["seed"]), int(row["episode"])): float(row["return"]) for row in csv.DictReader(file)}
    for each in episodes:
        before = returns.get((each["seed"], each["episode"]), nan)
        if not np.array_equal(before, each["return"], equal_nan=True):
            report.warn(
                f"The episode of seed {each['seed']} returned {each['return']!r} in the video, but {before!r} in the "
                "evaluation: that was made on another device or by other versions (mopo evaluate --force), or the "
                "environment does not repeat itself."
            )
