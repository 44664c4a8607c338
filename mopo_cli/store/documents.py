"""The JSON documents of a run, as types, and the one door through which the content of a file comes in."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.config import with_config
from typing_extensions import TypedDict

from mopo_cli.errors import CorruptError
from mopo_cli.nets.libraries import Kind, Library
from mopo_cli.store.atomic import read_json, read_jsonl

_adapter = cache(TypeAdapter)

# Fields that newer versions add are let through.
typed = with_config(ConfigDict(extra="allow", strict=True))

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
PathText = Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[^\x00]*$")]
Count = Annotated[int, Field(ge=1, le=10**7)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Counted = Annotated[int, Field(ge=0, lt=2**62)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
SeedKey = Annotated[str, Field(pattern=r"^\d{1,19}$")]


@typed
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


def as_key(name: str) -> str:
    """The name of a setting as in YAML and in print: ``real-ratio``."""
    return name.replace("_", "-")


def as_flag(name: str) -> str:
    """The flag of a setting: ``--real-ratio``."""
    return f"--{as_key(name)}"


def present_names(stage: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Values by a stage's settings, under the names that these have now; `stage` may be its key "rollout/NAME"."""
    renamed = RENAMED.get(stage.split("/")[0], {})
    return {renamed.get(name, name): value for name, value in settings.items()}


@typed
class Elites(TypedDict):
    """elites.json: the networks that rollouts may use, by the seed of their ensemble."""

    elites: dict[SeedKey, Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]]
    model_sha256: Sha256


@typed
class Returns(TypedDict):
    """Returns while a policy trained; nothing where it was never evaluated."""

    last: NotRequired[float]
    last_10: NotRequired[float]
    evaluations: NotRequired[list[float]]


@typed
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


@typed
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


@typed
class TableDocument(TypedDict):
    """table.json of an ablation."""

    dataset: str
    cells: Annotated[list[TableCell], Field(min_length=1)]


@typed
class Timing(TypedDict):
    """timing.json beside a policy."""

    wall_seconds: Seconds


@typed
class CachedDataset(TypedDict):
    """dataset.json beside a dataset in the cache."""

    dataset_id: str
    sha256: Sha256


@typed
class MeasuredProducts(TypedDict):
    """What was measured of the libraries that multiply, on one kind of machine: see `nets.fastest`."""

    machine: dict[str, Any]
    choice: dict[Kind, Library]
    speeds: dict[Kind, dict[Library, Finite]]


@typed
class Extra(TypedDict):
    """What a stage tells besides, as far as other commands rely on it."""

    origins: NotRequired[dict[str, str]]
    diverged: NotRequired[list[str]]


@typed
class JobExecution(TypedDict):
    """How a job is to be executed: `Options` of the same names."""

    device: str
    threads: int | None
    engine: str
    products: str
    save_seconds: NotRequired[float]


@typed
class StageEntry(TypedDict):
    """One finished stage in run.json."""

    settings: dict[str, Any]
    inputs: Files
    outputs: Files
    versions: dict[str, str]
    wall_seconds: Seconds
    finished: str
    extra: Extra


@typed
class JobDocument(TypedDict):
    """A job file: policies or a model to train, on what, and how; `mopo` is compared first."""

    stage: Literal["train-policy", "train-model"]
    settings: Annotated[list[dict[str, Any]], Field(min_length=1)]
    inputs: Files
    fetched: StageEntry
    execution: JobExecution
    memory: NotRequired[Annotated[int, Field(ge=0)]]


@typed
class SubmissionDocument(TypedDict):
    """submitted.json of a job: its id with a scheduler, the folder of its submission, and when that was."""

    engine: Literal["local", "slurm"]
    id: Annotated[str, Field(pattern=r"^\d{1,19}(_\d{1,9})?$")]
    batch: Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
    devices: str | None
    at: Seconds


@typed
class WorkDocument(TypedDict):
    """What a submitted job says of itself: where it is at work, or its exit code and why it has that."""

    state: Literal["running", "stopped", "requeued", "ended"]
    code: int
    why: str
    host: str
    pid: int
    at: Seconds


@typed
class RunDocument(TypedDict):
    """run.json; `format` is compared first, so that a newer one is called newer and not damaged."""

    stages: dict[str, StageEntry]


def check_epoch(numbers: dict[str, Any]) -> dict[str, Any]:
    """The numbers of an epoch, if they say which; ValueError if not."""
    if not isinstance(numbers.get("epoch"), int):
        raise ValueError("the field epoch is missing or not an integer")
    return numbers


EPOCH: Any = Annotated[dict[str, float | int | None], AfterValidator(check_epoch)]
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
