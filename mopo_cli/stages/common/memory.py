"""Checked before training starts: does it fit into memory? A process that does not is killed without a message."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from mopo_cli.config.fields import Settings
from mopo_cli.config.schema import PolicyTraining, TrainModel
from mopo_cli.engine.parallel import LostError
from mopo_cli.errors import SettingsError
from mopo_cli.stages.common.memory_estimates import Needed
from mopo_cli.store.machine_memory import free_memory

S = TypeVar("S", bound=Settings)

# A setting without which a stage would take more than this share of what it takes matters little.
_MATTERS = 0.9
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
        hint = f"smaller {' and '.join(map(_flag, matter[:3]))}"
    else:
        fits = _greatest(
            floor, _value(settings, name), lambda n: sum(estimate(_with(settings, name, n)).values()) <= free
        )
        hint = f"{_flag(name)} of at most about {fits:,}"
    raise SettingsError(f"{_described(settings, name)} {rest}", hint=hint)


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


def _greatest(fits: int, not_any_more: int, enough: Callable[[int], bool]) -> int:
    """The greatest number that is enough, to two digits, where ``fits`` is and ``not_any_more`` is not."""
    while not_any_more - fits > 1:
        middle = (fits + not_any_more) // 2
        fits, not_any_more = (middle, not_any_more) if enough(middle) else (fits, middle)
    return fits - fits % int(10 ** max(0, len(str(fits)) - 2))


def _described(settings: Settings, name: str) -> str:
    """The setting and its value, and with how many seeds."""
    value = getattr(settings, name)
    setting = f"{_flag(name)} of {len(value)} seeds" if isinstance(value, tuple) else f"{_flag(name)} {value}"
    seeds = settings.seed_count if isinstance(settings, TrainModel | PolicyTraining) else 0
    with_seeds = f" with {seeds} seed{'s' if seeds > 1 else ''}" if seeds and name not in ("seeds", "seed_list") else ""
    return setting + with_seeds


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


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
