"""What dataclasses take of a stage's settings: an algorithm's settings, its schedule, and others."""

from typing import Any

from mopo_cli.agents.schedule import LoopSettings
from mopo_cli.config.schema import PolicyTraining


def values_for(kind: Any, settings: object) -> dict[str, Any]:
    """The settings that are called as the fields of a dataclass, `kind`, by their names."""
    return {name: getattr(settings, name) for name in kind.__dataclass_fields__}


def learner_settings(kind: Any, settings: PolicyTraining, act_dim: int) -> Any:
    """The settings of an algorithm, whose dataclass is `kind`; the target entropy is -act_dim where none is set."""
    values = values_for(kind, settings)
    if "target_entropy" in values and settings.target_entropy is None:
        values["target_entropy"] = -float(act_dim)
    return kind(**values)


def loop_settings(settings: PolicyTraining) -> LoopSettings:
    """The schedule."""
    return LoopSettings(**values_for(LoopSettings, settings))
