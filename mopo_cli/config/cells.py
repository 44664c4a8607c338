"""The cells of an ablation: the settings of every policy it compares."""

import re
from collections.abc import Callable
from typing import Any

from mopo_cli.config.presets import find_preset, load_method, load_preset_method
from mopo_cli.config.resolve import refuse_contradiction
from mopo_cli.config.schema import STAGES, Ablate, PolicyTraining, TrainPolicy

Settle = Callable[[dict[str, object]], TrainPolicy]
"""From flags of train-policy to its settings."""

_OF_MOPO = re.compile(r"default|run|(preset|method) .*")


def given(origins: dict[str, str]) -> set[str]:
    """The settings that the user gave, by flag or file."""
    return {name for name, origin in origins.items() if not _OF_MOPO.fullmatch(origin)}


def grid(settings: Ablate) -> tuple[TrainPolicy, ...]:
    """A cell per penalty, h and lam; penalty ``none`` has one per horizon, as lam means nothing there."""
    shared = settings.model_dump(exclude={"method", "penalty", "lam", "h", "name"})
    return tuple(
        TrainPolicy(penalty=penalty, lam=lam, h=h, **shared)
        for penalty in settings.penalty
        for h in settings.h
        for lam in (settings.lam[:1] if penalty == "none" else settings.lam)
    )


def method_cells(settings: Ablate, origins: dict[str, str], settle: Settle) -> tuple[TrainPolicy, ...]:
    """A cell per method, with its own settings but where the user gave others; ``settle`` knows the method's.

    Where lam or h were given, a cell for each of their values that means something to the method.
    """
    own = given(origins)
    values = settings.model_dump()
    shared = {name: values[name] for name in PolicyTraining.model_fields if name in own}
    cells = []
    for method in settings.method:
        refuse_contradiction(TrainPolicy, method, shared, "The ablation")
        plain = settle({**shared, "method": method})
        weights = settings.lam if "lam" in own and plain.penalty != "none" else (plain.lam,)
        horizons = settings.h if "h" in own and plain.needs_model else (plain.h,)
        cells += [plain.model_copy(update={"lam": lam, "h": h}) for h in horizons for lam in weights]
    return tuple(cells)


def method_demands(method: str, preset: str | None, dataset: str | None) -> dict[str, dict[str, Any]]:
    """What a method asks of the stages before ``train-policy``, by stage: the checked values of its settings."""
    preset = preset or (find_preset(dataset) if dataset else None)
    sections = [load_method(method), *([load_preset_method(preset, method)] if preset else [])]
    demands: dict[str, dict[str, Any]] = {}
    for stage in ("train-model", "select-elites"):
        values = {name: value for section in sections for name, value in section.get(stage, {}).items()}
        checked = STAGES[stage](**values)
        demands[stage] = {name: getattr(checked, name) for name in values}
    return demands
