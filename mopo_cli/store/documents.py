"""What the files of a run hold, as types, and the one door through which their content comes in."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, NotRequired

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.config import with_config
from typing_extensions import TypedDict

from mopo_cli.errors import CorruptError
from mopo_cli.store.atomic import read_json, read_jsonl

# Fields that newer versions add are let through.
_typed = with_config(ConfigDict(extra="allow", strict=True))

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
PathText = Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[^\x00]*$")]
Count = Annotated[int, Field(ge=1, le=10**7)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Counted = Annotated[int, Field(ge=0, lt=2**62)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
SeedKey = Annotated[str, Field(pattern=r"^\d{1,19}$")]


@_typed
class FileEntry(TypedDict):
    """A file by its place and content; a path inside the run is relative to it."""

    path: PathText
    sha256: Sha256


Files = dict[str, FileEntry]
"""Files by role."""

_RENAMED_ROLLOUT = {"penalty_members": "penalty_networks"}
RENAMED: dict[str, dict[str, str]] = {
    "select-elites": {"members": "networks"},
    "rollout": _RENAMED_ROLLOUT,
    "train-policy": _RENAMED_ROLLOUT,
    "ablate": _RENAMED_ROLLOUT,
}
"""By stage, the names that settings had before, and have now: files and command lines may use either."""


def present_names(stage: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Values by a stage's settings, under the names that these have now; `stage` may be its key "rollout/NAME"."""
    renamed = RENAMED.get(stage.split("/")[0], {})
    return {renamed.get(name, name): value for name, value in settings.items()}


@_typed
class ModelHeader(TypedDict):
    """What a model says of itself; the hold-out errors are by seed, one per network."""

    obs_dim: Count
    act_dim: Count
    hidden: Count
    layers: Annotated[int, Field(ge=1, le=1000)]
    networks: Count
    seeds: Annotated[list[Seed], Field(min_length=1)]
    holdout_mse: dict[SeedKey, list[float]]
    holdout_nll: dict[SeedKey, list[float]]
    dataset_id: str
    dataset_sha256: Sha256


def _check_errors(header: ModelHeader) -> ModelHeader:
    wanted = {str(seed) for seed in header["seeds"]}
    for name, errors in (("holdout_mse", header["holdout_mse"]), ("holdout_nll", header["holdout_nll"])):
        if errors.keys() != wanted or any(len(values) != header["networks"] for values in errors.values()):
            raise ValueError(f"{name} does not have one number per seed and network")
    return header


@_typed
class Origin(TypedDict):
    """What the files of a trained policy say of where they come from."""

    obs_dim: Count
    act_dim: Count
    seed: Seed
    model_seed: NotRequired[Seed | None]
    inputs: dict[str, Sha256]


@_typed
class PolicyHeader(Origin):
    """What a policy says of itself; actions are scaled from [-1, 1] to the bounds."""

    hidden: Count
    layers: Annotated[int, Field(ge=1, le=1000)]
    action_low: list[Finite]
    action_high: list[Finite]
    log_std_min: Finite
    log_std_max: Finite


def _check_bounds(header: PolicyHeader) -> PolicyHeader:
    if "dataset" not in header["inputs"]:
        raise ValueError("inputs names no dataset")
    if not len(header["action_low"]) == len(header["action_high"]) == header["act_dim"]:
        raise ValueError("the action bounds are not as many as the actions")
    return header


@_typed
class RatioHeader(Origin):
    """What the density ratios beside a policy say of themselves."""

    policy_sha256: Sha256


@_typed
class CheckpointHeader(TypedDict):
    """What an interrupted stage left: with what it was started, how long it took, and its own state."""

    settings: dict[str, Any]
    inputs: Files
    wall_seconds: Seconds
    meta: dict[str, Any]


@_typed
class FitNumbers(TypedDict):
    """The numbers of `dynamics.fit.fit_checkpoint`."""

    stale: list[int]
    active: list[Counted]
    epoch: Counted
    step: Counted
    adam: Counted


@_typed
class FitProgress(TypedDict):
    """How far a model in training has come, with a record per epoch."""

    fit: FitNumbers
    history: list[dict[str, Any]]


@_typed
class LoopNumbers(TypedDict):
    """The numbers of `agents.loop.loop_state`."""

    step: Annotated[int, Field(gt=-(2**62), lt=2**62)]
    adam: list[Counted]
    past: list[list[Any]]
    positions: list[Counted]
    sizes: list[Counted]


@_typed
class BehaviourProgress(TypedDict):
    """The numbers of `data.behaviour.behaviour_state`: `curve` has pairs of steps and mean return."""

    steps: Counted
    episode: Counted
    adam: list[Counted]
    curve: list[Annotated[list[int | float], Field(min_length=2, max_length=2)]]


@_typed
class Progress(TypedDict):
    """How far policies in training have come: per member the epochs, and whether it diverged."""

    loop: LoopNumbers
    histories: list[list[dict[str, float | int | None]]]
    diverged: list[bool]
    seconds: NotRequired[Seconds]


