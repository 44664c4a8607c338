"""Whether the workloads fit into memory; from their rates to hours: how long a whole run takes, and its memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from mopo_cli.agents.algorithms import load
from mopo_cli.agents.parallel_members import crew_size
from mopo_cli.bench.measure import WARM_UP, Task, rollouts_name, training_name, updates_name
from mopo_cli.bench.rates import Rate
from mopo_cli.config.fields import Settings
from mopo_cli.config.schema import TrainPolicy
from mopo_cli.engine.rows import RowLayout
from mopo_cli.stages.common.learner import learner_settings
from mopo_cli.stages.common.memory import check_memory
from mopo_cli.stages.common.memory_estimates import Needed, model_bytes, policy_bytes
from mopo_cli.stages.common.open_world import uncertainty_names

MODEL_EPOCHS = 100
"""Epochs of model training that a projection assumes: when it stops early cannot be predicted."""
_BUFFERS = ("data", "pools", "a rollout step")


@dataclass(frozen=True)
class Projection:
    """Seconds of a whole run by what takes them, and the bytes of its largest buffers."""

    seconds: dict[str, float]
    bytes: dict[str, int]

    @property
    def total_seconds(self) -> float:
        """Of all stages together."""
        return sum(self.seconds.values())


def project(task: Task, seeds: int, rates: Sequence[Rate], episode: int, processes: int = 0) -> Projection:
    """A run of ``seeds`` policies in one stack; ``episode`` is how many steps an episode of a good policy has.

    So many ``processes`` evaluate while policies are trained; what they cannot keep up with is waited for.
    """
    per_second = {rate.name: rate.per_second for rate in rates}
    model, policy, shapes = task.model, task.policy, task.shapes
    update = per_second[updates_name(policy, seeds)]
    steps = seeds * policy.updates
    held_out = min(int(model.holdout_fraction * shapes.rows), model.holdout_max)
    shown = (shapes.rows - held_out) * model.networks * MODEL_EPOCHS
    rollouts = -(-policy.updates // policy.rollout_every)
    imagined = seeds * rollouts * policy.rollout_batch * policy.h
    seconds = {
        f"model training, {MODEL_EPOCHS} epochs": shown / per_second[training_name(model)]
        if policy.needs_model
        else 0.0,
        "rollouts": imagined / per_second[rollouts_name(policy)] if policy.needs_model else 0.0,
        "policy updates": steps / update,
    }
    if WARM_UP in per_second:
        kind = load(policy.algorithm)
        first = sum(kind.warm_up(learner_settings(kind.settings, policy, shapes.act_dim)))
        seconds["warm-up"] = seeds * first / per_second[WARM_UP]
    played = _played(task, seeds, episode, per_second)
    meanwhile = seconds["rollouts"] + seconds["policy updates"]
    seconds["evaluation"] = max(played / processes - meanwhile, 0.0) if processes else played
    alone = _policy_bytes(task, policy, seeds, shapes.rows, torch.device("cpu"), 0)
    return Projection(seconds, {name: size for name, size in alone.items() if name in _BUFFERS})


class Sizes(Settings):
    """How much is measured: policies in the larger stack, and transitions in the data."""

    seeds: int
    rows: int


def check_room(task: Task, seeds: int, device: torch.device) -> None:
    """SettingsError where one of the workloads would not fit, with however few seeds and rows or with as many."""
    inputs, outputs = task.shapes.obs_dim + task.shapes.act_dim, task.shapes.obs_dim + 1

    def stack(settings: TrainPolicy, members: int, rows: int) -> Needed:
        needed = _policy_bytes(task, settings, members, rows, device, crew_size(members, device))
        return {name: taken for name, taken in needed.items() if name != "pools"}  # batches are drawn from the data

    for settings in (task.policy, *task.methods.values()):
        check_memory(settings, lambda some: stack(some, 1, 1), device)
    check_memory(task.model, lambda some: model_bytes(some, 1, inputs, outputs, device), device)
    sizes = Sizes(seeds=seeds, rows=task.shapes.rows)
    check_memory(sizes, lambda some: stack(task.policy, some.seeds, some.rows), device)


def _policy_bytes(
    task: Task, settings: TrainPolicy, members: int, rows: int, device: torch.device, size: int
) -> Needed:
    row = RowLayout(task.shapes.obs_dim, task.shapes.act_dim, len(uncertainty_names(settings, [settings.penalty])))
    return policy_bytes(settings, row, rows, device, size, settings.h, members)


def _played(task: Task, seeds: int, episode: int, per_second: Mapping[str, float]) -> float:
    policy = task.policy
    if "evaluation" not in per_second or not policy.eval_every:
        return 0.0
    # Measured with so many episodes side by side; fewer share less of the policy's cost, more a little more.
    return seeds * (policy.epochs // policy.eval_every) * policy.eval_episodes * episode / per_second["evaluation"]
