"""The part of fetch-data that trains a behaviour and logs it; one training, kept in the cache, serves every level."""

import hashlib
import json
import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mopo_cli.agents.online import OnlineSettings, start_online
from mopo_cli.config.schema_data import FetchData
from mopo_cli.data.behaviour import (
    Behaviour,
    behaviour_state,
    evaluate,
    restore_behaviour,
    start_behaviour,
    take_step,
)
from mopo_cli.data.recipes import (
    Goal,
    Recipe,
    Threshold,
    describe,
    make_transitions,
    medium_threshold,
    needs_medium,
    random_return,
)
from mopo_cli.data.source import DatasetName
from mopo_cli.data.spaces import Spaces, environment_fields, spaces_of
from mopo_cli.data.transitions import DatasetInfo, Transitions
from mopo_cli.engine.rows import RowLayout
from mopo_cli.errors import CorruptError
from mopo_cli.evaluation.play import Environment, open_environments
from mopo_cli.nets import libraries
from mopo_cli.stages.common.chosen_products import resume_products
from mopo_cli.stages.common.device import open_device
from mopo_cli.stages.common.inputs import described
from mopo_cli.stages.common.memory import check_memory
from mopo_cli.stages.common.memory_estimates import behaviour_bytes, log_bytes
from mopo_cli.stages.common.saving import Saver
from mopo_cli.stages.runner import Stage
from mopo_cli.store.checkpoint import load_tensors, save_tensors
from mopo_cli.store.documents import checked
from mopo_cli.store.headers import BehaviourProgress
from mopo_cli.store.lineage import tool_versions
from mopo_cli.store.lock import alone_in
from mopo_cli.store.run import cache_dir, dataset_slug

RECIPE = Recipe()

_BLOCK = 20  # steps between two looks at the signals


def generate_by_recipe(name: DatasetName, settings: FetchData, stage: Stage) -> tuple[Transitions, DatasetInfo]:
    """Train the behaviour as far as the level needs it, from where an earlier training stopped, and log it.

    InputError where the environment will not do, no threshold is known, or medium is not reached within
    --behaviour-steps; DivergedError; Stopped after a signal. What was trained stays in the cache all the same.
    """
    assert name.env_id is not None and name.level is not None
    device = open_device(stage.options)
    kwargs = {**name.env_kwargs, **name.behaviour_kwargs}
    with open_environments(name.env_id, 1 + RECIPE.episodes, kwargs) as (environment, *test_environments):
        spaces = spaces_of(name.env_id, environment)
        dims = spaces.obs_dim, spaces.act_dim
        check_memory(settings, lambda some: behaviour_bytes(some.behaviour_steps, *dims), device)
        if not name.level.endswith("replay"):
            check_memory(settings, lambda some: log_bytes(some.transitions, *dims), torch.device("cpu"))
        goal = Goal(RECIPE, name.level, settings.behaviour_steps, _threshold(name, settings, spaces, test_environments))
        fields = environment_fields(name.env_id, spaces.action_low, spaces.action_high, name.env_kwargs)
        fields |= {"seed": settings.seed, "env_kwargs": name.env_kwargs, "obs_entries": spaces.entries}
        info = DatasetInfo(name.dataset_id, source="", **fields)
        path = _trainings_file(name, settings.seed, kwargs)
        with alone_in(path.parent):
            behaviour = _open(path, goal, info, spaces, stage, device)
            _train(behaviour, goal, path, environment, test_environments, stage)
        goal.check(behaviour)
        with stage.progress(f"rows by {name.level}", settings.transitions) as count:
            logged = make_transitions(goal, behaviour, environment, spaces, settings.transitions, count)
        return logged, replace(behaviour.info, **describe(goal, behaviour, name.env_id, tool_versions()))


def _threshold(
    name: DatasetName, settings: FetchData, spaces: Spaces, test_environments: list[Environment]
) -> Threshold | None:
    assert name.env_id is not None and name.level is not None
    if not needs_medium(name.level):
        return None
    if settings.medium_return is not None:
        return Threshold(settings.medium_return, "as --medium-return says")
    return medium_threshold(
        name.env_id, test_environments[0], lambda: random_return(test_environments, spaces, settings.seed)
    )


