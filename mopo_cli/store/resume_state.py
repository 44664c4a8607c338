"""The checkpoints of interrupted stages: how far the training of a model, a behaviour or policies has come."""

from typing import Annotated, Any, NotRequired

from pydantic import AfterValidator, Field
from typing_extensions import TypedDict

from mopo_cli.store.documents import EPOCH, Counted, Files, Seconds, check_epoch, typed


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
