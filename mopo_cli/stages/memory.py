"""Will it fit? Asked before training starts, as a process that outgrows its machine is killed without a word."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch

from mopo_cli.config.schema import PolicyTraining, TrainModel
from mopo_cli.engine.processes import LostError
from mopo_cli.engine.rows import Rows
from mopo_cli.errors import SettingsError
from mopo_cli.nets.gaussian import gaussian_layout
from mopo_cli.store.machine_memory import free_memory

_FLOAT, _DOUBLE, _INDEX = 4, 8, 8
# A rollout step holds its rows a few times over: as columns, packed, and those that go on.
_STEP_COPIES = 4
# The data are held as columns and as packed rows.
_DATA_COPIES = 2
# Parameters, their gradient, two moments, the best, and what is made of them in passing.
_NETWORK_COPIES = 7
_HINT = "a smaller --rollout-batch, --pool-epochs or --h, or fewer --seeds at a time"


def policy_bytes(
    settings: PolicyTraining, rows: Rows, data_rows: int, horizons: Sequence[int], processes: int = 1
) -> dict[str, int]:
    """Bytes that training a stack of policies takes, by what takes them; ``horizons`` has an entry per policy.

    So many ``processes`` make rollouts side by side.
    """
    row = rows.width * _FLOAT
    needed = {"data": _DATA_COPIES * data_rows * row}
    if settings.needs_model:
        # All pools of a stack are as large as the largest.
        needed["pools"] = len(horizons) * max(horizons) * settings.rollout_batch * settings.pool_epochs * row
        needed["a rollout step"] = processes * _STEP_COPIES * settings.rollout_batch * row
    return needed


def model_bytes(settings: TrainModel, rows: int, inputs: int, outputs: int, processes: int = 1) -> dict[str, int]:
    """Bytes that training a stack of ensembles on so many loaded rows takes, by what takes them.

    So many ``processes`` take its steps together, each with room for a gradient.
    """
    seeds, layout = len(settings.all_seeds()), gaussian_layout(inputs, outputs, settings.hidden, settings.layers)
    networks = seeds * settings.networks
    return {
        "networks": (_NETWORK_COPIES + processes - 1) * networks * layout.size * _FLOAT,
        # A permutation per seed, and per network the rows of an epoch, gathered from one tensor each.
        "orders": seeds * rows * _INDEX + 2 * networks * rows * _FLOAT,
        # Means and deviations are those of doubles.
        "scaling": 2 * rows * inputs * _DOUBLE,
    }


def check_memory(needed: Mapping[str, int], device: torch.device, hint: str = _HINT) -> None:
    """SettingsError where a device has not the room; the hint says what needs less."""
    free = _free_bytes(device)
    total = sum(needed.values())
    if free is not None and total > free:
        parts = ", ".join(f"{name} {size / 1e9:.1f}" for name, size in needed.items())
        raise SettingsError(
            f"Training needs about {total / 1e9:.1f} GB ({parts}), and {device} has {free / 1e9:.1f} GB free.",
            hint=hint,
        )


@contextmanager
def explained_loss() -> Iterator[None]:
    """SettingsError in the place of LostError: what most often ends a process that helps is too little memory."""
    try:
        yield
    except LostError as error:
        raise SettingsError(
            "A process that trains has ended (out of memory?); what was saved before, at most minutes ago, is kept.",
            hint="run the same command again to go on from there, with --threads 1 in less memory",
        ) from error


def _free_bytes(device: torch.device) -> int | None:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return free_memory()
