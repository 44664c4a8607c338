"""mopo fetch-data: from a dataset's name to a checked dataset.h5 in the cache."""

import hashlib
import json
import shlex
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mopo_cli.config.fields import DATA_FILE
from mopo_cli.config.schema_data import FetchData
from mopo_cli.data.checks import Check
from mopo_cli.data.files.column_map import parse_column_map
from mopo_cli.data.files.layouts import LAYOUTS
from mopo_cli.data.files.source_files import d4rl_set
from mopo_cli.data.history import frame_width, stack_history, stacked_width, steps_text
from mopo_cli.data.registry import SOURCES, parse_dataset
from mopo_cli.data.relabel import relabel, reward_rule
from mopo_cli.data.source import DatasetName, Work
from mopo_cli.data.source_generated import LEVELS, TASKS
from mopo_cli.data.transition_files import read_dataset, write_dataset
from mopo_cli.data.transitions import DatasetInfo, Transitions
from mopo_cli.data.validate import Summary, doubts, summarise, validate
from mopo_cli.errors import CorruptError, InputError, UsageError
from mopo_cli.report.console import Report
from mopo_cli.stages.common.options import Options
from mopo_cli.stages.runner import Stage, stage_envelope
from mopo_cli.store.atomic import sha256_file, write_json
from mopo_cli.store.documents import CachedDataset, read_document
from mopo_cli.store.lineage import describe_files, hashes
from mopo_cli.store.lock import alone_in
from mopo_cli.store.publication import published_together
from mopo_cli.store.run import RunFolder, cache_dir, dataset_slug
from mopo_cli.tasks.expression import check_syntax, parse_condition
from mopo_cli.tasks.termination import check_rule_name, check_rule_width, is_expression

KEY = "fetch-data"

# Settings that say where to look, not what the data are.
_NOT_CONTENT = ("mirror",)

# Increase it when a file is read differently, so that older versions in the cache are not used.
_READING = 4

# Settings that are younger than the cache: at their defaults they do not tell its folders apart.
_YOUNGER = ("env_kwargs", "layout", "missing", "reward", "history")

# Settings that are about sets made here only, and the levels that depend on them.
_LEVELS_OF = {
    "transitions": ("random", "medium", "medium-expert", "expert"),
    "behaviour_steps": tuple(level for level in LEVELS if level != "random"),
    "medium_return": ("medium", "medium-replay", "medium-expert"),
    "seed": LEVELS,
}


def run_fetch_data(run: RunFolder, settings: FetchData, options: Options, report: Report) -> dict[str, Any]:
    """Bring the dataset here or make it, check it and record it under "fetch-data".

    The file lies in the cache, once for all runs; run.json refers to it by absolute path and sha256 as the
    output "dataset". Returns the summary with `dataset_id`, `env_id`, `source`. Raises InputError for an
    unknown, missing or unusable dataset, CorruptError for a damaged file, NetworkError for a failed download,
    UsageError for flags that contradict the dataset; then nothing on disk changes.
    """
    name = parse_dataset(settings.dataset)
    files = check_request(name, settings)
    with stage_envelope(run, KEY, settings.model_dump(), files, options, report) as stage:
        if stage.up_to_date:
            return stage.result()
        path, transitions, info = _cached_dataset(name, settings, stage)
        summary = summarise(transitions)
        show(report, info, summary)
        if info.history > 1:
            frame = frame_width(transitions.obs_dim, transitions.act_dim, info.history)
            report.say(
                f"Observations are of {steps_text(info.history)} (--history): {transitions.obs_dim} numbers each, the "
                f"{frame} newest first."
            )
        warn_of(doubts(transitions, info), report)
        report.hint("mopo train-model")
        described = {"dataset_id": info.dataset_id, "env_id": info.env_id, "source": info.source}
        if name.kind == "local" and not d4rl_set(stage.inputs["source"]["sha256"], settings.columns):
            described["kind"] = DATA_FILE  # what sets its own defaults, see `config.resolve`
        return stage.finish({"dataset": path}, {**described, **asdict(summary)})


