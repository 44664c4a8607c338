"""The headers of binary files: what a model, a policy, its density ratios and rollouts say of themselves.

And what the checkpoint of an interrupted stage says: how far the training of a model, a behaviour or policies has come.
"""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import AfterValidator, Field
from typing_extensions import TypedDict

from mopo_cli.store.documents import (
    EPOCH,
    Count,
    Counted,
    Files,
    Finite,
    Seconds,
    Seed,
    SeedKey,
    Sha256,
    check_epoch,
    typed,
)

JudgeShare = Annotated[float, Field(ge=0, lt=1)]
"""The share of the data's episodes that it has not seen."""


@typed
class ModelHeader(TypedDict):
    """What a model says of itself; the hold-out errors are by seed, one per network."""

    obs_dim: Count
    act_dim: Count
    history: NotRequired[Count]
    judge_share: NotRequired[JudgeShare]
    hidden: Count
    layers: Annotated[int, Field(ge=1, le=1000)]
    networks: Count
    seeds: Annotated[list[Seed], Field(min_length=1)]
    holdout_mse: dict[SeedKey, list[float]]
    holdout_nll: dict[SeedKey, list[float]]
    dataset_id: str
    dataset_sha256: Sha256
    action_low: NotRequired[list[Finite]]
    action_high: NotRequired[list[Finite]]
    observation_offset: NotRequired[list[Finite]]


def _check_errors(header: ModelHeader) -> ModelHeader:
    wanted = {str(seed) for seed in header["seeds"]}
    for name, errors in (("holdout_mse", header["holdout_mse"]), ("holdout_nll", header["holdout_nll"])):
        if errors.keys() != wanted or any(len(values) != header["networks"] for values in errors.values()):
            raise ValueError(f"{name} does not have one number per seed and network")
    return header


@typed
class Origin(TypedDict):
    """What the files of a trained policy say of where they come from."""

    obs_dim: Count
    act_dim: Count
    history: NotRequired[Count]
    judge_share: NotRequired[JudgeShare]
    seed: Seed
    model_seed: NotRequired[Seed | None]
    inputs: dict[str, Sha256]


@typed
class ObservationRange(TypedDict):
    """Of each number of an observation in the data, in their units: the extremes and the 1 % and 99 % quantiles."""

    min: list[Finite]
    p1: list[Finite]
    p99: list[Finite]
    max: list[Finite]


@typed
class Interface(TypedDict):
    """What a policy takes and gives. Of older files, `activation`, `columns` and `observation_range` are missing."""

    obs_dim: Count
    act_dim: Count
    history: NotRequired[Count]
    action_low: list[Finite]
    action_high: list[Finite]
    activation: NotRequired[Literal["relu"]]
    columns: NotRequired[dict[Literal["observation", "action"], list[str]]]
    observation_range: NotRequired[ObservationRange]
    observation_offset: NotRequired[list[Finite]]


def _check_widths(header: Any) -> Any:
    obs_dim, act_dim, names = header["obs_dim"], header["act_dim"], header.get("columns", {})
    if not len(header["action_low"]) == len(header["action_high"]) == act_dim:
        raise ValueError("there is not one action bound per action")
    if len(header.get("observation_offset", ())) not in (0, obs_dim):
        raise ValueError("there is not one offset per number of an observation")
    if any(len(values) != obs_dim for values in header.get("observation_range", {}).values()):
        raise ValueError("there is not one range per number of an observation")
    if len(names.get("observation", ())) not in (0, obs_dim) or len(names.get("action", ())) not in (0, act_dim):
        raise ValueError("columns does not name every number of an observation or action")
    return header


@typed
class PolicyHeader(Origin, Interface):
    """What a policy says of itself; actions are scaled from [-1, 1] to the bounds."""

    hidden: Count
    layers: Annotated[int, Field(ge=1, le=1000)]
    log_std_min: Finite
    log_std_max: Finite


def _check_policy(header: PolicyHeader) -> PolicyHeader:
    if "dataset" not in header["inputs"]:
        raise ValueError("inputs names no dataset")
    _check_widths(header)
    return header


