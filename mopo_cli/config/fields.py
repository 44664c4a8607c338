"""The types of settings, how text becomes a value, and what the models of all stages share."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from mopo_cli.agents.algorithms import NAMES as ALGORITHMS
from mopo_cli.config.axes import parse_axes
from mopo_cli.dynamics.penalties import ORACLE, PENALTIES

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


def _check_algorithm(name: str) -> str:
    if name not in ALGORITHMS:
        raise ValueError(f"must be one of {', '.join(ALGORITHMS)}")
    return name


Text = Annotated[str, Field(min_length=1)]
Seed = Annotated[int, Field(ge=0, le=_LARGEST)]
Seeds = Annotated[tuple[Seed, ...], BeforeValidator(_split)]
Networks = Annotated[tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(_split)]
Horizons = Annotated[tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(_split)]
Weights = Annotated[tuple[Annotated[float, Field(ge=0)], ...], BeforeValidator(_split)]
Penalties = Annotated[tuple[Penalty, ...], BeforeValidator(_split)]
Axes = Annotated[dict[str, tuple[Any, ...]], BeforeValidator(parse_axes)]
Algorithm = Annotated[str, AfterValidator(_check_algorithm)]
Methods = Annotated[tuple[str, ...], BeforeValidator(_split)]


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