@_typed
class RolloutAttributes(TypedDict):
    """What a rollout file says of how it was made, as far as learning from it depends on that."""

    dataset_sha256: Sha256
    penalty_networks: NotRequired[str]
    penalty_scale: NotRequired[str]
    penalty_reward: NotRequired[str]
    model_reward: NotRequired[str]
    rollout_precision: NotRequired[str]
    termination_rules: NotRequired[str]


@_typed
class Elites(TypedDict):
    """elites.json: the networks that rollouts may use, by the seed of their ensemble."""

    elites: dict[SeedKey, Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]]
    model_sha256: Sha256


@_typed
class Returns(TypedDict):
    """Returns while a policy trained; nothing where it was never evaluated."""

    last: NotRequired[float]
    last_10: NotRequired[float]
    evaluations: NotRequired[list[float]]


@_typed
class CellDocument(TypedDict):
    """cell.json: one policy setting of an ablation, what it was made from, and what became of its seeds."""

    settings: dict[str, Any]
    inputs: dict[str, Sha256]
    files: dict[Annotated[str, Field(pattern=r"^seed-\d{1,19}/[^/\x00]+$")], Sha256]
    returns: dict[SeedKey, Returns]
    diverged: list[Seed]
    unknown: NotRequired[float]


def _check_files(cell: CellDocument) -> CellDocument:
    for seed in cell["returns"]:
        if f"seed-{seed}/policy.safetensors" not in cell["files"]:
            raise ValueError(f"files has no policy of seed {seed}")
    return cell


CELL: Any = Annotated[CellDocument, AfterValidator(_check_files)]


@_typed
class TableCell(TypedDict):
    """A cell as a table has it."""

    cell: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^/\x00]*$")]
    method: str | None
    penalty: str
    lam: float | None
    h: int | None
    epochs: int
    returns: dict[SeedKey, Returns]
    diverged: list[Seed]
    last: NotRequired[Annotated[list[float | None], Field(min_length=2)] | None]
    grid: NotRequired[dict[str, Any]]


@_typed
class TableDocument(TypedDict):
    """table.json of an ablation."""

    dataset: str
    cells: Annotated[list[TableCell], Field(min_length=1)]


@_typed
class Timing(TypedDict):
    """timing.json beside a policy."""

    wall_seconds: Seconds


@_typed
class CachedDataset(TypedDict):
    """dataset.json beside a dataset in the cache."""

    dataset_id: str
    sha256: Sha256


@_typed
class Extra(TypedDict):
    """What a stage tells besides, as far as other commands rely on it."""

    origins: NotRequired[dict[str, str]]
    diverged: NotRequired[list[str]]


@_typed
class StageEntry(TypedDict):
    """One finished stage in run.json."""

    settings: dict[str, Any]
    inputs: Files
    outputs: Files
    versions: dict[str, str]
    wall_seconds: Seconds
    finished: str
    extra: Extra


@_typed
class RunDocument(TypedDict):
    """run.json; `format` is compared first, so that a newer one is called newer and not damaged."""

    stages: dict[str, StageEntry]


HEADERS: dict[str, Any] = {
    "model": Annotated[ModelHeader, AfterValidator(_check_errors)],
    "policy": Annotated[PolicyHeader, AfterValidator(_check_bounds)],
    "ratio": RatioHeader,
}
"""What a file of tensors says of itself, by its kind."""


def _check_epoch(numbers: dict[str, float | int | None]) -> dict[str, float | int | None]:
    if not isinstance(numbers.get("epoch"), int):
        raise ValueError("it does not say which epoch it is of")
    return numbers


EPOCH: Any = Annotated[dict[str, float | int | None], AfterValidator(_check_epoch)]
"""A line of a policy's metrics.jsonl: numbers by name."""


def read_document(path: Path, schema: Any) -> Any:
    """The content of a JSON file; InputError if it cannot be opened, CorruptError if it is not as the schema says."""
    return checked(path, schema, read_json(path))


def read_lines(path: Path, schema: Any) -> list[Any]:
    """The content of every line of a file of JSON lines; errors as `read_document`, and CorruptError if it is empty."""
    lines = read_jsonl(path)
    if not lines:
        raise CorruptError(f"{path} is damaged: it is empty.")
    return [checked(path, schema, line) for line in lines]


def checked(path: Path, schema: Any, value: Any, hint: str = "") -> Any:
    """``value``, which was read from ``path``, if it is as the schema says; else CorruptError naming the field."""
    try:
        return _adapter(schema).validate_python(value)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
        field = ".".join(map(str, fault["loc"][:6]))
        message = fault["msg"].removeprefix("Value error, ")[:200]
        where = f"field {field}: " if field else ""
        raise CorruptError(f"{path} is damaged or was edited: {where}{message}.", hint) from error


@cache
def _adapter(schema: Any) -> TypeAdapter[Any]:
    return TypeAdapter(schema)