@typed
class GoldenPairs(TypedDict):
    """Observations of the data, and the actions of the policy in them."""

    observation: list[list[Finite]]
    action: list[list[Finite]]


@typed
class ExportHeader(Interface):
    """What an exported policy says of itself, in the layout `format`."""

    format: Annotated[int, Field(ge=1)]
    mopo: str
    environment: str | None
    method: str | None
    seeds: Annotated[list[Seed], Field(min_length=1)]
    dataset_id: str
    dataset_sha256: Sha256
    policy_sha256: list[Sha256]
    verdict: str | None
    golden: GoldenPairs


@typed
class RatioHeader(Origin):
    """What the density ratios beside a policy say of themselves."""

    policy_sha256: Sha256


@typed
class RolloutAttributes(TypedDict):
    """What a rollout file says of how it was made, as far as learning from it depends on that."""

    dataset_sha256: Sha256
    history: NotRequired[Count]
    penalty_networks: NotRequired[str]
    penalty_scale: NotRequired[str]
    penalty_reward: NotRequired[str]
    model_reward: NotRequired[str]
    rollout_precision: NotRequired[str]
    termination_rules: NotRequired[str]


HEADERS: dict[str, Any] = {
    "model": Annotated[ModelHeader, AfterValidator(_check_errors)],
    "policy": Annotated[PolicyHeader, AfterValidator(_check_policy)],
    "export": Annotated[ExportHeader, AfterValidator(_check_widths)],
    "ratio": RatioHeader,
}
"""What a file of tensors, or an exported policy, says of itself, by its kind."""


@typed
class CheckpointHeader(TypedDict):
    """What an interrupted stage left: with what it was started, how long it took, and its own state."""

    settings: dict[str, Any]
    inputs: Files
    wall_seconds: Seconds
    products: NotRequired[dict[str, str] | None]
    meta: dict[str, Any]


@typed
class FitNumbers(TypedDict):
    """The numbers of `dynamics.fit.fit_checkpoint`."""

    stale: list[int]
    active: list[Counted]
    epoch: Counted
    step: Counted
    adam: Counted


@typed
class FitProgress(TypedDict):
    """How far a model in training has come, with a record per epoch."""

    fit: FitNumbers
    history: list[Annotated[dict[str, Any], AfterValidator(check_epoch)]]


@typed
class LoopNumbers(TypedDict):
    """The numbers of `agents.loop.loop_state`."""

    step: Annotated[int, Field(gt=-(2**62), lt=2**62)]
    adam: list[Counted]
    past: list[list[Any]]
    positions: list[Counted]
    sizes: list[Counted]


@typed
class BehaviourProgress(TypedDict):
    """The numbers of `data.behaviour.behaviour_state`: `curve` has pairs of steps and mean return."""

    steps: Counted
    episode: Counted
    adam: list[Counted]
    products: NotRequired[dict[str, str] | None]
    curve: list[Annotated[list[int | float], Field(min_length=2, max_length=2)]]


@typed
class Progress(TypedDict):
    """How far policies in training have come: per member the epochs, and whether it diverged."""

    loop: LoopNumbers
    histories: list[list[EPOCH]]
    diverged: list[bool]
    seconds: NotRequired[Seconds]


@typed
class FinishedProgress(TypedDict):
    """Where the training of one seed has ended, and what it takes to go on from there."""

    loop: LoopNumbers
    history: Annotated[list[EPOCH], Field(min_length=1)]


@typed
class FinishedHeader(TypedDict):
    """What the training state of a finished policy says of itself; the inputs are by role."""

    settings: dict[str, Any]
    inputs: dict[str, Sha256]
    seed: Seed
    products: NotRequired[dict[str, str] | None]
    progress: FinishedProgress


@typed
class StartedDocument(TypedDict):
    """Which seeds of a policy a process trains, and with which settings."""

    settings: dict[str, Any]
    seeds: Annotated[list[Seed], Field(min_length=1)]
