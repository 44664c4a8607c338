"""Whether the workloads fit into memory: checked before the data are made."""

import torch

from mopo_cli.agents.crew import crew_size
from mopo_cli.bench.measure import Task
from mopo_cli.config.fields import Settings
from mopo_cli.config.schema import TrainPolicy
from mopo_cli.engine.rows import Rows
from mopo_cli.stages.common.memory import check_memory
from mopo_cli.stages.common.memory_estimates import Needed, model_bytes, policy_bytes
from mopo_cli.stages.common.open_world import uncertainty_names


class Sizes(Settings):
    """How much is measured: policies in the larger stack, and transitions in the data."""

    seeds: int
    rows: int


def check_room(task: Task, seeds: int, device: torch.device) -> None:
    """SettingsError where one of the workloads would not fit, with however few seeds and rows or with as many."""
    inputs, outputs = task.shapes.obs_dim + task.shapes.act_dim, task.shapes.obs_dim + 1

    def stack(settings: TrainPolicy, members: int, rows: int) -> Needed:
        row = Rows(task.shapes.obs_dim, task.shapes.act_dim, len(uncertainty_names(settings, [settings.penalty])))
        size = crew_size(members, device)
        needed = policy_bytes(settings, row, rows, device, size, settings.h, members)
        return {name: taken for name, taken in needed.items() if name != "pools"}  # batches are drawn from the data

    def estimate(sizes: Sizes) -> Needed:
        return stack(task.policy, sizes.seeds, sizes.rows)

    for settings in (task.policy, *task.methods.values()):
        check_memory(settings, lambda some: stack(some, 1, 1), device)
    check_memory(task.model, lambda some: model_bytes(some, 1, inputs, outputs, device), device)
    check_memory(Sizes(seeds=seeds, rows=task.shapes.rows), estimate, device)