def check_request(name: DatasetName, settings: FetchData) -> dict[str, Path]:
    """The files, by role, that the data are read from and that may change under the same name.

    InputError if the named file is missing, UsageError for flags that contradict the dataset.
    """
    source = SOURCES[name.kind]
    files = source.files(name, settings)
    if "env" not in source.settings and settings.env not in (None, name.env_id):
        raise UsageError(
            f"--env {settings.env} contradicts --dataset {settings.dataset}, which names its environment.",
            hint="leave --env out; it is for files",
        )
    for flag in ("columns", "layout", "missing"):
        if flag not in source.settings and getattr(settings, flag) != FetchData.model_fields[flag].default:
            raise UsageError(f"--{flag} is for files, not for --dataset {settings.dataset}.", hint="leave it out")
    if settings.layout is not None and settings.layout not in LAYOUTS:
        raise UsageError(f"--layout must be one of {', '.join(LAYOUTS)}, not {settings.layout!r}.")
    parse_column_map(settings.columns)
    if settings.env_kwargs is not None:
        _check_env_kwargs(name, settings)
    if is_expression(settings.termination):
        check_syntax(settings.termination, "termination rule")
    elif settings.termination != "auto":
        check_rule_name(settings.termination)
    if settings.reward is not None:
        check_syntax(settings.reward, "reward")
    if settings.relabel is not None:
        reward_rule(settings.relabel)
        if settings.reward is not None:
            raise UsageError("--reward and --relabel both replace the rewards.", hint="use only one of them")
    return files


def explain_command(dataset: str) -> str:
    """The command that says what a file holds, to be pasted into a shell."""
    return f"mopo fetch-data --dataset {shlex.quote(dataset)} --explain"


def _check_env_kwargs(name: DatasetName, settings: FetchData) -> None:
    if "env_kwargs" not in SOURCES[name.kind].settings or name.dataset_id in TASKS:
        raise UsageError(
            f"--env-kwargs contradicts --dataset {settings.dataset}, which says what its environment is made with.",
            hint="leave --env-kwargs out",
        )
    if name.env_id is None and settings.env is None:
        raise UsageError("--env-kwargs is for the environment that --env names: add --env ENV-ID.")


def _cached_dataset(name: DatasetName, settings: FetchData, stage: Stage) -> tuple[Path, Transitions, DatasetInfo]:
    """The dataset from the cache if it is there whole, else made and put there."""
    source = SOURCES[name.kind]
    if source.download is not None:
        source.download(name, _work(stage))
        stage.inputs = describe_files(stage.run, source.files(name, settings))
    cached = None if stage.options.force else cached_file(name, settings, stage)
    if cached is not None:
        stage.report.say(f"Found in the cache: {cached}")
        return cached, *read_dataset(cached)
    try:
        transitions, info = make_dataset(name, settings, stage)
        validate(transitions, info)
    except InputError as error:
        if name.path is not None:
            error.hint = explain_command(settings.dataset)
        raise
    if name.path is not None and describe_files(stage.run, source.files(name, settings)) != stage.inputs:
        raise InputError(
            f"A file of {settings.dataset} changed while it was read.", hint="run it again when nothing writes to it"
        )
    transitions, info = _with_history(transitions, info, settings)
    path, sidecar = _cache_files(name, settings, stage)
    with alone_in(path.parent), published_together(path.with_name(".staged")) as out:
        out.discard()  # a process that was killed while it wrote left it
        digest = write_dataset(out.stage(path), transitions, info)
        write_json(out.stage(sidecar), {"dataset_id": info.dataset_id, "sha256": digest, "source": info.source})
    return path, transitions, info


def _with_history(transitions: Transitions, info: DatasetInfo, settings: FetchData) -> tuple[Transitions, DatasetInfo]:
    """The dataset with observations of as many steps as the settings say; SettingsError where they would not fit."""
    if settings.history > 1:
        _check_size(settings, len(transitions), transitions.obs_dim, transitions.act_dim)
    return stack_history(transitions, info, settings.history)


def _check_size(settings: FetchData, rows: int | None, obs_dim: int, act_dim: int) -> None:
    """SettingsError where so many rows (None: as many as are to be recorded) would not fit into memory."""
    import torch

    from mopo_cli.stages.common.memory import check_memory
    from mopo_cli.stages.common.memory_estimates import log_bytes

    def estimate(some: FetchData) -> dict[str, int]:
        width = stacked_width(obs_dim, act_dim, some.history)
        return log_bytes(some.transitions if rows is None else rows, width, act_dim)

    check_memory(settings, estimate, torch.device("cpu"), "The data set")


