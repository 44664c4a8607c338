"""How much memory the process of a job takes on a CPU, so that a machine is given no more jobs than it has room for."""

from collections.abc import Sequence
from pathlib import Path

import torch

from mopo_cli.agents.parallel_members import crew_size
from mopo_cli.config.schema import TrainModel, TrainPolicy
from mopo_cli.data.transition_files import dataset_shape
from mopo_cli.dynamics.penalties import ORACLE
from mopo_cli.engine.rows import RowLayout
from mopo_cli.stages.common.memory_estimates import model_bytes, policy_bytes
from mopo_cli.stages.common.open_world import uncertainty_names

_PROCESS = 400_000_000
"""Measured: Python, torch and mopo before there are data, and the process that plays episodes meanwhile."""
_CPU = torch.device("cpu")


def policies_memory(stack: Sequence[TrainPolicy], dataset: Path, threads: int) -> int:
    """Bytes of a process that trains cells like these side by side with so many threads, by the estimate."""
    transitions, obs_dim, act_dim = dataset_shape(dataset)
    longest = max(stack, key=lambda settings: settings.h)
    rows = RowLayout(obs_dim, act_dim, len(uncertainty_names(longest, [longest.penalty])))
    members = sum(settings.seed_count for settings in stack)
    processes = crew_size(members, _CPU, longest.penalty == ORACLE, threads)
    needed = policy_bytes(longest, rows, transitions, _CPU, processes, longest.h, members)
    return _PROCESS + sum(needed.values())


def model_memory(settings: TrainModel, dataset: Path) -> int:
    """Bytes of a process that trains the model, by the estimate."""
    transitions, obs_dim, act_dim = dataset_shape(dataset)
    return _PROCESS + sum(model_bytes(settings, transitions, obs_dim + act_dim, obs_dim + 1, _CPU).values())
