"""Checked before training starts: does it fit into memory? A process that does not is killed without a message."""

from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch

from mopo_cli.agents.parallel_members import crew_size
from mopo_cli.config.fields import Settings
from mopo_cli.config.schema import PolicyTraining, TrainModel, TrainPolicy
from mopo_cli.data.transition_files import dataset_shape, read_dataset_info
from mopo_cli.dynamics.penalties import ORACLE
from mopo_cli.engine.members import Member
from mopo_cli.engine.parallel import LostError
from mopo_cli.engine.rows import RowLayout
from mopo_cli.errors import SettingsError
from mopo_cli.stages.common.memory_estimates import Needed, environment_bytes, policy_bytes
from mopo_cli.stages.common.open_world import OpenWorld, uncertainty_names
from mopo_cli.stages.common.options import Options
from mopo_cli.stages.common.watch import free_processes
from mopo_cli.store.documents import as_flag
from mopo_cli.store.machine import free_memory

S = TypeVar("S", bound=Settings)

# A setting without which a stage would take more than this share of what it takes matters little.
_MATTERS = 0.9
_MOST_CELLS = 1000  # in one stack
# When something is done, not how much.
_SCHEDULE = ("steps_per_epoch", "rollout_every", "epochs", "seed")


def check_memory(settings: S, estimate: Callable[[S], Needed], device: torch.device, what: str = "Training") -> None:
    """SettingsError where what a stage takes with its settings, by the ``estimate``, is not free on a device.

    It names the setting that matters most, and what of it would fit.
    """
    free = _free_bytes(device)
    needed = estimate(settings)
    total = sum(needed.values())
    if free is None or total <= free:
        return
    least = {name: _with(settings, name, floor) for name, floor in _floors(settings).items()}
    by_name = {name: sum(estimate(low).values()) for name, low in least.items()}
    matter = sorted((name for name, left in by_name.items() if left < _MATTERS * total), key=lambda name: by_name[name])
    rest = f"needs about {_gigabytes(total)} GB ({_parts(needed)}), and {device} has {_gigabytes(free)} GB free."
    if not matter:
        raise SettingsError(f"{what} {rest}", hint="a machine with more memory, or fewer data")
    name, floor = matter[0], _floors(settings)[matter[0]]
    if by_name[name] > free:
        hint = f"smaller {' and '.join(map(as_flag, matter[:3]))}"
    else:
        tried = range(floor + 1, _value(settings, name))
        fits = floor + bisect_right(tried, free, key=lambda n: sum(estimate(_with(settings, name, n)).values()))
        fits -= fits % int(10 ** max(0, len(str(fits)) - 2))  # to two digits
        hint = f"{as_flag(name)} of at most about {fits:,}"
    raise SettingsError(f"{_described(settings, name)} {rest}", hint=hint)


def check_policies(settings: TrainPolicy, dataset: Path, options: Options, device: torch.device) -> None:
    """SettingsError where a policy per seed would not fit, or the environments that they are evaluated in meanwhile.

    By the settings and the size of the dataset alone, whose columns are not read; raises what `read_dataset` does.
    """
    (transitions, obs_dim, act_dim), env_id = dataset_shape(dataset), read_dataset_info(dataset).env_id
    rows = RowLayout(obs_dim, act_dim, len(uncertainty_names(settings, [settings.penalty])))

    def crew(members: int) -> int:
        return crew_size(members, device, settings.penalty == ORACLE)

    def estimate(some: TrainPolicy) -> Needed:
        members = some.seed_count
        return policy_bytes(some, rows, transitions, device, crew(members), some.h, members)

    check_memory(settings, estimate, device)
    if env_id is not None and settings.eval_every:
        seeds = settings.seed_count
        players = max(1, free_processes(options, device, seeds, crew(seeds)))

        def played(some: TrainPolicy) -> Needed:
            return environment_bytes(env_id, players * some.eval_episodes)

        check_memory(settings, played, torch.device("cpu"), "Evaluation")


def cells_that_fit(settings: TrainPolicy, dataset: Path, available: float) -> int:
    """How many cells like this one train on a GPU as one stack within so many bytes; at least one."""
    transitions, obs_dim, act_dim = dataset_shape(dataset)
    rows = RowLayout(obs_dim, act_dim, len(uncertainty_names(settings, [settings.penalty])))

    def needed(cells: int) -> int:
        members = cells * settings.seed_count
        return sum(policy_bytes(settings, rows, transitions, torch.device("cuda"), 0, settings.h, members).values())

    return 1 + bisect_right(range(2, _MOST_CELLS), available, key=needed)


def check_stack(opened: OpenWorld, members: tuple[Member, ...], settings: PolicyTraining, device: torch.device) -> None:
    """SettingsError where the members would not fit beside the data, which are there."""
    world = opened.world
    longest, elites = max(member.h for member in members), max((len(e.elites) for e in world.ensembles), default=0)

    def estimate(some: PolicyTraining) -> Needed:
        size = crew_size(len(members), device, world.options.oracle is not None)
        needed = policy_bytes(some, world.row_layout, len(world.real), device, size, longest, len(members), elites)
        del needed["data"]
        return needed

    check_memory(settings, estimate, device)


def _floors(settings: Settings) -> dict[str, int]:
    """What each setting that is a number of things could be lowered to: its default, or from there on one."""
    numbers = {name: value for name in type(settings).model_fields if type(value := getattr(settings, name)) is int}
    if getattr(settings, "seed_list", None):
        numbers["seed_list"] = len(settings.seed_list)  # type: ignore[attr-defined]
    fields = type(settings).model_fields
    floors: dict[str, int] = {}
    for name, value in numbers.items():
        default = fields[name].default
        floors[name] = default if type(default) is int and default < value else 1
    return {name: floor for name, floor in floors.items() if floor < numbers[name] and name not in _SCHEDULE}


def _value(settings: Settings, name: str) -> int:
    value = getattr(settings, name)
    return len(value) if isinstance(value, tuple) else int(value)


def _with(settings: S, name: str, value: int) -> S:
    return settings.model_copy(update={"seeds": value, "seed_list": None} if name == "seed_list" else {name: value})


def _described(settings: Settings, name: str) -> str:
    """The setting and its value, and with how many seeds."""
    value = getattr(settings, name)
    setting = f"{as_flag(name)} of {len(value)} seeds" if isinstance(value, tuple) else f"{as_flag(name)} {value}"
    seeds = settings.seed_count if isinstance(settings, TrainModel | PolicyTraining) else 0
    with_seeds = f" with {seeds} seed{'s' if seeds > 1 else ''}" if seeds and name not in ("seeds", "seed_list") else ""
    return setting + with_seeds


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:,.1f}" if size < 1e12 else f"{size / 1e9:,.0f}"


def _parts(needed: Needed) -> str:
    """What takes most, and what is not little beside it."""
    total = sum(needed.values())
    some = sorted((part for part in needed.items() if part[1] > total / 50), key=lambda part: -part[1])
    return ", ".join(f"{name} {_gigabytes(size)}" for name, size in some)


@contextmanager
def explained_loss() -> Iterator[None]:
    """SettingsError in place of LostError: what most often ends a training process is too little memory."""
    try:
        yield
    except LostError as error:
        raise SettingsError(
            "A process that trains has ended (out of memory?); the last checkpoint is kept.",
            hint="the same command again resumes from it; --threads 1 takes less memory",
        ) from error


def _free_bytes(device: torch.device) -> int | None:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return free_memory()
