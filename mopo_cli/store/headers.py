"""The headers of binary files: what a model, a policy, its density ratios and rollouts say of themselves."""

from typing import Annotated, Any, NotRequired

from pydantic import AfterValidator, Field
from typing_extensions import TypedDict

from mopo_cli.store.documents import Count, Finite, Seed, SeedKey, Sha256, typed


@typed
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


@typed
class Origin(TypedDict):
    """What the files of a trained policy say of where they come from."""

    obs_dim: Count
    act_dim: Count
    seed: Seed
    model_seed: NotRequired[Seed | None]
    inputs: dict[str, Sha256]


@typed
class PolicyHeader(Origin):
    """What a policy says of itself; actions are scaled from [-1, 1] to the bounds."""

    hidden: Count
    layers: Annotated[int, Field(ge=1, le=1000)]
    action_low: list[Finite]
    action_high: list[Finite]
    log_std_min: Finite
    log_std_max: Finite
    observation_offset: NotRequired[list[Finite]]


def _check_bounds(header: PolicyHeader) -> PolicyHeader:
    if "dataset" not in header["inputs"]:
        raise ValueError("inputs names no dataset")
    if not len(header["action_low"]) == len(header["action_high"]) == header["act_dim"]:
        raise ValueError("there is not one action bound per action")
    if len(header.get("observation_offset", ())) not in (0, header["obs_dim"]):
        raise ValueError("there is not one offset per number of an observation")
    return header


@typed
class RatioHeader(Origin):
    """What the density ratios beside a policy say of themselves."""

    policy_sha256: Sha256


@typed
class RolloutAttributes(TypedDict):
    """What a rollout file says of how it was made, as far as learning from it depends on that."""

    dataset_sha256: Sha256
    penalty_networks: NotRequired[str]
    penalty_scale: NotRequired[str]
    penalty_reward: NotRequired[str]
    model_reward: NotRequired[str]
    rollout_precision: NotRequired[str]
    termination_rules: NotRequired[str]


HEADERS: dict[str, Any] = {
    "model": Annotated[ModelHeader, AfterValidator(_check_errors)],
    "policy": Annotated[PolicyHeader, AfterValidator(_check_bounds)],
    "ratio": RatioHeader,
}
"""What a file of tensors says of itself, by its kind."""
