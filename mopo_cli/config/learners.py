"""The settings of single algorithms: their files name, describe and bound them; here they join a stage's settings."""

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
def own_settings(algorithm: str) -> dict[str, tuple[Any, FieldInfo]]:
    """Type and field of each setting that only this algorithm has, or few others; none for an unknown one."""
    if algorithm not in NAMES:
        return {}
    kind: Any = load(algorithm).settings
    hints = get_type_hints(kind)
    return {
        name: (hints[name], _field(part))
        for name, part in kind.__dataclass_fields__.items()
        if "description" in part.metadata
    }


def _field(part: Any) -> FieldInfo:
    about = part.metadata
    described = {"description": about["description"], "json_schema_extra": about["extra"]}
    field: FieldInfo = Field(part.default, **described, **about["bounds"])
    return field


@cache
def with_own(stage: type[S], algorithm: str) -> type[S]:
    """The stage's settings and, where it trains policies, those that are the algorithm's own."""
    if not issubclass(stage, PolicyTraining) or algorithm not in NAMES:
        return stage
    own: Any = own_settings(algorithm)
    check: Any = {"check_rows": model_validator(mode="after")(_check_rows)}
    return create_model(stage.__name__, __base__=stage, __doc__=stage.__doc__, __validators__=check, **own)


def _check_rows(settings: PolicyTraining) -> PolicyTraining:
    name, wanted = settings.algorithm, load(settings.algorithm).learns_from
    if wanted == "real" and settings.real_ratio < 1:
        raise ValueError(f"algorithm {name} learns from the data alone: set real-ratio to 1 (--method {name} does)")
    if wanted == "both" and not 0 < int(settings.batch_size * settings.real_ratio) < settings.batch_size:
        share = f"{settings.real_ratio:g} of {settings.batch_size} rows leaves none of one"
        raise ValueError(f"algorithm {name} needs data and model rows in a batch: real-ratio {share}")
    if wanted == "model" and not settings.needs_model:
        raise ValueError(f"algorithm {name} asks the model itself: set real-ratio below 1, and rollouts to fresh")
    return settings


def fitting(stage: type[S], values: Mapping[str, Any]) -> type[S]:
    """The stage's settings with those of the algorithm that `values` name, or else of one that has all of theirs."""
    unknown = values.keys() - stage.model_fields.keys()
    if not unknown or not issubclass(stage, PolicyTraining):
        return stage
    if "algorithm" in values:
        return with_own(stage, str(values["algorithm"]))
    having = (with_own(stage, name) for name in NAMES if unknown <= own_settings(name).keys())
    return next(having, stage)


def of_algorithms(name: str) -> list[str]:
    """The algorithms that have a setting of this name of their own."""
    return [algorithm for algorithm in NAMES if name in own_settings(algorithm)]


def recorded_training(values: dict[str, Any]) -> TrainPolicy:
    """The settings that a run has recorded of train-policy."""
    kind: type[TrainPolicy] = with_own(TrainPolicy, str(values.get("algorithm", "sac")))
    return kind(**values)
