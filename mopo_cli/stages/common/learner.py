"""An algorithm's settings and its schedule, from a stage's settings."""

from typing import Any

from mopo_cli.agents.schedule import LoopSettings
from mopo_cli.config.schema import PolicyTraining


def learner_settings(kind: Any, settings: PolicyTraining, act_dim: int) -> Any:
    """The settings of an algorithm, whose dataclass is `kind`; the target entropy is -act_dim where none is set."""
    values = {name: getattr(settings, name) for name in kind.__dataclass_fields__}
    if "target_entropy" in values and settings.target_entropy is None:
        values["target_entropy"] = -float(act_dim)
    return kind(**values)


def loop_settings(settings: PolicyTraining) -> LoopSettings:
    """The schedule."""
    return LoopSettings(**{name: getattr(settings, name) for name in LoopSettings.__dataclass_fields__})