def _trainings_file(name: DatasetName, seed: int, kwargs: dict[str, Any]) -> Path:
    """Where the training is kept: the name depends on everything that the training does, but its length."""
    versions = {package: tool_versions()[package] for package in ("gymnasium", "mujoco")}
    content = {"env_id": name.env_id, "kwargs": kwargs, "seed": seed, "recipe": asdict(RECIPE), "versions": versions}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    folder = cache_dir() / "behaviours" / f"{dataset_slug(str(name.env_id))}-seed{seed}-{digest[:12]}"
    return folder / "behaviour.safetensors"


def _open(path: Path, goal: Goal, info: DatasetInfo, spaces: Spaces, stage: Stage, device: torch.device) -> Behaviour:
    """The behaviour as the file has it, or a fresh one; --force discards the file."""
    if stage.options.force:
        path.unlink(missing_ok=True)
    tensors: dict[str, torch.Tensor] = {}
    numbers: dict[str, Any] = {"steps": 0}
    if path.exists():
        hint = "--force trains the behaviour again from the beginning"
        try:
            tensors, numbers = load_tensors(path, str(device))
        except CorruptError as error:
            raise CorruptError(error.message, hint) from error
        numbers = checked(path, BehaviourProgress, numbers, hint)
        resume_products(numbers.get("products"), stage.options.products, f"The training in {path}", stage.report)
    with described(path):
        rows = RowLayout(spaces.obs_dim, spaces.act_dim, 0)
        capacity, schedule = max(goal.limit, numbers["steps"]), OnlineSettings(RECIPE.warmup, RECIPE.batch_size)
        assert info.seed is not None
        online = start_online(rows, capacity, RECIPE.sac(spaces.act_dim), schedule, info.seed, device)
        behaviour = start_behaviour(online, info)
        if tensors:
            restore_behaviour(behaviour, tensors, numbers)
            done = goal.is_met(behaviour)
            stage.report.say(f"the training in {path} " + ("suffices" if done else f"goes on at step {online.steps:,}"))
    return behaviour


_COLUMNS = ("steps", "return", "episodes", "Q", "entropy", "alpha", "steps/s")


def _train(
    behaviour: Behaviour,
    goal: Goal,
    path: Path,
    environment: Environment,
    test_environments: list[Environment],
    stage: Stage,
) -> None:
    """Train until the goal is met or its limit reached; saved at intervals, at a signal and at the end."""
    online, first_step = behaviour.online, behaviour.online.steps
    save = partial(_save, path, behaviour)
    saver = Saver(stage, save)
    with (
        stage.report.live_table(_COLUMNS) as table,
        stage.report.progress(f"SAC in {behaviour.info.env_id}", goal.limit, min(first_step, goal.limit)) as progress,
    ):
        shown = first_step, time.monotonic()
        met = goal.is_met(behaviour)
        while not met and online.steps < goal.limit:
            take_step(behaviour, environment)
            if goal.recipe.is_due(online.steps) or online.steps == goal.limit:
                evaluate(behaviour, test_environments)
                before, shown = shown, (online.steps, time.monotonic())
                table.row(*_numbers(behaviour), (shown[0] - before[0]) / (shown[1] - before[1]))
                met = goal.is_met(behaviour)
            if online.steps % _BLOCK == 0:
                progress.update(_BLOCK)
                saver.look()
    if online.steps > first_step:
        save()


def _numbers(behaviour: Behaviour) -> list[Any]:
    steps, metrics = behaviour.online.steps, behaviour.online.metrics
    shown = [metrics[name].item() if name in metrics else None for name in ("q", "entropy", "alpha")]
    return [steps, behaviour.curve[steps], behaviour.start.episode, *shown]


def _save(path: Path, behaviour: Behaviour) -> None:
    """Publish the training as far as the start of its present episode."""
    tensors, numbers = behaviour_state(behaviour)
    save_tensors(path, tensors, numbers | {"products": libraries.in_use()})
