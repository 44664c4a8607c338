"""The types of settings, how text becomes a value and a value part of a name, and what all stages' models share."""

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from mopo_cli.agents.algorithms import NAMES as ALGORITHMS
from mopo_cli.dynamics.penalties import ORACLE, PENALTIES
from mopo_cli.store.documents import as_key, present_names

if TYPE_CHECKING:
    Penalty = str
else:
    Penalty = Literal[(*PENALTIES, ORACLE, "none")]
Metric = Literal["mse", "nll"]
Scale = Literal["raw", "standardised"]

# A name becomes part of a path: no separator, no leading dot.
NAME = r"^[A-Za-z0-9][A-Za-z0-9._+=-]*$"
CODE = "MOPO code"
ENSEMBLE = "MOPO App. G.2"
GENERATED = "generated data"
DATA_FILE = "data file"
"""The origin of the defaults for a file of one's own, whose units are not known."""
UNITS = "the data's (raw), or standard deviations (standardised: the default for your own files)"
COARSER = "bf16, and tf32 on a GPU, is faster but less exact"
# Far more than anybody trains, yet few enough to list.
MOST_LAYERS, MOST_SEEDS = 1000, 1_000_000
# The largest whole number of any setting: the largest index of a tensor.
_LARGEST = 2**63 - 1


def _split(value: Any) -> Any:
    """``"0.5,1,5"`` -> ``["0.5", "1", "5"]``; a single number -> a list of one."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    return [value] if isinstance(value, int | float) else value


def parse_axes(value: Any) -> Any:
    """``["beta=0.5,1"]``, as flags have it, or ``{"beta": [0.5, 1]}``, as YAML does -> values by field name.

    Values are not checked; anything else is returned unchanged. Raises ValueError for text of another form.
    """
    if isinstance(value, dict):
        axes = {str(name).replace("-", "_"): _axis_values(values) for name, values in value.items()}
        return present_names("train-policy", axes)
    if not isinstance(value, str | list | tuple):
        return value
    axes = {}
    for text in [value] if isinstance(value, str) else value:
        name, equals, values = str(text).partition("=")
        field = name.strip().replace("-", "_")
        if not (field and equals and values.strip()):
            raise ValueError("must be NAME=V1,V2,...")
        if field in axes:
            raise ValueError(f"must not have {as_key(field)} twice")
        axes[field] = _axis_values(values)
    return present_names("train-policy", axes)


def _axis_values(value: Any) -> Any:
    values = _split(value)
    return values if isinstance(values, list | tuple) else [values]


def _check_algorithm(name: str) -> str:
    if name not in ALGORITHMS:
        raise ValueError(f"must be one of {', '.join(ALGORITHMS)}")
    return name


def _json_object(value: Any) -> Any:
    """``'{"level": 2}'`` -> ``{"level": 2}``; ValueError for what JSON cannot keep, or is no object."""
    try:
        value = json.loads(value) if isinstance(value, str) else value
        if isinstance(value, dict):
            json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        value = None
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise ValueError("must be a JSON object such as '{\"level\": 2.0}'")
    return value


Text = Annotated[str, Field(min_length=1)]
Seed = Annotated[int, Field(ge=0, le=_LARGEST)]
Seeds = Annotated[tuple[Seed, ...], BeforeValidator(_split)]
Networks = Annotated[tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(_split)]
Horizons = Annotated[tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(_split)]
Weights = Annotated[tuple[Annotated[float, Field(ge=0)], ...], BeforeValidator(_split)]
Penalties = Annotated[tuple[Penalty, ...], BeforeValidator(_split)]
Axes = Annotated[dict[str, tuple[Any, ...]], BeforeValidator(parse_axes)]
Algorithm = Annotated[str, AfterValidator(_check_algorithm)]
JsonObject = Annotated[dict[str, Any], BeforeValidator(_json_object)]
Methods = Annotated[tuple[str, ...], BeforeValidator(_split)]


def word(value: Any) -> str:
    """A setting's value as part of a name: ``0.5``, ``none``, ``runs-mine.h5``; numbers however they were written."""
    text = "none" if value is None else str(value)
    try:
        number = float(text)
    except ValueError:
        return re.sub(r"[^A-Za-z0-9.+=-]+", "-", text)
    short = f"{number:g}"
    return short if float(short) == number else repr(number).removesuffix(".0")


def written(value: Any) -> str:
    """A setting's value as one writes it on the command line, every digit of a number."""
    if isinstance(value, dict):
        value = [f"{as_key(name)}={written(values)}" for name, values in value.items()]
    if isinstance(value, tuple | list):
        return ",".join(map(written, value)) or "none"
    return word(value) if isinstance(value, float) else "none" if value is None else str(value)


def mark(name: str, values: Sequence[Any]) -> str:
    """Values of a setting as the end of a name: ``_real-ratio0.5+0.8``, ``_actor-schedule-cosine``."""
    words = "+".join(map(word, values))
    return f"_{as_key(name)}{'-' if words[:1].isalpha() else ''}{words}"


def setting(default: Any, description: str, source: str = "", **bounds: Any) -> Any:
    """A field: what it is, the source of its default, and pydantic's bounds."""
    return Field(default, description=description, json_schema_extra={"source": source}, **bounds)


def distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """A validator: ValueError for a repeated value."""
    if len(set(values)) != len(values):
        raise ValueError("must not name a value twice")
    return values


def unique(values: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
    """A validator: ValueError for an empty list or a repeated value; None is allowed."""
    if values is not None and not values:
        raise ValueError("must name at least one value")
    return values if values is None else distinct(values)


class Settings(BaseModel):
    """What all stages' settings share: immutable, no unknown key, no NaN, a boolean is not a number.

    Where the default is None, the word ``none`` stands for it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)

    @field_validator("*", mode="before")
    @classmethod
    def _plain_value(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool):
            raise ValueError("must not be true or false")
        optional = info.field_name is not None and cls.model_fields[info.field_name].default is None
        return None if optional and value == "none" else value

    @field_validator("*")
    @classmethod
    def _number_that_tensors_can_have(cls, value: Any) -> Any:
        if any(
            isinstance(number, int) and number > _LARGEST
            for number in (value if isinstance(value, tuple) else (value,))
        ):
            raise ValueError(f"must be at most {_LARGEST}")
        return value


class Seeded:
    """The seeds of settings that have ``seeds`` and ``seed_list``."""

    def all_seeds(self: Any) -> tuple[int, ...]:
        """The seeds to train: ``seed_list`` if set, else 0, 1, ... seeds-1."""
        return self.seed_list or tuple(range(self.seeds))

    @property
    def seed_count(self: Any) -> int:
        """The number of seeds to train."""
        return len(self.seed_list or range(self.seeds))