def cached_file(name: DatasetName, settings: FetchData, stage: Stage) -> Path | None:
    """The dataset in the cache, None where it is not there whole."""
    path, sidecar = _cache_files(name, settings, stage)
    if not (path.is_file() and sidecar.is_file()):
        return None
    try:
        recorded = read_document(sidecar, CachedDataset)
    except CorruptError:
        return None
    return path if recorded["sha256"] == sha256_file(path) else None


def unused_settings(name: DatasetName) -> set[str]:
    """The settings that the content of a dataset does not depend on."""
    return {*_NOT_CONTENT, *(key for key, levels in _LEVELS_OF.items() if name.level not in levels)}


def _cache_files(name: DatasetName, settings: FetchData, stage: Stage) -> tuple[Path, Path]:
    """The dataset and its description, in a folder whose name tells apart everything the content depends on."""
    unused = unused_settings(name) | {
        key for key in _YOUNGER if getattr(settings, key) == FetchData.model_fields[key].default
    }
    content = {key: value for key, value in settings.model_dump().items() if key not in unused}
    if name.path is not None:
        content["reading"] = _READING
    content |= {"dataset": dataset_slug(settings.dataset), "sources": [f["sha256"] for f in stage.inputs.values()]}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    folder = (cache_dir() / "datasets" / f"{dataset_slug(settings.dataset)}-{digest[:12]}").resolve()
    return folder / "dataset.h5", folder / "dataset.json"


def make_dataset(name: DatasetName, settings: FetchData, stage: Stage) -> tuple[Transitions, DatasetInfo]:
    """The dataset as its source has it, with the rewards and the termination rule of the settings.

    Call `validate` on what comes back. InputError where the rule does not fit the observations.
    """
    if name.env_id is not None:
        name = replace(name, env_kwargs={**name.env_kwargs, **(settings.env_kwargs or {})})
    transitions, info = SOURCES[name.kind].fetch(name, settings, _work(stage))
    if rule := settings.relabel or name.relabel:
        logged_in = {**info.env_kwargs, **name.behaviour_kwargs}
        transitions, info = relabel(transitions, replace(info, env_kwargs=logged_in), rule)
    if settings.reward is not None:
        from mopo_cli.data.given_reward import give_reward

        transitions, info = give_reward(transitions, info, settings.reward)
    if settings.termination != "auto":
        text = settings.termination
        info = replace(info, termination=parse_condition(text, info.names).text if is_expression(text) else text)
    check_rule_width(info.termination, transitions.obs_dim, transitions.act_dim)
    return transitions, info


def _work(stage: Stage) -> Work:
    return Work(
        say=stage.report.say,
        warn=stage.report.warn,
        progress=stage.progress,
        sha256=hashes(stage.inputs),
        generate=lambda name, settings: _generate(name, settings, stage),
    )


def _generate(name: DatasetName, settings: FetchData, stage: Stage) -> tuple[Transitions, DatasetInfo]:
    if name.level != "random":
        from mopo_cli.stages.common.train_behaviour import generate_by_recipe

        return generate_by_recipe(name, settings, stage)
    from mopo_cli.data.generate import generate_random
    from mopo_cli.data.spaces import spaces_of_id

    assert name.env_id is not None
    kwargs = {**name.env_kwargs, **name.behaviour_kwargs}
    spaces = spaces_of_id(name.env_id, kwargs)
    _check_size(settings, None, spaces.obs_dim, spaces.act_dim)
    with stage.progress(f"random steps in {name.env_id}", settings.transitions) as count:
        return generate_random(name.env_id, settings.transitions, settings.seed, count, kwargs)


def show(report: Report, info: DatasetInfo, summary: Summary) -> None:
    """Print what the dataset holds and where it comes from, and warn of likely problems."""
    columns = [field.replace("_", " ") for field in asdict(summary)]
    report.table(info.dataset_id, columns, [list(asdict(summary).values())])
    report.say(info.source)
    if info.termination == "none" and summary.terminals:
        rule = f"known for the environment {info.env_id}" if info.env_id else "set (--termination gives one)"
        report.warn(
            f"{info.dataset_id} marks terminals ({summary.terminals}), but no termination rule is {rule}: imagined "
            "episodes will not end there."
        )
    if info.env_id is None:
        report.say("No environment is named (--env ENV-ID): there will be none to play the policies in.")


def warn_of(checks: Iterable[Check], report: Report) -> None:
    """Print the warnings among the checks."""
    for check in checks:
        if check.warning:
            report.warn(check.warning)
