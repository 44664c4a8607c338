"""The settings of single algorithms, which their files declare; here they join a stage's settings.

Reading them imports the algorithm's file, and so torch; naming the algorithms does not.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar, get_type_hints

from pydantic import Field, create_model, model_validator
from pydantic.fields import FieldInfo

from mopo_cli.agents.algorithms import NAMES, load
from mopo_cli.config.fields import Settings
from mopo_cli.config.schema import PolicyTraining, TrainPolicy

S = TypeVar("S", bound=Settings)


@cache
def settings_of(algorithm: str) -> dict[str, tuple[Any, FieldInfo]]:
    """Type and field of each setting that this algorithm adds to the stage's; empty for an unknown algorithm."""
    if algorithm not in NAMES:
        return {}
    kind: Any = load(algorithm).settings
    hints = get_type_hints(kind)
    return {
        name: (hints[name], _field(part))
        for name, part in kind.__dataclass_fields__.items()
        if "description" in part.metadata
    }


def settings_of_all() -> dict[str, dict[str, tuple[Any, FieldInfo]]]:
    """Type and field of every setting that an algorithm adds: by the setting's name, then by algorithm."""
    settings: dict[str, dict[str, tuple[Any, FieldInfo]]] = {}
    for algorithm in NAMES:
        for name, field in settings_of(algorithm).items():
            settings.setdefault(name, {})[algorithm] = field
    return settings


def _field(part: Any) -> FieldInfo:
    about = part.metadata
    field: FieldInfo = Field(
        part.default, description=about["description"], json_schema_extra=about["extra"], **about["bounds"]
    )
    return field


@cache
def with_algorithm(stage: type[S], algorithm: str) -> type[S]:
    """The stage's settings and, if it trains policies, those that the algorithm adds."""
    if not issubclass(stage, PolicyTraining) or algorithm not in NAMES:
        return stage
    added: Any = settings_of(algorithm)
    check: Any = {"check_rows": model_validator(mode="after")(_check_rows)}
    return create_model(stage.__name__, __base__=stage, __doc__=stage.__doc__, __validators__=check, **added)


def _check_rows(settings: PolicyTraining) -> PolicyTraining:
    name, source = settings.algorithm, load(settings.algorithm).learns_from
    if source == "real" and settings.real_ratio < 1:
        raise ValueError(f"algorithm {name} learns from the data alone: set real-ratio to 1 (--method {name} does)")
    if source == "both" and not 0 < int(settings.batch_size * settings.real_ratio) < settings.batch_size:
        ratio = f"real-ratio {settings.real_ratio:g} of {settings.batch_size} rows"
        raise ValueError(f"algorithm {name} needs data and model rows in a batch: {ratio} gives only one kind")
    if source == "model" and not settings.needs_model:
        raise ValueError(f"algorithm {name} uses the model itself: set real-ratio below 1 and rollouts to fresh")
    return settings


def fitting(stage: type[S], values: Mapping[str, Any]) -> type[S]:
    """The stage's settings with those of the algorithm in `values`, else of one that has all settings in `values`."""
    unknown = values.keys() - stage.model_fields.keys()
    if not unknown or not issubclass(stage, PolicyTraining):
        return stage
    if "algorithm" in values:
        return with_algorithm(stage, str(values["algorithm"]))
    candidates = (with_algorithm(stage, name) for name in NAMES if unknown <= settings_of(name).keys())
    return next(candidates, stage)


def algorithms_with(name: str) -> list[str]:
    """The algorithms that add a setting of this name."""
    return list(settings_of_all().get(name, {}))


def recorded_training(values: dict[str, Any]) -> TrainPolicy:
    """The settings of train-policy that a run has recorded."""
    kind: type[TrainPolicy] = with_algorithm(TrainPolicy, str(values.get("algorithm", "sac")))
    return kind(**values)
